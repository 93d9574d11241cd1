"""Writes generated data sets, in one process or several, to the same bytes."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator

import numpy as np
import tqdm

from iodine import errors
from iodine.synthetic import entities, own_formats, registry

# Starting processes takes some seconds, more if the program that calls
# imports TensorFlow: with less work than this they do not pay.
_SECONDS_WORTH_WORKERS = 20.0

# More scenes under way than this would fill the memory: CLEVR's have 1 MB.
_SCENES_PER_WORKER = 16


def write_dataset(
  name: str,
  path: str | os.PathLike[str],
  num_scenes: int,
  seed: int,
  num_workers: int | None = None,
  data_format: str = "tfrecords",
  progress: bool = False,
) -> None:
  """Generates scenes and writes them to a file, or to a folder of images.

  The bytes depend on `name`, `num_scenes`, `seed` and `data_format`
  only. What is written appears when it is complete: if anything
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
    data_format: "tfrecords", the public files'; "png" or "npz", see
      `own_formats`; of films "npz" only.
    progress: whether stderr shows how far it is.
  """
  dataset = registry.DATASETS[name]
  if dataset.is_film and data_format != "npz":
    raise errors.UserError(
      f"`data_format` is {data_format!r}, and {name} are films: write them as "
      "'npz'"
    )
  if num_workers is None:
    pays = num_scenes * dataset.seconds_per_scene > _SECONDS_WORTH_WORKERS
    num_workers = (os.cpu_count() or 1) if pays else 1
  # Closed, so that worker processes end with what interrupts the writing.
  with contextlib.closing(
    _make_scenes(dataset.make_scene, seed, num_scenes, num_workers)
  ) as made:
    scenes = tqdm.tqdm(
      made, total=num_scenes, unit="scene", delay=1.0, disable=not progress
    )
    if data_format == "png":
      own_formats.write_pngs(path, scenes, num_scenes)
    elif data_format == "npz":
      own_formats.write_npz(path, scenes, num_scenes)
    else:
      # Not at the top: worker processes import this module and need no
      # TensorFlow.
      from iodine.synthetic import records

      records.write(path, scenes)


def _make_scenes(
  make_scene: registry.MakeScene, seed: int, num_scenes: int, num_workers: int
) -> Generator[entities.Scene, None, None]:
  """Yields the scenes in order, whoever draws them."""
  draw = functools.partial(_draw, make_scene, seed)
  if num_workers == 1:
    yield from map(draw, range(num_scenes))
    return
  with concurrent.futures.ProcessPoolExecutor(
    num_workers,
    # A fork of a process in which TensorFlow has threads may hang.
    multiprocessing.get_context("spawn"),
    initializer=_follow_parent,
  ) as pool:
    size = _SCENES_PER_WORKER * num_workers
    for start in range(0, num_scenes, size):
      yield from pool.map(draw, range(start, min(start + size, num_scenes)))


def _draw(
  make_scene: registry.MakeScene, seed: int, index: int
) -> entities.Scene:
  return make_scene(np.random.default_rng([seed, index]))


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
