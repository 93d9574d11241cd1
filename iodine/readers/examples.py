"""Scenes from their records, without a string for each byte.

TensorFlow's own parser makes a million strings of one byte for a CLEVR scene,
and joins them again. In the record each of those elements is the three
bytes 0x0A 0x01 value, one after another, so that an array is every third byte
of one stretch. This module finds the stretches, checks in every scene all that
it relies on, and leaves to TensorFlow what is laid out in another way.

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
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from iodine.readers import layouts

# Tags: the number of a field, and that the length of its content follows.
_FIELD_1 = 0x0A
_FIELD_2 = 0x12

# Bytes of an element in a list of bytes, which is tag, length and value.
_ELEMENT = 3
# Bytes of a float.
_FLOAT = 4


# Arrays of bytes that are smaller in sum take longer to find than to parse.
_WORTHWHILE = 100_000


class _OtherLayoutError(Exception):
  """A record is not laid out as the top of this file says."""


def parse(
  record: tf.Tensor, layout: layouts.Layout, names: Sequence[str] | None = None
) -> dict[str, tf.Tensor]:
  """Reads one scene.

  Args:
    record: scalar string, a serialised `tf.train.Example`.
    layout: what the record holds.
    names: the arrays to read, by TensorFlow's own operations; None for all, in
      the way that is the faster one for the layout.

  Returns:
    The arrays by name, float32 or uint8 (0 to 255), with the shapes of the
    layout, except that "mask" is always [L, H, W, 1], of films [T, L, H, W, 1].
  """
  if names is None and is_worthwhile(layout):
    scene = _parse_fast(record, layout)
  else:
    scene = _parse_plain(record, layout, names)
  if layout.entities_last and "mask" in scene:
    scene["mask"] = tf.transpose(scene["mask"], (2, 0, 1, 3))
  return scene


def is_worthwhile(layout: layouts.Layout) -> bool:
  """Returns whether scenes are large enough for `_parse_fast` to pay."""
  sizes = [
    math.prod(feature.shape)
    for feature in layout.features.values()
    if feature.dtype == tf.uint8 and not feature.is_packed
  ]
  return sum(sizes) >= _WORTHWHILE


def _parse_plain(
  record: tf.Tensor, layout: layouts.Layout, names: Sequence[str] | None = None
) -> dict[str, tf.Tensor]:
  """Reads one scene by TensorFlow's own operations, see `parse`."""
  features = {name: layout.features[name] for name in names or layout.features}
  spec = {
    name: tf.io.FixedLenFeature(
      () if feature.is_packed else feature.shape,
      tf.string if feature.dtype == tf.uint8 else feature.dtype,
    )
    for name, feature in features.items()
  }
  scene = tf.io.parse_single_example(record, spec)
  for name, feature in features.items():
    if feature.dtype == tf.uint8:
      # decode_raw appends an axis for the bytes of a string: of those that are
      # not packed always one.
      array = tf.io.decode_raw(scene[name], tf.uint8)
      scene[name] = tf.reshape(array, feature.shape)
  return scene


def _parse_fast(
  record: tf.Tensor, layout: layouts.Layout
) -> dict[str, tf.Tensor]:
  """Reads all arrays of one scene several times as fast, see `parse`."""
  # In Python, as that has views of bytes; the functions that take time let
  # other threads run meanwhile.
  fits, *values = tf.numpy_function(
    functools.partial(_read, layout=layout),
    [record],
    [tf.bool, *(feature.dtype for feature in layout.features.values())],
    stateful=False,
  )
  arrays = {
    name: tf.ensure_shape(array, feature.shape)
    for array, (name, feature) in zip(
      values, layout.features.items(), strict=True
    )
  }
  fits.set_shape([])
  return tf.cond(fits, lambda: arrays, lambda: _parse_plain(record, layout))


def _read(record: Any, layout: layouts.Layout) -> list[Any]:
  """Returns whether a record fits, and the arrays of the layout's features.

  The arrays are zeros if the record does not fit.
  """
  try:
    # Bytes, or outside of graphs an array of no axes that holds them.
    serialized = np.asarray(record, object).item()
    found = _find_arrays(serialized, layout)
    arrays = [found[name] for name in layout.features]
  except (_OtherLayoutError, KeyError):
    arrays = [
      np.zeros(feature.shape, feature.dtype.as_numpy_dtype)
      for feature in layout.features.values()
    ]
    return [np.bool_(False), *arrays]
  return [np.bool_(True), *arrays]


# What surrounds the values, and where: as words of eight bytes, of which
# three hold eight elements. A block of them should fit the caches.
_BLOCK = 8192 * _ELEMENT * 8
_EXPECTED, _SURROUNDING = (
  np.frombuffer(bytes(element) * (_BLOCK // _ELEMENT), np.uint64)
  for element in ([_FIELD_1, 1, 0], [255, 255, 0])
)


def _are_single_bytes(elements: np.ndarray) -> bool:
  """Returns whether all elements are tag, length one and a value.

  The same as `(elements[0::3] == _FIELD_1).all() and (elements[1::3] ==
  1).all()`, which takes twice as long.
  """
  num_bytes = len(elements) // 8 * 8
  words = elements[:num_bytes].view(np.uint64)
  for start in range(0, len(words), len(_EXPECTED)):
    block = words[start : start + len(_EXPECTED)]
    found = block & _SURROUNDING[: len(block)]
    if not np.array_equal(found, _EXPECTED[: len(block)]):
      return False
  rest = elements[num_bytes:]
  offset = num_bytes % _BLOCK
  surrounding = _SURROUNDING.view(np.uint8)[offset : offset + len(rest)]
  expected = _EXPECTED.view(np.uint8)[offset : offset + len(rest)]
  return np.array_equal(rest & surrounding, expected)


def _find_arrays(
  record: bytes, layout: layouts.Layout
) -> dict[str, np.ndarray]:
  """Returns the arrays of the features, for those of the layout."""
  found: dict[str, np.ndarray] = {}
  position, end = _enter(record, 0, _FIELD_1)
  _require(end == len(record))
  while position < end:
    entry, entry_end = _enter(record, position, _FIELD_1)
    name, value = _enter(record, entry, _FIELD_1)
    list_start, value_end = _enter(record, value, _FIELD_2)
    _require(value_end == entry_end <= end)
    key = record[name:value].decode(errors="replace")
    feature = layout.features.get(key)
    if feature is not None:
      _require(key not in found)
      found[key] = _read_values(record, list_start, entry_end, feature)
    position = entry_end
  _require(position == end)
  return found


def _read_values(
  record: bytes, position: int, end: int, feature: layouts.Feature
) -> np.ndarray:
  """Returns the array of the list from `position` to `end`."""
  is_bytes = feature.dtype == tf.uint8
  for tag in [_FIELD_1] if is_bytes else [_FIELD_2, _FIELD_1]:
    position, content_end = _enter(record, position, tag)
    _require(content_end == end)
  size = math.prod(feature.shape)
  _require(end - position == size * (_ELEMENT if is_bytes else _FLOAT))
  if is_bytes:
    elements = np.frombuffer(record, np.uint8, _ELEMENT * size, position)
    _require(_are_single_bytes(elements))
    values = np.ascontiguousarray(elements[_ELEMENT - 1 :: _ELEMENT])
  else:
    values = np.frombuffer(record, "<f4", size, position).astype(np.float32)
  return values.reshape(feature.shape)


def _enter(record: bytes, position: int, tag: int) -> tuple[int, int]:
  """Returns where the content of a field begins and ends.

  Args:
    record: the bytes.
    position: where the field begins.
    tag: what it has to begin with.
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
