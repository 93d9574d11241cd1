"""Tests of the fast way to read a scene, against the plain one."""

import re
import struct

import numpy as np
import pytest
import tensorflow as tf

from iodine.readers import examples, layouts

# All that a layout can have, in few bytes.
SMALL = layouts.Layout(
  name="small",
  variant=None,
  image_shape=(2, 3, 3),
  num_entities=2,
  features={
    "image": layouts.Feature((2, 3, 3), tf.uint8),
    "mask": layouts.Feature((2, 3, 2, 1), tf.uint8),
    "x": layouts.Feature((2,), tf.float32),
    "color": layouts.Feature((2, 3), tf.float32),
    "size": layouts.Feature((2,), tf.uint8),
  },
  entities_last=True,
)


# -----------------------------------------------------------------------------
# Records, written without protobuf, in all the forms that it allows.


def varint(number):
  digits = []
  while number >= 128:
    digits.append(number % 128 + 128)
    number //= 128
  return bytes([*digits, number])


def field(number, content):
  return varint(number * 8 + 2) + varint(len(content)) + content


def bytes_feature(values):
  """A list of bytes; values are numbers, or strings of any length."""
  strings = [v if isinstance(v, bytes) else bytes([v]) for v in values]
  return field(1, b"".join(field(1, string) for string in strings))


def float_feature(raw):
  """A list of floats, from their bytes."""
  return field(2, field(1, raw))


def entry(name, feature):
  return field(1, field(1, name.encode()) + field(2, feature))


def example(entries):
  return field(1, b"".join(entries))


def random_features(layout, rng):
  """Random features in the order of the layout: {name: feature in bytes}.

  Floats are random bits: NaN with payloads, infinities, subnormal numbers.
  """
  features = {}
  for name, (shape, dtype, _) in layout.features.items():
    size = int(np.prod(shape))
    if dtype == tf.uint8:
      features[name] = bytes_feature(rng.integers(0, 256, size).tolist())
    else:
      features[name] = float_feature(rng.bytes(4 * size))
  return features


def entries_of(layout, rng):
  features = random_features(layout, rng)
  return [entry(name, feature) for name, feature in features.items()]


# -----------------------------------------------------------------------------
# Running both forms.


def compiled(parse, layout):
  signature = [tf.TensorSpec([], tf.string)]
  return tf.function(lambda record: parse(record, layout), signature)


@pytest.fixture(scope="module")
def small_parsers():
  parsers = examples._parse_plain, examples._parse_fast
  return [compiled(parse, SMALL) for parse in parsers]


def outcome(parse, record):
  """The arrays in bytes, or the error without the names of its operations."""
  try:
    scene = parse(tf.constant(record))
  except UnicodeDecodeError as error:
    # TensorFlow quotes the record, and Python cannot read that.
    return type(error), None
  except tf.errors.OpError as error:
    names = r"\{\{.*?\}\}|\[\[.*?\]\]|\[Op:.*?\]"
    message = re.sub(names, "", error.message)
    return type(error), message.strip().splitlines()[0]
  return {
    name: (array.dtype, array.shape, array.numpy().tobytes())
    for name, array in scene.items()
  }


@pytest.mark.parametrize(
  "layout",
  [*(x for x in layouts.LAYOUTS if x.num_frames is None), SMALL],
  ids=lambda layout: layout.title,
)
def test_equals_plain_parsing(layout):
  rng = np.random.default_rng(0)
  plain = compiled(examples._parse_plain, layout)
  fast = compiled(examples._parse_fast, layout)
  for _ in range(3):
    entries = entries_of(layout, rng)
    # Protobuf writes a map in any order, and files hold more than is read.
    entries += [
      entry("material", bytes_feature([1, 2, 3])),
      entry("a feature of the name " + "x" * 200, float_feature(bytes(8))),
      entry("number", field(3, field(1, varint(300)))),
      entry("", b""),
    ]
    order = rng.permutation(len(entries))
    record = example([entries[i] for i in order])
    expected = outcome(plain, record)
    assert isinstance(expected, dict)
    assert outcome(fast, record) == expected
    assert (
      outcome(lambda r: examples._parse_fast(r, layout), record) == expected
    )
    # It is not the plain way that this came by.
    fits, *arrays = examples._read(record, layout)
    assert fits and len(arrays) == len(layout.features)


def odd_records():
  """Records that are laid out in another way, by name."""
  rng = np.random.default_rng(1)
  features = random_features(SMALL, rng)
  others = random_features(SMALL, rng)

  def changed(**changes):
    return example(entry(*item) for item in (features | changes).items())

  def with_entry(content):
    return example([*(entry(*i) for i in features.items()), content])

  good = changed()
  pixels = list(range(18))
  floats = struct.pack("<2f", 1.5, -2.5)
  unpacked = b"".join(b"\x0d" + floats[i : i + 4] for i in (0, 4))
  swapped = field(2, features["x"]) + field(1, b"x")
  in_two_parts = bytes_feature(pixels[:9]) + bytes_feature(pixels[9:])
  foreign = field(1, b"y") + field(2, others["x"]) + field(3, b"abc")
  return {
    # Elements: a long and an empty one take the place of two.
    "long and empty": changed(image=bytes_feature([*pixels[:16], b"ab", b""])),
    "all long": changed(image=bytes_feature([b"ab"] * 18)),
    "another tag": changed(
      image=field(1, bytes([0x12, 1, 7] * 17) + field(1, b"a"))
    ),
    "too few": changed(image=bytes_feature(pixels[:-1])),
    "no elements": changed(image=bytes_feature([])),
    "list in two parts": changed(image=in_two_parts),
    "length in two bytes": changed(size=field(1, b"\x0a\x81\x00a\x0a\x01b")),
    # Floats.
    "unpacked floats": changed(x=field(2, unpacked)),
    "half a float": changed(x=float_feature(floats[:6])),
    "floats as bytes": changed(x=bytes_feature(list(floats))),
    "bytes as floats": changed(size=float_feature(bytes(8))),
    "no kind": changed(x=b""),
    "two kinds": changed(x=bytes_feature([1]) + float_feature(floats)),
    # Entries.
    "lacks x": example(entry(*i) for i in features.items() if i[0] != "x"),
    "twice": with_entry(entry("x", others["x"])),
    "twice, in another kind": with_entry(entry("x", others["size"])),
    "value before name": with_entry(field(1, swapped)),
    "no name": with_entry(field(1, field(2, others["x"]))),
    "foreign field in an entry": with_entry(field(1, foreign)),
    "foreign field among entries": with_entry(field(2, b"abc")),
    # Examples.
    "merged, replacing": good + example([entry("x", others["x"])]),
    "foreign field": good + field(2, b"abc"),
    "padded": good + bytes(8),
    "endless length": b"\x0a" + b"\xff" * 20,
    "empty": b"",
    "text": b"no example at all",
    **{f"cut at {n}": good[:n] for n in (2, 30, len(good) - 1)},
  }


ODD = odd_records()


@pytest.mark.parametrize("kind", ODD)
def test_other_forms_are_left_to_plain_parsing(kind, small_parsers):
  plain, fast = small_parsers
  expected = outcome(plain, ODD[kind])
  assert outcome(fast, ODD[kind]) == expected


def test_the_odd_records_are_not_all_broken(small_parsers):
  plain, _ = small_parsers
  read = {k for k, r in ODD.items() if isinstance(outcome(plain, r), dict)}
  assert read >= {"twice", "unpacked floats", "merged, replacing"}
  assert not read & {"lacks x", "all long", "too few", "cut at 30", "empty"}


def test_damaged_records(small_parsers):
  """Whatever happens to the bytes, both forms give the same."""
  plain, fast = small_parsers
  rng = np.random.default_rng(2)
  good = example(entries_of(SMALL, rng))
  num_read = 0
  for _ in range(600):
    record = bytearray(good)
    for _ in range(rng.integers(1, 3)):
      place = rng.integers(len(record))
      action = rng.integers(6)
      if action == 0:
        record.insert(place, rng.integers(256))
      elif action == 1:
        del record[place]
      else:
        record[place] = rng.integers(256)
    expected = outcome(plain, bytes(record))
    assert outcome(fast, bytes(record)) == expected, bytes(record)
    num_read += isinstance(expected, dict)
  assert 50 < num_read < 550


def test_is_worthwhile_for_large_scenes():
  titles = {
    layout.title for layout in layouts.LAYOUTS if examples.is_worthwhile(layout)
  }
  assert titles == {"clevr_with_masks"}
