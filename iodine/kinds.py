"""What a value may be: an annotation, from which check and words follow.

`Annotated[int, AtLeast(1)]`, `Literal["a", "b"]`, `list[int]`, `X | None`, a
class or a Protocol. Entries of a config and arguments of constructors have the
same annotations.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import numbers
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from iodine import errors

# What TensorFlow's integers hold, and float32.
_LARGEST_INTEGER = 2**63 - 1
_LARGEST_FLOAT = 2.0**128


@dataclasses.dataclass(frozen=True)
class Limit:
  """What a value has to be besides its type.

  Attributes:
    text: says it, or what the value means, the end of "give an integer, ...".
    holds: returns whether it is so.
  """

  text: str
  holds: Callable[[Any], bool] = lambda value: True


def AtLeast(bound: float) -> Limit:
  """Returns the limit of numbers from here on."""
  return Limit(f"at least {bound:g}", lambda value: value >= bound)


def Above(bound: float) -> Limit:
  """Returns the limit of numbers above this one."""
  return Limit(f"above {bound:g}", lambda value: value > bound)


def Below(bound: float) -> Limit:
  """Returns the limit of numbers below this one."""
  return Limit(f"below {bound:.10g}", lambda value: value < bound)


def Length(least: int, most: int | None = None) -> Limit:
  """Returns the limit of lists by their numbers of entries."""
  text = "not empty" if most is None else f"{most} of them"
  return Limit(text, lambda x: least <= len(x) <= (most or len(x)))


Positive = Annotated[int, AtLeast(1)]
Count = Annotated[int, AtLeast(0)]
PositiveFloat = Annotated[float, Above(0)]
NonNegative = Annotated[float, AtLeast(0)]
# TensorFlow ends the process where a size has more than 31 bits.
Size = Annotated[int, AtLeast(1), Below(2**31)]
Sizes = Annotated[list[Size], Length(1)]
# Of coordinates; an image has no more than it has pixels in a row.
Frequencies = Annotated[int, AtLeast(1), Below(2**16)]
Path = Annotated[str, Limit("a path")]


def _is_integer(value: Any) -> bool:
  if not isinstance(value, numbers.Integral) or isinstance(value, bool):
    return False
  return abs(int(value)) <= _LARGEST_INTEGER


def _is_float(value: Any) -> bool:
  is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
  return is_number and abs(value) < _LARGEST_FLOAT


def _is_text(value: Any) -> bool:
  """Returns whether a value is text that files and TensorFlow can hold."""
  if not isinstance(value, (str, os.PathLike)):
    return False
  text = os.fspath(value)
  # What was not UTF-8 at the command line are surrogates in Python.
  return "\0" not in text and not any("\ud800" <= c < "\ue000" for c in text)


def _is_list(value: Any) -> bool:
  return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _is_storable(value: Any) -> bool:
  """Returns whether JSON and TensorFlow can hold a value, entries included."""
  if isinstance(value, Mapping):
    return all(_is_text(k) and _is_storable(v) for k, v in value.items())
  if _is_list(value):
    return all(map(_is_storable, value))
  if isinstance(value, float):
    return math.isfinite(value)
  if isinstance(value, numbers.Integral):
    return abs(int(value)) <= _LARGEST_INTEGER
  if isinstance(value, str):
    return _is_text(value)
  return not isinstance(value, (bytes, complex, set, types.EllipsisType))


_PLAIN: dict[Any, tuple[Callable[[Any], bool], str]] = {
  bool: (lambda value: isinstance(value, bool), "True or False"),
  int: (_is_integer, "an integer"),
  float: (_is_float, "a number"),
  str: (lambda value: _is_text(value) and value != "", "text"),
  list: (_is_list, "a list"),
  tuple: (_is_list, "a list"),
  Sequence: (_is_list, "a list"),
  dict: (lambda value: isinstance(value, Mapping), "a dict"),
  Mapping: (lambda value: isinstance(value, Mapping), "a dict"),
  types.NoneType: (lambda value: value is None, "None"),
  Any: (
    _is_storable,
    "finite numbers, text of UTF-8, True, False, None, or lists and dicts of "
    "those",
  ),
}


def fits(value: Any, kind: Any) -> bool:
  """Returns whether a value is of a kind, as far as annotations say."""
  origin, args = typing.get_origin(kind), typing.get_args(kind)
  if origin is Annotated:
    return fits(value, args[0]) and all(x.holds(value) for x in args[1:])
  if origin in (typing.Union, types.UnionType):
    return any(fits(value, each) for each in args)
  if origin is Literal:
    # Not by `in`, to which True is 1.
    return any(type(value) is type(each) and value == each for each in args)
  if origin is tuple and args[-1] is not ...:
    is_long = _is_list(value) and len(value) == len(args)
    return is_long and all(map(fits, value, args))
  if origin in (list, tuple, Sequence):
    return _is_list(value) and all(fits(x, args[0]) for x in value)
  kind = origin or kind
  if kind in _PLAIN:
    return _PLAIN[kind][0](value)
  return not inspect.isclass(kind) or isinstance(value, kind)


def words(kind: Any) -> str:
  """Returns what a kind is called: the end of "give ..."."""
  origin, args = typing.get_origin(kind), typing.get_args(kind)
  if origin is Annotated:
    meanings = [limit.text for limit in args[1:]]
    if args[0] is str and meanings:
      return ", ".join(meanings)  # "a path" says that it is text
    return ", ".join([words(args[0]), *meanings])
  if origin in (typing.Union, types.UnionType):
    return ", or ".join(words(each) for each in args)
  if origin is Literal:
    return f"one of {', '.join(map(repr, args))}"
  if origin is tuple and args[-1] is not ...:
    return f"[{', '.join(map(words, args))}]"
  if origin in (list, tuple, Sequence) and args[0] is not Any:
    return f"a list, each entry {words(args[0])}"
  kind = origin or kind
  if kind in _PLAIN:
    return _PLAIN[kind][1]
  return f"a part as `{kind.__module__}.{kind.__qualname__}` describes it"


def check(name: str, value: Any, kind: Any) -> None:
  """Checks that a value is of a kind.

  Args:
    name: the entry, for the message.
    value: its value.
    kind: an annotation.
  """
  if fits(value, kind):
    return
  is_choice = typing.get_origin(kind) is Literal
  error = errors.UnknownNameError if is_choice else errors.UserError
  hint = errors.quote_hint(value, name) if fits("x", kind) else ""
  raise error(f"`{name}` is {errors.shorten(value)}: give {words(kind)}{hint}")


def takes(function: Callable[..., Any], name: str) -> bool:
  """Returns whether a function or a class takes an argument."""
  _, named, takes_any = _parameters(function)
  return takes_any or name in named


def _parameters(
  function: Callable[..., Any],
) -> tuple[Callable[..., Any], dict[str, inspect.Parameter], bool]:
  """Returns what is called, its named parameters, and whether others go."""
  # The metaclass of Sonnet hides the signature of its classes.
  init = function.__init__ if inspect.isclass(function) else function
  known = dict(inspect.signature(init).parameters)
  known.pop("self", None)
  variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
  named = {k: p for k, p in known.items() if p.kind not in variable}
  return init, named, any(p.kind is p.VAR_KEYWORD for p in known.values())


def check_arguments(
  path: str, function: Callable[..., Any], arguments: Any, hint: str = ""
) -> None:
  """Checks the arguments of a call: their names, and their kinds by annotation.

  Args:
    path: the entry that holds them.
    function: takes them; a function or a class.
    arguments: a dict of keyword arguments.
    hint: what else to do where an argument is unknown.
  """
  check(path, arguments, dict)
  init, named, takes_any = _parameters(function)
  name = f"{function.__module__}.{function.__qualname__}"
  for key in arguments:
    if key not in named and not takes_any:
      raise errors.UserError(
        f"`{path}.{key}` is not an argument of `{name}`: use some of "
        f"{', '.join(named)}{hint}"
      )
  for key, parameter in named.items():
    if parameter.default is parameter.empty and key not in arguments:
      raise errors.UserError(f"`{path}.{key}` is missing: `{name}` needs it")
  hints = typing.get_type_hints(init, include_extras=True)
  for key, value in arguments.items():
    check(f"{path}.{key}", value, hints.get(key, Any))
