"""From a nested config to objects.

A dict with the key "constructor" stands for a call of what that dotted path
names, with the other entries as keyword arguments; dicts without one stay
dicts. Everything is built afresh at every call.
"""

from __future__ import annotations

import importlib
import types
from collections.abc import Callable, Mapping
from typing import Any

from iodine import errors, validation

CONSTRUCTOR = "constructor"


def build(config: Mapping[str, Any], path: str = "config") -> Any:
  """Builds the object that a config describes, its parts first.

  Args:
    config: a nested dict as described above. It is left unchanged, and
      nothing that is built shares a list or dict with it.
    path: name of this entry, for error messages.

  Raises:
    errors.UserError: if a constructor is unknown or does not take its
      arguments, or JSON cannot hold a value, with the place in the config.
  """
  return _build(config, path)


def _build(value: Any, path: str) -> Any:
  if isinstance(value, Mapping):
    parts = {key: _build(v, f"{path}.{key}") for key, v in value.items()}
    if CONSTRUCTOR in parts:
      return _construct(parts.pop(CONSTRUCTOR), parts, path)
    return parts
  if isinstance(value, (list, tuple)):
    # Lists stay lists: a read-only wrapper of Sacred would not.
    return [_build(v, f"{path}[{i}]") for i, v in enumerate(value)]
  validation.check_storable(path, value)
  return value


def _construct(name: Any, arguments: dict[str, Any], path: str) -> Any:
  constructor = _resolve(name, path)
  accepted = validation.parameters(constructor)
  takes_any = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
  accepted = {
    key: parameter
    for key, parameter in accepted.items()
    if parameter.kind is not parameter.VAR_KEYWORD
  }
  unknown = [key for key in arguments if key not in accepted and not takes_any]
  if unknown:
    raise errors.UserError(
      f"`{path}.{unknown[0]}` is not an argument of `{name}`: use some of "
      f"{', '.join(accepted)}; or, if another part was here, add "
      f"`{path}.replace=True` to exchange all of it"
    )
  missing = [
    key
    for key, parameter in accepted.items()
    if parameter.default is parameter.empty and key not in arguments
  ]
  if missing:
    raise errors.UserError(
      f"`{path}.{missing[0]}` is missing: `{name}` needs it"
    )
  validation.check_kinds(path, arguments, constructor)
  try:
    return constructor(**arguments)
  except errors.UserError as error:
    raise errors.UserError(f"in `{path}`: {error}") from error


def path_of(frame: types.FrameType) -> str | None:
  """Returns the path of what is built in a frame of a traceback, if any is."""
  is_ours = frame.f_code is _construct.__code__
  return frame.f_locals["path"] if is_ours else None


def _resolve(name: Any, path: str) -> Callable[..., Any]:
  """Returns the class or function with that dotted path."""
  constructor = resolve(name)
  if not callable(constructor):
    raise errors.UserError(
      f"`{path}.{CONSTRUCTOR}` names `{name}`, which does not exist: give the "
      "dotted path of a class, such as `iodine.modules.networks.CNN`"
    )
  return constructor


def resolve(name: Any) -> Any:
  """Returns what a dotted path names; None if there is nothing."""
  module_name, _, attribute = str(name).rpartition(".")
  module = None
  if all(part.isidentifier() for part in module_name.split(".")):
    try:
      module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
      # A broken import inside an existing module is not a misspelt name.
      if not f"{module_name}.".startswith(f"{error.name}."):
        raise
  return getattr(module, attribute, None)
