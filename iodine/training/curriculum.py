"""A training in stages: some of the model's entries differ at first.

The config's `stages` is a list such as

  [{"until": 2500, "model": {"num_components": 4, "kl_weight": 0.6}}]

Until step 2500 the model's config has these entries instead of its own, and
from there on its own. Entries may differ that change no variable's shape, as
the number of slots, of refinements, and the weight of the KL do. Not in the
original, whose configs have no stages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from iodine import errors, kinds

Config = Mapping[str, Any]


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


def plan(config: Config) -> list[Stage]:
  """Returns the stages of a training; the last has the config's model as it is.

  Args:
    config: with `stages`, `model` and `stop_after_steps`.
  """
  stop = config["stop_after_steps"]
  stages: list[Stage] = []
  previous = 0
  for i, entry in enumerate(config["stages"]):
    path = f"stages[{i}]"
    kinds.check_arguments(path, Entry, entry)
    until, changes = entry["until"], entry["model"]
    kinds.check(f"{path}.until", until, Annotated[int, kinds.Above(previous)])
    model = _replace(config["model"], changes, f"{path}.model")
    stages.append(Stage(min(until, stop), model, changes))
    previous = until
  return [*stages, Stage(stop, config["model"], {})]


@dataclasses.dataclass
class Entry:
  """What an entry of `stages` has."""

  until: int
  model: Config


def _replace(config: Config, changes: Any, path: str) -> dict[str, Any]:
  """Returns a copy of the config with these entries replaced."""
  kinds.check(path, changes, dict)
  replaced = dict(config)
  for key, value in changes.items():
    if key not in config:
      raise errors.UserError(
        f"`{path}.{key}` is not an entry of the config: use some of "
        f"{', '.join(config)}"
      )
    if isinstance(config[key], Mapping):
      value = _replace(config[key], value, f"{path}.{key}")
    replaced[key] = value
  return replaced
