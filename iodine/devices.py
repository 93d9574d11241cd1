"""TensorFlow's devices: how they are set up, and what they are."""

from __future__ import annotations

import collections
import contextlib
import ctypes
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from iodine import nvidia, validation
from iodine.ops import precision

Config = Mapping[str, Any]

# TensorFlow makes threads for each.
_MOST_VIRTUAL = 64

# Of glibc's malloc.h.
_M_ARENA_MAX = -8


def set_up(config: Config) -> None:
  """Sets TensorFlow up, before it computes anything.

  Args:
    config: with `memory_growth`, `tf32`, `deterministic`, `seed`,
      `virtual_devices` and `strategy`.

  Raises:
    errors.UserError: if one of them makes no sense, or this process has begun
      to compute on fewer devices.
  """
  for name in ("memory_growth", "tf32", "deterministic"):
    validation.check_flag(name, config[name])
  _share_memory()
  # It would copy a refinement for each of its calls, and optimise each copy.
  tf.config.optimizer.set_experimental_options({"function_optimization": False})
  for gpu in tf.config.list_physical_devices("GPU"):
    # Without, a process takes all of a GPU's memory at once.
    tf.config.experimental.set_memory_growth(gpu, config["memory_growth"])
  tf.config.experimental.enable_tensor_float_32_execution(config["tf32"])
  if config["deterministic"]:
    # Stays so in this process: TensorFlow has no public way back. It asks for
    # a seed wherever something is drawn, such as weights to be restored over.
    tf.config.experimental.enable_op_determinism()
    tf.random.set_seed(config["seed"])
  number = config["virtual_devices"]
  validation.check_whole("virtual_devices", number, 1, "None for the CPU")
  if number is None:
    return
  fits = validation.is_whole(number, 1, _MOST_VIRTUAL)
  need = f"at most {_MOST_VIRTUAL}"
  validation.require(fits, "virtual_devices", number, need)
  validation.require(
    config["strategy"] == "mirrored",
    "virtual_devices",
    number,
    "None, or `strategy=mirrored`, too, which uses them",
  )
  (cpu,) = tf.config.list_physical_devices("CPU")
  # Once TensorFlow computes, what there is remains.
  with contextlib.suppress(RuntimeError):
    tf.config.set_logical_device_configuration(
      cpu, [tf.config.LogicalDeviceConfiguration()] * number
    )
  there = len(tf.config.list_logical_devices("CPU"))
  validation.require(
    there >= number,
    "virtual_devices",
    number,
    f"at most {there}, as this process has computed on so many, or begin "
    "another process",
  )


def _share_memory() -> None:
  """Has all threads take memory from one place, where malloc is glibc's.

  Otherwise each keeps for itself what another one could use: 70 MB in a step of
  clevr6.
  """
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
  if mallopt is not None:
    mallopt(_M_ARENA_MAX, 1)


def uses_xla(jit_compile: bool | None) -> bool:
  """Returns whether XLA compiles the training step; None: on GPUs.

  Raises:
    errors.UserError: if `jit_compile` is none of True, False and None.
  """
  if jit_compile is None:
    return bool(tf.config.list_physical_devices("GPU"))
  validation.check_flag("jit_compile", jit_compile)
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
  gpus = tf.config.list_physical_devices("GPU")
  if virtual_devices is not None:
    return f"{virtual_devices} virtual devices of the CPU"
  if not gpus:
    return "the CPU"
  names = collections.Counter(
    _details(gpu).get("device_name", gpu.name) for gpu in gpus
  )
  listed = ", ".join(
    name if count == 1 or len(names) == 1 else f"{count} {name}"
    for name, count in names.items()
  )
  return f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''}: {listed}"


def _precision(config: Config) -> str:
  dtype = precision.dtype_named(config["compute_dtype"])
  text = "float32"
  if config["tf32"] and precision.has_ampere():
    text += " rounded to TF32 in products"
  return (
    text if dtype == tf.float32 else f"{text}, convolutions in {dtype.name}"
  )


def _details(gpu: Any) -> dict[str, Any]:
  return tf.config.experimental.get_device_details(gpu)


def unused_gpu() -> str | None:
  """Returns why a GPU of the machine is not used; None if none is idle."""
  if tf.config.list_physical_devices("GPU") or not nvidia.is_there():
    return None
  return nvidia.why_unused(tf.test.is_built_with_cuda())
