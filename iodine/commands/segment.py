"""Decomposing images and films from outside."""

from __future__ import annotations

import collections
import concurrent.futures
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from iodine import checkpoints, errors, files, segmentation, validation
from iodine.commands import common
from iodine.readers import films as film_readers
from iodine.readers import image_files

Config = common.Config

_OUTPUT = "segments"
# Of more images than this, not every one has a line.
_FEW = 20
_REPORT_SECONDS = 10.0


def run(
  config: Config, checkpoint_dir: str, images: Any, output: str | None
) -> dict[str, Any]:
  """Decomposes images, or films, and writes a folder of files for each.

  All of them are read before the first is decomposed: where one is broken,
  nothing is written.

  Args:
    config: the complete config, of which `films` may stand in for images.
    checkpoint_dir: see `checkpoints.find`.
    images: see `image_files.find`.
    output: folder to write to; None for `segments`. An image's folder in it
      is named after the image, with a number where several are called alike;
      that of an earlier run is replaced, unless it holds one of the images.

  Returns:
    What `json_path` gets: the seed, and for each image or film its path,
    folder, active slots (from 1) and mean squared error.

  Raises:
    errors.UserError: if an image cannot be read, a folder holds other files,
      or the checkpoint does not fit.
  """
  prefix = checkpoints.find(checkpoint_dir)
  batch_size = _read_batch_size(config)
  is_film = config["films"] is not None
  if is_film and images is not None:
    raise errors.UserError(
      "`images` and `films` are both set: decompose them one after the other"
    )
  paths = _find_films(config["films"]) if is_film else image_files.find(images)
  ours = (
    segmentation.film_files.are_all_ours
    if is_film
    else (segmentation.are_all_ours)
  )
  folders = _folders(paths, output, ours)
  files.check_folder(os.path.dirname(folders[0]) or ".")
  if config["json_path"] is not None:
    files.check_json(config["json_path"])
  find_problem = _find_film_problem if is_film else _find_problem
  _check_all(paths, find_problem)
  config = checkpoints.as_evaluated(config)
  model = None if is_film else common.restore(config, prefix).model
  print(
    f"decomposing with {prefix}, samples drawn from seed {config['seed']}",
    flush=True,
  )
  report = _Progress(len(paths))
  if model is None:
    described = _segment_films(config, prefix, paths, folders, report)
  else:
    segmenter = segmentation.Segmenter(
      model, model.output_dist.output_shape, config["seed"], batch_size
    )
    described = _segment_images(segmenter, paths, folders, report)
  report.end()
  kind = "films" if is_film else "images"
  result = {"seed": config["seed"], kind: described}
  if config["json_path"] is not None:
    files.write_json(config["json_path"], result)
    print(f"metrics: {config['json_path']}", flush=True)
  return result


def _read_batch_size(config: Config) -> int:
  """Reads `segment.batch_size`.

  Raises:
    errors.UserError: if it is no number of images, or images of a batch would
      not be independent.
  """
  size: int = config["segment"]["batch_size"]
  validation.check_whole("segment.batch_size", size, 1)
  if size > 1 and config["model"].get("refinement_batch_size") is None:
    raise errors.UserError(
      f"`segment.batch_size` is {size}, but without a "
      "`model.refinement_batch_size` images of a batch depend on each other: "
      "set it to the batch size of the training, or decompose them one by one"
    )
  return size


def _find_films(films: Any) -> list[str]:
  """Returns the paths of films.

  Raises:
    errors.UserError: if one is not there.
  """
  return [film.path for film in film_readers.find("films", films)]


def _read_film(path: str) -> np.ndarray:
  """Reads the frames of a film, in colours."""
  (film,) = film_readers.find("films", path)
  return image_files.to_channels(film_readers.read(film), 3)


def _find_film_problem(path: str) -> str | None:
  return errors.message_of(lambda: _read_film(path))


def _find_problem(path: str) -> str | None:
  return errors.message_of(lambda: image_files.read(path))


def _folders(
  paths: Sequence[str], output: Any, are_all_ours: Callable[[str], bool]
) -> list[str]:
  """Returns a folder for each image, none of them twice."""
  if output is None:
    output = _OUTPUT
  validation.check_path("output", output, "the path of a folder to write to")
  names = [os.path.basename(os.path.normpath(path)) for path in paths]
  stems = [os.path.splitext(name)[0] for name in names]
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
  places = {os.path.realpath(folder): folder for folder in folders}
  for path in paths:
    for above in _and_parents(os.path.realpath(path)):
      if above in places:
        raise errors.UserError(
          f"`{places[above]}` would be replaced, and holds `{path}`, which is "
          "to be decomposed: give another `output`"
        )
  for folder in folders:
    files.check_replaceable(folder)
    if os.path.isdir(folder) and not are_all_ours(folder):
      raise errors.UserError(
        f"`{folder}` is there already and has other things in it than "
        "`segment` writes: give another `output`"
      )
  return folders


def _and_parents(path: str) -> Iterator[str]:
  """Yields a path and the folders that it is in."""
  yield path
  for parent in pathlib.PurePath(path).parents:
    yield str(parent)


def _check_all(
  paths: Sequence[str], find_problem: Callable[[str], str | None]
) -> None:
  """Raises a UserError that names what cannot be read."""
  messages = [
    problem for problem in map(find_problem, paths) if problem is not None
  ]
  if len(messages) == 1:
    raise errors.UserError(messages[0])
  if messages:
    raise errors.UserError(
      f"{len(messages)} of {len(paths)} images cannot be read: "
      + errors.join_some(messages)
    )


def _segment_images(
  segmenter: segmentation.Segmenter,
  paths: Sequence[str],
  folders: Sequence[str],
  report: _Progress,
) -> list[dict[str, Any]]:
  """Decomposes images and writes their files; returns what to say of each."""
  described: list[dict[str, Any]] = []
  size = segmenter.batch_size
  # One batch is written, which takes as long, while the next is decomposed.
  with concurrent.futures.ThreadPoolExecutor(1) as writer:
    writing: list[concurrent.futures.Future[list[dict[str, Any]]]] = []
    for start in range(0, len(paths), size):
      part = slice(start, start + size)
      originals = [image_files.read(path) for path in paths[part]]
      found = segmenter.segment(originals)
      for batch in writing:
        described += batch.result()
        report(described)
      writing = [
        writer.submit(_write, paths[part], folders[part], originals, found)
      ]
    for batch in writing:
      described += batch.result()
      report(described)
  return described


def _write(*lists: Sequence[Any]) -> list[dict[str, Any]]:
  """Writes the files of images; the lists are those of `_segment_images`."""
  described = []
  for path, folder, original, found in zip(*lists, strict=True):
    with files.replaced_folder(folder) as temporary:
      segmentation.write(temporary, found, original)
    described.append(_description("image", path, folder, found))
  return described


def _segment_films(
  config: Config,
  prefix: str,
  paths: Sequence[str],
  folders: Sequence[str],
  report: _Progress,
) -> list[dict[str, Any]]:
  """Decomposes films and writes their files; returns what to say of each."""
  segmenters: dict[int, segmentation.FilmSegmenter] = {}
  described: list[dict[str, Any]] = []
  for path, folder in zip(paths, folders, strict=True):
    frames = _read_film(path)
    num_iters = len(frames) - 1
    if num_iters not in segmenters:
      # Weights do not depend on how many frames there are; the weights of the
      # losses may, and play no role here.
      options = {"num_iters": num_iters, "iter_loss_weight": 1.0}
      longer = {**config, "model": {**config["model"], **options}}
      model = common.restore(longer, prefix).model
      segmenters[num_iters] = segmentation.FilmSegmenter(
        model, model.output_dist.output_shape, config["seed"]
      )
    found = segmenters[num_iters](frames)
    with files.replaced_folder(folder) as temporary:
      segmentation.film_files.write(temporary, found, frames)
    described.append(_description("film", path, folder, found))
    report(described)
  return described


def _description(
  kind: str,
  path: str,
  folder: str,
  found: segmentation.Segmentation | segmentation.FilmSegmentation,
) -> dict[str, Any]:
  mse = np.square(found.image - found.reconstruction).mean(dtype=np.float64)
  return {
    kind: path,
    "folder": folder,
    "active_slots": [k + 1 for k in found.active_slots()],
    "mse": float(mse),
  }


class _Progress:
  """Prints a line for each of a few images, or now and then for many."""

  def __init__(self, total: int):
    self._total = total
    self._shown = 0
    self._start = self._reported = time.monotonic()
    # Without what the first batch takes, in which the graph is made.
    self._first: tuple[int, float] | None = None

  def __call__(self, described: Sequence[dict[str, Any]]) -> None:
    """Tells what is done so far."""
    now, done = time.monotonic(), len(described)
    if self._total <= _FEW:
      for i in range(self._shown, done):
        print(f"{i + 1}/{self._total} {_describe(described[i])}", flush=True)
    elif now - self._reported > _REPORT_SECONDS:
      self._reported = now
      print(f"{done}/{self._total}{self._rate(done, now)}", flush=True)
    self._shown = done
    self._first = self._first or (done, now)

  def end(self) -> None:
    """Tells how fast it was."""
    if self._total > _FEW:
      rate = self._rate(self._shown, time.monotonic())
      print(f"{self._shown}/{self._total}{rate}", flush=True)

  def _rate(self, done: int, now: float) -> str:
    if self._first is None or done == self._first[0]:
      return ""
    first, since = self._first
    return f", {(done - first) / (now - since):.1f} images/s"


def _describe(image: dict[str, Any]) -> str:
  path = image.get("image") or image.get("film")
  slots = image["active_slots"]
  return (
    f"{path} -> {image['folder']}: slot"
    f"{'s' * (len(slots) > 1)} {', '.join(map(str, slots))}, squared error "
    f"{image['mse']:.5f}"
  )
