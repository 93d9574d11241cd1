"""Generating data."""

from __future__ import annotations

import glob
import os
from typing import Any

from iodine import (
  errors,
  synthetic,
  validation,
)
from iodine.commands import common

Config = common.Config


def make_data(
  config: Config,
  data_dir: str | None,
  num_scenes: int,
  seed: int,
  generator: str | None = None,
  data_format: str | None = None,
) -> str:
  """Generates a data set, such as one that stands in for the public one.

  Args:
    config: the config of the data set that it is for.
    data_dir: folder to write to: a file under the public one's name, or, as
      PNGs, the scenes themselves; None writes what the config reads.
    num_scenes: how many scenes.
    seed: the scenes follow from it.
    generator: a key of `synthetic.DATASETS`; None for the data set's own.
    data_format: see `synthetic.write_dataset`; None for NPZ where films or such
      a file are asked for, and TFRecords otherwise.

  Returns:
    The path of the file or folder.

  Raises:
    errors.UserError: if there is no generator for this data set, it does not
      draw what the format holds, or the file or folder cannot be written.
  """
  if generator is None:
    name = common.build_dataset(config, seed).generator_name
  else:
    names = tuple(synthetic.DATASETS)
    validation.check_choice("generator", generator, names)
    common.require_experiment(config)
    name = generator
  if name is None:
    raise errors.UserError(
      "there is no generator for this data set: use the public files, or "
      "another named config"
    )
  path, data_format = _place(config["path"], data_dir, name, data_format)
  print(f"generating {num_scenes} scenes of {name}, seed {seed}", flush=True)
  synthetic.write_dataset(
    name,
    path,
    num_scenes,
    seed,
    progress=_Progress("scenes"),
    data_format=data_format,
  )
  print(f"data: {path}", flush=True)
  return path


def _place(
  read_path: Any, data_dir: str | None, name: str, data_format: str | None
) -> tuple[str, str]:
  """Returns the path and the format to write; arguments as for `make_data`.

  Args:
    read_path: `data.path`.
    data_dir: see `make_data`.
    name: of the generator.
    data_format: see `make_data`.
  """
  dataset = synthetic.DATASETS[name]
  if data_dir is not None:
    validation.check_path("data_dir", data_dir, "the path of a folder")
    path = data_dir
  elif isinstance(read_path, str):
    path = read_path
  else:
    raise errors.UserError(
      "`data.path` names several files: give `data_dir`, the folder to write "
      "the generated file to"
    )
  if data_format is None:
    is_npz = dataset.is_film or (data_dir is None and path.endswith(".npz"))
    data_format = "npz" if is_npz else "tfrecords"
  synthetic.check_format(name, data_format)
  if data_dir is not None and data_format != "png":
    stem = os.path.splitext(dataset.file_name)[0]
    path = os.path.join(data_dir, f"{stem}.{data_format}")
  if (
    data_dir is None
    and data_format != "tfrecords"
    and (path.endswith(".tfrecords"))
  ):
    raise errors.UserError(
      f"`data.path` is {path}, and `data_format` {data_format!r}: give "
      "`data_dir`, the folder to write to"
    )
  if data_dir is None and glob.has_magic(path):
    raise errors.UserError(
      f"`data.path` is {path}, a glob: give `data_dir`, the folder to write "
      "the generated file to"
    )
  return path, data_format


def run(config: Config, data_dir: str | None = None) -> str:
  """Calls `make_data` with what a complete config says of the scenes."""
  return make_data(
    config["data"],
    data_dir,
    config["num_scenes"],
    _scenes_seed(config),
    config["generator"],
    config["data_format"],
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
    # In the format that is read, whatever is written elsewhere.
    run({**config, "data_format": None})


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
