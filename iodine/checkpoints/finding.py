"""Finding checkpoints and opening them, once.

A run's folder holds `ckpt-<step>.*` with the `checkpoint` state file of
`tf.train.CheckpointManager`, and the same for the best one in `best/`. The
original's (TF1) are name-based and look alike from outside.
"""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine import errors, files

BEST_FOLDER = "best"
# What TensorFlow raises for files that are broken in one way or another.
READ_ERRORS = (
  tf.errors.OpError,
  AssertionError,
  IndexError,
  RuntimeError,
  UnicodeDecodeError,
)


class Opened(NamedTuple):
  """A checkpoint whose files are open.

  Attributes:
    prefix: of its files.
    reader: TensorFlow's.
    shapes: of all that is saved, by the names in the file.
  """

  prefix: str
  reader: Any
  shapes: dict[str, tuple[int, ...]]

  @property
  def is_tf1(self) -> bool:
    """Returns whether it is name-based, as the original's are."""
    return "_CHECKPOINTABLE_OBJECT_GRAPH" not in self.shapes

  def read(self, name: str) -> np.ndarray:
    """Reads one tensor.

    Raises:
      errors.UserError: if the files are broken.
    """
    with reading(self.prefix):
      return self.reader.get_tensor(name)


def open_checkpoint(path: str | os.PathLike[str] | Opened) -> Opened:
  """Opens a checkpoint, unless that was done already.

  Args:
    path: a prefix or a folder, see `find`; or what this function returned.

  Raises:
    errors.UserError: if there is none, or its files are broken.
  """
  if isinstance(path, Opened):
    return path
  prefix = find(path)
  with reading(prefix):
    reader = tf.train.load_checkpoint(prefix)
    shapes = reader.get_variable_to_shape_map()
  return Opened(prefix, reader, {k: tuple(s) for k, s in shapes.items()})


@contextlib.contextmanager
def reading(prefix: str) -> Iterator[None]:
  """Makes what TensorFlow raises for broken files a sentence.

  Raises:
    errors.UserError: if reading fails.
  """
  try:
    yield
  except READ_ERRORS as error:
    raise errors.UserError(
      f"the checkpoint `{prefix}` cannot be read, its files are broken or "
      f"incomplete: use an older one ({first_line(error)})"
    ) from error


def run_folder(prefix: str) -> str:
  """Returns the folder of the run that a checkpoint is of."""
  folder = os.path.dirname(prefix) or "."
  if os.path.basename(os.path.abspath(folder)) == BEST_FOLDER:
    folder = os.path.normpath(os.path.join(folder, os.pardir))
  return folder


def as_path(path: Any) -> str:
  """Returns a path as a string.

  Raises:
    errors.UserError: if it is something else.
  """
  if not isinstance(path, (str, os.PathLike)):
    raise errors.UserError(
      f"{path!r} is not a path: give a checkpoint's prefix or a folder"
      + errors.quoting(path)
    )
  return os.fspath(path)


def latest(folder: str) -> str | None:
  """Returns the prefix that a folder's state file names, if it is there."""
  try:
    return tf.train.latest_checkpoint(folder)
  except READ_ERRORS:
    return None  # a state file that cannot be read is as good as none


def find(path: Any) -> str:
  """Returns the prefix of the checkpoint that `path` means.

  Args:
    path: a checkpoint prefix, or a folder, of which the newest counts.

  Raises:
    errors.UserError: if there is none.
  """
  path = as_path(files.as_written(path))
  if os.path.isdir(path):
    prefix = latest(path)
    if prefix is not None:
      return prefix
    # No state file, or one that was written elsewhere.
    found = sorted(glob.glob(os.path.join(glob.escape(path), "*.index")))
    if len(found) == 1:
      return found[0].removesuffix(".index")
    if found:
      raise errors.UserError(
        f"the folder `{path}` holds {len(found)} checkpoints and no state file "
        f"that names one: give a prefix, such as "
        f"`{found[-1].removesuffix('.index')}`"
      )
    raise errors.UserError(
      f"the folder `{path}` holds no checkpoint: give `checkpoint_dir` the "
      "folder that a training printed, or a checkpoint's prefix"
    )
  if not tf.io.gfile.exists(path + ".index"):
    raise errors.UserError(
      f"there is no checkpoint at `{path}`: give `checkpoint_dir` the folder "
      "that a training printed, or a checkpoint's prefix such as "
      "`folder/ckpt-1000`"
    )
  return path


def first_line(error: Exception) -> str:
  """Returns what an error of TensorFlow says, without the details."""
  return str(error).strip().split("\n")[0]
