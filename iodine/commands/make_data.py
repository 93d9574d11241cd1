"""Generating data."""

from __future__ import annotations

import glob
import os

from iodine import (
  errors,
  synthetic,
  validation,
)
from iodine.commands import common
from iodine.readers import opening

Config = common.Config


def make_data(
  config: Config, data_dir: str | None, num_scenes: int, seed: int
) -> str:
  """Generates a data set that stands in for the public one.

  Args:
    config: the config of the data set that it is for.
    data_dir: folder to write to, under the public file's name; None writes
      the file that the config reads.
    num_scenes: how many scenes.
    seed: the scenes follow from it.

  Returns:
    The path of the file.

  Raises:
    errors.UserError: if there is no generator for this data set, or the file
      cannot be written.
  """
  dataset = common.build_dataset(config, seed)
  name = dataset.generator_name
  if name is None:
    raise errors.UserError(
      "there is no generator for this data set: use the public files, or "
      "another named config"
    )
  if data_dir is not None:
    validation.check_path("data_dir", data_dir, "the path of a folder")
    path = os.path.join(data_dir, synthetic.DATASETS[name].file_name)
  elif isinstance(dataset.path, str):
    path = dataset.path
  else:
    opening.as_list(dataset.path)  # it may be no path at all
    raise errors.UserError(
      "`data.path` names several files: give `data_dir`, the folder to write "
      "the generated file to"
    )
  if glob.has_magic(path):
    raise errors.UserError(
      f"`data.path` is {path}, a glob: give `data_dir`, the folder to write "
      "the generated file to"
    )
  print(f"generating {num_scenes} scenes of {name}, seed {seed}", flush=True)
  synthetic.write_dataset(
    name, path, num_scenes, seed, progress=_Progress("scenes")
  )
  print(f"data: {path}", flush=True)
  return path


def run(config: Config, data_dir: str | None = None) -> str:
  """Calls `make_data` with what a complete config says of the scenes."""
  return make_data(
    config["data"], data_dir, config["num_scenes"], _scenes_seed(config)
  )


def provide(config: Config) -> None:
  """Generates the scenes that a config reads, where it generates its own.

  That is where `data.path` is still `generated_path`, and missing: a misspelt
  path of somebody's scenes should not be filled with others.

  Raises:
    errors.UserError: if no experiment was chosen, or the file cannot be
      written.
  """
  common.require_experiment(config["data"])
  path = config["generated_path"]
  if not isinstance(path, str) or config["data"].get("path") != path:
    return
  if not os.path.exists(path):
    run(config)


def _scenes_seed(config: Config) -> int:
  """Returns what generated scenes follow from: `data_seed`, or else `seed`.

  Raises:
    errors.UserError: if it is not a seed.
  """
  seed: int = config["seed"]
  if config["data_seed"] is not None:
    seed = config["data_seed"]
  if not validation.is_whole(seed, 0):
    raise errors.UserError(
      f"`data_seed` is {seed!r}: give a whole number, at least 0"
    )
  return seed


class _Progress:
  """Prints how far a command is, about twenty times in all."""

  def __init__(self, unit: str):
    self._unit = unit
    self._shown = 0.0

  def __call__(self, done: int, total: int) -> None:
    if done == total or done >= self._shown + total / 20:
      self._shown = done
      print(f"{done}/{total} {self._unit}", flush=True)
