"""What several commands share: objects from the config, checkpoints, files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from iodine import building, checkpoints, config_files, kinds, optimizers
from iodine.modules import data, datasets, iodine, types

Config = Mapping[str, Any]
# A prefix or a folder; or what `checkpoints.open_checkpoint` returned.
Checkpoint = str | os.PathLike[str] | checkpoints.Opened

# What of any `data` arrays in memory are read by, too.
_OF_ARRAYS = ("batch_size", "image_dim", "grayscale", "antialias")


def build_dataset(
  config: Config, seed: int, model: Config | None = None, dataset: Any = None
) -> datasets.SceneDataset:
  """Builds the data set; its order follows the seed of the run.

  Args:
    config: of the data set.
    seed: of the run.
    model: the config of a model, for whose regressor scenes are checked.
    dataset: it, if it is there already.
  """
  if dataset is None:
    config_files.require_experiment(config)
    dataset = building.build({"seed": seed, **config}, "data")
  if not isinstance(dataset, datasets.SceneDataset):
    # Ours have it all, and some would have to open their files to show it.
    kinds.check("data", dataset, types.DataSet)
  elif model is not None:
    regressor = model.get("factor_evaluator")
    if isinstance(regressor, Mapping):
      dataset.expect(regressor.get("mapping"))
  return dataset


def in_memory(
  scenes: Any, config: Config, **options: Any
) -> tuple[datasets.SceneDataset, Config]:
  """Returns the data set of what Python code has, and its config.

  Args:
    scenes: images [N, H, W, C]; a dict of arrays, see `readers.arrays`; or a
      data set, which is returned as it is.
    config: of a data set, by which images are read.
    **options: further ones, of `data.Arrays`.
  """
  if callable(scenes):
    kinds.check("data", scenes, types.DataSet)
    return scenes, config
  given = scenes if isinstance(scenes, Mapping) else {"image": scenes}
  arrays: Any = {name: np.asarray(x) for name, x in given.items()}
  known = {k: config[k] for k in _OF_ARRAYS if k in config}
  options = {"image_dim": None, **known, **options}
  name = "iodine.modules.data.Arrays"
  stored = {"constructor": name, "path": "an array in memory", **options}
  return data.Arrays(path=arrays, **options), stored


def tell_scenes(dataset: datasets.SceneDataset) -> None:
  """Says how many scenes there are, where that is known."""
  line = getattr(dataset, "about", lambda: None)()
  if line is not None:
    print(line, flush=True)


def build_model(
  config: Config, image_shape: tuple[int, ...], batch_size: int = 1
) -> iodine.IODINE:
  """Builds a model with all variables, if memory holds such batches."""
  config_files.require_experiment(config)
  model = building.build(config, "model")
  model.initialize(image_shape, batch_size)
  return model


def build_optimizer(config: Config, model: iodine.IODINE) -> optimizers.Adam:
  """Builds the optimizer of a model with all of its variables."""
  optimizer: optimizers.Adam = building.build(config, "optimizer")
  kinds.check("optimizer", optimizer, types.Optimizer)
  optimizer.initialize(model.trainable_variables)
  return optimizer


class Restored(NamedTuple):
  """A model and its optimizer as a checkpoint has them."""

  model: iodine.IODINE
  optimizer: optimizers.Adam
  prefix: str
  report: checkpoints.Report

  @property
  def step(self) -> int:
    """Returns how many updates there were."""
    return int(self.optimizer.global_step.numpy())


def restore(
  config: Config,
  checkpoint: Checkpoint,
  image_shape: tuple[int, ...] | None = None,
) -> Restored:
  """Restores a TF1 or TF2 checkpoint.

  The image shape is the data set's if it is not given.
  """
  # Before the model is built: a misspelt path should not cost seconds.
  opened = checkpoints.open_checkpoint(checkpoint)
  dataset = build_dataset(config["data"], config["seed"])
  model = build_model(config["model"], image_shape or dataset.image_shape)
  optimizer = build_optimizer(config["optimizer"], model)
  report = checkpoints.restore(opened, model, optimizer)
  return Restored(model, optimizer, opened.prefix, report)


def results_path(config: Config, prefix: str, name: str) -> str:
  """Returns where results go: beside the checkpoint, or into `results_dir`.

  Those of a packed model go to the current folder.
  """
  is_unpacked = checkpoints.is_unpacked(prefix)
  beside = os.curdir if is_unpacked else os.path.dirname(prefix)
  return os.path.join(config["results_dir"] or beside, name)
