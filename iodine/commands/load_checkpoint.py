"""Looking at checkpoints."""

from __future__ import annotations

import numpy as np
import tabulate

from iodine import checkpoints
from iodine.commands import common
from iodine.modules import iodine

Config = common.Config


def run(config: Config, checkpoint_dir: str) -> iodine.IODINE:
  """Restores a TF1 or TF2 checkpoint and prints its variables.

  Raises:
    errors.UserError: see `checkpoints.restore`.
  """
  restored = common.restore(config, checkpoint_dir)
  model, prefix = restored.model, restored.prefix
  if restored.report is None:
    variables = checkpoints.variables_by_path(model)
    shapes = {name: tuple(v.shape) for name, v in variables.items()}
    fates = dict.fromkeys(shapes, "restored")
  else:
    shapes = restored.report.shapes
    fates = {
      name: fate.replace("_", " ")
      for fate in ("restored", "left_fresh", "unused")
      for name in getattr(restored.report, fate)
    }
  rows = [
    (name, fate, shapes[name], int(np.prod(shapes[name])))
    for name, fate in sorted(fates.items())
  ]
  trainable = sum(v.shape.num_elements() for v in model.trainable_variables)
  total = sum(v.shape.num_elements() for v in model.variables)
  print(tabulate.tabulate(rows, headers=("variable", "", "shape", "count")))
  print(f"trainable: {trainable:,} of {total:,} numbers")
  print(f"global step: {int(restored.optimizer.global_step)}")
  print(f"restored: {prefix}")
  return model
