"""Checks of the values that a config gives to a data set.

Every function raises a `UserError` of one sentence, which names the argument,
what came, and what is needed; otherwise it does nothing.
"""

import numbers
from collections.abc import Sequence
from typing import Any

from iodine import errors


def _require(condition: bool, name: str, value: Any, need: str) -> None:
  """Checks a condition on an argument.

  Args:
    condition: what has to hold.
    name: the argument.
    value: its value.
    need: continues "it has to be".

  Raises:
    UserError: the condition does not hold.
  """
  if not condition:
    raise errors.UserError(f"`{name}` is {value!r}, but it has to be {need}.")


def check_whole(name: str, value: Any, least: int) -> None:
  """Checks that a value is a whole number of at least `least`."""
  fits = _is_whole(value) and value >= least
  _require(fits, name, value, f"a whole number, {least} or more")


def check_subset(value: Any) -> None:
  """Checks the name of a subset."""
  fits = value in ("train", "summary", "test", None)
  _require(fits, "subset", value, '"train", "summary", "test" or None')


def check_bounds(low: Any, high: Any) -> None:
  """Checks `min_num_objects` and `max_num_objects`, each may be None."""
  for name, value in (("min_num_objects", low), ("max_num_objects", high)):
    fits = value is None or isinstance(value, numbers.Real)
    _require(fits, name, value, "a number or None")
  if low is not None and high is not None:
    need = f"at most `max_num_objects`, {high}"
    _require(low <= high, "min_num_objects", low, need)


def check_range(name: str, value: Any) -> None:
  """Checks a range of scenes, [start, stop) or None."""
  need = "[start, stop] with 0 <= start < stop (stop may be None), or None"
  _require(value is None or _is_pair(value), name, value, need)
  start, stop = value or (0, None)
  _require(_is_whole(start) and start >= 0, name, value, need)
  fits = stop is None or (_is_whole(stop) and start < stop)
  _require(fits, name, value, need)


def check_image_dim(value: Any) -> None:
  """Checks the size of an image, (H, W) in pixels."""
  fits = _is_pair(value) and all(_is_whole(n) and n >= 1 for n in value)
  _require(fits, "image_dim", value, "[height, width], whole numbers from 1")


def check_crop_region(value: Any, height: int, width: int) -> None:
  """Checks ((top, bottom), (left, right)) against an image, None is fine."""
  if value is None:
    return
  need = (
    f"[[top, bottom], [left, right]] within {height} rows and {width} columns,"
    " or None"
  )
  fits = _is_pair(value) and all(_is_pair(pair) for pair in value)
  _require(fits, "crop_region", value, need)
  for (start, stop), size in zip(value, (height, width), strict=True):
    whole = _is_whole(start) and _is_whole(stop)
    _require(whole and 0 <= start < stop <= size, "crop_region", value, need)


def _is_whole(value: Any) -> bool:
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_pair(value: Any) -> bool:
  is_sequence = isinstance(value, Sequence) and not isinstance(value, str)
  return is_sequence and len(value) == 2
