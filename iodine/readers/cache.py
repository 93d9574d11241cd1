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
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tree

from iodine import errors, files
from iodine.readers import opening, streams

_DESCRIPTION = "cache.json"
_MASK = "mask"

# Scenes that are written at a time; a CLEVR scene has 0.3 MB.
_CHUNK = 32
# Seconds between two reports of a cache that takes long to make.
_REPORT_SECONDS = 10.0

# What identifies a file: so many places in it, and bytes at each of them.
_NUM_PLACES = 16
_NUM_BYTES = 4096


@dataclasses.dataclass(kw_only=True)
class CachedStream(streams.SceneStream):
  """The scenes of one subset, by their places in the arrays of a cache.

  Attributes:
    arrays: {path of a part: [N, ...]}, such as "factors/color". The mask is
      [N, H, W, 1], numbers of entities, or [N, L, H, W, 1] as stored.
    structure: of a scene: nested dicts.
  """

  arrays: dict[str, np.ndarray] = dataclasses.field(compare=False)
  structure: Any = dataclasses.field(compare=False)

  def __post_init__(self):
    super().__post_init__()
    num_scenes = len(self.arrays[_MASK])
    self._epoch_size = min(num_scenes, self.limit or num_scenes)
    self._has_scenes = True

  def epoch(self) -> tf.data.Dataset:
    """Returns the places of the scenes, once and in order."""
    return tf.data.Dataset.range(self._epoch_size)

  def gather(self, places: tf.Tensor) -> dict[str, Any]:
    """Returns the scenes at some places [B], each part [B, ...]."""
    arrays = list(self.arrays.values())
    parts = tf.numpy_function(
      lambda chosen: [np.take(array, chosen, axis=0) for array in arrays],
      [places],
      [array.dtype for array in arrays],
      stateful=False,
    )
    for part, array in zip(parts, arrays, strict=True):
      part.set_shape([places.shape[0], *array.shape[1:]])
    return tree.unflatten_as(self.structure, parts)


def open_or_make(
  folder: str,
  stream: streams.SceneStream,
  scenes: tf.data.Dataset,
  options: Mapping[str, Any],
) -> CachedStream:
  """Opens the cache of a stream, which is made where there is none.

  Processes that make the same one at the same time do not disturb each other:
  the first one that is complete stays.

  Args:
    folder: of this stream alone.
    stream: the raw records.
    scenes: what they are read to, single scenes: nested dicts with "mask", a
      uint8 [L, H, W, 1].
    options: all else that the scenes depend on, {name: what JSON can hold}.

  Raises:
    UserError: the folder holds something else, the cache is of other options
      or files, or damaged, or it cannot be written, or no scene passes the
      filter, or a record cannot be read.
  """
  expected = json.loads(json.dumps({**options, **_identify(stream)}))
  structure = scenes.element_spec
  if not os.path.lexists(folder):
    with stream.explained_errors(), files.new_folder(folder) as temporary:
      # Masks that overlap are found, as a rule, in the first scenes, so that
      # to begin again costs little.
      num_scenes = _write(temporary, scenes, folder, with_labels=True)
      if num_scenes is None:
        num_scenes = _write(temporary, scenes, folder, with_labels=False)
      if not num_scenes:
        stream.require_scenes()
      files.write_json(os.path.join(temporary, _DESCRIPTION), expected)
  _check(folder, expected)
  names = _names(structure)
  arrays: dict[str, np.ndarray] = {}
  # A file that is missing, cut off or of another kind is told below.
  with contextlib.suppress(OSError, ValueError, EOFError):
    for name in names:
      path = _path(folder, name)
      arrays[name] = np.asarray(np.load(path, mmap_mode="r"))
  specs = dict(zip(names, tree.flatten(structure), strict=True))
  if not _fits(arrays, specs):
    raise errors.UserError(
      f"the cache `{folder}` is damaged: delete it, so that it is made again"
    )
  fields = dataclasses.fields(streams.SceneStream)
  return CachedStream(
    **{field.name: getattr(stream, field.name) for field in fields},
    arrays=arrays,
    structure=structure,
  )


def _identify(stream: streams.SceneStream) -> dict[str, Any]:
  """Returns what decides which scenes a stream has, by option."""
  return {
    "data set": stream.layout.title,
    stream.range_name: list(stream.scene_range),
    "min_num_objects": stream.min_num_objects,
    "max_num_objects": stream.max_num_objects,
    "path": [_fingerprint(file) for file in stream.files],
  }


def _fingerprint(file: opening.File) -> list[Any]:
  """Returns what differs for another file: not its name, it may be moved."""
  size = os.path.getsize(file.path)
  digest = hashlib.sha256()
  with open(file.path, "rb") as content:
    for place in np.linspace(0, max(size - _NUM_BYTES, 0), _NUM_PLACES):
      content.seek(int(place))
      digest.update(content.read(_NUM_BYTES))
  # A compressed file ends in a checksum of all it holds.
  changed = None if file.compression else os.stat(file.path).st_mtime_ns
  return [size, digest.hexdigest(), changed]


def _check(folder: str, expected: Mapping[str, Any]) -> None:
  """Checks that a folder holds the cache that is wanted."""
  found = None
  # No such file, no permission, or no JSON: it is not a cache of ours.
  with (
    contextlib.suppress(OSError, ValueError),
    open(os.path.join(folder, _DESCRIPTION), encoding="utf-8") as file,
  ):
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
  num_scenes = len(arrays[_MASK])
  for name, spec in specs.items():
    shapes = [(num_scenes, *spec.shape)]
    if name == _MASK:
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
      done += len(parts[_MASK])
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
