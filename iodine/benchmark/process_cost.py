"""What this process has cost so far: its time and its memory."""

from __future__ import annotations

import pathlib
import re
import time

import psutil
import tensorflow as tf


def seconds_since_start() -> float:
  """Returns how long this process has been running."""
  return time.time() - psutil.Process().create_time()


def peak_memory_bytes() -> int:
  """Returns the most memory that this process has had resident, in bytes.

  On a Mac, what it has now.
  """
  path = pathlib.Path("/proc/self/status")
  status = path.read_text() if path.exists() else ""
  if found := re.search(r"VmHWM:\s*(\d+) kB", status):
    return int(found[1]) * 1024
  memory = psutil.Process().memory_info()
  return getattr(memory, "peak_wset", memory.rss)


def gpu_peak_memory_bytes() -> int | None:
  """Returns the most memory that a GPU has had in use; None without a GPU."""
  if not tf.config.list_physical_devices("GPU"):
    return None
  return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
