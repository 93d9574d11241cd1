"""The config that a training left beside its checkpoints, and others."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from iodine import config_files, errors, files, validation
from iodine.checkpoints import finding

Config = Mapping[str, Any]

_REMEDY = (
  "name the config, as in `with tetrominoes`; in Python give "
  '`config=iodine.load_config("tetrominoes")`'
)
_REMEDY_FILE = f"put the run's own back, or move it away and {_REMEDY}"
_ABSENT = "nothing"


def config_path(prefix: str) -> str:
  """Returns where a training leaves the config of its checkpoints."""
  return os.path.join(finding.run_folder(prefix), files.RUN_CONFIG)


def config_beside(prefix: str) -> dict[str, Any]:
  """Reads the config that the training of a checkpoint left beside it.

  Raises:
    errors.UserError: if there is none, it cannot be read, or it names code that
      is not trusted, see `building.trust`.
  """
  path = config_path(prefix)
  files.check_readable(path)
  if not os.path.isfile(path):
    raise errors.UserError(
      f"there is no `{path}`, which says what model the checkpoint is of: "
      f"{_REMEDY}"
    )
  config = config_files.read(path, _REMEDY_FILE)
  check_complete(config, f"`{path}`", _REMEDY_FILE)
  return config


def check_complete(
  config: Any, name: str = "the config", remedy: str = _REMEDY
) -> None:
  """Raises a UserError where a config has no model or no data."""
  for entry in ("data", "model"):
    part = config.get(entry) if isinstance(config, Mapping) else None
    if not part or not isinstance(part, Mapping):
      raise errors.UserError(
        f"{name} has no `{entry}`, so it is not the complete one of a "
        f"checkpoint: {remedy}"
      )


def as_trained(config: Config, batch_size: int | None = None) -> dict[str, Any]:
  """Returns a config whose model decomposes images as in its training.

  That is with gradients of the mean over a batch of that size, whatever the
  batch at hand, unless the config has a `refinement_batch_size` already.

  Args:
    config: the complete config.
    batch_size: of the training; None for the config's.
  """
  if batch_size is None:
    batch_size = config.get("batch_size")
  model = dict(config["model"])
  if model.get("refinement_batch_size") is None:
    model["refinement_batch_size"] = batch_size
  return {**config, "model": model}


def evaluation_iters(config: Config) -> int | None:
  """Returns `evaluation.num_iters`; None for as many as in training.

  Raises:
    errors.UserError: if it is no number of refinements.
  """
  evaluation = config.get("evaluation")
  num_iters = (
    evaluation.get("num_iters") if isinstance(evaluation, Mapping) else None
  )
  validation.check_whole(
    "evaluation.num_iters", num_iters, 0, "None for the model's own"
  )
  return num_iters


def as_evaluated(config: Config) -> dict[str, Any]:
  """Returns a config whose model refines as often as `evaluate` lets it.

  Raises:
    errors.UserError: see `evaluation_iters`; or if the config is not complete.
  """
  check_complete(config)
  num_iters = evaluation_iters(config)
  if num_iters is None:
    return dict(config)
  return {**config, "model": {**config["model"], "num_iters": num_iters}}


def differences(
  config: Config, other: Config, paths: Sequence[str], ignored: Sequence[str]
) -> list[str]:
  """Returns in what two configs differ, as `entry value (value there)`.

  Args:
    config: the one at hand.
    other: the one there.
    paths: entries at the top, whose parts are compared.
    ignored: dotted paths of parts that may differ.
  """
  here, there = (
    dict(leaves(json.loads(json.dumps({p: c.get(p) for p in paths}))))
    for c in (config, other)
  )
  pairs = {
    path: (here.get(path, _ABSENT), there.get(path, _ABSENT))
    for path in sorted({*here, *there} - set(ignored))
  }
  # What an older config does not know is off in a newer one, by 0 or None.
  return [
    f"{path} {_short(value)} ({_short(other)} there)"
    for path, (value, other) in pairs.items()
    if value != other
    and not (_ABSENT in (value, other) and not (value and other))
  ]


def _short(value: Any) -> str:
  """Returns a value as text, of a list of many the first and last ones."""
  return errors.shorten(value) if isinstance(value, list) else str(value)


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
