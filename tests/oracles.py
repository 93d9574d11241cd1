"""Plain forms of what the package computes in faster ones."""

import tensorflow as tf


def conv2d(x, w, stride):
  """[N, H, W, C] and a kernel [k, k, C, O] -> [N, H', W', O]."""
  return tf.nn.conv2d(x, w, stride, "SAME")


def broadcast_conv2d(z, planes, w, b, stride):
  """A convolution of images that are a vector everywhere, beside planes.

  Args:
    z: [N, Z] vectors, broadcast over the image.
    planes: [H, W, P] constant channels behind them, such as coordinates.
    w: [k, k, Z + P, O] kernel.
    b: [O] bias.
    stride: in rows and columns.

  Returns:
    [N, H', W', O].
  """
  height, width, num_planes = planes.shape
  num, size = z.shape
  image = tf.concat(
    [
      tf.broadcast_to(z[:, None, None, :], [num, height, width, size]),
      tf.broadcast_to(
        tf.cast(planes, z.dtype), [num, height, width, num_planes]
      ),
    ],
    axis=-1,
  )
  return tf.nn.bias_add(conv2d(image, w, stride), b)


def slots_conv2d(planes, w, b, stride):
  """A convolution of the images of all slots.

  Args:
    planes: [B, K or 1, H, W, channels], C channels together.
    w: [k, k, C, O] kernel.
    b: [O] bias.
    stride: in rows and columns.

  Returns:
    [B * K, H', W', O].
  """
  num_slots = max(x.shape[1] for x in planes)
  repeated = [tf.repeat(x, num_slots // x.shape[1], axis=1) for x in planes]
  images = tf.concat(repeated, axis=-1)
  images = tf.reshape(images, [-1, *images.shape[2:]])
  return tf.nn.bias_add(conv2d(images, w, stride), b)
