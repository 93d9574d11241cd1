"""Writes generated data sets, in one process or several, to the same bytes."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tqdm

from iodine import errors, files
from iodine.synthetic import entities, own_formats, registry

# So much is lost by an interruption, of one core's work.
_SECONDS_OF_A_PART = 1.0

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
  goes wrong or the user interrupts, what was at `path` before is still there.
  After an interruption `PATH.partial` has what was drawn, and the same call
  goes on from it.

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
      `own_formats`. Of films there is one.
    progress: whether stderr shows how far it is.
  """
  dataset = registry.DATASETS[name]
  if data_format not in dataset.formats:
    raise errors.UserError(
      f"`data_format` is {data_format!r}, and {name} are films: write them as "
      f"{dataset.formats[0]!r}"
    )
  if num_workers is None:
    pays = num_scenes * dataset.seconds_per_scene > _SECONDS_WORTH_WORKERS
    num_workers = (os.cpu_count() or 1) if pays else 1
  form = _form_of(data_format, num_scenes, dataset.is_packed)
  form.check(path)
  size = max(1, round(_SECONDS_OF_A_PART / dataset.seconds_per_scene))
  made_from = f"{name} {seed} {num_scenes} {data_format}"
  with files.unfinished(path, made_from) as folder:
    starts = range(0, num_scenes, size)
    parts = [os.path.join(folder, f"{start:09}") for start in starts]
    there = sum(map(os.path.exists, parts))
    numbers = range(min(there * size, num_scenes), num_scenes)
    # Closed, so that worker processes end with what interrupts the writing.
    with (
      contextlib.closing(
        _make_scenes(dataset.make_scene, seed, numbers, num_workers)
      ) as made,
      tqdm.tqdm(
        made,
        total=num_scenes,
        initial=numbers.start,
        unit="scene",
        delay=1.0,
        disable=not progress,
      ) as bar,
    ):
      scenes = iter(bar)
      for part, start in list(zip(parts, starts, strict=True))[there:]:
        form.write(part, itertools.islice(scenes, size), start)
    form.join(parts, path)


class _Form(NamedTuple):
  """A way of writing scenes.

  Attributes:
    check: takes the path; checks early that it can be written.
    write: takes a path, scenes and the number of the first; writes a part.
    join: takes the paths of parts and the path; makes one of all.
  """

  check: Callable[[Any], None]
  write: Callable[[str, Iterable[entities.Scene], int], None]
  join: Callable[[Sequence[str], Any], None]


def _form_of(data_format: str, num_scenes: int, is_packed: bool) -> _Form:
  """Returns how so many scenes are written in a format."""
  if data_format == "png":
    return _Form(
      own_formats.check_pngs,
      functools.partial(own_formats.write_pngs, num_scenes=num_scenes),
      own_formats.join_pngs,
    )
  if data_format == "npz":
    return _Form(
      files.check_writable,
      lambda path, scenes, _: own_formats.write_npz(path, scenes),
      functools.partial(own_formats.join_npz, num_scenes=num_scenes),
    )
  # Not at the top: worker processes import this module and need no TensorFlow.
  from iodine.synthetic import records

  compression = "ZLIB" if is_packed else "GZIP"
  return _Form(
    records.check,
    lambda path, scenes, _: records.write(path, scenes, compression, is_packed),
    functools.partial(records.join, compression=compression),
  )


def _make_scenes(
  make_scene: registry.MakeScene, seed: int, numbers: range, num_workers: int
) -> Generator[entities.Scene, None, None]:
  """Yields the scenes in order, whoever draws them."""
  draw = functools.partial(_draw, make_scene, seed)
  if num_workers == 1:
    yield from map(draw, numbers)
    return
  with concurrent.futures.ProcessPoolExecutor(
    num_workers,
    # A fork of a process in which TensorFlow has threads may hang.
    multiprocessing.get_context("spawn"),
    initializer=_follow_parent,
  ) as pool:
    size = _SCENES_PER_WORKER * num_workers
    for start in range(0, len(numbers), size):
      yield from pool.map(draw, numbers[start : start + size])


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
