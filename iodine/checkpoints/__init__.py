"""Checkpoints of this project and of the original: found, read, written."""

from iodine.checkpoints import tf1
from iodine.checkpoints.finding import (
  Opened,
  Report,
  check_name,
  config_beside,
  config_path,
  identity,
  latest,
  open_checkpoint,
  run_folder,
)
from iodine.checkpoints.packed import is_unpacked
from iodine.checkpoints.restoring import restore, restore_model
from iodine.checkpoints.store import CheckpointStore
from iodine.checkpoints.tf2 import variables_by_path
from iodine.config_files import as_evaluated

__all__ = [
  "CheckpointStore",
  "Opened",
  "Report",
  "as_evaluated",
  "check_name",
  "config_beside",
  "config_path",
  "identity",
  "is_unpacked",
  "latest",
  "open_checkpoint",
  "restore",
  "restore_model",
  "run_folder",
  "tf1",
  "variables_by_path",
]
