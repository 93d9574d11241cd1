"""Writing a checkpoint for the original."""

from __future__ import annotations

from iodine import checkpoints, errors
from iodine.commands import common

Config = common.Config


def run(
  config: Config, checkpoint: common.Checkpoint, output: str | None
) -> str:
  """Writes a checkpoint as the original would have; returns its prefix.

  Args:
    config: the complete config.
    checkpoint: see `checkpoints.open_checkpoint`.
    output: the prefix to write.
  """
  if output is None:
    raise errors.UserError(
      "`output` is not set: give the prefix of the checkpoint to write, such "
      "as `output=tf1/model.ckpt`"
    )
  checkpoints.tf1.check_export(output)
  restored = common.restore(config, checkpoint)
  prefix = checkpoints.tf1.export(output, restored.model, restored.optimizer)
  print(f"written: {prefix}", flush=True)
  return prefix
