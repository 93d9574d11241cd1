"""Scenes as `tf.train.Example`s, and files that are complete or not there.

This is the only module of the package that needs TensorFlow.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from iodine import errors, files

# In bytes: larger files are downloaded ones, as a rule.
_MOST_REPLACED = 2**31


def serialize(
  scene: Mapping[str, np.ndarray], is_packed: bool = False
) -> bytes:
  """Turns a scene into the bytes of a `tf.train.Example`.

  Args:
    scene: {feature name: array of any shape}, uint8 or float32.
    is_packed: whether all bytes of an array are one string.

  Returns:
    The serialized example. Equal scenes give equal bytes. A float32 array
    becomes a `float_list`; a uint8 array a `bytes_list` in which every element
    is a string of one byte; both in C order.
  """
  example = tf.train.Example()
  for name, value in scene.items():
    feature = example.features.feature[name]
    if value.dtype == np.uint8 and is_packed:
      feature.bytes_list.value.append(value.tobytes())
    elif value.dtype == np.uint8:
      # A CLEVR scene has more than a million strings: filling the message is
      # some five times as fast from its wire format as from Python objects.
      wire = np.empty((value.size, 3), np.uint8)
      wire[:, 0] = 0x0A  # Field 1 (`value`), length-delimited ...
      wire[:, 1] = 1  # ... of length 1.
      wire[:, 2] = value.ravel()
      feature.bytes_list.MergeFromString(wire.tobytes())
    else:
      feature.float_list.value.extend(value.ravel().tolist())
  return example.SerializeToString(deterministic=True)


def write(
  path: str | os.PathLike[str],
  scenes: Iterable[Mapping[str, np.ndarray]],
  compression: str = "GZIP",
  is_packed: bool = False,
) -> None:
  """Writes a TFRecord file, which comes into being once it is complete.

  Args:
    path: the file to write; folders that are missing are made.
    scenes: see `serialize`.
    compression: "GZIP", "ZLIB", or "" for none.
    is_packed: see `serialize`.
  """
  _write(path, (serialize(scene, is_packed) for scene in scenes), compression)


def _write(
  path: str | os.PathLike[str], records: Iterable[bytes], compression: str
) -> None:
  options = tf.io.TFRecordOptions(compression)
  # An OSError of what draws the scenes does not say that the disk refuses.
  with (
    files.replaced(path, failures=(tf.errors.OpError,)) as temporary,
    tf.io.TFRecordWriter(temporary, options) as writer,
  ):
    for record in records:
      writer.write(record)


def check(path: str | os.PathLike[str]) -> None:
  """Checks early that a file can be written, and leaves nothing."""
  files.check_writable(path)
  if os.path.exists(path) and os.path.getsize(path) > _MOST_REPLACED:
    raise errors.UserError(
      f"`{path}` is there already, of a size as the public files have, and is "
      "not replaced: choose another place, or remove it"
    )


def join(
  parts: Sequence[str], path: str | os.PathLike[str], compression: str = "GZIP"
) -> None:
  """Writes one file of several, compressed ones, too, one after another."""
  if compression == "ZLIB":
    # Of streams that follow on each other TensorFlow reads the first alone.
    records = tf.data.TFRecordDataset(list(parts), compression)
    _write(path, (record.numpy() for record in records), compression)
    return
  with files.replaced(path) as temporary, open(temporary, "wb") as whole:
    for part in parts:
      with open(part, "rb") as content:
        shutil.copyfileobj(content, whole)
