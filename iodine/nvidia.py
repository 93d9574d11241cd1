"""Whether there is a GPU of NVIDIA; asked before TensorFlow is imported."""

import os
import shutil


def is_there() -> bool:
  """Returns whether the machine seems to have an NVIDIA GPU and its driver."""
  return os.path.exists("/proc/driver/nvidia") or bool(
    shutil.which("nvidia-smi")
  )
