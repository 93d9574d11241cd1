"""Decomposing images and films from outside."""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tqdm

from iodine import checkpoints, errors, files, segmentation
from iodine.commands import common
from iodine.readers import films as film_files
from iodine.readers import image_files

Config = common.Config

_OUTPUT = "segments"
# How many bytes of images are read before the first is decomposed.
_READ_AHEAD = 2**27


def run(
  config: Config,
  checkpoint: common.Checkpoint,
  images: Any,
  output: str | None,
) -> dict[str, Any]:
  """Decomposes images, or films, and writes a folder of files for each.

  Each is decoded once. Those of the first 128 MiB are so before the first is
  decomposed: where one of them is broken, nothing is written. A broken one
  after that ends the command, and what is written stays.

  Args:
    config: the complete config, of which `films` may stand in for images.
    checkpoint: a path, or what `checkpoints.open_checkpoint` returned.
    images: see `image_files.find`.
    output: folder to write to; None for `segments`. An image's folder in it
      is named after the image, with a number where several are called alike;
      that of an earlier run is replaced, unless it holds one of the images.

  Returns:
    What `json_path` gets: the seed, and for each image or film its path,
    folder, active slots (from 1) and mean squared error.
  """
  opened = checkpoints.open_checkpoint(checkpoint)
  json_path, films = config["json_path"], config["films"]
  batch_size = config["segment"]["batch_size"] if films is None else 1
  _check_batch_size(config, batch_size)
  readers = _find(images, films)
  output = output or _OUTPUT
  folders = _folders(list(readers), output)
  files.check_folder(output)
  if json_path is not None:
    files.check_writable(json_path, "{")
  originals = _read(list(readers.values()))
  model = common.restore(checkpoints.as_evaluated(config), opened).model
  print(
    f"decomposing with {opened.prefix}, samples drawn from seed "
    f"{config['seed']}",
    flush=True,
  )
  segmenter = segmentation.Segmenter(
    model, model.output_dist.output_shape, config["seed"], batch_size
  )
  kind = "image" if films is None else "film"
  with tqdm.tqdm(total=len(readers), unit=f" {kind}s") as bar:
    work = zip(readers, folders, originals, strict=True)
    described = _decompose(segmenter, work, bar, kind)
  result = {"seed": config["seed"], f"{kind}s": described}
  if json_path is not None:
    files.write_json(json_path, result)
    print(f"metrics: {json_path}", flush=True)
  return result


def _check_batch_size(config: Config, size: int) -> None:
  """Raises a UserError where images of a batch would not be independent."""
  if size > 1 and config["model"].get("refinement_batch_size") is None:
    raise errors.UserError(
      f"`segment.batch_size` is {size}, but without a "
      "`model.refinement_batch_size` images of a batch depend on each other: "
      "set it to the batch size of the training, or decompose them one by one"
    )


def _find(images: Any, films: Any) -> dict[str, Callable[[], np.ndarray]]:
  """Returns what reads each image or film, by its path."""
  if films is None:
    paths = image_files.find(images)
    return {path: functools.partial(image_files.read, path) for path in paths}
  if images is not None:
    raise errors.UserError(
      "`images` and `films` are both set: decompose them one after the other"
    )
  return {
    film.path: functools.partial(film_files.read, film)
    for film in film_files.find("films", films)
  }


def _folders(paths: Sequence[str], output: str) -> list[str]:
  """Returns a folder for each image or film, none of them twice."""
  stems = [pathlib.PurePath(os.path.abspath(path)).stem for path in paths]
  counts = collections.Counter(stems)
  taken = set(stems)
  folders = []
  for stem in stems:
    name = stem
    if counts[stem] > 1:
      # All that are called alike have numbers, but none is another's name.
      numbered = (f"{stem}_{number}" for number in itertools.count(1))
      name = next(name for name in numbered if name not in taken)
    taken.add(name)
    folders.append(os.path.join(output, name))
  places = {os.path.realpath(folder): folder for folder in folders}
  for path in paths:
    real = pathlib.PurePath(os.path.realpath(path))
    for above in map(str, (real, *real.parents)):
      if above in places:
        raise errors.UserError(
          f"`{places[above]}` would be replaced, and holds `{path}`, which is "
          "to be decomposed: give another `output`"
        )
  for folder in folders:
    files.check_replaceable(folder)
  return folders


def _read(readers: Sequence[Callable[[], np.ndarray]]) -> Iterator[np.ndarray]:
  """Reads images or films, the first ones at once, see `run`."""
  unread = iter(readers)
  ahead: list[np.ndarray] = []
  size = 0
  while size < _READ_AHEAD and (read := next(unread, None)):
    ahead.append(read())
    size += ahead[-1].nbytes
  return itertools.chain(ahead, (read() for read in unread))


def _decompose(
  segmenter: segmentation.Segmenter,
  work: Iterator[tuple[str, str, np.ndarray]],
  bar: Any,
  kind: str,
) -> list[dict[str, Any]]:
  """Decomposes images or films, and writes their files.

  Args:
    segmenter: decomposes them.
    work: paths, folders to write, and images.
    bar: of tqdm.
    kind: "image" or "film".

  Returns:
    What there is to say about each.
  """
  described: list[dict[str, Any]] = []
  # One batch is written, which takes as long, while the next is decomposed.
  with concurrent.futures.ThreadPoolExecutor(1) as writer:
    written = writer.submit(list[dict[str, Any]])
    while batch := list(itertools.islice(work, segmenter.batch_size)):
      found = segmenter.segment([original for _, _, original in batch])
      described += written.result()
      written = writer.submit(_write, bar, kind, batch, found)
    return described + written.result()


def _write(
  bar: Any,
  kind: str,
  batch: Sequence[tuple[str, str, np.ndarray]],
  found: Sequence[segmentation.Segmentation],
) -> list[dict[str, Any]]:
  """Writes the files of a batch, and tells what it is on the terminal.

  Args:
    bar: of tqdm.
    kind: "image" or "film".
    batch: paths, folders and images, as for `_decompose`.
    found: what came of them.
  """
  described = []
  for (path, folder, original), each in zip(batch, found, strict=True):
    with files.replaced_folder(folder) as temporary:
      segmentation.write(temporary, each, original)
    slots = [k + 1 for k in each.active_slots()]
    squares = np.square(each.image - each.reconstruction)
    mse = float(squares.mean(dtype=np.float64))
    bar.write(
      f"{path} -> {folder}: slot{'s' * (len(slots) > 1)} "
      f"{', '.join(map(str, slots))}, squared error {mse:.5f}"
    )
    bar.update()
    described.append(
      {kind: path, "folder": folder, "active_slots": slots, "mse": mse}
    )
  return described
