"""Generating data."""

from __future__ import annotations

import glob
import os
from typing import Any

import filelock

from iodine import config_files, errors, files, synthetic
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
  """
  config_files.require_experiment(config)
  name = generator or common.build_dataset(config, seed).generator_name
  if name not in synthetic.DATASETS:
    raise errors.UserError(
      f"`generator` is {generator!r}, which is no generator for this data set: "
      f"use one of {', '.join(synthetic.DATASETS)}, or the public files"
    )
  path, data_format = _place(config.get("path"), data_dir, name, data_format)
  print(f"generating {num_scenes} scenes of {name}, seed {seed}", flush=True)
  synthetic.write_dataset(
    name, path, num_scenes, seed, data_format=data_format, progress=True
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
  suffix = os.path.splitext(str(read_path))[1]
  if data_format is None:
    is_npz = data_dir is None and suffix == ".npz"
    data_format = "npz" if is_npz else dataset.formats[0]
  if data_dir is not None:
    if data_format == "png":
      return data_dir, data_format
    return os.path.join(data_dir, f"{dataset.stem}.{data_format}"), data_format
  is_one = isinstance(read_path, str) and not glob.has_magic(read_path)
  if not is_one or (suffix == ".tfrecords" and data_format != "tfrecords"):
    raise errors.UserError(
      f"`data.path` is {read_path!r}, where no {data_format!r} are written: "
      "give `data_dir`, the folder to write to"
    )
  return read_path, data_format


def run(config: Config, data_dir: str | None = None) -> str:
  """Calls `make_data` with what a complete config says of the scenes.

  They follow from `data_seed`, or else from `seed`.
  """
  data_seed = config["data_seed"]
  return make_data(
    config["data"],
    data_dir,
    config["num_scenes"],
    config["seed"] if data_seed is None else data_seed,
    config["generator"],
    config["data_format"],
  )


def ensure_dataset(config: Config) -> None:
  """Generates the scenes that a config reads, where it generates its own.

  That is where `data.path` is still `generated_path`, and missing: a misspelt
  path of somebody's scenes should not be filled with others.
  """
  config_files.require_experiment(config["data"])
  path = config["generated_path"]
  is_generated = path is not None and config["data"].get("path") == path
  if is_generated and not os.path.exists(path):
    files.make_folder(os.path.dirname(path) or os.curdir)
    # Of several processes that want the same scenes, one makes them.
    with filelock.FileLock(f"{path}.lock"):
      if not os.path.exists(path):
        # In the format that is read, whatever is written elsewhere.
        run({**config, "data_format": None})
