"""What needs more memory than the machine has ends in a sentence instead."""

from __future__ import annotations

import contextlib
import functools
import os

from iodine import errors, nvidia

# More than a GPU has.
_OF_A_GPU = 2**39
_GIGABYTE = 10**9
# Of a container.
_LIMITS = (
  "/sys/fs/cgroup/memory.max",
  "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


@functools.cache
def available() -> int:
  """Returns how many bytes there are, a bound that is never too low."""
  of_a_gpu = _OF_A_GPU if nvidia.is_there() else 0
  names = ("SC_PHYS_PAGES", "SC_PAGE_SIZE")
  if not set(names) <= set(getattr(os, "sysconf_names", ())):
    return _OF_A_GPU  # a system that does not tell
  found = os.sysconf(names[0]) * os.sysconf(names[1])
  for path in _LIMITS:
    with (
      contextlib.suppress(OSError, ValueError),  # not there, or "max"
      open(path, encoding="utf-8") as file,
    ):
      found = min(found, int(file.read()))
  return max(found, of_a_gpu)


def require(num_bytes: int, what: str, remedy: str) -> None:
  """Checks that there is so much memory, before it is taken.

  Args:
    num_bytes: that are needed at least. More may be: nothing that works is to
      be refused.
    what: needs it, for the message.
    remedy: what to do where there is less.

  Raises:
    errors.UserError: if there is less.
  """
  if num_bytes > available():
    raise errors.UserError(
      f"{what} would take {num_bytes / _GIGABYTE:,.0f} GB of memory at least, "
      f"and here are {available() / _GIGABYTE:,.0f} GB: {remedy}"
    )
