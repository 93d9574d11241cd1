"""What this process has cost so far: its time and its memory."""

from __future__ import annotations

import importlib.util
import math
import os
import pathlib
import re
import sys
import time

import tensorflow as tf

_IMPORTED = time.monotonic()


def seconds_since_start() -> float:
  """Returns how long this process has been running.

  Where the system does not say, since this module was imported.
  """
  path = pathlib.Path("/proc/self/stat")
  if not path.exists():
    return time.monotonic() - _IMPORTED
  # The name of the process comes second and may hold spaces.
  ticks = int(path.read_text().rpartition(")")[2].split()[19])
  started = ticks / os.sysconf("SC_CLK_TCK")
  return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def peak_memory_bytes() -> float:
  """Returns the most memory that this process has had resident, in bytes.

  Where the system does not say, as Windows, not a number.
  """
  path = pathlib.Path("/proc/self/status")
  if path.exists():
    # Unlike the other number, this one knows nothing of the parent process.
    found = re.search(r"VmHWM:\s*(\d+) kB", path.read_text())
    return int(found[1]) * 1024 if found else math.nan
  if importlib.util.find_spec("resource") is None:
    return math.nan
  import resource

  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak if sys.platform == "darwin" else peak * 1024


def gpu_peak_memory_bytes() -> int | None:
  """Returns the most memory that a GPU has had in use; None without a GPU."""
  if not tf.config.list_physical_devices("GPU"):
    return None
  return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
