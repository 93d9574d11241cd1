"""What needs more memory than the machine has ends in a sentence instead."""

from __future__ import annotations

import os
import pathlib

import psutil
import tensorflow as tf

from iodine import errors

# More than an accelerator has.
_OF_AN_ACCELERATOR = 2**39
_GIGABYTE = 10**9
# Of a container.
_LIMITS = (
  "/sys/fs/cgroup/memory.max",
  "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def available() -> int:
  """Returns how many bytes there are, a bound that is never too low."""
  kinds = {device.device_type for device in tf.config.list_physical_devices()}
  if kinds != {"CPU"}:
    return _OF_AN_ACCELERATOR
  found = psutil.virtual_memory().total
  for path in filter(os.path.exists, _LIMITS):
    limit = pathlib.Path(path).read_text(encoding="utf-8").strip()
    if limit.isdigit():  # not "max"
      found = min(found, int(limit))
  return found


def require(num_bytes: int, what: str, remedy: str) -> None:
  """Checks that there is so much memory, before it is taken.

  Args:
    num_bytes: that are needed at least. More may be: nothing that works is to
      be refused.
    what: needs it, for the message.
    remedy: what to do where there is less.
  """
  if num_bytes > available():
    raise errors.UserError(
      f"{what} would take {num_bytes / _GIGABYTE:,.0f} GB of memory at least, "
      f"and here are {available() / _GIGABYTE:,.0f} GB: {remedy}"
    )
