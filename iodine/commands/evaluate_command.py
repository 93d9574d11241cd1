"""Evaluation on held-out scenes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tabulate

from iodine import (
  checkpoints,
  errors,
  evaluation,
  summaries,
)
from iodine.commands import common
from iodine.modules import data as data_lib
from iodine.modules import image_files, iodine

Config = common.Config


def evaluate(config: Config, checkpoint_dir: str) -> evaluation.Evaluation:
  """Evaluates a checkpoint on the test subset; table, JSON and pictures.

  Raises:
    errors.UserError: see `checkpoints.restore` and `evaluation.evaluate`.
  """
  prefix = checkpoints.find(checkpoint_dir)
  num_scenes = _num_scenes(config["evaluation"])
  folder = pictures_folder(config, prefix)
  checkpoints.make_folder(folder)
  if config["json_path"] is not None:
    common.check_writable(config["json_path"])
  dataset = common.build_dataset(config["data"], config["seed"])
  batches = dataset.batches("test")
  model = common.restore(config, prefix).model
  print(f"evaluating {prefix}", flush=True)
  if dataset.test is None:
    print(
      "`data.test` is not set: these are all scenes of the file, seen in "
      "training or not",
      flush=True,
    )
  result = evaluation.evaluate(
    model,
    batches,
    dataset.batch_size,
    seed=config["seed"],
    num_scenes=num_scenes,
    on_progress=lambda done: print(f"{done} scenes", flush=True),
  )
  rows = [
    (name, value.mean, value.standard_error)
    for name, value in result.metrics.items()
  ]
  print(
    tabulate.tabulate(
      rows,
      headers=(f"{result.num_scenes} scenes", "mean", "standard error"),
      floatfmt=".4f",
      missingval="-",
    )
  )
  if config["json_path"] is not None:
    common.write_json(result.as_json(), config["json_path"])
    print(f"figures: {config['json_path']}")
  _write_pictures(model, dataset, folder)
  print(f"pictures: {folder}", flush=True)
  return result


def pictures_folder(config: Config, prefix: str) -> str:
  """Where the pictures of a checkpoint go."""
  return config["pictures_dir"] or os.path.join(
    os.path.dirname(prefix), "pictures"
  )


def _num_scenes(options: Any) -> int | None:
  num_scenes = options.get("num_scenes") if isinstance(options, Mapping) else 0
  if num_scenes is not None and (
    not isinstance(num_scenes, int) or num_scenes < 1
  ):
    raise errors.UserError(
      f"`evaluation` is {options!r}: give `evaluation.num_scenes` a whole "
      "number, at least 1, or None for all scenes"
    )
  return num_scenes


def _write_pictures(
  model: iodine.IODINE, dataset: data_lib.IODINEDataset, folder: str
) -> None:
  """Writes overview.png, sequence.png and samples.png."""
  example = next(iter(dataset.batches("test")))
  images = {
    name: np.asarray(image[0])
    for name, image in summaries.OverviewImages(model)(example).items()
  }
  slots = [f"slot {k + 1}" for k in range(model.num_components)]
  titles = {
    "overview": ["image", "reconstruction", "mask", *slots],
    "sequence": [f"step {t}" for t in range(model.num_iters + 1)],
    "samples": [],
  }
  for name, image in images.items():
    image_files.save_titled_image(
      os.path.join(folder, f"{name}.png"), image, titles[name]
    )
