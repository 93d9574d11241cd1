"""Comparison with recorded tensors of the original."""

from __future__ import annotations

import os
from typing import Any

import tabulate
import tensorflow as tf

from iodine import comparison, errors, files, validation
from iodine.commands import common
from iodine.drawing import image_files

Config = common.Config


def run(
  config: Config, checkpoint_dir: str, reference: str | None
) -> dict[str, Any]:
  """Compares a checkpoint with recorded tensors; table, JSON and a picture.

  Returns:
    See `comparison.as_json`.

  Raises:
    errors.UserError: see `comparison` and `checkpoints.restore`.
  """
  if reference is None:
    raise errors.UserError(
      "`reference` is not set: give an npz file or a folder of recorded "
      "tensors, docs/comparing.md says how to make one"
    )
  reference = files.as_written(reference)
  validation.check_path(
    "reference", reference, "an npz file or a folder of recorded tensors"
  )
  tolerance = config["tolerance"]
  validation.check_number("tolerance", tolerance, above=0.0)
  if config["json_path"] is not None:
    files.check_json(config["json_path"])
  folder = config["pictures_dir"] or "comparison"
  files.check_folder(folder)
  # Rounded to TF32, results would lie beyond the bounds.
  tf.config.experimental.enable_tensor_float_32_execution(False)
  recorded = comparison.read_reference(reference)
  image_shape = tuple(recorded.data["image"].shape[2:])
  restored = common.restore(config, checkpoint_dir, image_shape)
  print(f"comparing {restored.prefix} with {reference}", flush=True)
  deviations: list[comparison.Deviation] = []
  if recorded.info:
    found, info = comparison.compare_info(restored.model, recorded, tolerance)
    deviations += found
    picture = os.path.join(folder, "comparison.png")
    rows = comparison.picture_rows(info, recorded.info)
    steps = [f"step {t}" for t in range(restored.model.num_iters + 1)]
    image_files.save_image_rows(picture, rows, steps)
    print(f"picture: {picture}", flush=True)
  if recorded.train:
    deviations += comparison.compare_train_step(
      restored.model, restored.optimizer, recorded
    )
  print(
    tabulate.tabulate(
      comparison.table_rows(deviations),
      headers=("tensor", "step", "deviation", "bound", "at", ""),
      floatfmt=".1e",
      disable_numparse=[4],
    )
  )
  result = comparison.as_json(deviations)
  if config["json_path"] is not None:
    files.write_json(config["json_path"], result)
    print(f"metrics: {config['json_path']}")
  worst = comparison.worst(deviations)
  failed = sum(not each.passed for each in deviations)
  print(
    f"{len(deviations)} tensors, {failed} beyond "
    f"their bounds; closest to its bound or furthest beyond: {worst.name}, "
    f"{worst.deviation:.1e} of {worst.bound:.1e}",
    flush=True,
  )
  return result
