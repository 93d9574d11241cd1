"""Convolutions in fewer bits, on variables that stay float32.

What crosses the border is float32 on the outside: inputs, variables, results
and all gradients. In float32 there is no border, and nothing is done at all.

Source: Micikevicius et al. 2018, Mixed Precision Training (arXiv:1710.03740).
"""

from __future__ import annotations

from typing import Literal

import tensorflow as tf

# bfloat16 has the range of float32, so that losses need no scale. "auto" is
# bfloat16 where the devices compute in it, else float32.
ComputeType = Literal["float32", "bfloat16", "auto"]

# The first NVIDIA GPUs that compute in bfloat16 and TF32.
_AMPERE = (8, 0)


def dtype_named(name: ComputeType) -> tf.DType:
  """Returns the type of that name.

  "auto" is bfloat16 on TPUs, and on GPUs from Ampere on, else float32.
  """
  if name == "auto":
    is_fast = has_ampere() or tf.config.list_physical_devices("TPU")
    return tf.bfloat16 if is_fast else tf.float32
  return tf.as_dtype(name)


def has_ampere() -> bool:
  """Returns whether there are GPUs, all of them from NVIDIA's Ampere on."""
  gpus = tf.config.list_physical_devices("GPU")
  details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
  capabilities = [each.get("compute_capability", (0, 0)) for each in details]
  return bool(gpus) and min(capabilities) >= _AMPERE


def to_compute_dtype(x: tf.Tensor | tf.Variable, dtype: tf.DType) -> tf.Tensor:
  """Returns a float32 tensor or variable in the type to compute in."""
  return tf.cast(tf.convert_to_tensor(x), dtype)


def to_float32(x: tf.Tensor) -> tf.Tensor:
  """Returns a result in float32."""
  return tf.cast(x, tf.float32)
