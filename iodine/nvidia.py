"""Why TensorFlow does not use a GPU of NVIDIA that is there.

Does not import TensorFlow, so that it can be asked before that is imported.
"""

from __future__ import annotations

import contextlib
import glob
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

# Made by the driver; the last is that of Windows' Linux.
_TRACES = ("/proc/driver/nvidia/version", "/dev/nvidia[0-9]*", "/dev/dxg")

# TensorFlow's words where something is missing. It names the library to those
# only who ask for the talk of its loader. That it finds no "cuda drivers" is
# left out: it says so wherever libcudart is missing, too.
_REASONS = (
  "Could not load dynamic library",
  "failed call to cuInit",
  "Cannot dlopen some GPU libraries",
)
_ALL_REASONS = {
  "TF_CPP_MIN_LOG_LEVEL": "0",
  "TF_CPP_VMODULE": "dso_loader=1",
}
_PATIENCE = 60  # seconds


def is_there() -> bool:
  """Returns whether the machine has a GPU of NVIDIA and its driver."""
  return any(glob.glob(trace) for trace in _TRACES)


def why_unused(
  is_built_with_cuda: bool,
  environment: Mapping[str, str] = os.environ,
  ask: Sequence[str] = (
    sys.executable,
    "-c",
    "import tensorflow as tf; tf.config.list_physical_devices()",
  ),
) -> str:
  """Returns why a GPU that is there is not used, and what to do.

  Args:
    is_built_with_cuda: whether this TensorFlow can use one at all.
    environment: variables of the process.
    ask: a command that looks for GPUs and complains.
  """
  visible = environment.get("CUDA_VISIBLE_DEVICES")
  if visible is not None and not visible.strip().removeprefix("-1"):
    why = f"CUDA_VISIBLE_DEVICES is {visible!r}, which hides it: unset it"
  elif not is_built_with_cuda:
    why = (
      "this TensorFlow is built without CUDA: install the one of "
      "requirements-cuda.txt"
    )
  else:
    said = ""
    # A training does not end because its reason could not be had.
    with contextlib.suppress(subprocess.TimeoutExpired):
      # Another process, since how much one says is settled when it starts.
      said = subprocess.run(
        ask,
        env={**environment, **_ALL_REASONS},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_PATIENCE,
        check=False,
      ).stderr
    why = _remedy(reasons(said))
  return f"this machine has an NVIDIA GPU that is not used: {why}"


def reasons(said: str) -> list[str]:
  """Returns TensorFlow's reasons, each once, out of all that it wrote."""
  found = []
  for line in said.splitlines():
    text = line.partition("] ")[2]  # behind level, time and place
    if text.startswith(_REASONS):
      text = text.partition("; dlerror")[0]
      found.append(text.partition(". ")[0].rstrip("."))
  return list(dict.fromkeys(found))


def _remedy(found: Sequence[str]) -> str:
  if any("cuInit" in each or "libcuda.so" in each for each in found):
    # Its code says whether the driver is absent, too old or out of order.
    remedy = (
      "`nvidia-smi` shows whether the driver works; in a container it has to "
      "be passed in, for CUDA 12 at least in version 525"
    )
  else:
    remedy = (
      "`make run CUDA=1` or `pip install -r requirements-cuda.txt -c "
      "constraints.txt` installs CUDA's libraries"
    )
  said = "; ".join(found) or "TensorFlow gives no reason"
  return f"{said}: {remedy}"
