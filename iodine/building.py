"""From a nested config to objects.

A dict with the key "constructor" stands for a call of what that dotted path
names, with the other entries as keyword arguments; dicts without one stay
dicts. Everything is built afresh at every call. Arguments are checked here, by
the annotations of what takes them.

A constructor may be anything that Python can import. So a config that comes
from a file, which a stranger may have written, is checked by `check_trusted`
before anything is built: it may name the classes of the model, the data sets
and the optimizer, and what the user has named.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from iodine import errors, kinds

CONSTRUCTOR = "constructor"

# Entries that may have dotted paths of functions in a list, beside names.
_LISTS = ("inputs", "metrics", "preprocess", "stop_gradients")

# What else config files may name: packages, modules and single names.
_trusted: list[str] = []


def build(config: Mapping[str, Any], path: str = "config") -> Any:
  """Builds the object that a config describes, its parts first.

  Args:
    config: a nested dict as described above. It is left unchanged, and
      nothing that is built shares a list or dict with it.
    path: name of this entry, for error messages.

  Raises:
    errors.UserError: if a constructor is unknown or does not take its
      arguments, or JSON cannot hold a value, with the place in the config.

  Example:
    >>> config = iodine.load_config("own", {"image_dim": [8, 8]})
    >>> model = iodine.build(config["model"])
    >>> model.initialize(image_shape=(8, 8, 3))  # makes its variables
    >>> model.decode(np.zeros([2, 3, 16])).image.shape  # of [B, K, Z]
    TensorShape([2, 8, 8, 3])
  """
  kinds.check(path, config, Any)
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
  return value


def _construct(name: Any, arguments: dict[str, Any], path: str) -> Any:
  constructor = resolve(name)
  if not callable(constructor):
    raise errors.UserError(
      f"`{path}.{CONSTRUCTOR}` names `{name}`, which does not exist: give the "
      "dotted path of a class, such as `iodine.modules.networks.CNN`"
    )
  kinds.check_arguments(
    path,
    constructor,
    arguments,
    "; or, if another part was here, add "
    f"`{path}.replace=True` to exchange all of it",
  )
  try:
    return constructor(**arguments)
  except errors.UserError as error:
    raise errors.UserError(f"in `{path}`: {error}") from error


def path_of(frame: types.FrameType) -> str | None:
  """Returns the path of what is built in a frame of a traceback, if any is."""
  is_ours = frame.f_code is _construct.__code__
  return frame.f_locals["path"] if is_ours else None


def resolve(name: Any) -> Any:
  """Returns what a dotted path names; None if there is nothing."""
  module_name, _, attribute = str(name).rpartition(".")
  if not is_dotted(module_name):
    return None
  try:
    module = importlib.import_module(module_name)
  except ModuleNotFoundError as error:
    # A broken import inside an existing module is not a misspelt name.
    if not _is_within(module_name, str(error.name)):
      raise
    return None
  return getattr(module, attribute, None)


# -------------------------------------------------------------------- trust


def trust(*names: str) -> None:
  """Lets config files name code outside of this project, from now on.

  Code that a config names is run. So give only what you know.

  Args:
    *names: dotted paths of packages or modules, such as "mypackage", or of
      single classes and functions in them.

  Raises:
    errors.UserError: if one is not a dotted path.

  Example:
    >>> iodine.trust("mypackage.decoders")
  """
  for name in names:
    if not is_dotted(name):
      raise errors.UserError(
        f"`trust` is {name!r}: give the dotted path of a package, such as "
        "`mypackage`"
      )
  _trusted.extend(names)


@contextlib.contextmanager
def trusting(names: Iterable[str]) -> Iterator[None]:
  """Trusts names as `trust` does, until the context ends."""
  before = list(_trusted)
  trust(*names)
  try:
    yield
  finally:
    _trusted[:] = before


def named_code(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
  """Yields the path and name of all code that a config names.

  Args:
    config: a nested dict, or a part of one.
    path: of this part in the whole.
  """
  if isinstance(config, Mapping):
    for key, value in config.items():
      place = f"{path}.{key}" if path else str(key)
      # Sacred reads dots in a key as a path.
      last = str(key).rpartition(".")[2]
      if last == CONSTRUCTOR:
        yield place, value
      elif last in _LISTS:
        names = value if isinstance(value, (list, tuple)) else [value]
        yield from ((place, x) for x in names if "." in str(x))
      yield from named_code(value, place)
  elif isinstance(config, (list, tuple)):
    for i, value in enumerate(config):
      yield from named_code(value, f"{path}[{i}]")


def check_trusted(config: Any, source: str) -> None:
  """Checks what a config file names, before anything is built.

  Args:
    config: what is in the file.
    source: what it is called, for the message.

  Raises:
    errors.UserError: if it names something that is neither a class of this
      project's nor trusted, see `trust`.
  """
  for path, name in named_code(config):
    if not _is_own_class(name) and not _is_trusted(name):
      raise errors.UserError(
        f"{source} names {errors.shorten(name, 80)} in `{path}`, which is not "
        "a class of this project and would be run: if you know that code, add "
        f"`--trust {name}` to the command, or in Python call "
        f'`iodine.trust("{name}")` before'
      )


def _is_own_class(name: Any) -> bool:
  """Returns whether a class of that name is defined where parts are."""
  module, _, _ = str(name).rpartition(".")
  if module != "iodine.optimizers" and not _is_within(module, "iodine.modules"):
    return False
  found = resolve(name)
  return inspect.isclass(found) and found.__module__ == module


def _is_trusted(name: Any) -> bool:
  """Returns whether a name is trusted, or was written in what is trusted."""
  if name in _trusted:
    return True
  if not any(_is_within(name, trusted) for trusted in _trusted):
    return False
  # A trusted module may have imported what nobody meant, such as `system`.
  origin = getattr(resolve(name), "__module__", name)
  return any(_is_within(origin, trusted) for trusted in _trusted)


def is_dotted(name: Any) -> bool:
  """Returns whether a name has the form of a dotted path."""
  return isinstance(name, str) and all(
    part.isidentifier() for part in name.split(".")
  )


def _is_within(name: Any, package: str) -> bool:
  return isinstance(name, str) and f"{name}.".startswith(f"{package}.")
