"""The config that a training left beside its checkpoints."""

from __future__ import annotations

import os
from typing import Any

from iodine import config_files, files
from iodine.checkpoints import finding
from iodine.config_files import as_evaluated, as_trained, check_complete

__all__ = [
  "as_evaluated",
  "as_trained",
  "check_complete",
  "config_beside",
  "config_path",
]


def config_path(prefix: str) -> str:
  """Returns where a training leaves the config of its checkpoints."""
  return os.path.join(finding.run_folder(prefix), files.RUN_CONFIG)


def config_beside(prefix: str) -> dict[str, Any]:
  """Reads the config that the training of a checkpoint left beside it.

  Raises:
    errors.UserError: if there is none, it cannot be read, or it names code that
      is not trusted, see `building.trust`.
  """
  return config_files.read_beside(finding.run_folder(prefix))
