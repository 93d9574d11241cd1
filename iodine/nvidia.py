"""Why TensorFlow does not use a GPU of NVIDIA that is there.

Knows nothing of TensorFlow, so that it can be asked before that is imported.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping

# Made by the driver; the last is that of Windows' Linux.
_TRACES = ("/proc/driver/nvidia/version", "/dev/nvidia[0-9]*", "/dev/dxg")


def is_there() -> bool:
  """Returns whether the machine has a GPU of NVIDIA and its driver."""
  return any(glob.glob(trace) for trace in _TRACES)


def why_unused(
  is_built_with_cuda: bool, environment: Mapping[str, str] = os.environ
) -> str:
  """Returns why a GPU that is there is not used, and what to do.

  Args:
    is_built_with_cuda: whether this TensorFlow can use one at all.
    environment: variables of the process.
  """
  visible = environment.get("CUDA_VISIBLE_DEVICES")
  if visible is not None and not visible.strip().removeprefix("-1"):
    why = f"CUDA_VISIBLE_DEVICES is {visible!r}, which hides it: unset it"
  elif not is_built_with_cuda:
    why = (
      "this TensorFlow is built without CUDA: install the one of "
      "requirements.txt"
    )
  else:
    why = (
      "TensorFlow cannot load CUDA's libraries or the driver does not answer, "
      "its own reason is above: `make run CUDA=1` or `pip install -r "
      "requirements-cuda.txt` installs the libraries, `nvidia-smi` asks the "
      "driver"
    )
  return f"this machine has an NVIDIA GPU that is not used: {why}"
