"""Files of records: finding them, opening them, and what is wrong in them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from absl import logging

from iodine import errors
from iodine.readers import examples, layouts, paths

# Records, 3.2 MB each for CLEVR.
_READ_AHEAD = 16

# What such files begin with.
_GZIP = b"\x1f\x8b"
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")

# What reading a damaged file, or a record of another layout, can raise. The
# last, when TensorFlow quotes bytes of a record that are not text.
RECORD_ERRORS = (
  tf.errors.DataLossError,
  tf.errors.InvalidArgumentError,
  tf.errors.NotFoundError,  # of a file that was there before
  UnicodeDecodeError,
)


class File(NamedTuple):
  """A data file. `compression` is what `TFRecordDataset` calls it."""

  path: str
  compression: str

  def records(self) -> tf.data.Dataset:
    """Returns the raw records, scalar strings, in the order of the file."""
    return tf.data.TFRecordDataset(self.path, self.compression)


def read_files(files: Sequence[File]) -> tf.data.Dataset:
  """Returns the raw records, scalar strings, of all files, one after another.

  While one file is consumed the next two are opened, inflated and read, up to
  `_READ_AHEAD` records each.
  """
  if len(files) == 1:
    return files[0].records()
  # A cycle of one file keeps the order. What runs in parallel are the files
  # that are due next.
  return tf.data.Dataset.from_tensor_slices(
    ([file.path for file in files], [file.compression for file in files])
  ).interleave(
    lambda *file: tf.data.TFRecordDataset(*file).prefetch(_READ_AHEAD),
    cycle_length=1,
    num_parallel_calls=tf.data.AUTOTUNE,
    deterministic=True,
  )


def open_files(path: Any, layout: layouts.Layout) -> list[File]:
  """Finds the data files and checks the first record of each.

  Args:
    path: see `paths.expand`. What a folder or a glob gives is in alphabetical
      order.
    layout: what the records have to hold.

  Returns:
    The files; how they are compressed is decided by their first bytes, because
    files without compression circulate under the same names.
  """
  # Another order would be another training.
  found = paths.expand("data.path", path, (), _remedy(layout), key=str)
  files = []
  for name in found.values():
    with open(name, "rb") as content:
      files.append(File(name, _compression(content.read(8))))
    problem = _find_problem(files[-1], layout, num_records=1)
    if problem:
      raise errors.UserError(problem)
  return files


def _compression(head: bytes) -> str:
  """Returns how a file is compressed that begins with these eight bytes."""
  if head[:2] == _GZIP:
    return "GZIP"
  # Without compression they are the length of a record, which may be any, but
  # not of gigabytes.
  return "ZLIB" if head[:2] in _ZLIB and any(head[4:]) else ""


def _remedy(layout: layouts.Layout) -> str:
  """Returns the end of a sentence: where to get data of this layout."""
  remedy = (
    "say where the scenes are here by `data.path=`; the public data sets are in"
    " the Google Cloud bucket gs://multi-object-datasets (described at"
    " github.com/google-deepmind/multi_object_datasets)"
  )
  if layout.config is None:
    return remedy
  variant = f" data.dataset_variant={layout.variant}" if layout.variant else ""
  return (
    f"{remedy}, and `python main.py make_data with {layout.config}{variant}"
    " num_scenes=1000 seed=0` writes a stand-in, to `data_dir=FOLDER` or where"
    " it is read"
  )


def find_bad_record(
  files: Sequence[File], layout: layouts.Layout
) -> str | None:
  """Reads all files to find the first record that cannot be read.

  Meant for after a failure, as tf.data's own errors name neither the file nor
  the record. It takes as long as a pass over the data.

  Args:
    files: the files, in order.
    layout: what the records have to hold.

  Returns:
    A sentence with the file and the index of the record in it (from 0), or
    None if every record can be read.
  """
  logging.warning("A record cannot be read: looking for it in all files.")
  problems = (_find_problem(file, layout) for file in files)
  return next(filter(None, problems), None)


def _find_problem(
  file: File, layout: layouts.Layout, num_records: int = -1
) -> str | None:
  """Returns what is wrong in a file, a sentence; None if nothing is.

  Args:
    file: the file.
    layout: what its records have to hold.
    num_records: how many are looked at; -1: all.
  """
  index = 0
  try:
    for record in file.records().take(num_records):
      problem = _problem_of(record, layout)
      if problem is not None:
        return (
          f"record {index} of `{file.path}` is not a scene of {layout.title},"
          f" {_what_else(record) or f'({problem[:150]})'}: change the path, or"
          " the data set and `dataset_variant`"
        )
      index += 1
  except tf.errors.NotFoundError:
    return f"`{file.path}` is gone (No such file): put it back"
  except tf.errors.DataLossError:
    # Compressed files are inflated in blocks, which fail as a whole.
    place = "in or soon after" if file.compression else "in"
    return (
      f"`{file.path}` is not a TFRecord file, or truncated or corrupt {place}"
      f" record {index} (counted from 0): check the path, or download or write"
      " it again"
    )
  if not index:
    return f"`{file.path}` holds no complete record: download or write it again"
  return None


def _what_else(record: tf.Tensor) -> str:
  """Returns which layouts a record has, the end of a sentence."""
  fitting = [x for x in layouts.LAYOUTS if _problem_of(record, x) is None]
  # A layout with few features fits records with more: the fullest is meant.
  most = max((len(x.features) for x in fitting), default=0)
  titles = [x.title for x in fitting if len(x.features) == most]
  return f"but of {' or '.join(titles)}" if titles else ""


def _problem_of(record: tf.Tensor, layout: layouts.Layout) -> str | None:
  """Returns what TensorFlow says of a record that has another layout."""
  try:
    examples.parse(record, layout)
  except RECORD_ERRORS as error:
    return errors.reason(error)
  return None
