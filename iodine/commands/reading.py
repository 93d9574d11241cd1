"""What a continued run does otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from iodine import checkpoints, config_files

Config = Mapping[str, Any]


def tell_changes(config: Config, prefix: str) -> None:
  """Prints in one line what a continued run does otherwise from now on.

  Args:
    config: the complete config.
    prefix: of the checkpoint that it goes on from.
  """
  if not os.path.exists(checkpoints.config_path(prefix)):
    return
  stored = checkpoints.config_beside(prefix)
  # Not known of older runs.
  environment = ["environment"] if stored.get("environment") else []
  found = config_files.differences(
    config,
    stored,
    ("data", "model", "optimizer", "stages", *environment),
    ("data.cache", "data.seed", "model.refinement_batch_size"),
  )
  if found:
    print(f"unlike the run so far: {found}", flush=True)
