"""Scenes that are kept decoded in a folder, as memory-mapped arrays.

The folder holds an array [N, ...] in NumPy's format for each part of a scene,
and `cache.json`, which says what they were made from. It comes into being at
once, when it is complete.

Dimensions:
  N: scenes.
  B: scenes of a batch.
  L: entities of a scene.
  H, W: rows and columns.
"""

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tree

from iodine import errors, files
from iodine.readers import streams

_DESCRIPTION = "cache.json"
_IMAGE = "image"
_MASK = "mask"

_STACK_RANK = 4  # of a mask [L, H, W, 1]

# Scenes that are written at a time; a CLEVR scene has 0.3 MB.
_CHUNK = 32
# Seconds between two reports of a cache that takes long to make.
_REPORT_SECONDS = 10.0


class Cache:
  """Scenes in the arrays of a cache, a `streams.Source`.

  Attributes:
    title: the folder.
    num_scenes: N.
  """

  def __init__(
    self, folder: str, arrays: Mapping[str, np.ndarray], structure: Any
  ):
    """Takes what a folder has.

    Args:
      folder: its path.
      arrays: {path of a part: [N, ...]}, such as "factors/color". Masks are
        as they were read, or [N, H, W, 1], the numbers of entities.
      structure: of a scene: nested dicts.
    """
    self.title = f"`{folder}`"
    self.num_scenes = len(arrays[_IMAGE])
    self._arrays = list(arrays.values())
    self._structure = structure

  def gather(self, places: tf.Tensor) -> dict[str, Any]:
    """Returns the scenes at some places [B], each part [B, ...]."""
    parts = tf.numpy_function(
      lambda chosen: [np.take(array, chosen, axis=0) for array in self._arrays],
      [places],
      [array.dtype for array in self._arrays],
      stateful=False,
    )
    for part, array in zip(parts, self._arrays, strict=True):
      part.set_shape([places.shape[0], *array.shape[1:]])
    return tree.unflatten_as(self._structure, parts)

  def find_problem(self, places: np.ndarray) -> str | None:
    """Returns None: what is mapped into memory can be read."""
    del places
    return None

  def fingerprint(self) -> list[Any]:
    """Returns nothing, as no cache is made of a cache."""
    return []


def open_or_make(
  folder: str,
  stream: streams.Stream,
  scenes: tf.data.Dataset,
  options: Mapping[str, Any],
) -> streams.PlaceStream:
  """Opens the cache of a stream, which is made where there is none.

  Processes that make the same one at the same time do not disturb each other:
  the first one that is complete stays.

  Args:
    folder: of this stream alone.
    stream: the raw records.
    scenes: what they are read to, single scenes: nested dicts with "image". A
      "mask" that is a uint8 [L, H, W, 1] is kept as numbers of entities, where
      every pixel has one.
    options: all else that the scenes depend on, {name: what JSON can hold}.

  Raises:
    UserError: the folder holds something else, the cache is of other options
      or files, or damaged, or it cannot be written, or no scene passes the
      filter, or a record cannot be read.
  """
  expected = json.loads(json.dumps({**options, **stream.identify()}))
  structure = scenes.element_spec
  if not os.path.lexists(folder):
    with stream.explained_errors(), files.new_folder(folder) as temporary:
      # Masks that overlap are found, as a rule, in the first scenes, so that
      # to begin again costs little.
      mask = structure.get(_MASK)
      is_stack = mask is not None and len(mask.shape) == _STACK_RANK
      num_scenes = _write(temporary, scenes, folder, with_labels=is_stack)
      if num_scenes is None:
        num_scenes = _write(temporary, scenes, folder, with_labels=False)
      if not num_scenes:
        stream.require_scenes()
      files.write_json(os.path.join(temporary, _DESCRIPTION), expected)
  names = _names(structure)
  parts = [
    os.path.join(folder, _DESCRIPTION),
    *(_path(folder, n) for n in names),
  ]
  for path in (folder, *parts):
    files.check_readable(path)
  _check(folder, expected)
  arrays: dict[str, np.ndarray] = {}
  # A file that is missing, cut off or of another kind is told below.
  with contextlib.suppress(OSError, ValueError, EOFError):
    for name in names:
      path = _path(folder, name)
      if not os.path.isfile(path):
        break
      arrays[name] = np.asarray(np.load(path, mmap_mode="r"))
  specs = dict(zip(names, tree.flatten(structure), strict=True))
  if not _fits(arrays, specs):
    raise errors.UserError(
      f"the cache `{folder}` is damaged: delete it, so that it is made again"
    )
  source = Cache(folder, arrays, structure)
  return streams.PlaceStream(
    range_name=stream.range_name,
    source=source,
    places=np.arange(source.num_scenes),
    gather=source.gather,
  )


def _check(folder: str, expected: Mapping[str, Any]) -> None:
  """Checks that a folder holds the cache that is wanted."""
  found = None
  path = os.path.join(folder, _DESCRIPTION)
  # No such file, no permission, or no JSON: it is not a cache of ours.
  with contextlib.suppress(OSError, ValueError):
    if os.path.isfile(path):
      with open(path, encoding="utf-8") as file:
        found = json.load(file)
  remedy = "give another folder as `data.cache`, or delete this one"
  if not isinstance(found, dict):
    raise errors.UserError(f"`{folder}` is not a cache of scenes: {remedy}")
  for name, value in expected.items():
    other = found.get(name)
    if name == "path" and other != value:
      raise errors.UserError(
        f"the cache `{folder}` was made from other files than `path` names"
        f" now, or they have changed: {remedy}"
      )
    if other != value:
      raise errors.UserError(
        f"the cache `{folder}` was made with `{name}` {other}, but it is"
        f" {value} now: {remedy}"
      )


def _fits(
  arrays: Mapping[str, np.ndarray], specs: Mapping[str, tf.TensorSpec]
) -> bool:
  """Returns whether all parts are there, in the shapes that they have to be."""
  if arrays.keys() != specs.keys():
    return False
  num_scenes = len(arrays[_IMAGE])
  for name, spec in specs.items():
    shapes = [(num_scenes, *spec.shape)]
    if name == _MASK and len(spec.shape) == _STACK_RANK:
      shapes.append((num_scenes, *spec.shape[1:]))
    array = arrays[name]
    if array.shape not in shapes or array.dtype != spec.dtype.as_numpy_dtype:
      return False
  return num_scenes > 0


def _write(
  folder: str, scenes: tf.data.Dataset, final: str, with_labels: bool
) -> int | None:
  """Writes the arrays.

  Args:
    folder: where they are written.
    scenes: single scenes.
    final: the folder's name in the end, for reports.
    with_labels: whether masks become numbers of entities.

  Returns:
    N; None if there have to be numbers, but a mask is not exclusive.
  """
  names = _names(scenes.element_spec)
  start = reported = time.perf_counter()
  done = 0
  with contextlib.ExitStack() as stack:
    writers = {
      name: stack.enter_context(open(_path(folder, name), "wb"))
      for name in names
    }
    headers: dict[str, dict[str, Any]] = {}
    for chunk in scenes.batch(_CHUNK).prefetch(2).as_numpy_iterator():
      parts = dict(zip(names, tree.flatten(chunk), strict=True))
      if with_labels:
        labels = _labels(parts[_MASK])
        if labels is None:
          return None
        parts[_MASK] = labels
      for name, part in parts.items():
        if not done:
          headers[name] = np.lib.format.header_data_from_array_1_0(part)
          _write_header(writers[name], headers[name], 0)
        writers[name].write(part.tobytes())
      done += len(parts[_IMAGE])
      now = time.perf_counter()
      if now - reported > _REPORT_SECONDS:
        reported = now
        rate = done / (now - start)
        print(
          f"caching scenes in `{final}`: {done:,} so far, {rate:.0f} a second",
          flush=True,
        )
    for name, header in headers.items():
      writers[name].seek(0)
      _write_header(writers[name], header, done)
  if reported > start:
    print(f"cached {done:,} scenes in `{final}`", flush=True)
  return done


def _write_header(file: Any, header: Mapping[str, Any], num: int) -> None:
  """Writes the header of an array of so many scenes."""
  # NumPy leaves room for the first size to grow: all headers are as long.
  shape = (num, *header["shape"][1:])
  np.lib.format.write_array_header_1_0(file, {**header, "shape": shape})


def _labels(masks: np.ndarray) -> np.ndarray | None:
  """Returns which entity has a pixel; None unless each has exactly one.

  Args:
    masks: [B, L, H, W, 1] uint8.

  Returns:
    [B, H, W, 1] uint8.
  """
  is_on = masks == 255
  is_exclusive = np.all(np.sum(is_on, axis=1, dtype=np.uint8) == 1)
  if not is_exclusive or np.any((masks != 0) != is_on):
    return None
  numbers = np.arange(masks.shape[1], dtype=np.uint8)
  return np.einsum("blhwc,l->bhwc", is_on.view(np.uint8), numbers)


def _names(structure: Any) -> Sequence[str]:
  """Returns the paths of a scene's parts, such as "factors/color"."""
  return ["/".join(path) for path, _ in tree.flatten_with_path(structure)]


def _path(folder: str, name: str) -> str:
  return os.path.join(folder, f"{name.replace('/', '_')}.npy")
