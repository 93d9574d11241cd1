"""Networks that compute in fewer bits, on variables that stay float32.

Source: Micikevicius et al. 2018, Mixed Precision Training (arXiv:1710.03740).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import sonnet as snt
import tensorflow as tf

DTYPES = ("float32", "bfloat16", "float16")


class Precision:
  """Runs a network in one floating-point type.

  What goes in and comes out is float32, and so are the variables and their
  gradients; in float32 nothing is done at all.

  float16 has the range 6e-5 to 65504 (6e-8 with fewer bits). The losses here
  are means over a batch of B and sums over H * W pixels. With the paper's scale
  of 0.03 the gradients of a pixel are up to 33 / B, and of one sign all over a
  background: their sums, up to 33 * H * W / B, leave the range. Therefore
  gradients are multiplied by about sqrt(B * K / (H * W)) on their way in, and
  divided by it on their way out. For the paper's batches that makes pixels of
  up to 0.2 to 0.4, and sums of up to 200 to 6000. The factor is a power of two,
  so it costs no bits. It serves the gradients that slots are refined by, too,
  which know of no loss scale. bfloat16 has the range of float32.
  """

  def __init__(self, dtype: str):
    """Chooses the type, one of `DTYPES`.

    Raises:
      KeyError: if it is none of them.
    """
    if dtype not in DTYPES:
      raise KeyError(
        f"unknown `compute_dtype` {dtype!r}: use one of {', '.join(DTYPES)}"
      )
    self._dtype = tf.as_dtype(dtype)
    self._has_variables = False

  def run(
    self,
    network: Callable[[Any], tf.Tensor],
    inputs: Any,
    num_images: int,
    num_pixels: int,
  ) -> tf.Tensor:
    """Returns network(inputs).

    Args:
      network: reads its variables as attributes of Sonnet modules.
      inputs: a float32 tensor or a nest of such; what is no tensor is passed
        on as it is.
      num_images: B * K.
      num_pixels: H * W.
    """
    if self._dtype == tf.float32:
      return network(inputs)
    if not self._has_variables:
      # Sonnet's layers give their variables the type of the first input.
      network(inputs)
      self._has_variables = True
    scale = 1.0
    if self._dtype == tf.float16:
      scale = 2.0 ** round(math.log2(num_images / num_pixels) / 2)

    def enter(x: Any) -> Any:
      return _convert(x, self._dtype, 1.0 / scale) if tf.is_tensor(x) else x

    with _variables_as(lambda v: enter(tf.convert_to_tensor(v))):
      result = network(tf.nest.map_structure(enter, inputs))
    return _convert(result, tf.float32, scale)


def _convert(x: tf.Tensor, dtype: tf.DType, factor: float) -> tf.Tensor:
  """x in another type; its gradient is multiplied, in float32, on the way."""
  if factor == 1.0:
    return tf.cast(x, dtype)

  @tf.custom_gradient
  def convert(x: tf.Tensor):
    def gradient(dy: tf.Tensor) -> tf.Tensor:
      return tf.cast(tf.cast(dy, tf.float32) * factor, x.dtype)

    return tf.cast(x, dtype), gradient

  return convert(x)


@contextlib.contextmanager
def _variables_as(
  convert: Callable[[tf.Variable], tf.Tensor],
) -> Iterator[None]:
  """Lets Sonnet modules see something else in place of their variables.

  As `snt.custom_variable_getter` does, which also walks through containers and
  logs a warning about those that Sonnet itself keeps.
  """
  original = snt.Module.__getattribute__

  def get(module: snt.Module, name: str) -> Any:
    value = original(module, name)
    return convert(value) if isinstance(value, tf.Variable) else value

  snt.Module.__getattribute__ = get
  try:
    yield
  finally:
    snt.Module.__getattribute__ = original
