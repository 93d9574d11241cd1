"""Writing a checkpoint for the original."""

from __future__ import annotations

from iodine import checkpoints, errors, validation
from iodine.commands import common

Config = common.Config


def run(config: Config, checkpoint_dir: str, output: str | None) -> str:
  """Writes a checkpoint as the original would have; returns its prefix.

  Raises:
    errors.UserError: see `checkpoints.restore` and `checkpoints.export`.
  """
  if output is None:
    raise errors.UserError(
      "`output` is not set: give the prefix of the checkpoint to write, such "
      "as `output=tf1/model.ckpt`"
    )
  validation.check_path("output", output, "the prefix of a checkpoint to write")
  checkpoints.check_export(output)
  restored = common.restore(config, checkpoint_dir)
  prefix = checkpoints.export(output, restored.model, restored.optimizer)
  print(f"written: {prefix}", flush=True)
  return prefix
