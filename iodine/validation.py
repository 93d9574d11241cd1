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
    raise errors.UserError(f"`{name}` is {value!r}: give {need}")


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


def check_sizes(name: str, values: Any, least: int = 1) -> None:
  """Checks a list of whole numbers of at least `least`.

  Raises:
    errors.UserError: if it is another value.
  """
  fits = is_list(values) and all(is_whole(value, least) for value in values)
  need = f"a list of whole numbers, at least {least}"
  require(fits, name, values, need)


def check_number(
  name: str,
  value: Any,
  least: float = 0.0,
  above: float | None = None,
  otherwise: str | None = None,
) -> None:
  """Checks a finite number of at least `least`, or above `above` if given.

  Args:
    name: the entry.
    value: its value.
    least: the smallest number that will do.
    above: what the number has to be above, instead.
    otherwise: what else the entry may be, if there is something, such as "None
      for no limit"; the caller lets it pass.

  Raises:
    errors.UserError: if it is another value.
  """
  fits = (
    isinstance(value, (int, float))
    and not isinstance(value, bool)
    and math.isfinite(value)
    and (value >= least if above is None else value > above)
  )
  need = f"of at least {least:g}" if above is None else f"above {above:g}"
  need += "" if otherwise is None else f", or {otherwise}"
  require(fits, name, value, f"a number {need}")


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
