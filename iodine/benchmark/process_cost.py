"""What this process has cost so far: its time and its memory."""

from __future__ import annotations

import os
import pathlib
import resource
import sys
import time

import tensorflow as tf

_IMPORTED = time.monotonic()


def seconds_since_start() -> float:
  """Returns how long this process has been running.

  Where the system does not say, since this module was imported.
  """
  try:
    stat = pathlib.Path("/proc/self/stat").read_text()
    # The name of the process comes second and may hold spaces.
    ticks = int(stat.rpartition(")")[2].split()[19])
    started = ticks / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started
  except OSError:  # not every system has these files
    return time.monotonic() - _IMPORTED


def peak_memory_bytes() -> int:
  """Returns the most memory that this process has had resident, in bytes."""
  try:
    # Unlike the other number, this one knows nothing of the parent process.
    status = pathlib.Path("/proc/self/status").read_text()
    (line,) = [x for x in status.splitlines() if x.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024
  except (OSError, ValueError):  # nor does each say this
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def gpu_peak_memory_bytes() -> int | None:
  """Returns the most memory that a GPU has had in use; None without a GPU."""
  if not tf.config.list_physical_devices("GPU"):
    return None
  return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
