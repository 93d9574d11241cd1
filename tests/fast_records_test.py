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
  for name, (shape, dtype) in layout.features.items():
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
  return compiled(examples._parse_plain, SMALL), compiled(
    examples._parse_fast, SMALL
  )


@pytest.fixture(scope="module")
def small_fast_alone():
  return fast_alone(SMALL)


def fast_alone(layout):
  """The fast form, with zeros in place of what it leaves to the plain one."""

  def zeros(record, layout):
    scene = original(record, layout)
    return {k: tf.zeros(v.shape, v.dtype) for k, v in scene.items()}

  original = examples._parse_plain
  examples._parse_plain = zeros
  try:
    function = compiled(examples._parse_fast, layout)
    function.get_concrete_function()
  finally:
    examples._parse_plain = original
  return function


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
  "layout", [*layouts.LAYOUTS, SMALL], ids=lambda layout: layout.title
)
def test_equals_plain_parsing(layout):
  rng = np.random.default_rng(0)
  plain = compiled(examples._parse_plain, layout)
  fast, alone = compiled(examples._parse_fast, layout), fast_alone(layout)
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
    assert outcome(alone, record) == expected


def test_runs_eagerly(small_parsers):
  record = example(entries_of(SMALL, np.random.default_rng(0)))
  eager = outcome(lambda r: examples._parse_fast(r, SMALL), record)
  assert eager == outcome(small_parsers[0], record)


def test_shapes_are_static():
  layout = layouts.find_layout("multi_dsprites", "binarized")
  plain, fast = (
    compiled(parse, layout).get_concrete_function().structured_outputs
    for parse in (examples._parse_plain, examples._parse_fast)
  )
  assert plain["mask"].shape == (4, 64, 64, 1)
  assert {k: (v.dtype, v.shape) for k, v in fast.items()} == {
    k: (v.dtype, v.shape) for k, v in plain.items()
  }


def odd_records():
  """Records that are laid out in another way, by name."""
  rng = np.random.default_rng(1)
  features = random_features(SMALL, rng)
  others = random_features(SMALL, rng)

  def changed(**changes):
    return example(entry(*item) for item in (features | changes).items())

  def without(name):
    return example(entry(*item) for item in features.items() if item[0] != name)

  def doubled(name, feature):
    return changed() + example([entry(name, feature)])

  def with_entry(content):
    return example([*(entry(*i) for i in features.items()), content])

  good = changed()
  pixels = list(range(18))
  floats = struct.pack("<2f", 1.5, -2.5)
  unpacked = b"".join(b"\x0d" + floats[i : i + 4] for i in (0, 4))
  swapped = field(2, features["x"]) + field(1, b"x")
  return {
    # Elements: a long and an empty one take the place of two.
    "long and empty": changed(image=bytes_feature([*pixels[:16], b"ab", b""])),
    "empty and long": changed(image=bytes_feature([b"", b"ab", *pixels[2:]])),
    "all long": changed(image=bytes_feature([b"ab"] * 18)),
    "all empty": changed(image=bytes_feature([b""] * 18)),
    "another tag": changed(
      image=field(1, bytes([0x12, 1, 7] * 17) + field(1, b"a"))
    ),
    "foreign field in the list": changed(
      image=field(1, field(2, b"a") + b"".join(field(1, b"b") for _ in pixels))
    ),
    "too few": changed(image=bytes_feature(pixels[:-1])),
    "too many": changed(image=bytes_feature([*pixels, 1])),
    "no elements": changed(image=bytes_feature([])),
    "list in two parts": changed(
      image=bytes_feature(pixels[:9]) + bytes_feature(pixels[9:])
    ),
    "length in two bytes": changed(
      size=field(1, b"\x0a\x81\x00a" + b"\x0a\x01b")
    ),
    # Floats.
    "unpacked floats": changed(x=field(2, unpacked)),
    "floats in two parts": changed(
      x=field(2, field(1, floats[:4]) + field(1, floats[4:]))
    ),
    "packed and unpacked": changed(
      x=field(2, field(1, floats[:4]) + b"\x0d" + floats[4:])
    ),
    "half a float": changed(x=float_feature(floats[:6])),
    "floats as bytes": changed(x=bytes_feature(list(floats))),
    "bytes as floats": changed(size=float_feature(bytes(8))),
    "integers": changed(x=field(3, field(1, bytes(8)))),
    "no kind": changed(x=b""),
    "two kinds": changed(x=bytes_feature([1]) + float_feature(floats)),
    # Entries.
    **{f"lacks {name}": without(name) for name in SMALL.features},
    "twice": with_entry(entry("x", others["x"])),
    "twice, in another kind": with_entry(entry("x", others["size"])),
    "twice, without a kind": with_entry(entry("x", b"")),
    "value before name": with_entry(field(1, swapped)),
    "no value": with_entry(field(1, field(1, b"other"))),
    "no name": with_entry(field(1, field(2, others["x"]))),
    "empty entry": with_entry(field(1, b"")),
    "foreign field in an entry": with_entry(
      field(1, field(1, b"y") + field(2, others["x"]) + field(3, b"abc"))
    ),
    "foreign content": with_entry(entry("y", b"no feature at all")),
    "name that is no text": with_entry(
      field(1, field(1, b"\xff\xfe") + field(2, others["x"]))
    ),
    "foreign field among entries": with_entry(field(2, b"abc")),
    # Examples.
    "merged, replacing": doubled("x", others["x"]),
    "merged, adding": doubled("y", others["x"]),
    "foreign field": good + field(2, b"abc"),
    "number at the end": good + b"\x18\x05",
    "padded": good + bytes(8),
    "padded in front": bytes(3) + good,
    "length of five bytes": b"\x0a"
    + bytes([len(good[3:]) % 128 + 128, len(good[3:]) // 128 + 128, 128, 0])
    + good[3:],
    "endless length": b"\x0a" + b"\xff" * 20,
    "empty": b"",
    "text": b"no example at all",
    **{f"cut at {n}": good[:n] for n in (1, 2, 3, 4, 30, len(good) - 1)},
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
  assert read >= {
    "twice",
    "unpacked floats",
    "merged, replacing",
    "foreign field",
  }
  assert not read & {"lacks x", "all long", "too few", "cut at 30", "empty"}


def test_fast_form_is_used_where_it_can_be(small_fast_alone, small_parsers):
  plain, _ = small_parsers
  for kind in ("foreign content", "name that is no text"):
    assert outcome(small_fast_alone, ODD[kind]) == outcome(plain, ODD[kind])
  # What was left to the other form is zero here.
  scene = small_fast_alone(tf.constant(ODD["unpacked floats"]))
  assert not any(np.any(array) for array in scene.values())


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
