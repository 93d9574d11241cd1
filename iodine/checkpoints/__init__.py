"""Checkpoints of this project and of the original: found, read, written."""

from iodine.checkpoints import tf1
from iodine.checkpoints.finding import (
  Opened,
  Report,
  check_name,
  config_beside,
  config_path,
  find,
  latest,
  open_checkpoint,
  run_folder,
)
from iodine.checkpoints.restoring import restore, restore_model
from iodine.checkpoints.store import CheckpointStore
from iodine.checkpoints.tf1 import (
  all_variables,
  check_export,
  export,
  model_variables,
)
from iodine.checkpoints.tf2 import variables_by_path
from iodine.config_files import as_evaluated

__all__ = [
  "CheckpointStore",
  "Opened",
  "Report",
  "all_variables",
  "as_evaluated",
  "check_export",
  "check_name",
  "config_beside",
  "config_path",
  "export",
  "find",
  "latest",
  "model_variables",
  "open_checkpoint",
  "restore",
  "restore_model",
  "run_folder",
  "tf1",
  "variables_by_path",
]
