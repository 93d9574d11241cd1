"""Checkpoints of this project and of the original: found, read, written."""

from iodine.checkpoints import tf1
from iodine.checkpoints.configs import (
  as_evaluated,
  as_trained,
  config_beside,
  config_path,
)
from iodine.checkpoints.finding import (
  Opened,
  Report,
  check_name,
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
from iodine.checkpoints.tf2 import read_seed, variables_by_path

__all__ = [
  "CheckpointStore",
  "Opened",
  "Report",
  "all_variables",
  "as_evaluated",
  "as_trained",
  "check_export",
  "check_name",
  "config_beside",
  "config_path",
  "export",
  "find",
  "latest",
  "model_variables",
  "open_checkpoint",
  "read_seed",
  "restore",
  "restore_model",
  "run_folder",
  "tf1",
  "variables_by_path",
]
