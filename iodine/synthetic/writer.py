"""Writes generated data sets, in one process or several, to the same bytes."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import itertools
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import process
from typing import Any

import numpy as np

from iodine import errors, validation
from iodine.synthetic import own_formats, registry

FORMATS = ("tfrecords", "png", "npz")
_COMPRESSIONS = ("GZIP", "", None)

# Starting processes takes some seconds, more if the program that calls
# imports TensorFlow: with less work than this they do not pay.
_SECONDS_WORTH_WORKERS = 20.0

# Scenes a worker hands over at a time; a CLEVR scene has 1 MB.
_CHUNK = 8

# Of a scene, compressed.
_LEAST_BYTES = 500


def write_dataset(
  name: str,
  path: str | os.PathLike[str],
  num_scenes: int,
  seed: int,
  num_workers: int | None = None,
  compression: str | None = "GZIP",
  progress: Callable[[int, int], None] | None = None,
  data_format: str = "tfrecords",
) -> None:
  """Generates scenes and writes them to a file, or to a folder of images.

  The bytes depend on `name`, `num_scenes`, `seed`, `compression` and
  `data_format` only. What is written appears when it is complete: if anything
  goes wrong or the user interrupts, what was at `path` before is still there,
  and nothing else.

  Args:
    name: a key of `DATASETS`.
    path: the file to write, or the folder of "png"; folders that are missing
      are made.
    num_scenes: how many scenes, at least 1.
    seed: 0 or more; scene i is drawn from `default_rng([seed, i])`, so a
      longer file begins with the scenes of a shorter one.
    num_workers: processes that draw scenes; 1 draws them in this one. None
      takes one for every core if there is enough work. As always with spawned
      processes, the script that calls must guard its own main code by
      `if __name__ == "__main__":`.
    compression: of TFRecords: "GZIP" (as the public files), or None or "" for
      none.
    progress: called as `progress(done, num_scenes)` after every scene.
    data_format: "tfrecords", the public files'; "png" or "npz", see
      `own_formats`; of films "npz" only.

  Raises:
    iodine.errors.UserError: if an argument is unusable, the file cannot be
      written, or worker processes do not start.
  """
  _check(name, num_scenes, seed, num_workers, compression)
  check_format(name, data_format)
  _check_room(path, num_scenes)
  dataset = registry.DATASETS[name]
  if num_workers is None:
    num_workers = _default_workers(num_scenes * dataset.seconds_per_scene)
  # Closed, so that worker processes end with what interrupts the writing.
  with contextlib.closing(
    _make_scenes(dataset.make_scene, seed, num_scenes, num_workers)
  ) as scenes:
    reporting = _reporting(scenes, num_scenes, progress)
    if data_format == "png":
      own_formats.write_pngs(path, reporting, num_scenes)
    elif data_format == "npz":
      own_formats.write_npz(path, reporting, num_scenes)
    else:
      # Not at the top: worker processes import this module and need no
      # TensorFlow.
      from iodine.synthetic import records

      records.write(path, reporting, compression)


def check_format(name: str, data_format: Any) -> None:
  """Raises a UserError where scenes cannot be written in a format.

  Args:
    name: a key of `DATASETS`.
    data_format: one of `FORMATS`.
  """
  validation.check_choice("data_format", data_format, FORMATS)
  if registry.DATASETS[name].is_film and data_format != "npz":
    raise errors.UserError(
      f"`data_format` is {data_format!r}, and {name} are films: write them as "
      "'npz'"
    )


def _reporting(
  scenes: Iterable[dict[str, np.ndarray]],
  num_scenes: int,
  progress: Callable[[int, int], None] | None,
) -> Iterator[dict[str, np.ndarray]]:
  """Yields scenes, and says after each how many are done."""
  for done, scene in enumerate(scenes, start=1):
    yield scene
    if progress is not None:
      progress(done, num_scenes)


def _check(
  name: str,
  num_scenes: int,
  seed: int,
  num_workers: int | None,
  compression: str | None,
) -> None:
  """Raises a UserError for the first argument that cannot be used."""
  validation.check_choice("name", name, tuple(registry.DATASETS))
  validation.check_whole("num_scenes", num_scenes, 1)
  validation.check_whole("seed", seed, 0)
  validation.check_whole("num_workers", num_workers, 1, "None for all cores")
  validation.check_choice("compression", compression, _COMPRESSIONS)


def _check_room(path: str | os.PathLike[str], num_scenes: int) -> None:
  """Raises a UserError where a disk has no room for so many scenes."""
  folder = os.path.abspath(path)
  while not os.path.exists(folder):
    folder = os.path.dirname(folder)
  disk = shutil.disk_usage(folder)
  # Some that are none have no size.
  if disk.total and num_scenes * _LEAST_BYTES > disk.free:
    raise errors.UserError(
      f"`num_scenes` is {num_scenes}, and `{folder}` has room for "
      f"{disk.free:,} bytes: give fewer, or another place"
    )


def _default_workers(seconds: float) -> int:
  """Returns how many processes suit work that takes one core `seconds`."""
  return (os.cpu_count() or 1) if seconds > _SECONDS_WORTH_WORKERS else 1


def _make_scenes(
  make_scene: Callable[[np.random.Generator], dict[str, np.ndarray]],
  seed: int,
  num_scenes: int,
  num_workers: int,
) -> Generator[dict[str, np.ndarray], None, None]:
  """Yields the scenes in order, whoever draws them."""
  if num_workers == 1:
    for index in range(num_scenes):
      yield make_scene(np.random.default_rng([seed, index]))
    return
  chunks = (
    range(start, min(start + _CHUNK, num_scenes))
    for start in range(0, num_scenes, _CHUNK)
  )
  pool = concurrent.futures.ProcessPoolExecutor(
    num_workers,
    # A fork of a process in which TensorFlow has threads may hang.
    mp_context=multiprocessing.get_context("spawn"),
    initializer=_follow_parent,
  )
  try:
    # Never more than two chunks a worker under way, or the memory would fill.
    pending = collections.deque(
      pool.submit(_make_chunk, make_scene, seed, chunk)
      for chunk in itertools.islice(chunks, 2 * num_workers)
    )
    while pending:
      scenes = pending.popleft().result()
      for chunk in itertools.islice(chunks, 1):
        pending.append(pool.submit(_make_chunk, make_scene, seed, chunk))
      yield from scenes
  except process.BrokenProcessPool as error:
    raise errors.UserError(
      "the worker processes died: call `write_dataset` below "
      '`if __name__ == "__main__":`, or give it `num_workers=1`'
    ) from error
  finally:
    pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
  """Makes a worker process end when, and only when, its parent ends it."""
  # Ctrl-C reaches all processes; one of them is enough to report it.
  signal.signal(signal.SIGINT, signal.SIG_IGN)

  def end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)

  # A parent that was killed cannot shut the pool down, and the workers would
  # wait for work for ever.
  threading.Thread(target=end_with_parent, daemon=True).start()


def _make_chunk(
  make_scene: Callable[[np.random.Generator], dict[str, np.ndarray]],
  seed: int,
  indices: range,
) -> list[dict[str, np.ndarray]]:
  """Draws the scenes with the given indices."""
  return [make_scene(np.random.default_rng([seed, i])) for i in indices]
