"""From a nested config to objects.

A dict with the key "constructor" stands for a call of what that dotted path
names, with the other entries as keyword arguments; dicts without one stay
dicts. Everything is built afresh at every call.

A constructor may be anything that Python can import. So a config that comes
from a file, which a stranger may have written, is checked by `check_trusted`
before anything that it names is imported: it may name the parts of this
project, and what the user has named.
"""

from __future__ import annotations

import contextlib
import importlib
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from iodine import errors, validation

CONSTRUCTOR = "constructor"

# What a config file may name. Written out, so that a name can be checked
# without importing anything; a test compares it with the classes there are.
REGISTERED = frozenset(
  f"iodine.{module}.{name}"
  for module, names in {
    "modules.data": (
      "Arrays CLEVR Films Images MultiDSprites ObjectsRoom Tetrominoes"
    ),
    "modules.decoder": "ComponentDecoder",
    "modules.distributions": (
      "BernoulliOutput LocScaleDistribution MaskedMixture"
    ),
    "modules.factor_eval": "FactorRegressor OnlineMeanVarEstimator",
    "modules.iodine": "IODINE",
    "modules.networks": (
      "BroadcastConv CNN Conv2D Conv2DTranspose ConvNet2D DeConv LSTM LSTMLayer"
      " MLP"
    ),
    "modules.refinement": "PredictorCorrectorHead RefinementCore ResHead",
    "modules.refinement_inputs": "RefinementInputMaker",
    "optimizers": "Adam ExponentialDecay",
  }.items()
  for name in names.split()
)
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
  """
  built = _build(config, path)
  # Afterwards, as parts say better what is wrong with theirs.
  validation.check_storable(path, config)
  return built


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

  def check() -> None:
    for key, value in arguments.items():
      validation.check_storable(key, value)
    validation.check_kinds("", arguments, constructor, path)

  other_kind = errors.message_of(check)
  if other_kind is not None:
    own = None
    # What a constructor checks by itself it says best, but it may also fail.
    with contextlib.suppress(Exception):
      own = errors.message_of(lambda: constructor(**arguments))
    raise errors.UserError(f"in `{path}`: {own or other_kind}")
  try:
    return constructor(**arguments)
  except errors.UserError as error:
    raise errors.UserError(f"in `{path}`: {error}") from error


def path_of(frame: types.FrameType) -> str | None:
  """Returns the path of what is built in a frame of a traceback, if any is."""
  is_ours = frame.f_code is _construct.__code__
  return frame.f_locals["path"] if is_ours else None


def trust(*names: str) -> None:
  """Lets config files name code outside of this project, from now on.

  Code that a config names is run. So give only what you know.

  Args:
    *names: dotted paths of packages or modules, such as "mypackage", or of
      single classes and functions in them.

  Raises:
    errors.UserError: if one is not a dotted path.
  """
  for name in names:
    need = "the dotted path of a package, such as `mypackage`"
    validation.require(is_dotted(name), "trust", name, need)
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


def foreign_names(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
  """Yields the path and name of all code in a config that is not ours.

  Args:
    config: a nested dict, or a part of one.
    path: of this part in the whole.
  """
  if isinstance(config, Mapping):
    for key, value in config.items():
      place = f"{path}.{key}" if path else str(key)
      # Sacred reads dots in a key as a path.
      last = str(key).rpartition(".")[2]
      if last == CONSTRUCTOR and not (
        isinstance(value, str) and value in REGISTERED
      ):
        yield place, value
      elif last in _LISTS:
        yield from ((place, name) for name in _texts(value) if "." in name)
      yield from foreign_names(value, place)
  elif isinstance(config, (list, tuple)):
    for i, value in enumerate(config):
      yield from foreign_names(value, f"{path}[{i}]")


def _texts(value: Any) -> Iterator[str]:
  """Yields a string, or those in a list."""
  if isinstance(value, str):
    yield value
  elif isinstance(value, (list, tuple)):
    for each in value:
      yield from _texts(each)


def check_trusted(config: Any, source: str) -> None:
  """Checks what a config file names, before anything is built or imported.

  Args:
    config: what is in the file.
    source: what it is called, for the message.

  Raises:
    errors.UserError: if it names something that is neither a part of this
      project nor trusted, see `trust`.
  """
  found = list(foreign_names(config))
  for path, name in found:
    if not any(_is_within(name, trusted) for trusted in _trusted):
      raise errors.UserError(_not_trusted(name, path, source))
  # Only now that all of them may be imported.
  for path, name in found:
    # A trusted module may have imported what nobody meant, such as `system`.
    if name not in _trusted and not _is_own(resolve(name)):
      raise errors.UserError(_not_trusted(name, path, source, whole=True))


def is_dotted(name: Any) -> bool:
  """Returns whether a name has the form of a dotted path."""
  return isinstance(name, str) and all(
    part.isidentifier() for part in name.split(".")
  )


def _is_own(found: Any) -> bool:
  """Returns whether a class or function was written in what is trusted."""
  qualname = getattr(found, "__qualname__", None)
  if qualname is None:
    return True  # an object that a trusted module has made
  origin = f"{found.__module__}.{qualname}"
  return origin in REGISTERED or any(_is_within(origin, t) for t in _trusted)


def _is_within(name: Any, trusted: str) -> bool:
  return isinstance(name, str) and f"{name}.".startswith(f"{trusted}.")


def _not_trusted(name: Any, path: str, source: str, whole: bool = False) -> str:
  """Returns the sentence for a name; whether it needs trust by its own name."""
  if not is_dotted(name):
    return (
      f"{source} names {repr(name)[:80]} in `{path}`, which is not the dotted "
      "path of a class: correct it"
    )
  wanted = name if whole else name.rpartition(".")[0] or name
  return (
    f"{source} names `{name}` in `{path}`, which is not a part of this project "
    f"and would be run: if you know that code, add `--trust {wanted}` to the "
    f'command, or in Python call `iodine.trust("{wanted}")` before'
  )


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
