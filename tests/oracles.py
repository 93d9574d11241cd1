"""Plain forms of what the package computes in faster ones."""

import tensorflow as tf

from iodine.modules import utils


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


def counterfactual(evidence):
  """What each slot adds to the log-likelihood [B, K, H, W, 1].

  log_prob minus the log_prob of the mixture without slot k, the weights of
  the others renormalised.
  """
  scores = evidence.estimate.scores
  num_components = scores.component.shape[-1]
  result = []
  for k in range(num_components):
    others = [j for j in range(num_components) if j != k]
    weight = tf.gather(scores.log_weight, others, axis=-1)
    joint = weight + tf.gather(scores.component, others, axis=-1)
    without = tf.reduce_logsumexp(joint, axis=-1) - tf.reduce_logsumexp(
      weight, axis=-1
    )
    result.append(scores.log_prob - without)
  return utils.to_slots(tf.stack(result, axis=-1))
