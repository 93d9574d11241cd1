"""TensorFlow's devices: how they are set up, and what they are."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from iodine import errors, nvidia
from iodine.ops import precision

Config = Mapping[str, Any]


def set_up(config: Config) -> None:
  """Sets TensorFlow up, before it computes anything.

  Args:
    config: with `memory_growth`, `tf32`, `deterministic`, `seed`,
      `virtual_devices` and `strategy`.
  """
  # It would copy a refinement for each of its calls, and optimise each copy.
  tf.config.optimizer.set_experimental_options({"function_optimization": False})
  for gpu in tf.config.list_physical_devices("GPU"):
    # Without, a process takes all of a GPU's memory at once. Where it has
    # computed something before, from Python, that is settled.
    with contextlib.suppress(RuntimeError):
      tf.config.experimental.set_memory_growth(gpu, config["memory_growth"])
  tf.config.experimental.enable_tensor_float_32_execution(config["tf32"])
  if config["deterministic"]:
    # Stays so in this process: TensorFlow has no public way back. It asks for
    # a seed wherever something is drawn, such as weights to be restored over.
    tf.config.experimental.enable_op_determinism()
    tf.random.set_seed(config["seed"])
  number = config["virtual_devices"]
  if number is None:
    return
  if config["strategy"] != "mirrored":
    raise errors.UserError(
      f"`virtual_devices` is {number}, and `strategy` {config['strategy']!r} "
      "does not use them: give `strategy=mirrored`, too"
    )
  (cpu,) = tf.config.list_physical_devices("CPU")
  # More of them, from another command of this process, will do.
  there = tf.config.get_logical_device_configuration(cpu) or ()
  if len(there) < number:
    tf.config.set_logical_device_configuration(
      cpu, [tf.config.LogicalDeviceConfiguration()] * number
    )


def uses_xla(jit_compile: bool | None) -> bool:
  """Returns whether XLA compiles the training step; None: on GPUs."""
  if jit_compile is None:
    return bool(tf.config.list_physical_devices("GPU"))
  return jit_compile


def describe(config: Config) -> dict[str, str]:
  """Returns what results depend on besides the config: {name: text}.

  Args:
    config: with the options of `set_up`, `compute_dtype` and `jit_compile`.
  """
  return {
    "device": _device(config["virtual_devices"]),
    "precision": _precision(config),
    "xla": "on" if uses_xla(config["jit_compile"]) else "off",
    "deterministic": "on" if config["deterministic"] else "off",
    "tensorflow": tf.__version__,
  }


def _device(virtual_devices: int | None) -> str:
  if virtual_devices is not None:
    return f"{virtual_devices} virtual devices of the CPU"
  gpus = tf.config.list_physical_devices("GPU")
  if not gpus:
    return "the CPU"
  details = map(tf.config.experimental.get_device_details, gpus)
  names = dict.fromkeys(each.get("device_name", "unknown") for each in details)
  return f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''}: {', '.join(names)}"


def _precision(config: Config) -> str:
  dtype = precision.dtype_named(config["compute_dtype"])
  text = "float32"
  if config["tf32"] and precision.has_ampere():
    text += " rounded to TF32 in products"
  if dtype != tf.float32:
    text += f", convolutions in {dtype.name}"
  return text


def unused_gpu() -> str | None:
  """Returns what to do about a GPU that is not used; None if none is idle."""
  if tf.config.list_physical_devices("GPU") or not nvidia.is_there():
    return None
  return (
    "this machine seems to have an NVIDIA GPU, which TensorFlow does not see: "
    "it says why, and `make run CUDA=1` installs CUDA's libraries"
  )
