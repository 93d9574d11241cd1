"""Decomposing images from outside."""

from __future__ import annotations

import collections
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from iodine import checkpoints, errors, files, segmentation, validation
from iodine.commands import common
from iodine.readers import image_files

Config = common.Config

_OUTPUT = "segments"


def run(
  config: Config, checkpoint_dir: str, images: Any, output: str | None
) -> dict[str, Any]:
  """Decomposes images and writes a folder of files for each.

  All images are read before the first is decomposed: where one is broken,
  nothing is written.

  Args:
    config: the complete config.
    checkpoint_dir: see `checkpoints.find`.
    images: see `image_files.find`.
    output: folder to write to; None for `segments`. An image's folder in it
      is named after the image, with a number where several are called alike;
      that of an earlier run is replaced.

  Returns:
    What `json_path` gets: the seed, and for each image its path,
    folder, active slots (from 1) and mean squared error.

  Raises:
    errors.UserError: if an image cannot be read, a folder holds other files,
      or the checkpoint does not fit.
  """
  prefix = checkpoints.find(checkpoint_dir)
  paths = image_files.find(images)
  folders = _folders(paths, output)
  if config["json_path"] is not None:
    files.check_writable(config["json_path"])
  _check_all(paths)
  model = common.restore(checkpoints.as_evaluated(config), prefix).model
  files.make_folder(os.path.dirname(folders[0]) or ".")
  segmenter = segmentation.Segmenter(
    model, model.output_dist.output_shape, config["seed"]
  )
  print(
    f"decomposing with {prefix}, samples drawn from seed {config['seed']}",
    flush=True,
  )
  described = []
  for i, (path, folder) in enumerate(zip(paths, folders, strict=True)):
    described.append(_segment_one(segmenter, path, folder))
    print(f"{i + 1}/{len(paths)} {_describe(described[-1])}", flush=True)
  result = {"seed": config["seed"], "images": described}
  if config["json_path"] is not None:
    files.write_json(config["json_path"], result)
    print(f"metrics: {config['json_path']}", flush=True)
  return result


def _folders(paths: Sequence[str], output: Any) -> list[str]:
  """Returns a folder for each image, none of them twice."""
  if output is None:
    output = _OUTPUT
  validation.check_path("output", output, "the path of a folder to write to")
  stems = [os.path.splitext(os.path.basename(path))[0] for path in paths]
  counts = collections.Counter(stems)
  taken = set(stems)
  folders = []
  for stem in stems:
    name, number = stem, 0
    # Numbers for all that are called alike, but none that is another's name.
    while counts[stem] > 1 and name in taken:
      number += 1
      name = f"{stem}_{number}"
    taken.add(name)
    folders.append(os.path.join(output, name))
  for folder in folders:
    _check_replaceable(folder)
  return folders


def _check_replaceable(folder: str) -> None:
  """Raises where a folder holds what an earlier run did not write."""
  if os.path.lexists(folder) and not (
    os.path.isdir(folder) and segmentation.are_all_ours(folder)
  ):
    raise errors.UserError(
      f"`{folder}` is there already and was not written by `segment`: give "
      "another `output`"
    )


def _check_all(paths: Sequence[str]) -> None:
  """Raises a UserError that names the images that cannot be read."""
  problems = map(image_files.find_problem, paths)
  messages = [problem for problem in problems if problem is not None]
  if len(messages) == 1:
    raise errors.UserError(messages[0])
  if messages:
    raise errors.UserError(
      f"{len(messages)} of {len(paths)} images cannot be read: "
      + "; ".join(messages)
    )


def _segment_one(
  segmenter: segmentation.Segmenter, path: str, folder: str
) -> dict[str, Any]:
  """Decomposes one image and writes its files; returns what to say of it."""
  original = image_files.read(path)
  found = segmenter(original)
  with files.replaced_folder(folder) as temporary:
    segmentation.write(temporary, found, original)
  mse = np.square(found.image - found.reconstruction).mean(dtype=np.float64)
  return {
    "image": path,
    "folder": folder,
    "active_slots": [k + 1 for k in found.active_slots()],
    "mse": float(mse),
  }


def _describe(image: dict[str, Any]) -> str:
  slots = image["active_slots"]
  return (
    f"{image['image']} -> {image['folder']}: slot"
    f"{'s' * (len(slots) > 1)} {', '.join(map(str, slots))}, squared error "
    f"{image['mse']:.5f}"
  )
