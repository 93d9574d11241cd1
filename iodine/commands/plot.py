"""Pictures of chosen scenes, of the prior and of the latents."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable

import tqdm

from iodine import checkpoints, errors, evaluation, files
from iodine.commands import common, evaluate
from iodine.drawing import canvas
from iodine.modules import datasets, iodine

Config = common.Config


def run(config: Config, checkpoint: common.Checkpoint) -> list[str]:
  """Draws a checkpoint's scenes, metrics, prior samples and latents.

  Args:
    config: the complete config.
    checkpoint: a path, or what `checkpoints.open_checkpoint` returned.

  Returns:
    The paths of the pictures.
  """
  opened = checkpoints.open_checkpoint(checkpoint)
  folder = evaluate.pictures_folder(config, opened.prefix, "plots")
  files.check_folder(folder)
  is_video = config["plot"]["traversal_film"] == "mp4"
  if is_video and importlib.util.find_spec("av") is None:
    raise errors.UserError(
      "`plot.traversal_film` is 'mp4', which needs PyAV: run `pip install av`, "
      "or give 'gif'"
    )
  dataset = evaluate.build_dataset(config)
  model = common.restore(checkpoints.as_evaluated(config), opened).model
  print(f"plotting {opened.prefix}", flush=True)
  scenes, statistics = decompose(config, model, dataset)
  decoder = evaluation.Decoder(model, dataset.batch_size)
  paths = []
  with canvas.styled(config["plot"]):
    for picture in draw(config, decoder, scenes, statistics):
      path = os.path.join(folder, picture.file_name)
      files.write(path, picture.encode())
      tqdm.tqdm.write(f"wrote {path}")
      paths.append(path)
  return paths


def decompose(
  config: Config, model: iodine.IODINE, dataset: datasets.SceneDataset
) -> tuple[list[evaluation.Scene], evaluation.SceneStatistics]:
  """Decomposes what is to be drawn, with progress on the terminal.

  Args:
    config: the complete config, of which `plot` counts, and the seed.
    model: the model.
    dataset: whose test subset has the scenes.
  """
  options = config["plot"]
  evaluate.check_pictures(config, model)
  scenes, statistics = evaluation.decompose_scenes(
    model,
    tqdm.tqdm(dataset.batches("test"), "scenes to draw", unit=" batches"),
    dataset.batch_size,
    list(dict.fromkeys(options["scenes"])),
    options["num_scenes_for_map"],
    config["seed"],
  )
  assert statistics is not None  # of one scene at least
  return scenes, statistics


def draw(
  config: Config,
  decoder: evaluation.Decoder,
  scenes: list[evaluation.Scene],
  statistics: evaluation.SceneStatistics,
) -> Iterable[evaluation.Picture]:
  """Draws one picture after the other, with progress on the terminal."""
  drawn = evaluation.draw(
    decoder, scenes, statistics, config["plot"], config["seed"]
  )
  return tqdm.tqdm(drawn, "pictures", unit=" pictures")
