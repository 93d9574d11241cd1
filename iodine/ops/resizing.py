"""Scales and resizes stored images on the device, to the bits of the CPU.

TensorFlow's own operations give other bits where XLA compiles them: it divides
by a constant by multiplying with its inverse, has its own bilinear resizing,
and fuses products with sums.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf


def scale_bytes(values: tf.Tensor) -> tf.Tensor:
  """Maps uint8 0 to 255 -> float32 in [0, 1], the bits of x / 255."""
  # A double is precise enough for its rounding to be that of the quotient, as
  # a test shows for all 256 values.
  return tf.cast(tf.cast(values, tf.float64) * (1 / 255), tf.float32)


def is_exact(stored: Sequence[int], size: Sequence[int]) -> bool:
  """Returns whether `resize_bilinear` gives the same bits with XLA, too.

  It does where all weights are 0 or a half, a quarter and so on: a product
  with them is exact, and no sum that it is fused with can round otherwise.

  Args:
    stored: (H', W') before.
    size: (H, W) afterwards.
  """
  weights = [_places(n, m)[2] for n, m in zip(stored, size, strict=True)]
  return all(np.isin(np.frexp(w)[0], (0, 0.5)).all() for w in weights)


def resize_bilinear(images: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
  """Maps float32 [B, H', W', C] -> [B, *size, C].

  FIDELITY: TF1's sampling rule, see `iodine.modules.data.resize`.
  """
  for axis, length in ((2, size[1]), (1, size[0])):
    stored = images.shape[axis]
    if stored != length:
      low, high, weight = _places(stored, length)
      first = tf.gather(images, low, axis=axis)
      second = tf.gather(images, high, axis=axis)
      shape = [-1 if i == axis else 1 for i in range(4)]
      images = first + (second - first) * weight.reshape(shape)
  return images


def _places(stored: int, length: int) -> tuple[np.ndarray, ...]:
  """Returns, for each new place, its two old ones and the second's weight."""
  place = np.arange(length, dtype=np.float32) * np.float32(
    np.float32(stored) / np.float32(length)
  )
  low = np.floor(place).astype(np.int32)
  high = np.minimum(low + 1, stored - 1)
  return low, high, place - low.astype(np.float32)
