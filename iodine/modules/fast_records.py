"""Scenes from their records, without a string for each byte.

`records.parse` lets TensorFlow make a million strings of one byte for a CLEVR
scene, and joins them again. In the record each of those elements is the three
bytes 0x0A 0x01 value, one after another, so that an array is every third byte
of one stretch. This module finds the stretches, checks in every scene all that
it relies on, and leaves to `records.parse` what is laid out in another way.

A serialised `tf.train.Example`, where <n> is the length of what follows:

  0x0A <n>          the features; in them, for each one and in any order:
    0x0A <n>        its entry
      0x0A <n> name
      0x12 <n>      its value, which is one of
        0x0A <n>    a list of bytes: 0x0A <1> value, 0x0A <1> value, ...
        0x12 <n>    a list of floats: 0x0A <n> and all of them, four bytes each
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from iodine.modules import records

# Tags: the number of a field, and that the length of its content follows.
_FIELD_1 = 0x0A
_FIELD_2 = 0x12

# Bytes of an element in a list of bytes, which is tag, length and value.
_ELEMENT = 3
# Bytes of a float.
_FLOAT = 4


# Arrays of bytes that are smaller in sum take longer to find than to parse.
_WORTHWHILE = 30_000


class _OtherLayoutError(Exception):
  """A record is not laid out as the top of this file says."""


def parser(
  layout: records.Layout,
) -> Callable[[tf.Tensor, records.Layout], dict[str, tf.Tensor]]:
  """Returns `parse`, or `records.parse` where scenes are too small for it."""
  return parse if is_worthwhile(layout) else records.parse


def is_worthwhile(layout: records.Layout) -> bool:
  """Returns whether scenes are large enough for `parse` to be the faster."""
  features = layout.features.values()
  sizes = [math.prod(f.shape) for f in features if f.dtype == tf.uint8]
  return sum(sizes) >= _WORTHWHILE


def parse(record: tf.Tensor, layout: records.Layout) -> dict[str, tf.Tensor]:
  """Reads one scene: does what `records.parse` does, several times as fast.

  Args:
    record: scalar string, a serialised `tf.train.Example`.
    layout: what the record holds.

  Returns:
    The arrays by name, float32 or uint8 (0 to 255), with the shapes of the
    layout, except that "mask" is always [L, H, W, 1].

  Raises:
    tf.errors.InvalidArgumentError: when it runs on a record that has another
      layout.
  """
  # Few steps of Python, which would be some hundred operations in the graph.
  # All that handles the values themselves is in the graph.
  find = functools.partial(_find_all_values, layout=layout)
  fits, starts = tf.numpy_function(
    find, [record], (tf.bool, tf.int64), stateful=False
  )
  fits.set_shape([])
  starts.set_shape([len(layout.features)])
  arrays = {}
  for start, (name, feature) in zip(
    tf.unstack(starts), layout.features.items(), strict=True
  ):
    size = math.prod(feature.shape)
    is_bytes = feature.dtype == tf.uint8
    length = size * (_ELEMENT if is_bytes else _FLOAT)
    stretch = tf.strings.substr(record, start, length)
    # If the record does not fit, `start` is 0 and the stretch may be shorter.
    values = tf.io.decode_raw(stretch, feature.dtype, fixed_length=length)
    if is_bytes:
      elements = tf.reshape(values, [size, _ELEMENT])
      tags, lengths, values = tf.unstack(elements, axis=1)
      fits &= tf.reduce_all(tags == _FIELD_1) & tf.reduce_all(lengths == 1)
    arrays[name] = tf.reshape(values, feature.shape)
  if layout.entities_last:
    arrays["mask"] = tf.transpose(arrays["mask"], (2, 0, 1, 3))
  return tf.cond(fits, lambda: arrays, lambda: records.parse(record, layout))


def _find_all_values(
  record: Any, layout: records.Layout
) -> tuple[np.bool_, np.ndarray]:
  """Returns whether a record fits, and where values begin, [F] int64.

  The F positions are those of the features in the order of the layout, zeros
  if the record does not fit.
  """
  try:
    # Bytes, or outside of graphs an array of no axes that holds them.
    found = _find_values(np.asarray(record, object).item(), layout)
    starts = [found[name] for name in layout.features]
  except (_OtherLayoutError, KeyError):
    return np.bool_(False), np.zeros(len(layout.features), np.int64)
  return np.bool_(True), np.array(starts, np.int64)


def _find_values(record: bytes, layout: records.Layout) -> dict[str, int]:
  """Returns where the values of the features begin, for those of the layout.

  Raises:
    _OtherLayoutError: the record is no Example, or one with another kind or
      number of values for one of the features, or with two entries for it.
  """
  features = {name.encode(): f for name, f in layout.features.items()}
  found: dict[str, int] = {}
  position, end = _enter(record, 0, _FIELD_1)
  _require(end == len(record))
  while position < end:
    entry, entry_end = _enter(record, position, _FIELD_1)
    name, value = _enter(record, entry, _FIELD_1)
    list_start, value_end = _enter(record, value, _FIELD_2)
    _require(value_end == entry_end)
    feature = features.get(record[name:value])
    if feature is not None:
      key = record[name:value].decode()
      _require(key not in found)
      found[key] = _enter_values(record, list_start, entry_end, feature)
    position = entry_end
  _require(position == end)
  return found


def _enter_values(
  record: bytes, position: int, end: int, feature: records.Feature
) -> int:
  """Returns where the values of a list from `position` to `end` begin."""
  if feature.dtype == tf.uint8:
    position, list_end = _enter(record, position, _FIELD_1)
    width = _ELEMENT
  else:
    position, list_end = _enter(record, position, _FIELD_2)
    _require(list_end == end)
    position, list_end = _enter(record, position, _FIELD_1)
    width = _FLOAT
  _require(list_end == end)
  _require(end - position == width * math.prod(feature.shape))
  return position


def _enter(record: bytes, position: int, tag: int) -> tuple[int, int]:
  """Returns where the content of a field begins and ends.

  Args:
    record: the bytes.
    position: where the field begins.
    tag: what it has to begin with.

  Raises:
    _OtherLayoutError: it begins with another tag, or the record ends.
  """
  _require(record[position : position + 1] == bytes([tag]))
  # Seven bits of the length in each byte, the lowest first. The eighth bit
  # says that another byte follows.
  length = 0
  for i, byte in enumerate(record[position + 1 : position + 6]):
    length |= (byte & 127) << (7 * i)
    if byte < 128:
      start = position + 2 + i
      return start, start + length
  raise _OtherLayoutError


def _require(condition: bool) -> None:
  if not condition:
    raise _OtherLayoutError
