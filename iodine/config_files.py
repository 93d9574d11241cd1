"""Configs in files: those beside checkpoints, and those that `with FILE` names.

A stranger may have written them. So they are JSON and nothing that is run when
it is read, as a pickle would be; they name only code that is trusted; and they
do not say where to write.
"""

from __future__ import annotations

import copy
import dataclasses
import glob
import json
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from iodine import building, entries, errors, files, kinds

Config = Mapping[str, Any]

_REMEDY = (
  "name the config, as in `with tetrominoes`; in Python give "
  '`config=iodine.load_config("tetrominoes")`'
)
# Generated scenes may be kept here, whoever asks for them.
_OF_GENERATED = os.path.join("runs", "data", "")
_ABSENT = "nothing"
CHECKPOINT_REMEDY = (
  "give `checkpoint_dir` the folder that a training printed, or a checkpoint's "
  "prefix such as `folder/ckpt-1000`"
)

# What scenes are chosen and how they are computed does not change a result
# behind anybody's back.
_MAY_DIFFER = (
  "data.batch_size",
  "data.cache",
  "data.num_test_scenes",
  "data.path",
  "data.seed",
  "data.shuffle_buffer",
  "data.test",
  "data.train",
  "model.decoder.recompute",
)


# ------------------------------------------------------------------- reading


def read(path: str, remedy: str = "write it again") -> dict[str, Any]:
  """Reads a config file.

  Args:
    path: of the file.
    remedy: what to do where it cannot be read.
  """
  if not path.endswith(".json"):
    raise errors.UserError(
      f"`{path}` is not a config file: give a JSON file, whose name ends in "
      "`.json`, or the name of a config"
    )
  config = files.read_json(path, remedy)
  if not isinstance(config, dict):
    kind = type(config).__name__
    raise errors.UserError(
      f"`{path}` cannot be read (a {kind} is not a dict of entries): {remedy}"
    )
  building.check_trusted(config, f"`{path}`")
  config = _without_gone(config, path)
  entries.check(config, source=path)
  return config


def _without_gone(config: Config, path: str) -> dict[str, Any]:
  """Returns a config without the entries that older versions had."""
  result = copy.deepcopy(dict(config))
  for entry, unused in entries.GONE.items():
    *parents, last = entry.split(".")
    place = get(result, ".".join(parents))
    if not isinstance(place, dict) or last not in place:
      continue
    if place.pop(last) != unused:
      raise errors.UserError(
        f"`{path}` has `{entry}`, which is gone: use the version that wrote "
        f"it, or set it to {json.dumps(unused)}, by which it did nothing"
      )
  return result


def read_beside(folder: str) -> dict[str, Any]:
  """Reads the config that a training left in its folder."""
  path = os.path.join(folder, files.RUN_CONFIG)
  if not os.path.isfile(path):
    raise errors.UserError(
      f"there is no `{path}`, which says what model the checkpoint is of: "
      f"{_REMEDY}"
    )
  remedy = f"put the run's own back, or move it away and {_REMEDY}"
  config = read(path, remedy)
  check_complete(config, f"`{path}`", remedy)
  return config


def require_experiment(part: Any) -> None:
  """Raises a UserError where no named config has filled a part in."""
  if not isinstance(part, Mapping) or not part:
    raise errors.UserError(
      "no experiment is chosen: name one, such as `python main.py with "
      "tetrominoes`; `python main.py` lists them"
    )


def require_checkpoint(path: str) -> None:
  """Raises a UserError where there is no folder, checkpoint or packed one."""
  is_there = os.path.isdir(path) or os.path.exists(f"{path}.index")
  if "://" in path or is_there or files.is_packed(path):
    return
  raise errors.UserError(
    f"there is no checkpoint at `{path}`: {CHECKPOINT_REMEDY}"
  )


def require_scenes(config: Config, names: Sequence[str]) -> None:
  """Raises a UserError where there is no file of what a training reads.

  Args:
    config: the complete config.
    names: the named configs that it is of.
  """
  path = get(config, "data.path")
  is_ours = str(get(config, "data.constructor")).startswith("iodine.modules.")
  if not is_ours or (path is not None and path == config["generated_path"]):
    return
  if path is None and "own" in names:
    raise errors.UserError(
      "`data.path` is not set: give your images, as in `data.path=FOLDER`"
    )
  places = path if isinstance(path, (list, tuple)) else [path]
  for place in places:
    if not isinstance(place, str):
      return  # which the data set says more of
    place = os.path.expanduser(place)
    if not os.path.exists(place) and not glob.glob(place):
      stand_in = (
        f"; `python main.py make_data with {' '.join(names)} num_scenes=1000 "
        "seed=0` writes a stand-in for public data"
      )
      raise errors.UserError(
        f"`data.path` is `{path}`, where there is no file: say where the "
        "scenes are here by `data.path=`, docs/data.md says where to get some"
        f"{'' if 'own' in names or not names else stand_in}"
      )


def check_complete(
  config: Any, name: str = "the config", remedy: str = _REMEDY
) -> None:
  """Raises a UserError where a config has no model or no data."""
  for entry in ("data", "model"):
    if not get(config, entry):
      raise errors.UserError(
        f"{name} has no `{entry}`, so it is not the complete one of a "
        f"checkpoint: {remedy}"
      )


def read_named(
  path: str, updates: Config, further: Sequence[str] = ()
) -> dict[str, Any]:
  """Reads a config file in the place of a named config.

  Args:
    path: of the file.
    updates: of the user, who may say where to write: a nested dict.
    further: more entries by which the command at hand writes.
  """
  config = read(path)
  for entry in [*_writing(config), *(e for e in further if get(config, e))]:
    if get(updates, entry, ...) is ...:
      raise errors.UserError(
        f"`{path}` has `{entry}` {errors.shorten(get(config, entry), 80)}, by "
        "which something is written, and a file does not decide that: give "
        f"the entry in this call, such as `{entry}=NAME`"
      )
  return config


def _writing(config: Config) -> list[str]:
  """Returns those entries of a config by which something is written."""
  path = get(config, "generated_path")
  is_harmless = path and (
    os.path.exists(path) or os.path.normpath(path).startswith(_OF_GENERATED)
  )
  return [
    entry
    for entry in entries.WRITES
    if get(config, entry) and not (entry == "generated_path" and is_harmless)
  ]


def for_another_call(config: Config) -> dict[str, Any]:
  """Returns a copy of a saved config without what was of one call.

  Nor does it say where to write: the cache is of the machine that trained, and
  so on.
  """
  result = copy.deepcopy(dict(config))
  for entry in {*entries.OF_CALL, *_writing(config)}:
    *parents, last = entry.split(".")
    place = get(result, ".".join(parents))
    if isinstance(place, dict):
      place.pop(last, None)
  return result


# ------------------------------------------------------ what follows from it


def as_trained(config: Config, batch_size: int | None = None) -> dict[str, Any]:
  """Returns a config whose model decomposes images as in its training.

  That is with gradients of the mean over a batch of that size, whatever the
  batch at hand, unless the config has a `refinement_batch_size` already.

  Args:
    config: the complete config.
    batch_size: of the training; None for the config's.
  """
  model = dict(config["model"])
  if model.get("refinement_batch_size") is None:
    model["refinement_batch_size"] = batch_size or config.get("batch_size")
  return {**config, "model": model}


def as_evaluated(config: Config) -> dict[str, Any]:
  """Returns a config whose model refines as often as `evaluate` lets it."""
  check_complete(config)
  num_iters = get(config, "evaluation.num_iters")
  if num_iters is None:
    return dict(config)
  return {**config, "model": {**config["model"], "num_iters": num_iters}}


def at_step(config: Config, step: int) -> tuple[dict[str, Any], str | None]:
  """Returns a config with the model as it was trained at a step.

  Args:
    config: the complete config, with `stages`.
    step: of a checkpoint.

  Returns:
    The config, and a line about the stages to come, if there are some.
  """
  found = list(stages({"stages": [], **config}))
  for number, stage in enumerate(found, 1):
    if step <= stage.last_step:
      is_cut = config.get("stop_after_steps", math.inf) <= step
      rest = "" if is_cut else ", and later stages are to come"
      # Entries that hand a value on to the model.
      handed = {k: stage.changes[k] for k in stage.changes.keys() & config}
      return {**config, **handed, "model": stage.model}, (
        f"step {step} is in stage {number} of {len(found) + 1}, with "
        f"{json.dumps(stage.changes)}: it is shown as it was trained then"
        f"{rest}"
      )
  return dict(config), None


class Stage(NamedTuple):
  """A part of a training.

  Attributes:
    last_step: the step after which it ends.
    model: the model's config.
    changes: in what it differs from the config's own.
  """

  last_step: int
  model: Config
  changes: Config


def stages(config: Config) -> Iterator[Stage]:
  """Yields the stages of a config, but for the last, which changes nothing.

  Args:
    config: with `stages` and `model`.
  """
  previous = 0
  for i, entry in enumerate(config["stages"]):
    path = f"stages[{i}]"
    kinds.check_arguments(path, _StageEntry, entry)
    until, changes = entry["until"], entry["model"]
    kinds.check(f"{path}.until", until, Annotated[int, kinds.Above(previous)])
    model = _replaced(config["model"], changes, f"{path}.model")
    yield Stage(until, model, changes)
    previous = until


@dataclasses.dataclass
class _StageEntry:
  """What an entry of `stages` has."""

  until: int
  model: Config


def _replaced(config: Config, changes: Any, path: str) -> dict[str, Any]:
  """Returns a copy of a config with entries replaced that it has."""
  kinds.check(path, changes, dict)
  result = dict(config)
  for key, value in changes.items():
    if key not in config:
      raise errors.UserError(
        f"`{path}.{key}` is not an entry of the config: use some of "
        f"{', '.join(config)}"
      )
    if isinstance(config[key], Mapping):
      value = _replaced(config[key], value, f"{path}.{key}")
    result[key] = value
  return result


def follow(updates: Config, stored: Config, is_named: Any) -> dict[str, Any]:
  """Returns updates with what follows from them.

  A named config passes its entries on, such as `num_iters` to
  `model.num_iters`. In a stored one both are written out: parts of the same
  name and value take the new value, too.

  Args:
    updates: a nested dict.
    stored: the config beside the checkpoint; {} if there is none.
    is_named: true where a named config refines it.
  """
  result = copy.deepcopy(dict(updates))
  parts = {top: stored.get(top) for top in ("data", "model", "optimizer")}
  for name, value in updates.items():
    if name not in stored or isinstance(stored[name], Mapping):
      continue
    for path, there in leaves(parts):
      if path.split(".")[-1] == name and there == stored[name]:
        _set_default(result, path, value)
  for name in {"data_seed", "num_scenes"} & updates.keys():
    if stored.get("generated_path") is not None and not is_named:
      raise errors.UserError(
        f"`{name}` does not change `data.path`, which the config beside the "
        "checkpoint names: give `data.path`, or name the config, too, as in "
        "`with laptop`"
      )
  # Who asks for a number of refinements gets it.
  if "num_iters" in updates or get(updates, "model.num_iters") is not None:
    _set_default(result, "evaluation.num_iters", None)
  return result


def _set_default(config: dict[str, Any], path: str, value: Any) -> None:
  """Sets an entry of a nested dict by its dotted path, unless it is there."""
  *parents, last = path.split(".")
  for key in parents:
    config = config.setdefault(key, {})
  config.setdefault(last, value)


def differences(
  config: Config,
  stored: Config,
  paths: Sequence[str] = ("data", "model"),
  ignored: Collection[str] = _MAY_DIFFER,
) -> str:
  """Returns in what a config differs from a stored one; "" for nothing.

  Args:
    config: the one at hand.
    stored: the other one.
    paths: entries at the top, whose parts are compared.
    ignored: dotted paths of parts that may differ, or the last names of those.
  """
  here, there = (
    dict(leaves(json.loads(json.dumps({p: c.get(p) for p in paths}))))
    for c in (config, stored)
  )
  found = []
  for path in sorted({*here, *there}):
    if path in ignored or path.rpartition(".")[2] in ignored:
      continue
    value, other = here.get(path, _ABSENT), there.get(path, _ABSENT)
    # What an older config does not know is off in a newer one, by 0 or None.
    is_new = _ABSENT in (value, other) and not (value and other)
    if value != other and not is_new:
      shown = (
        errors.shorten(x) if isinstance(x, list) else x for x in (value, other)
      )
      found.append("{} {} ({} there)".format(path, *shown))
  return errors.join_some(found)


def leaves(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
  """Yields the dotted paths and values of what is not a dict.

  Args:
    config: a nested dict, whose lists are values.
    path: of this dict in the whole.
  """
  if not isinstance(config, Mapping):
    yield path, config
    return
  for key, value in config.items():
    yield from leaves(value, f"{path}.{key}" if path else key)


def get(config: Any, entry: str, default: Any = None) -> Any:
  """Returns an entry of a nested dict by its dotted path, "" for itself."""
  for key in filter(None, entry.split(".")):
    if not isinstance(config, Mapping) or key not in config:
      return default
    config = config[key]
  return config
