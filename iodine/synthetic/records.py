"""Scenes as `tf.train.Example`s, and files that are complete or not there.

This is the only module of the package that needs TensorFlow.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from iodine import errors


def serialize(scene: Mapping[str, np.ndarray]) -> bytes:
  """Turns a scene into the bytes of a `tf.train.Example`.

  Args:
    scene: {feature name: array of any shape}, uint8 or float32.

  Returns:
    The serialized example. Equal scenes give equal bytes. A float32 array
    becomes a `float_list`; a uint8 array a `bytes_list` in which every element
    is a string of one byte; both in C order.

  Raises:
    TypeError: if an array is neither uint8 nor float32.
  """
  example = tf.train.Example()
  for name, value in scene.items():
    feature = example.features.feature[name]
    if value.dtype == np.uint8:
      feature.bytes_list.MergeFromString(_one_byte_strings(value))
    elif value.dtype == np.float32:
      feature.float_list.value.extend(value.ravel().tolist())
    else:
      raise TypeError(
        f"Feature `{name}` is {value.dtype}, but only uint8 and float32 have "
        "a place in these files."
      )
  return example.SerializeToString(deterministic=True)


def _one_byte_strings(value: np.ndarray) -> bytes:
  """Returns the wire format of a `BytesList` of one-byte strings.

  A CLEVR scene has more than a million of these strings: filling the message
  is some five times as fast from this as from a Python object for each.
  """
  wire = np.empty((value.size, 3), np.uint8)
  wire[:, 0] = 0x0A  # Field 1 (`value`), length-delimited ...
  wire[:, 1] = 1  # ... of length 1.
  wire[:, 2] = value.ravel()
  return wire.tobytes()


@contextlib.contextmanager
def atomic_writer(
  path: str | os.PathLike[str], compression: str | None
) -> Iterator[Callable[[bytes], None]]:
  """Opens a TFRecord file that comes into being only once it is complete.

  The records go to a temporary file beside `path`, which takes its place at
  the end. If anything is raised inside the block (KeyboardInterrupt too), the
  temporary file is removed and what was at `path` before stays.

  Args:
    path: the file to write; folders that are missing are made.
    compression: "GZIP", or None or "" for none.

  Yields:
    The function that appends one record.

  Raises:
    iodine.errors.UserError: if the file cannot be written.
  """
  path = pathlib.Path(path)
  with _failures_named(path):
    if path.is_dir():
      raise IsADirectoryError("it is a folder")
    path.parent.mkdir(parents=True, exist_ok=True)
  # Not tempfile.mkstemp, whose files only their owner may read.
  temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
  try:
    with _failures_named(path):
      temporary.touch()  # Python's errors are plainer than TensorFlow's.
      options = tf.io.TFRecordOptions(compression_type=compression or "")
      writer = tf.io.TFRecordWriter(str(temporary), options)

    def write(record: bytes) -> None:
      with _failures_named(path):
        writer.write(record)

    try:
      yield write
    except BaseException:
      with contextlib.suppress(tf.errors.OpError):
        writer.close()
      raise
    with _failures_named(path):
      writer.close()
      os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _failures_named(path: pathlib.Path) -> Iterator[None]:
  """Turns what the file system refuses into a UserError about `path`."""
  try:
    yield
  except (OSError, tf.errors.OpError) as error:
    reason = getattr(error, "strerror", None) or str(error)
    raise errors.UserError(
      f"Cannot write `{path}` ({reason}): give a path in a folder that you "
      "may write to, on a disk with room left."
    ) from error
