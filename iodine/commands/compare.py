"""Comparison with recorded tensors of the original."""

from __future__ import annotations

import os
import textwrap
from typing import Any

import tabulate
import tensorflow as tf

from iodine import comparison, files
from iodine.commands import common
from iodine.drawing import canvas

Config = common.Config


def run(
  config: Config, checkpoint: common.Checkpoint, reference: str | None
) -> dict[str, Any]:
  """Compares a checkpoint with recorded tensors; table, JSON and a picture.

  Returns:
    See `comparison.Comparison.as_json`.
  """
  json_path = config["json_path"]
  if json_path is not None:
    files.check_writable(json_path, "{")
  folder = config["pictures_dir"] or "comparison"
  files.check_folder(folder)
  # Rounded to TF32, results would lie beyond the bounds.
  tf.config.experimental.enable_tensor_float_32_execution(False)
  recorded = comparison.read_reference(reference)
  image_shape = tuple(recorded.data["image"].shape[2:])
  restored = common.restore(config, checkpoint, image_shape)
  print(f"comparing {restored.prefix} with {reference}", flush=True)
  compared = comparison.compare(
    restored.model, restored.optimizer, recorded, config["tolerance"]
  )
  result = compared.as_json()
  worst = compared.worst
  failed = sum(not each.passed for each in compared.deviations)
  print(
    f"{'passed' if result['passed'] else 'FAILED'}: "
    f"{len(compared.deviations)} tensors, {failed} beyond their bounds; "
    f"closest to its bound or furthest beyond: {worst.name}, "
    f"{worst.deviation:.1e} of {worst.bound:.1e}"
  )
  if recorded.has_info:
    pictures = comparison.picture_rows(compared.computed, recorded.tensors)
    steps = [f"step {t}" for t in range(restored.model.num_iters + 1)]
    rows = [
      canvas.make_row(images, steps, textwrap.fill(title, 20))
      for title, images in pictures.items()
    ]
    figure = canvas.Tiles(rows).figure
    picture = canvas.save(figure, os.path.join(folder, "comparison"))
    print(f"picture: {picture}", flush=True)
  headers = ("tensor", "step", "deviation", "bound", "at", "")
  print(
    tabulate.tabulate(
      compared.table_rows(), headers, floatfmt=".1e", disable_numparse=[4]
    )
  )
  if json_path is not None:
    files.write_json(json_path, result)
    print(f"metrics: {json_path}")
  if compared.new:
    print(f"not in the reference: {', '.join(compared.new)}", flush=True)
  return result
