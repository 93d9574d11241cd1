"""What this process has cost so far: its time and its memory."""

from __future__ import annotations

import os
import pathlib
import re
import resource
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


def peak_memory_bytes() -> int:
  """Returns the most memory that this process has had resident, in bytes."""
  path = pathlib.Path("/proc/self/status")
  status = path.read_text() if path.exists() else ""
  # Unlike the other number, this one knows nothing of the parent process.
  if found := re.search(r"VmHWM:\s*(\d+) kB", status):
    return int(found[1]) * 1024
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak if sys.platform == "darwin" else peak * 1024


def gpu_peak_memory_bytes() -> int | None:
  """Returns the most memory that a GPU has had in use; None without a GPU."""
  if not tf.config.list_physical_devices("GPU"):
    return None
  return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
