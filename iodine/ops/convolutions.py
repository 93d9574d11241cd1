"""Convolutions in the fast forms that the model uses.

All are 2-D and SAME-padded. They are exact: they sum the same products as the
plain forms in tests/oracles.py, in another order. What each of them gains is in
docs/performance.md.

Dimensions: N images, B batch, K slots, H W C image, H' W' O output, k kernel
size, Z size of a vector, P planes that all images share.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import sonnet as snt
import tensorflow as tf

# ------------------------------------------------------------ any image


def conv2d(x: tf.Tensor, w: tf.Tensor, stride: int) -> tf.Tensor:
  """Convolves [N, H, W, C] with a kernel [k, k, C, O]: [N, H', W', O].

  As `tf.nn.conv2d`, but the kernel gets its gradient by `kernel_gradient`.
  """

  @tf.custom_gradient
  def convolve(x: tf.Tensor, w: tf.Tensor):
    def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
      dx = tf.raw_ops.Conv2DBackpropInput(
        input_sizes=x.shape,
        filter=w,
        out_backprop=dy,
        strides=[1, stride, stride, 1],
        padding="SAME",
      )
      return dx, kernel_gradient(x, w.shape, dy, stride)

    return tf.nn.conv2d(x, w, stride, "SAME"), gradient

  return convolve(x, w)


def add_bias(x: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
  """Adds [N, H, W, O] + [O]; the gradient of the bias is summed in float32.

  TensorFlow sums it in bfloat16 for bfloat16, and most of it is lost.
  """
  if x.dtype == tf.float32:
    return tf.nn.bias_add(x, b)

  @tf.custom_gradient
  def add(x: tf.Tensor, b: tf.Tensor):
    def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
      db = tf.reduce_sum(tf.cast(dy, tf.float32), axis=[0, 1, 2])
      return dy, tf.cast(db, b.dtype)

    return tf.nn.bias_add(x, b), gradient

  return add(x, b)


def plain_kernel_gradient(
  x: tf.Tensor,
  shape: tf.TensorShape,
  dy: tf.Tensor,
  stride: int,
  padding: str = "SAME",
) -> tf.Tensor:
  """Returns the gradient of a kernel.

  Args:
    x: [N, H, W, C] what it was applied to.
    shape: (k, k, C, O).
    dy: [N, H', W', O] gradient of the result.
    stride: in rows and columns.
    padding: "SAME" or "VALID".
  """
  return tf.raw_ops.Conv2DBackpropFilter(
    input=x,
    filter_sizes=shape,
    out_backprop=dy,
    strides=[1, stride, stride, 1],
    padding=padding,
  )


def kernel_gradient(
  x: tf.Tensor, shape: tf.TensorShape, dy: tf.Tensor, stride: int
) -> tf.Tensor:
  """Computes `plain_kernel_gradient`, rearranged where a CPU is slow at it.

  A kernel with fewer outputs than inputs changes the two roles. Many channels
  are summed in matrix products where AVX2 is all there is, see
  `_kernel_gradient_by_shifts`; wide rows are cut into tiles elsewhere, see
  `_tiled_kernel_gradient`.
  """
  kernel, _, inputs, outputs = shape
  if stride > 1 or kernel % 2 == 0:
    return plain_kernel_gradient(x, shape, dy, stride)
  if _products_are_faster(x, shape):
    return _kernel_gradient_by_shifts(x, shape, dy)
  if outputs < inputs:
    exchanged = plain_kernel_gradient(
      dy, tf.TensorShape([kernel, kernel, outputs, inputs]), x, stride
    )
    return tf.transpose(tf.reverse(exchanged, [0, 1]), [0, 1, 3, 2])
  if _rows_collide(x):
    return _tiled_kernel_gradient(x, shape, dy)
  return plain_kernel_gradient(x, shape, dy, stride)


# Rows of a tile; a tile should fit the caches.
_TILE_ROWS = 16


def _rows_collide(x: tf.Tensor) -> bool:
  """Returns whether neighbouring rows share lines of a CPU's caches."""
  _, height, width, channels = x.shape
  row_bytes = width * channels * x.dtype.size
  return row_bytes % 2**15 == 0 and height % _TILE_ROWS == 0


def _tiled_kernel_gradient(
  x: tf.Tensor, shape: tf.TensorShape, dy: tf.Tensor
) -> tf.Tensor:
  """Computes `plain_kernel_gradient` with stride 1, a few rows at a time.

  The margins that the tiles overlap by also lengthen the rows, so that their
  size is no longer a power of two, which is what caches cannot hold.
  """
  num, height, width, inputs = x.shape
  kernel, _, _, outputs = shape
  margin, num_tiles = kernel // 2, height // _TILE_ROWS
  tile_height = _TILE_ROWS + 2 * margin
  rows = (
    np.arange(num_tiles)[:, None] * _TILE_ROWS + np.arange(tile_height)[None]
  )
  around = tf.constant([[0, 0], [margin, margin], [margin, margin], [0, 0]])
  # Otherwise TensorFlow copies all maps of all iterations as soon as they are
  # there, and holds the copies until their gradients come.
  with tf.control_dependencies([dy]):
    padded = tf.pad(x, around)
  x_tiles = tf.gather(padded, rows.reshape(-1), axis=1)
  return plain_kernel_gradient(
    tf.reshape(
      x_tiles, [num * num_tiles, tile_height, width + 2 * margin, inputs]
    ),
    shape,
    tf.reshape(dy, [num * num_tiles, _TILE_ROWS, width, outputs]),
    stride=1,
    padding="VALID",
  )


# Of inputs and of outputs; fewer make products too narrow.
_MANY_CHANNELS = 32
# Of an image; small ones are no faster.
_MANY_POSITIONS = 1536


def _products_are_faster(x: tf.Tensor, shape: tf.TensorShape) -> bool:
  """Returns whether oneDNN's AVX2 form falls behind products of shifts.

  It reads eight channels at a time of pixels that lie far apart.
  """
  _, _, inputs, outputs = shape
  _, height, width, _ = x.shape
  return (
    _widest_is_avx2()
    and not tf.config.list_physical_devices("GPU")
    and x.dtype == tf.float32
    and min(inputs, outputs) >= _MANY_CHANNELS
    and height * width >= _MANY_POSITIONS
  )


@functools.cache
def _widest_is_avx2() -> bool:
  """Returns whether this processor has AVX2, but no form of AVX-512."""
  simd = np.show_config(mode="dicts")["SIMD Extensions"]
  names = [*simd["baseline"], *simd["found"]]
  # NumPy has names of levels from 2.4 on: the third is AVX2, the fourth more.
  wider = [name for name in names if name.startswith(("AVX512", "X86_V4"))]
  return not wider and not {"AVX2", "X86_V3"}.isdisjoint(names)


def _kernel_gradient_by_shifts(
  x: tf.Tensor, shape: tf.TensorShape, dy: tf.Tensor
) -> tf.Tensor:
  """Computes `plain_kernel_gradient` with stride 1, a product for each image.

  A tap shifts x against dy by some columns and some rows. With all shifts of x
  by columns, and all of dy by rows, side by side as channels, one product has
  every tap. Images come one after the other, as the shifts are k times as large
  as they are.
  """
  num, height, width, inputs = x.shape
  kernel, _, _, outputs = shape
  around, shifts = [kernel // 2] * 2, np.arange(kernel)
  columns = np.arange(width)[:, None] + shifts
  positions = np.arange(height * width)[:, None] + width * shifts[::-1]

  def add(i: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    of_x = tf.gather(
      tf.pad(x[i], tf.constant([[0, 0], around, [0, 0]])), columns, axis=1
    )  # [H, W, k, C]
    rows = tf.pad(dy[i], tf.constant([around, [0, 0], [0, 0]]))
    of_dy = tf.gather(tf.reshape(rows, [-1, outputs]), positions)
    product = tf.matmul(
      tf.reshape(of_x, [-1, kernel * inputs]),
      tf.reshape(of_dy, [-1, kernel * outputs]),
      transpose_a=True,
    )
    return i + 1, total + product

  _, total = tf.while_loop(
    lambda i, _: i < num,
    add,
    (tf.constant(0), tf.zeros([kernel * inputs, kernel * outputs])),
    parallel_iterations=2,
    maximum_iterations=num,  # for those that count operations
  )
  taps = tf.reshape(total, [kernel, inputs, kernel, outputs])
  return tf.transpose(taps, [2, 0, 1, 3])


# ------------------------------------------------------------ vectors


def broadcast_conv2d(
  z: tf.Tensor, planes: np.ndarray, w: tf.Tensor, b: tf.Tensor, stride: int
) -> tf.Tensor:
  """Convolves images that are a vector everywhere, beside constant planes.

  It is the product with one constant matrix. Where the image is constant, the
  output at a position depends only on which taps of the kernel lie inside of
  the image: k^2 cases, one for the middle and the others along the border. The
  kernel is summed up once for each.

  Args:
    z: [N, Z] vectors, broadcast over the image.
    planes: [H, W, P] constant channels behind them, such as coordinates,
      float32.
    w: [k, k, Z + P, O] kernel.
    b: [O] bias.
    stride: in rows and columns.

  Returns:
    [N, H', W', O].
  """
  kernel, _, _, outputs = w.shape
  num, size = z.shape
  inside, matrix = _basis(planes.tobytes(), planes.shape, kernel, stride)
  height, width, num_columns = matrix.shape
  taps = tf.reshape(w, [kernel * kernel, -1, outputs])
  visible = tf.constant(inside, w.dtype)
  of_cases = tf.einsum("ct,tzo->czo", visible, taps[:, :size])
  of_vectors = tf.einsum("nz,czo->nco", z, of_cases) + b
  of_planes = tf.reshape(taps[:, size:], [-1, outputs])
  coefficients = tf.concat(
    [of_vectors, tf.broadcast_to(of_planes, [num, *of_planes.shape])], axis=1
  )
  rows = tf.constant(matrix.reshape(1, -1, num_columns), w.dtype)
  y = tf.matmul(rows, coefficients)
  return tf.reshape(y, [num, height, width, outputs])


@functools.lru_cache(maxsize=8)
def _basis(
  content: bytes, shape: tuple[int, ...], kernel: int, stride: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns what outputs of a convolution of vectors and planes are made of.

  Args:
    content: of the planes, by which a cache can look them up.
    shape: [H, W, P] of the planes.
    kernel: k.
    stride: in rows and columns.

  Returns:
    [cases, k * k], 1 where a tap is inside of the image; and [H', W', cases +
    k * k * P], the one-hot case of every position, then what the taps see of
    the planes.
  """
  planes = np.frombuffer(content, np.float32).reshape(shape)
  height, width, num_planes = shape
  visible = np.concatenate(
    [np.ones([height, width, 1], np.float32), planes], axis=-1
  )
  padding = [_same_padding(size, kernel, stride) for size in (height, width)]
  windows = np.lib.stride_tricks.sliding_window_view(
    np.pad(visible, [*padding, (0, 0)]), (kernel, kernel, 1 + num_planes)
  )[::stride, ::stride, 0]  # [H', W', k, k, 1 + P]
  out_height, out_width = windows.shape[:2]
  windows = windows.reshape(out_height * out_width, kernel * kernel, -1)
  inside, case = np.unique(windows[..., 0], axis=0, return_inverse=True)
  one_hot = np.eye(len(inside), dtype=np.float32)[case.reshape(-1)]
  seen = windows[..., 1:].reshape(len(one_hot), -1)
  matrix = np.concatenate([one_hot, seen], axis=1)
  return inside, matrix.reshape(out_height, out_width, -1)


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
  """Returns what TensorFlow's SAME puts before and after."""
  total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
  return total // 2, total - total // 2


# ------------------------------------------------------------ slots


def slots_conv2d(
  planes: Sequence[tf.Tensor], w: tf.Tensor, b: tf.Tensor, stride: int
) -> tf.Tensor:
  """Convolves the images of all slots, what they share only once.

  Args:
    planes: [B, K or 1, H, W, channels], C channels together; those with 1 are
      the same for all slots. There are some of each.
    w: [k, k, C, O] kernel.
    b: [O] bias.
    stride: in rows and columns.

  Returns:
    [B * K, H', W', O].
  """
  num_slots = max(x.shape[1] for x in planes)
  kernels = tf.split(w, [x.shape[-1] for x in planes], axis=2)

  def convolve(num: int) -> tf.Tensor:
    parts = [
      (x, kernel)
      for x, kernel in zip(planes, kernels, strict=True)
      if x.shape[1] == num
    ]
    x = tf.concat([x for x, _ in parts], axis=-1)
    kernel = tf.concat([kernel for _, kernel in parts], axis=2)
    return conv2d(snt.merge_leading_dims(x, 2), kernel, stride)

  shared = add_bias(convolve(1), b)
  own = convolve(num_slots)
  own = tf.reshape(own, [-1, num_slots, *own.shape[1:]])
  return snt.merge_leading_dims(own + tf.expand_dims(shared, 1), 2)
