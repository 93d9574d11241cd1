"""Looking at checkpoints."""

from __future__ import annotations

import numpy as np
import tabulate

from iodine.commands import common
from iodine.modules import iodine

Config = common.Config


def run(config: Config, checkpoint: common.Checkpoint) -> iodine.IODINE:
  """Restores a TF1 or TF2 checkpoint and prints its variables.

  Args:
    config: the complete config.
    checkpoint: see `checkpoints.open_checkpoint`.
  """
  restored = common.restore(config, checkpoint)
  model, report = restored.model, restored.report
  rows = [
    (name, status, report.shapes[name], int(np.prod(report.shapes[name])))
    for name, status in sorted(report.status.items())
  ]
  trainable = sum(v.shape.num_elements() for v in model.trainable_variables)
  total = sum(v.shape.num_elements() for v in model.variables)
  print(tabulate.tabulate(rows, headers=("variable", "", "shape", "count")))
  print(f"trainable: {trainable:,} of {total:,} numbers")
  print(f"global step: {int(restored.optimizer.global_step)}")
  print(f"restored: {restored.prefix}")
  return model
