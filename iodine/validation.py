"""Checks of what users give; each raises an `errors.UserError` or does nothing.

The messages name the entry, what came, and what to give instead.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import numbers
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from iodine import errors

# What TensorFlow's whole numbers hold.
_MOST = 2**63 - 1


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


def is_whole(value: Any, least: int, most: int = _MOST) -> bool:
  """Returns whether a value is a whole number from `least` to `most`."""
  if not isinstance(value, numbers.Integral) or isinstance(value, bool):
    return False
  return least <= int(value) <= most


def check_whole(
  name: str, value: Any, least: int, otherwise: str | None = None
) -> None:
  """Checks a whole number, which has to fit into 64 bits.

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
  need += " and below 2**63" if is_whole(value, least, value) else ""
  need += "" if otherwise is None else f", or {otherwise}"
  require(is_whole(value, least), name, value, need)


def check_sizes(name: str, values: Any, may_be_empty: bool = False) -> None:
  """Checks a list of whole numbers of at least 1, of 31 bits.

  Raises:
    errors.UserError: if it is another value, or empty where it may not be.
  """
  # Of 2**31 TensorFlow would end the process.
  most = 2**31 - 1
  fits = is_list(values) and all(is_whole(value, 1, most) for value in values)
  fits = fits and (may_be_empty or len(values) > 0)
  require(fits, name, values, "a list of whole numbers, at least 1")


def check_number(
  name: str,
  value: Any,
  least: float | None = 0.0,
  above: float | None = None,
  otherwise: str | None = None,
  below: float | None = None,
) -> None:
  """Checks a number that float32 holds, see `is_number`, within bounds.

  Args:
    name: the entry.
    value: its value.
    least: the smallest number that will do; None if any will.
    above: what the number has to be above, instead.
    otherwise: what else the entry may be, if there is something, such as "None
      for no limit"; the caller lets it pass.
    below: what the number has to be below, if something.

  Raises:
    errors.UserError: if it is another value.
  """
  fits, need = is_number(value), "a number"
  if above is not None:
    fits, need = fits and value > above, f"a number above {above:g}"
  elif least is not None:
    fits, need = fits and value >= least, f"a number of at least {least:g}"
  if below is not None:
    fits, need = fits and value < below, f"{need} and below {below:g}"
  need += "" if otherwise is None else f", or {otherwise}"
  require(fits, name, value, need)


def is_number(value: Any) -> bool:
  """Returns whether a value is a number that is finite in float32."""
  if not isinstance(value, (int, float)) or isinstance(value, bool):
    return False
  return abs(value) < 2**128


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
  need += errors.quote_hint(value, name)
  require(isinstance(value, str) and bool(value), name, value, need)
  check_storable(name, value)


def check_storable(name: str, value: Any) -> None:
  """Checks that JSON, TensorFlow and the file system hold an entry.

  JSON has no infinite number and no NaN, TensorFlow no whole number of more
  than 64 bits and no text that is not UTF-8, and a path no NUL.

  Args:
    name: the entry.
    value: its value, or a nested dict or list, whose entries are checked.

  Raises:
    errors.UserError: if they do not.
  """
  if isinstance(value, Mapping):
    for key, each in value.items():
      check_storable(f"{name}.{key}" if name else str(key), each)
  elif is_list(value):
    for i, each in enumerate(value):
      check_storable(f"{name}[{i}]", each)
  elif isinstance(value, numbers.Integral):
    fits = -_MOST - 1 <= int(value) <= _MOST
    require(fits, name, value, "a whole number that fits into 64 bits")
  elif isinstance(value, float):
    require(math.isfinite(value), name, value, "a finite number")
  elif isinstance(value, str):
    # What was not UTF-8 at the command line are surrogates in Python.
    fits = "\0" not in value and not any(
      "\ud800" <= c < "\ue000" for c in value
    )
    require(fits, name, value, "text of UTF-8 without NUL")
  else:
    fits = not isinstance(value, (bytes, complex, set, types.EllipsisType))
    require(fits, name, value, "a number, text, a flag, None, a list or a dict")


def check_kinds(
  name: str,
  options: Mapping[str, Any],
  function: Callable[..., Any],
  place: str | None = None,
) -> None:
  """Checks arguments by the annotations of the function that takes them.

  Only what JSON has is checked: numbers, text, flags, lists and dicts. What may
  be of a class, too, is left to the function.

  Args:
    name: the entry; "" where the message has it already.
    options: the arguments.
    function: it, or a class.
    place: the entry as it is given at the command line; None for `name`.

  Raises:
    errors.UserError: if one is of another kind.
  """
  is_class = inspect.isclass(function)
  kinds: dict[str, Any] = {}
  # What is annotated for type checkers only may not be there.
  with contextlib.suppress(NameError, AttributeError, TypeError):
    kinds = typing.get_type_hints(function.__init__ if is_class else function)
  for key, value in options.items():
    kind = kinds.get(key, Any)
    if not _is_of(value, kind):
      need = _words(kind)
      if _is_of("", kind):
        need += errors.quote_hint(
          value, _join(name if place is None else place, key)
        )
      require(False, _join(name, key), value, need)


def _join(name: str, key: str) -> str:
  return f"{name}.{key}" if name else key


def _is_of(value: Any, kind: Any) -> bool:
  """Returns whether a value is what an annotation says, as far as checked."""
  origin, arguments = typing.get_origin(kind), typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    return any(_is_of(value, each) for each in arguments)
  if origin in (Sequence, list):
    return is_list(value) and all(_is_of(x, arguments[0]) for x in value)
  return _CHECKS.get(origin or kind, lambda value: True)(value)


# What is checked of annotations, and what it is called.
_CHECKS: dict[Any, Callable[[Any], bool]] = {
  bool: lambda value: isinstance(value, bool),
  int: lambda value: is_whole(value, -_MOST - 1),
  float: is_number,
  str: lambda value: isinstance(value, (str, os.PathLike)),
  tuple: lambda value: is_list(value),
  list: lambda value: is_list(value),
  dict: lambda value: isinstance(value, Mapping),
  Mapping: lambda value: isinstance(value, Mapping),
  Sequence: lambda value: is_list(value),
  types.NoneType: lambda value: value is None,
}
_WORDS = {
  bool: "True or False",
  int: "a whole number",
  float: "a number",
  str: "text",
  dict: "a dict",
  Mapping: "a dict",
  types.NoneType: "None",
}


def _words(kind: Any) -> str:
  """Returns what an annotation is called, all of which is checked."""
  origin, arguments = typing.get_origin(kind), typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    return " or ".join(_words(each) for each in arguments)
  if origin in (Sequence, list) and arguments[0] is not Any:
    return f"a list, each entry {_words(arguments[0])}"
  return _WORDS.get(origin or kind, "a list")


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
    errors.UserError: if it is not a dict, has an argument that is unknown or
      of another kind, or lacks one.
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
  check_kinds("", options, function, name)


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
  """Returns the named parameters of a function, or of a class without `self`.

  Where it takes any keyword (`**kwargs`), that parameter is among them.
  """
  # The metaclass of Sonnet hides the signature of its classes.
  is_class = inspect.isclass(function)
  signature = inspect.signature(function.__init__ if is_class else function)
  found = list(signature.parameters.items())[1 if is_class else 0 :]
  return {k: p for k, p in found if p.kind is not p.VAR_POSITIONAL}
