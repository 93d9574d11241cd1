"""Scenes that are kept decoded in a folder, and mapped into memory.

The folder holds the numbers of each part of all scenes, one scene after
another, in a file of its own, and `cache.json`, which says what they were made
from. It comes into being at once, when it is complete.

Dimensions:
  N: scenes.
  B: scenes of a batch.
  T: frames.
  L: entities of a scene.
  H, W: rows and columns.
"""

import hashlib
import os
from collections.abc import Iterable

import filelock
import numpy as np
import tensorflow as tf
import tqdm
import tree

from iodine import files as writing
from iodine.readers import streams

_MASK = "mask"
# The name of a mask's file that holds numbers of entities.
_LABELS = "labels"

# Before a bar shows how far it is.
_PATIENCE_SECONDS = 10


def name_of(content: str, files: Iterable[str]) -> str:
  """Returns a name for scenes, another one for all others.

  Args:
    content: what decides what they are, beside the files that they are in.
    files: these.
  """
  stats = [(os.path.realpath(path), os.stat(path)) for path in files]
  known = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
  text = f"{content}\n{known}"
  return hashlib.sha256(text.encode()).hexdigest()[:24]


def open_or_make(
  folder: str, batches: tf.data.Dataset, content: str
) -> streams.Scene:
  """Opens a cache, which is made where there is none.

  Of several processes that want the same one, one makes it.

  Args:
    folder: of these scenes alone.
    batches: of the scenes that it is made of, once. A "mask" that is a uint8
      [B, T, L, H, W, 1] is kept as numbers of entities, where every pixel has
      one.
    content: what they are, as JSON, for people who read it.

  Returns:
    Arrays [N, ...] in the place of the tensors of a batch.
  """
  if not os.path.isdir(folder):
    writing.make_folder(os.path.dirname(folder))
    with filelock.FileLock(f"{folder}.lock"):
      if not os.path.isdir(folder):
        _make(folder, batches, content)

  def array_of(path: tuple[str, ...], spec: tf.TensorSpec) -> np.ndarray:
    name, shape = "/".join(path), spec.shape[1:]
    if name == _MASK and os.path.exists(_path(folder, _LABELS)):
      name, shape = _LABELS, [shape[0], 1, *shape[2:]]
    dtype = spec.dtype.as_numpy_dtype
    numbers = np.asarray(np.memmap(_path(folder, name), dtype, "r"))
    return numbers.reshape(-1, *shape)

  arrays: streams.Scene = tree.map_structure_with_path(
    array_of, batches.element_spec
  )
  return arrays


def take(arrays: streams.Scene, places: np.ndarray) -> streams.Scene:
  """Returns the scenes at some places [B]."""
  scenes: streams.Scene = tree.map_structure(
    lambda array: np.take(array, places, axis=0), arrays
  )
  return scenes


def _make(folder: str, batches: tf.data.Dataset, content: str) -> None:
  with writing.replaced_folder(folder) as temporary:
    # Masks that overlap are found, as a rule, in the first scenes, so that to
    # begin again costs little.
    spec = batches.element_spec.get(_MASK)
    has_stack = spec is not None and spec.shape[2] > 1
    if not has_stack or not _write(temporary, batches, folder, True):
      if os.path.exists(_path(temporary, _LABELS)):
        os.remove(_path(temporary, _LABELS))
      _write(temporary, batches, folder, False)
    writing.write(os.path.join(temporary, "cache.json"), content)


def _write(
  folder: str, batches: tf.data.Dataset, final: str, with_labels: bool
) -> bool:
  """Writes all parts.

  Args:
    folder: where they are written.
    batches: of the scenes.
    final: the folder's name in the end, for the bar.
    with_labels: whether masks become numbers of entities.

  Returns:
    Whether it succeeded: there may have to be numbers for a mask that has none.
  """
  bar = tqdm.tqdm(
    desc=f"caching in {final}", unit="scenes", delay=_PATIENCE_SECONDS
  )
  with bar:
    for number, batch in enumerate(batches.prefetch(2).as_numpy_iterator()):
      for path, part in tree.flatten_with_path(batch):
        name = "/".join(path)
        if name == _MASK and with_labels:
          name, part = _LABELS, _labels(part)
          if part is None:
            return False
        writing.make_folder(os.path.dirname(_path(folder, name)))
        with open(_path(folder, name), "ab" if number else "wb") as file:
          file.write(part.tobytes())
      bar.update(len(batch["image"]))
  return True


def _labels(masks: np.ndarray) -> np.ndarray | None:
  """Returns which entity has a pixel; None unless each has exactly one.

  Args:
    masks: [B, T, L, H, W, 1] uint8.

  Returns:
    [B, T, 1, H, W, 1] uint8.
  """
  labels = masks.argmax(axis=2, keepdims=True).astype(np.uint8)
  numbers = np.arange(masks.shape[2], dtype=np.uint8).reshape(-1, 1, 1, 1)
  is_kept = np.array_equal(masks, (labels == numbers) * np.uint8(255))
  return labels if is_kept else None


def _path(folder: str, name: str) -> str:
  return os.path.join(folder, f"{name}.bin")
