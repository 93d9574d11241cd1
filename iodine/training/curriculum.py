"""A training in stages: some of the model's entries differ at first.

The config's `stages` is a list such as

  [{"until": 2500, "model": {"num_components": 4, "kl_weight": 0.6}}]

Until step 2500 the model's config has these entries instead of its own, and
from there on its own. Entries may differ that change no variable's shape, as
the number of slots, of refinements, and the weight of the KL do. Not in the
original, whose configs have no stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iodine import config_files
from iodine.config_files import Stage

Config = Mapping[str, Any]


def plan(config: Config) -> list[Stage]:
  """Returns the stages of a training; the last has the config's model as it is.

  Args:
    config: with `stages`, `model` and `stop_after_steps`.
  """
  stop = config["stop_after_steps"]
  return [
    *(
      stage._replace(last_step=min(stage.last_step, stop))
      for stage in config_files.stages(config)
    ),
    Stage(stop, config["model"], {}),
  ]
