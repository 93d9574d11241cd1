"""Convolutions in fewer bits, on variables that stay float32.

What crosses the border is float32 on the outside: inputs, variables, results
and all gradients. In float32 there is no border, and nothing is done at all.

Source: Micikevicius et al. 2018, Mixed Precision Training (arXiv:1710.03740).
"""

from __future__ import annotations

import tensorflow as tf

from iodine import validation

DTYPES = ("float32", "bfloat16", "float16")
AUTO = "auto"
# The first NVIDIA GPUs that compute in bfloat16 and TF32.
_AMPERE = (8, 0)

# float16 has the range 6e-5 to 65504 (6e-8 with fewer bits). The losses here
# are means over a batch of B and sums over H * W pixels. With the paper's scale
# of 0.03 the gradient of a pixel is up to 33 / B, and of one sign all over a
# background: sums of up to 33 * H * W / B leave the range (135,000 for the
# paper's CLEVR6). Gradients are therefore multiplied by this on their way in
# and divided by it on their way out, which costs no bits, as it is a power of
# two. That serves the gradients that slots are refined by, too, which know of
# no loss scale. bfloat16 has the range of float32.
_FLOAT16_FACTOR = 2.0**-4


def dtype_named(name: str) -> tf.DType:
  """Returns the type of that name.

  Args:
    name: one of `DTYPES`, or "auto": bfloat16 where the devices that
      TensorFlow sees compute in it (TPUs, and GPUs from Ampere on), else
      float32.

  Raises:
    errors.UnknownNameError: if it is none of them.
  """
  validation.check_choice("compute_dtype", name, (*DTYPES, AUTO))
  if name == AUTO:
    is_fast = has_ampere() or tf.config.list_physical_devices("TPU")
    return tf.bfloat16 if is_fast else tf.float32
  return tf.as_dtype(name)


def has_ampere() -> bool:
  """Returns whether there are GPUs, all of them from NVIDIA's Ampere on."""
  gpus = tf.config.list_physical_devices("GPU")
  details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
  capabilities = [each.get("compute_capability", (0, 0)) for each in details]
  return bool(gpus) and min(capabilities) >= _AMPERE


def enter(x: tf.Tensor | tf.Variable, dtype: tf.DType) -> tf.Tensor:
  """Returns a float32 tensor or variable in the type to compute in."""
  x = tf.convert_to_tensor(x)
  return _convert(x, dtype, 1.0 / _factor(dtype))


def leave(x: tf.Tensor) -> tf.Tensor:
  """Returns a result in float32."""
  return _convert(x, tf.float32, _factor(x.dtype))


def _factor(dtype: tf.DType) -> float:
  return _FLOAT16_FACTOR if dtype == tf.float16 else 1.0


def _convert(x: tf.Tensor, dtype: tf.DType, factor: float) -> tf.Tensor:
  """Casts x; its gradient is multiplied, in float32, on the way."""
  if x.dtype == dtype:
    return x
  if factor == 1.0:
    return tf.cast(x, dtype)

  @tf.custom_gradient
  def convert(x: tf.Tensor):
    def gradient(dy: tf.Tensor) -> tf.Tensor:
      return tf.cast(tf.cast(dy, tf.float32) * factor, x.dtype)

    return tf.cast(x, dtype), gradient

  return convert(x)
