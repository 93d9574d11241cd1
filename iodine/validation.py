"""Checks of what users give; each raises an `errors.UserError` or does nothing.

The messages name the entry, what came, and what to give instead.
"""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from iodine import errors


def require(condition: bool, name: str, value: Any, need: str) -> None:
  """Checks a condition on an entry.

  Args:
    condition: what has to hold.
    name: the entry.
    value: its value.
    need: continues "give".

  Raises:
    errors.UserError: if it does not hold.
  """
  if not condition:
    raise errors.UserError(f"`{name}` is {errors.shorten(value)}: give {need}")


def is_whole(value: Any, least: int) -> bool:
  """Returns whether a value is a whole number of at least `least`."""
  is_number = isinstance(value, numbers.Integral)
  return is_number and not isinstance(value, bool) and value >= least


def check_whole(
  name: str, value: Any, least: int, otherwise: str | None = None
) -> None:
  """Checks a whole number.

  Args:
    name: the entry.
    value: its value.
    least: the smallest number that will do.
    otherwise: what None means, such as "None for all scenes"; without it None
      is an error.

  Raises:
    errors.UserError: if it is another value.
  """
  if value is None and otherwise is not None:
    return
  need = f"a whole number, at least {least}"
  need += "" if otherwise is None else f", or {otherwise}"
  require(is_whole(value, least), name, value, need)


def check_sizes(name: str, values: Any, may_be_empty: bool = False) -> None:
  """Checks a list of whole numbers of at least 1.

  Raises:
    errors.UserError: if it is another value, or empty where it may not be.
  """
  fits = is_list(values) and all(is_whole(value, 1) for value in values)
  fits = fits and (may_be_empty or len(values) > 0)
  require(fits, name, values, "a list of whole numbers, at least 1")


def check_number(
  name: str,
  value: Any,
  least: float | None = 0.0,
  above: float | None = None,
  otherwise: str | None = None,
) -> None:
  """Checks a finite number of at least `least`, or above `above` if given.

  Args:
    name: the entry.
    value: its value.
    least: the smallest number that will do; None if any will.
    above: what the number has to be above, instead.
    otherwise: what else the entry may be, if there is something, such as "None
      for no limit"; the caller lets it pass.

  Raises:
    errors.UserError: if it is another value.
  """
  is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
  fits, need = is_number and math.isfinite(value), "a number"
  if above is not None:
    fits, need = fits and value > above, f"a number above {above:g}"
  elif least is not None:
    fits, need = fits and value >= least, f"a number of at least {least:g}"
  need += "" if otherwise is None else f", or {otherwise}"
  require(fits, name, value, need)


def check_flag(name: str, value: Any) -> None:
  """Checks that a value is True or False.

  Raises:
    errors.UserError: if it is neither.
  """
  require(isinstance(value, bool), name, value, "True or False")


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
  """Checks that a value is one of some.

  Raises:
    errors.UnknownNameError: if it is none of them.
  """
  if value not in choices:
    raise errors.UnknownNameError(
      f"`{name}` is {value!r}: use one of {', '.join(map(repr, choices))}"
    )


def check_path(name: str, value: Any, need: str) -> None:
  """Checks that a value is a string that can be a path.

  Args:
    name: the entry.
    value: its value.
    need: continues "give", such as "the path of a folder".

  Raises:
    errors.UserError: if it is something else, or empty.
  """
  need += errors.quoting(value, name)
  require(isinstance(value, str) and bool(value), name, value, need)


def check_part(name: str, value: Any, kind: type) -> None:
  """Checks that a value is of a class, or has what a protocol asks for.

  Raises:
    errors.UserError: if not.
  """
  need = f"a part as `{kind.__module__}.{kind.__qualname__}` describes it"
  require(isinstance(value, kind), name, value, need)


def is_list(value: Any) -> bool:
  """Returns whether a value is a list or a tuple, as configs have them."""
  return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def check_arguments(
  name: str, options: Any, function: Callable[..., Any]
) -> None:
  """Checks a dict of arguments before a function or class is called with it.

  Args:
    name: the entry.
    options: its value.
    function: takes the arguments.

  Raises:
    errors.UserError: if it is not a dict, has an argument that is unknown, or
      lacks one.
  """
  require(isinstance(options, Mapping), name, options, "a dict of arguments")
  known = parameters(function)
  for key in options:
    if key not in known:
      raise errors.UserError(
        f"`{name}.{key}` is not an argument of "
        f"`{function.__module__}.{function.__qualname__}`: use some of "
        f"{', '.join(known)}"
      )
  for key, parameter in known.items():
    if parameter.default is parameter.empty and key not in options:
      raise errors.UserError(
        f"`{name}.{key}` is missing: "
        f"`{function.__module__}.{function.__qualname__}` needs it"
      )


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
  """Returns the named parameters of a function, or of a class without `self`.

  Where it takes any keyword (`**kwargs`), that parameter is among them.
  """
  # The metaclass of Sonnet hides the signature of its classes.
  is_class = inspect.isclass(function)
  signature = inspect.signature(function.__init__ if is_class else function)
  found = list(signature.parameters.items())[1 if is_class else 0 :]
  return {k: p for k, p in found if p.kind is not p.VAR_POSITIONAL}
