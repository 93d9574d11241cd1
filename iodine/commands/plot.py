"""Pictures of chosen scenes, of the prior and of the latents."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from iodine import checkpoints, errors, evaluation, files, validation
from iodine.commands import common, make_data
from iodine.modules import data as data_lib
from iodine.modules import iodine

Config = common.Config


class Options(NamedTuple):
  """What is drawn.

  Attributes:
    scenes: numbers of those in the test subset.
    slot: whose latents are traversed, from 0; None for that of the second
      largest area.
    num_scenes_for_map: how many are in `latents` and `metrics`.
  """

  scenes: tuple[int, ...]
  slot: int | None
  num_scenes_for_map: int


def run(config: Config, checkpoint_dir: str) -> list[str]:
  """Draws a checkpoint's scenes, metrics, prior samples and latents.

  Returns:
    The paths of the pictures.

  Raises:
    errors.UserError: if an option makes no sense or a scene is not there.
  """
  options = read_options(config)
  prefix = checkpoints.find(checkpoint_dir)
  folder = config["pictures_dir"] or common.results_path(
    config, prefix, "plots"
  )
  files.check_folder(folder)
  make_data.ensure_dataset(config)
  dataset = common.build_dataset(
    config["data"], config["seed"], config["model"]
  )
  batches = dataset.batches("test")
  model = common.restore(checkpoints.as_evaluated(config), prefix).model
  print(f"plotting {prefix}", flush=True)
  view = look(model, dataset, batches, options, config["seed"])
  paths = []
  for picture in evaluation.draw(view, options.slot, config["seed"]):
    path = os.path.join(folder, picture.file_name)
    files.write(path, picture.encode())
    print(f"wrote {path}", flush=True)
    paths.append(path)
  return paths


def look(
  model: iodine.IODINE,
  dataset: data_lib.IODINEDataset,
  batches: Iterable[dict[str, Any]],
  options: Options,
  seed: int,
) -> evaluation.View:
  """Decomposes what is to be drawn, with progress on the terminal.

  Raises:
    errors.UserError: if a scene or a slot is not there.
  """
  if options.slot is not None and options.slot >= model.num_components:
    raise errors.UserError(
      f"`plot.slot` is {options.slot + 1}, and the model has "
      f"{model.num_components} slots: give one of them, or None"
    )
  scenes, survey = evaluation.look(
    model,
    batches,
    dataset.batch_size,
    options.scenes,
    options.num_scenes_for_map,
    seed=seed,
    on_progress=lambda done: print(f"{done} scenes", flush=True),
  )
  assert survey is not None  # at least one scene is surveyed
  decoder = evaluation.Decoder(model, dataset.batch_size)
  return evaluation.View(decoder, scenes, survey)


def read_options(config: Config) -> Options:
  """Reads `plot`.

  Raises:
    errors.UserError: if an entry makes no sense.
  """
  options = config["plot"]
  validation.require(
    isinstance(options, Mapping),
    "plot",
    options,
    "its entries, such as `plot.scenes=[0,1]`",
  )
  scenes, slot = options["scenes"], options["slot"]
  validation.require(
    validation.is_list(scenes)
    and all(validation.is_whole(number, 0) for number in scenes),
    "plot.scenes",
    scenes,
    "a list of scenes of the test subset, such as [0,1,2]; they count from 0",
  )
  validation.require(
    slot is None or validation.is_whole(slot, 1),
    "plot.slot",
    slot,
    "the number of a slot as in the pictures, from 1, or None",
  )
  num_scenes = options["num_scenes_for_map"]
  validation.check_whole("plot.num_scenes_for_map", num_scenes, 1)
  return Options(
    tuple(dict.fromkeys(scenes)),
    None if slot is None else slot - 1,
    num_scenes,
  )
