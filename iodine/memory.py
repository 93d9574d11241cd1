"""What needs more memory than the machine has ends in a sentence instead."""

from __future__ import annotations

import functools
import os

from iodine import errors, nvidia

# More than the GPUs of one machine have together.
_OF_GPUS = 4 * 2**40
_GIGABYTE = 10**9


@functools.cache
def available() -> int:
  """Returns how many bytes there are, a bound that is never too low."""
  names = ("SC_PHYS_PAGES", "SC_PAGE_SIZE")
  if not hasattr(os, "sysconf") or not set(names) <= set(os.sysconf_names):
    return _OF_GPUS
  num_bytes = os.sysconf(names[0]) * os.sysconf(names[1])
  return num_bytes + (_OF_GPUS if nvidia.is_there() else 0)


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
