"""Data files: finding them, opening them, and saying what is wrong in them."""

import contextlib
import functools
import glob
import gzip
import hashlib
import itertools
import math
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from iodine import errors
from iodine import files as permissions
from iodine.readers import examples, globs, layouts

# What identifies a file: so many places in it, and bytes at each of them.
_NUM_PLACES = 16
_NUM_BYTES = 4096

# Records, 3.2 MB each for CLEVR.
_READ_AHEAD = 16

# A record this many times as long as those of any layout is none of them.
_MOST_TIMES = 4
# How far the lengths of records are looked at before they are read.
_MOST_RECORDS = 100_000
_MOST_COMPRESSED = 2**24
_MOST_INFLATED = 2**30
_GZIP = b"\x1f\x8b"  # what such files begin with
# A second or so, once in a process for each file that is read to its end.
_MOST_CHECKED = 100 * 1024**2
_INFLATED_BLOCK = 64 * 1024

# What reading a damaged file, or a record of another layout, can raise. The
# last, when TensorFlow quotes bytes of a record that are not text.
RECORD_ERRORS = (
  tf.errors.DataLossError,
  tf.errors.InvalidArgumentError,
  # Of files that were there before.
  tf.errors.FailedPreconditionError,
  tf.errors.NotFoundError,
  tf.errors.PermissionDeniedError,
  UnicodeDecodeError,
)


class File(NamedTuple):
  """A data file. `compression` is "GZIP" or "" as `TFRecordDataset` has it."""

  path: str
  compression: str

  def records(self) -> tf.data.Dataset:
    """Returns the raw records, scalar strings, in the order of the file."""
    return _records(self.path, self.compression)

  def fingerprint(self) -> list[Any]:
    """Returns what differs for another file: not its name, it may be moved."""
    # A compressed file ends in a checksum of all it holds.
    return fingerprint(self.path, ends_in_checksum=bool(self.compression))


def _records(path: Any, compression: Any) -> tf.data.Dataset:
  """Returns raw records, with an error at the end of a file that is cut off.

  TensorFlow takes a compressed file that ends between two records for whole.
  """
  end = tf.data.Dataset.from_tensors(path).filter(_fails_if_cut_off)
  return tf.data.TFRecordDataset(path, compression).concatenate(end)


def _fails_if_cut_off(path: tf.Tensor) -> tf.Tensor:
  """Returns False, or fails with one of `RECORD_ERRORS`."""

  def flag(name: bytes) -> np.float32:
    is_whole = False
    with contextlib.suppress(OSError):  # it may be there no more
      stat = os.stat(name)
      is_whole = _is_whole(name, stat.st_size, stat.st_mtime_ns)
    return np.float32(0.0 if is_whole else np.nan)

  # Python's own error would be logged with a traceback.
  found = tf.numpy_function(flag, [path], tf.float32, stateful=False)
  found.set_shape([])
  return tf.debugging.check_numerics(found, "a file is cut off") > 0.0


@functools.cache
def _is_whole(path: bytes, size: int, changed: int) -> bool:
  """Returns whether a gzip file has the checksums at its end; True if unknown.

  Args:
    path: any file.
    size: in bytes.
    changed: when. Where these are the same, the answer is.
  """
  del changed
  if size > _MOST_CHECKED:
    return True
  inflater = None
  with contextlib.suppress(zlib.error), open(path, "rb") as file:
    while block := file.read(_INFLATED_BLOCK):
      while block:
        if inflater is None and not block.startswith(_GZIP[: len(block)]):
          return True  # no gzip file, or something that follows one
        inflater = inflater or zlib.decompressobj(zlib.MAX_WBITS | 16)
        inflater.decompress(block)
        block = inflater.unused_data
        inflater = None if inflater.eof else inflater
  return inflater is None


def fingerprint(path: str, ends_in_checksum: bool = False) -> list[Any]:
  """Returns what differs, with great probability, for another file.

  Args:
    path: the file.
    ends_in_checksum: of all it holds; otherwise its time of change counts.
  """
  size = os.path.getsize(path)
  digest = hashlib.sha256()
  with open(path, "rb") as content:
    for place in np.linspace(0, max(size - _NUM_BYTES, 0), _NUM_PLACES):
      content.seek(int(place))
      digest.update(content.read(_NUM_BYTES))
  changed = None if ends_in_checksum else os.stat(path).st_mtime_ns
  return [size, digest.hexdigest(), changed]


def read_files(files: Sequence[File]) -> tf.data.Dataset:
  """Returns the raw records, scalar strings, of all files, one after another.

  While one file is consumed the next two are opened, inflated and read, up to
  `_READ_AHEAD` records each.
  """
  if len(files) == 1:
    return files[0].records()
  paths = [file.path for file in files]
  compressions = [file.compression for file in files]
  # A cycle of one file keeps the order. What runs in parallel are the files
  # that are due next.
  return tf.data.Dataset.from_tensor_slices((paths, compressions)).interleave(
    lambda path, compression: _records(path, compression).prefetch(_READ_AHEAD),
    cycle_length=1,
    num_parallel_calls=tf.data.AUTOTUNE,
    deterministic=True,
  )


def as_list(path: Any) -> Sequence[str]:
  """Returns the files and globs of a data set's `path`.

  Raises:
    UserError: it is neither a file nor a glob nor a list of those.
  """
  is_single = isinstance(path, str | os.PathLike)
  paths: Any = [path] if is_single else path
  if not isinstance(paths, list | tuple) or not all(
    isinstance(each, str | os.PathLike) for each in paths
  ):
    raise errors.UserError(
      f"`path` is {errors.shorten(path)}: give a file, a glob, or a list of"
      " those" + errors.quote_hint(path, "data.path")
    )
  return paths


def title(path: Any) -> str:
  """Returns what a data set's `path` is called in a message."""
  paths = [f"`{os.fspath(each)}`" for each in as_list(path)]
  return errors.join_some(paths, most=3, separator=", ")


def open_files(path: str | Sequence[str], layout: layouts.Layout) -> list[File]:
  """Finds the data files and checks the first record of each.

  Args:
    path: a file, a glob, or a list of those. The files that one glob matches
      are taken in alphabetical order, all else in the order given.
    layout: what the records have to hold.

  Returns:
    The files; gzip or not is decided by their first two bytes, because files
    without compression circulate under the same names.

  Raises:
    UserError: a file is missing, unreadable, empty, no TFRecord file, or its
      first record is of another data set or variant.
  """
  paths = as_list(path)
  if not paths:
    raise errors.UserError(
      "`path` is an empty list: " + _remedy(layout, "data_dir=.")
    )
  names = itertools.chain.from_iterable(_expand(p, layout) for p in paths)
  files = [File(name, _compression(name)) for name in names]
  for file in files:
    status = os.stat(file.path)
    _check_file(file, layout, status.st_size, status.st_mtime_ns)
  return files


def require_file(path: str) -> None:
  """Checks that there is a file, not what one can wait for without an end.

  Raises:
    UserError: it is a pipe, a device or a folder, or there is nothing.
  """
  if not os.path.isfile(path):
    raise errors.UserError(
      f"`{path}` is not a file, but something else, such as a pipe or a device:"
      " give the path of a file"
    )


def _expand(path: str, layout: layouts.Layout) -> list[str]:
  """Returns the files that a path or glob stands for; UserError if none."""
  path = os.path.expanduser(os.fspath(path))
  permissions.check_readable(path)
  if os.path.isdir(path):
    example = os.path.join(path, "*.tfrecords")
    raise errors.UserError(
      f"`path` is `{path}`, a folder, where a file or a glob such as {example}"
      f" is needed: {_remedy(layout, f'data_dir={path}')}"
    )
  if os.path.exists(path):
    require_file(path)
    return [path]
  matches = list(filter(os.path.isfile, globs.matches(path)))
  if not matches:
    # A glob is not a place to write to.
    is_glob = glob.has_magic(path)
    folder = os.path.dirname(path) or "."
    place = f"data_dir={folder}" if is_glob else f"data.path={path}"
    raise errors.UserError(
      f"`path` is `{path}`, but there is no such file: {_remedy(layout, place)}"
    )
  return matches


def _remedy(layout: layouts.Layout, place: str) -> str:
  """Returns the end of a sentence: where to get data of this layout.

  `place` is the argument that tells make_data where to write.
  """
  # No generator exists for the objects room.
  named_config = {
    "tetrominoes": "tetrominoes",
    "multi_dsprites": "multi_dsprites",
    "clevr_with_masks": "clevr6",
  }.get(layout.name)
  remedy = (
    "the public data sets are in the Google Cloud bucket"
    " gs://multi-object-datasets (described at"
    " github.com/google-deepmind/multi_object_datasets)"
  )
  if named_config is None:
    return remedy
  command = (
    f"python main.py make_data with {named_config} {place}"
    " num_scenes=1000 seed=0"
  )
  if layout.variant is not None:
    command += f" data.dataset_variant={layout.variant}"
  return f"{remedy}, and `{command}` writes a stand-in"


def _compression(path: str) -> str:
  """Returns "GZIP" or "", from the file's first two bytes."""
  try:
    with open(path, "rb") as file:
      magic = file.read(2)
  except OSError as error:
    raise errors.UserError(
      f"`{path}` cannot be read ({error.strerror}): check the path and its "
      "permissions"
    ) from error
  if not magic:
    raise errors.UserError(f"`{path}` is empty: download or write it again")
  return "GZIP" if magic == _GZIP else ""


@functools.lru_cache
def _check_file(file: File, layout: layouts.Layout, size: int, _: int) -> None:
  """Checks how long a file says that its records are, and the first of them.

  TensorFlow takes that much memory before it reads a record. All records of
  small files are looked at, of larger ones the first.

  Args:
    file: the file.
    layout: what the records have to hold.
    size: of the file.
    _: its time of change, with which what was found may change.

  Raises:
    UserError: a record is longer than any can be, or the first is another.
  """
  most = _MOST_TIMES * max(
    known.num_bytes for known in (*layouts.LAYOUTS, layout)
  )
  is_small = not file.compression or size <= _MOST_COMPRESSED
  found = find_long_record(file, most, _MOST_RECORDS if is_small else 1)
  if found is not None:
    index, length = found
    raise errors.UserError(
      f"record {index} of `{file.path}` has {length:,} bytes, many times more "
      "than a scene takes: check the path, or download or write it again"
    )
  sentence = _explain_record(file, 0, layout)
  if sentence:
    raise errors.UserError(sentence)


def find_long_record(
  file: File, most: int, num: int = _MOST_RECORDS
) -> tuple[int, int] | None:
  """Looks for a record that says that it has more than `most` bytes.

  Args:
    file: a TFRecord file, of which no more than `_MOST_INFLATED` is inflated.
    most: see above.
    num: how many records to look at.

  Returns:
    The number of the record and its length; None if there is none, or the file
    is broken before, which is for TensorFlow to say.
  """
  opener: Any = gzip.open if file.compression else open
  place = 0
  with (
    contextlib.suppress(OSError, EOFError, zlib.error, struct.error),
    opener(file.path, "rb") as content,
  ):
    for index in range(num):
      content.seek(place)
      header = content.read(12)
      length, checksum = struct.unpack("<QI", header)
      if length > most:
        is_meant = checksum == _checksum(header[:8])
        return (index, length) if is_meant else None
      place += 12 + length + 4
      if file.compression and place >= _MOST_INFLATED:
        break
  return None


def _checksum(data: bytes) -> int:
  """Returns the masked CRC-32C of TFRecord files."""
  crc = 2**32 - 1
  for byte in data:
    crc ^= byte
    for _ in range(8):
      crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
  crc ^= 2**32 - 1
  return (crc >> 15 | crc << 17) + 0xA282EAD8 & 2**32 - 1


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
  for file in files:
    _compression(file.path)  # which a file may have lost that was there before
    scenes = file.records().map(
      lambda record: examples.parse(record, layout),
      num_parallel_calls=tf.data.AUTOTUNE,
      deterministic=True,
    )
    index = 0
    try:
      for _ in scenes:
        index += 1
    except RECORD_ERRORS:
      return _explain_record(file, index, layout)
  return None


def _explain_record(
  file: File, index: int, layout: layouts.Layout
) -> str | None:
  """Returns what is wrong with a record, a sentence; None if nothing is."""
  try:
    record = next(iter(file.records().skip(index).take(1)), None)
  except tf.errors.OpError:
    is_other = "is not a TFRecord file, or " if index == 0 else ""
    return (
      f"`{file.path}` {is_other}is truncated or corrupt {_place(file, index)}"
      " (counted from 0): check the path, or download or write it again"
    )
  if record is None:
    return f"`{file.path}` holds no complete record: download or write it again"
  problem = _find_problem(record.numpy(), layout)
  return problem and f"record {index} of `{file.path}` {problem}"


def _place(file: File, index: int) -> str:
  """Returns where a file is damaged, if reading the record failed."""
  # Compressed files are inflated in blocks, which fail as a whole.
  soon = "in or soon after" if file.compression else "in"
  return f"{soon} record {index}"


def _find_problem(record: bytes, layout: layouts.Layout) -> str | None:
  """Explains why a record cannot be read.

  Args:
    record: a serialised scene, or what should have been one.
    layout: what the record has to hold.

  Returns:
    The predicate of a sentence about the record, without the full stop; None
    if the record has the layout.
  """
  try:
    features = tf.train.Example.FromString(record).features.feature
  except Exception:  # DecodeError has moved between versions of protobuf.
    return (
      "is not a tf.train.Example: give files in the layout of"
      " github.com/google-deepmind/multi_object_datasets"
    )
  problems = _mismatches(features, layout)
  if not problems:
    return None
  fitting = [
    other for other in layouts.LAYOUTS if not _mismatches(features, other)
  ]
  # A layout with few features fits records with more: prefer the fullest.
  most = max((len(other.features) for other in fitting), default=0)
  titles = [other.title for other in fitting if len(other.features) == most]
  if titles:
    return (
      f"is a scene of {' or '.join(titles)}, not of {layout.title}: change"
      " the path, or the data set and `dataset_variant`"
    )
  return (
    f"is not a scene of {layout.title}, as {problems[0]}: give a file of that"
    " data set, or write it again"
  )


def _mismatches(
  features: Mapping[str, Any], layout: layouts.Layout
) -> list[str]:
  """Returns what keeps an Example from having the layout, as clauses."""
  problems = []
  for name, expected in layout.features.items():
    if name not in features:
      problems.append(f"it lacks the feature `{name}`")
      continue
    kind = "bytes_list" if expected.dtype == tf.uint8 else "float_list"
    found = features[name].WhichOneof("kind")
    values = getattr(features[name], found).value if found else ()
    size = math.prod(expected.shape)
    if found != kind or len(values) != size:
      problems.append(
        f"its feature `{name}` is a {found} of {len(values)} values where a"
        f" {kind} of {size} is needed"
      )
    elif kind == "bytes_list" and set(map(len, values)) != {1}:
      problems.append(
        f"its feature `{name}` has elements that are not one byte"
      )
  return problems
