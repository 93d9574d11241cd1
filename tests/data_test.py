"""Tests of the data pipeline, on small files written here and real scenes."""

import gzip
import pathlib

import helpers
import numpy as np
import pytest
import tensorflow as tf

from iodine import errors
from iodine.modules import data
from iodine.readers import streams
from iodine.synthetic import records

# The layouts as the data sets' documentation has them, written down a second
# time: {case: (class, variant, image, mask in the file, L, floats, bytes)}.
_SPRITE = ("x", "y", "shape", "visibility", "orientation", "scale")


def _floats(num_entities, names, **others):
  shapes = dict.fromkeys(names, (num_entities,))
  return shapes | {k: (num_entities, n) for k, n in others.items()}


_ROOMS = {"train": 7, "six_objects": 10, "empty_room": 4, "identical_color": 10}
_SPRITES = {
  "colored_on_grayscale": (3, 6),
  "colored_on_colored": (3, 5),
  "binarized": (1, 4),
}
LAYOUTS = {
  "tetrominoes": (
    *(data.Tetrominoes, None, (35, 35, 3), (4, 35, 35, 1)),
    _floats(4, ("x", "y", "shape", "visibility"), color=3),
    {},
  ),
  "clevr": (
    *(data.CLEVR, None, (240, 320, 3), (11, 240, 320, 1)),
    _floats(11, ("x", "y", "z", "rotation", "visibility"), pixel_coords=3),
    dict.fromkeys(("size", "material", "shape", "color"), (11,)),
  ),
  **{
    name: (
      *(data.MultiDSprites, name, (64, 64, channels), (64, 64, num, 1)),
      _floats(num, _SPRITE, color=channels),
      {},
    )
    for name, (channels, num) in _SPRITES.items()
  },
  **{
    name: (data.ObjectsRoom, name, (64, 64, 3), (num, 64, 64, 1), {}, {})
    for name, num in _ROOMS.items()
  },
}


def make_scene(case, seed=0):
  """Returns the arrays of one scene by name."""
  _, _, image, mask, floats, byte_arrays = LAYOUTS[case]
  rng = np.random.default_rng(seed)
  scene = {
    "image": rng.integers(0, 256, image, np.uint8),
    "mask": rng.integers(0, 2, mask, np.uint8) * np.uint8(255),
  }
  for name, shape in floats.items():
    scene[name] = rng.uniform(-1, 1, shape).astype(np.float32)
  for name, shape in byte_arrays.items():
    scene[name] = rng.integers(0, 9, shape, np.uint8)
  if "visibility" in scene:
    scene["visibility"] = (rng.uniform(size=floats["visibility"]) < 0.5).astype(
      np.float32
    )
  return scene


def tetrominoes(path, **options):
  return data.Tetrominoes(**({"path": path, "batch_size": 2} | options))


def indices(dataset, num_batches=None):
  """Returns the scene numbers of each batch, as lists."""
  batches = dataset if num_batches is None else dataset.take(num_batches)
  return [b["factors"]["shape"].numpy()[:, 0, 0].tolist() for b in batches]


def flat(batches):
  return [index for batch in batches for index in batch]


# -----------------------------------------------------------------------------
# Values.


@pytest.mark.parametrize("case", LAYOUTS)
def test_round_trip(case, tmp_path):
  cls, variant, _, _, _, _ = LAYOUTS[case]
  scenes = [make_scene(case, seed) for seed in range(2)]
  path = helpers.write_records(tmp_path / "scenes.tfrecords", scenes)
  options = {} if variant is None else {"dataset_variant": variant}
  if cls is data.CLEVR:
    options["image_dim"] = [192, 192]  # The size of the crop: no resizing.
  dataset = cls(path=path, batch_size=2, **options)
  batch = next(iter(dataset("test")))

  image = np.stack([scene["image"] for scene in scenes])[:, None]
  mask = np.stack([scene["mask"] for scene in scenes])[:, None]
  if cls is data.MultiDSprites:
    mask = np.moveaxis(mask, 4, 2)
  if cls is data.CLEVR:
    image = image[:, :, 29:221, 64:256]
    mask = mask[:, :, :, 29:221, 64:256]
  np.testing.assert_allclose(batch["image"], image / 255, atol=1e-7)
  np.testing.assert_array_equal(batch["mask"], mask / 255)
  assert batch["image"].dtype == batch["mask"].dtype == tf.float32
  assert dataset.image_shape == tuple(image.shape[-3:])
  assert dataset.num_true_objects == mask.shape[2]

  if cls is data.ObjectsRoom:
    visibility = np.ones([2, mask.shape[2]])
  else:
    visibility = np.stack([scene["visibility"] for scene in scenes])
  np.testing.assert_array_equal(batch["visibility"], visibility)
  assert batch["visibility"].dtype == tf.float32

  check_factors(cls, batch["factors"], scenes)


def check_factors(cls, factors, scenes):
  """Compares factors [B, L, n] with the arrays that were written."""
  sources = {
    data.CLEVR: {
      "color": ["color"],
      "shape": ["shape"],
      "size": ["size"],
      "position": ["pixel_coords"],
      "rotation": ["rotation"],
    },
    data.MultiDSprites: {
      name: [name]
      for name in ("color", "shape", "scale", "x", "y", "orientation")
    },
    data.Tetrominoes: {
      "color": ["color"],
      "shape": ["shape"],
      "position": ["x", "y"],
    },
    data.ObjectsRoom: {},
  }[cls]
  assert set(factors) == set(sources)
  for factor, names in sources.items():
    columns = []
    for name in names:
      array = np.stack([scene[name] for scene in scenes])
      columns.append(array if array.ndim == 3 else array[..., None])
    expected = np.concatenate(columns, axis=-1)
    np.testing.assert_array_equal(factors[factor], expected)
    assert factors[factor].dtype == expected.dtype


def test_defaults_of_clevr(tmp_path):
  path = helpers.write_records(
    tmp_path / "clevr.tfrecords", [make_scene("clevr")]
  )
  dataset = data.CLEVR(path=path, batch_size=1)
  spec = dataset("train").element_spec
  assert spec["image"].shape == (1, 1, 128, 128, 3)
  assert spec["mask"].shape == (1, 1, 11, 128, 128, 1)
  assert spec["factors"]["size"].dtype == tf.uint8
  whole = data.CLEVR(
    path=path, batch_size=1, crop_region=None, image_dim=(240, 320)
  )
  image = next(iter(whole("test")))["image"][0, 0]
  expected = make_scene("clevr")["image"] / 255
  np.testing.assert_allclose(image, expected, atol=1e-7)  # float32 rounding


@pytest.mark.parametrize("case", ["clevr", "same", "up"])
def test_preprocess_matches_the_original(case, units):
  prefix = f"preprocess/{case}/"
  golden = {
    key.removeprefix(prefix): value
    for key, value in units.items()
    if key.startswith(prefix)
  }
  image, mask = data.preprocess(
    tf.constant(golden["in_image"]),
    tf.constant(golden["in_mask"]),
    golden["image_dim"].tolist(),
    golden["crop"].tolist() or None,
    bool(golden["grayscale"]),
  )
  # The same operations on the same bytes: nothing but rounding may differ.
  np.testing.assert_allclose(image, golden["image"], rtol=0, atol=1e-6)
  np.testing.assert_array_equal(mask, golden["mask"])


@helpers.needs_real_scenes
def test_real_scenes():
  batches = list(tetrominoes(str(helpers.REAL_SCENES), batch_size=4)("test"))
  assert [len(batch["image"]) for batch in batches] == [4, 4, 2]
  batch = batches[0]
  np.testing.assert_array_equal(batch["visibility"], np.ones((4, 4)))
  shapes = batch["factors"]["shape"].numpy()[..., 0]
  np.testing.assert_array_equal(
    shapes,
    [[0, 6, 5, 15], [0, 9, 14, 5], [0, 13, 5, 2], [0, 14, 11, 16]],
  )
  mask = batch["mask"].numpy()
  np.testing.assert_array_equal(mask.sum(axis=2), np.ones((4, 1, 35, 35, 1)))
  # Pieces are flat, but their edges fade into the black background.
  color = batch["factors"]["color"].numpy()
  painted = np.einsum("btlhwi,blc->bthwc", mask, color)
  excess = batch["image"].numpy() - painted
  assert excess.max() < 1 / 255  # one byte
  assert np.mean(np.abs(excess) < 1 / 255) > 0.8


# -----------------------------------------------------------------------------
# Subsets and order.


def test_order_depends_on_seed_alone(eleven):
  order = indices(tetrominoes(eleven)(), 12)
  tf.random.set_seed(7)
  expected = tf.random.uniform([3]).numpy()
  tf.random.set_seed(7)
  assert indices(tetrominoes(eleven)(), 12) == order
  # The global seed stays what it was.
  np.testing.assert_array_equal(tf.random.uniform([3]), expected)
  assert indices(tetrominoes(eleven, seed=1)(), 12) != order
  assert indices(tetrominoes(eleven, batch_size=4)(), 6) == [
    first + second
    for first, second in zip(order[::2], order[1::2], strict=True)
  ]


def test_shuffling_does_not_wait_for_a_full_buffer():
  read = []

  def note(x):
    read.append(int(x))
    return x

  numbers = tf.data.Dataset.range(3000).map(
    lambda x: tf.ensure_shape(tf.numpy_function(note, [x], tf.int64), [])
  )
  iterator = iter(streams.shuffle(numbers, 1000, 3, num_blanks=1000))
  first = int(next(iterator))
  # sqrt(1000 * pi / 2) = 40 on average, by the birthday problem.
  assert len(read) < 150
  order = [first, *map(int, iterator)]
  assert sorted(order) == list(range(3000)) and order != sorted(order)
  # Once full, the buffer shuffles like any other: a scene is delayed by 1000
  # on average, give or take as much.
  delays = np.argsort(order)[1000:2000] - np.arange(1000, 2000)
  assert np.std(delays) > 500


@pytest.mark.parametrize(
  "subset, options",
  [
    *(("train", o) for o in ({}, {"shuffle_buffer": 3}, {"seed": 5})),
    *(("summary", {}), (None, {})),
  ],
)
def test_skip_batches(eleven, subset, options):
  options = {
    "max_num_objects": 3,
    "train": [1, None],
    "batch_size": 3,
  } | options
  order = indices(tetrominoes(eleven, **options)(subset), 12)
  counted = tetrominoes(eleven, **options)  # Epochs are counted once.
  for skip in (10, 3, 1):  # 7 scenes an epoch: the fifth, second and first.
    for dataset in (counted, tetrominoes(eleven, **options)):
      assert indices(dataset(subset, skip), 12 - skip) == order[skip:]


def test_what_is_left_out_is_not_decoded(eleven, decoded):
  dataset = tetrominoes(eleven, test=[1, 9], min_num_objects=3)
  assert flat(indices(dataset("test"))) == [2, 3, 6, 7]
  assert sorted(decoded) == [2, 3, 6, 7]
  decoded.clear()
  dataset = tetrominoes(eleven, batch_size=4)
  assert indices(dataset("test", 2)) == [[8, 9, 10]]
  assert indices(dataset("test", 3)) == []
  assert sorted(decoded) == [8, 9, 10]


def test_skipping_epochs_does_not_decode(eleven, decoded):
  # Ten epochs of eleven scenes, and nine scenes of the next one.
  order = indices(tetrominoes(eleven, batch_size=1)(), 121)[119:]
  decoded.clear()
  dataset = tetrominoes(eleven, batch_size=1)("train", 119)
  assert indices(dataset, 2) == order
  # The eleventh, and as much of what follows as is read ahead.
  assert set(decoded) == set(range(11)) and len(decoded) < 100


@pytest.mark.parametrize("shuffle_buffer", [3, 1000])
def test_batches_are_those_of_shuffled_numbers(eleven, shuffle_buffer):
  """The order does not depend on what is shuffled, records or numbers."""
  options = {"shuffle_buffer": shuffle_buffer, "seed": 4, "batch_size": 3}
  dataset = tetrominoes(eleven, max_num_objects=3, train=[1, 10], **options)
  passing = [i for i in range(1, 10) if i % 4 < 3]

  def shuffled(epoch):
    tf.random.set_seed(5)  # One more than the seed of the data set.
    return streams.shuffle(
      tf.data.Dataset.from_tensor_slices(passing),
      shuffle_buffer,
      epoch,
      tf.where(epoch == 0, np.int64(shuffle_buffer), 0),
    )

  expected = tf.data.Dataset.range(100).flat_map(shuffled).batch(3).skip(1)
  batches = expected.take(12).as_numpy_iterator()
  assert indices(dataset("train", 1), 12) == [x.tolist() for x in batches]


# -----------------------------------------------------------------------------
# Files.


def test_corrupt_record_is_found_while_counting(tmp_path):
  path = tmp_path / "bad.tfrecords"
  helpers.write_records(path, [helpers.numbered_scene(i) for i in range(3)], "")
  content = bytearray(path.read_bytes())
  content[-20] ^= 0xFF
  path.write_bytes(content)
  with pytest.raises(errors.UserError, match="corrupt in record 2"):
    tetrominoes(str(path), batch_size=1)("train", skip_batches=5)


# -----------------------------------------------------------------------------
# Subsets of several files.


SUBSETS = [
  # Sums of visibilities are 1 2 3 4 1 2 3 4 1 2 3.
  ("test", {}, [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10]]),
  ("test", {"num_test_scenes": 4}, [[0, 1, 2], [3]]),
  ("test", {"test": [6, None], "train": [0, 2]}, [[6, 7, 8], [9, 10]]),
  ("test", {"test": [1, 9], "min_num_objects": 3}, [[2, 3, 6], [7]]),
  ("test", {"max_num_objects": 1}, [[0, 4, 8]]),
  ("test", {"min_num_objects": 2, "max_num_objects": 2}, [[1, 5, 9]]),
  ("test", {"test": [4, None], "num_test_scenes": 2}, [[4, 5]]),
  (None, {"train": [9, None]}, [[9, 10, 9], [10, 9, 10]]),
  (None, {"train": [2, 6]}, [[2, 3, 4], [5, 2, 3]]),
  ("summary", {"min_num_objects": 2}, [[1, 2, 3], [1, 2, 3]]),
  ("summary", {"min_num_objects": 4}, [[3, 7, 3], [7, 3, 7]]),
  ("train", {"shuffle_buffer": None}, [[0, 1, 2], [3, 4, 5], [6, 7, 8]]),
]


@pytest.mark.parametrize("subset, options, expected", SUBSETS)
def test_subsets(eleven, subset, options, expected):
  dataset = tetrominoes(eleven, **{"batch_size": 3} | options)
  num = None if subset == "test" else len(expected)
  assert indices(dataset(subset), num) == expected


@pytest.mark.parametrize("shuffle_buffer", [2, 1000])
def test_train_shuffles_every_epoch_anew(eleven, shuffle_buffer):
  dataset = tetrominoes(eleven, batch_size=11, shuffle_buffer=shuffle_buffer)
  epochs = indices(dataset(), 3)
  for epoch in epochs:
    assert sorted(epoch) == list(range(11)) != epoch
    if shuffle_buffer == 2:
      # With a buffer of two, nothing comes out more than one place early.
      assert all(index <= place + 1 for place, index in enumerate(epoch))
  assert epochs[0] != epochs[1] != epochs[2]


def test_filter_has_slack_at_the_bounds(tmp_path):
  scenes = [helpers.numbered_scene(i) for i in range(4)]
  for scene, excess in zip(scenes, (5e-6, -5e-6, 5e-5, -5e-5), strict=True):
    scene["visibility"] = np.float32([2 + excess, 0, 0, 0])
  path = helpers.write_records(tmp_path / "scenes.tfrecords", scenes)
  dataset = tetrominoes(path, min_num_objects=2, max_num_objects=2)
  assert flat(indices(dataset("test"))) == [0, 1]


def test_filter_of_objects_room_counts_ones(tmp_path):
  path = helpers.write_records(
    tmp_path / "room.tfrecords", [make_scene("empty_room")]
  )
  options = {"path": path, "batch_size": 1, "dataset_variant": "empty_room"}
  passing = data.ObjectsRoom(max_num_objects=4, **options)
  assert len(list(passing("test"))) == 1
  with pytest.raises(errors.UserError, match="no scene"):
    data.ObjectsRoom(max_num_objects=3, **options)()


def test_several_files(tmp_path):
  sizes = [1, 40, 2, 1, 25, 3]  # a file is read ahead by 16 records
  numbers = iter(range(sum(sizes)))
  for i, size in enumerate(sizes):
    scenes = [helpers.numbered_scene(next(numbers)) for _ in range(size)]
    helpers.write_records(
      tmp_path / f"{i}.tfrecords", scenes, "GZIP" if i % 2 else ""
    )
  pattern = str(tmp_path / "*.tfrecords")
  dataset = tetrominoes(pattern, batch_size=5, train=[2, 70], test=[0, 71])
  assert flat(indices(dataset("test"))) == list(range(71))
  expected = [*range(2, 70), *range(2, 70), 2, 3, 4, 5]
  assert flat(indices(dataset(None), 28)) == expected
  paths = [tmp_path / "3.tfrecords", str(tmp_path / "[02].tfrecords")]
  assert flat(indices(tetrominoes(paths)("test"))) == [43, 0, 41, 42]
  # Of several digits the order of names is that of letters, as it always was.
  helpers.write_records(tmp_path / "10.tfrecords", [helpers.numbered_scene(99)])
  first = tetrominoes(str(tmp_path), batch_size=3, test=[0, 3])
  assert indices(first("test")) == [[0, 1, 2]]
  assert indices(tetrominoes(pattern, test=[41, 43])("test")) == [[99, 41]]


# -----------------------------------------------------------------------------
# What is wrong.


def sentence(dataset):
  """What the first pass over the test subset says."""
  with pytest.raises(errors.UserError) as info:
    list(dataset.batches("test"))
  return str(info.value)


def test_missing_files(tmp_path):
  path = str(tmp_path / "*.tfrecords")
  found = sentence(tetrominoes(path))
  assert path in found and "gs://multi-object-datasets" in found
  assert "`python main.py make_data with tetrominoes num_scenes=1000" in found
  assert "make_data with clevr6" in sentence(
    data.CLEVR(path=path, batch_size=1)
  )
  options = {"path": path, "batch_size": 1, "dataset_variant": "binarized"}
  expected = "make_data with multi_dsprites data.dataset_variant=binarized"
  assert expected in sentence(data.MultiDSprites(**options))
  assert "make_data" not in sentence(data.ObjectsRoom(path=path, batch_size=1))


@pytest.mark.parametrize(
  "content, message",
  [
    (b"", "holds no complete record"),
    (gzip.compress(b"", mtime=0), "holds no complete record"),
    (b"This is no TFRecord file. " * 9, "is not a TFRecord file"),
    (gzip.compress(b"Nor is this. " * 9, mtime=0), "is not a TFRecord file"),
  ],
)
def test_wrong_files(tmp_path, content, message):
  path = tmp_path / "wrong.tfrecords"
  path.write_bytes(content)
  found = sentence(tetrominoes(str(path)))
  assert message in found and str(path) in found


@pytest.mark.parametrize("compression", ["", "GZIP"])
@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_truncated_or_corrupt_file(tmp_path, compression, damage):
  scenes = [make_scene("tetrominoes", seed) for seed in range(5)]
  good = helpers.write_records(tmp_path / "good.tfrecords", scenes[:2])
  path = pathlib.Path(
    helpers.write_records(tmp_path / "bad.tfrecords", scenes, compression)
  )
  content = bytearray(path.read_bytes())
  middle = len(content) // 2
  if damage == "cut":
    del content[middle:]
  else:
    content[middle] ^= 0xFF
  path.write_bytes(content)
  # A damaged byte spoils all of a compressed file that is as short as this, a
  # cut or a damaged byte in the middle of five plain records the third.
  number = 0 if (damage, compression) == ("flip", "GZIP") else 2
  found = sentence(tetrominoes([good, str(path)], batch_size=1))
  assert f"record {number} (counted" in found
  assert str(path) in found and good not in found


def wrong_record(kind):
  """Returns a record that is no Tetrominoes scene."""
  scene = helpers.numbered_scene(0)
  match kind:
    case "no example":
      return b"no example at all"
    case "no features":
      return b""
    case "no color":
      del scene["color"]
    case "small image":
      scene["image"] = scene["image"][:2, :2]
    case "float image":
      scene["image"] = scene["image"].astype(np.float32)
    case "other":
      scene = make_scene("binarized")
    case "room":
      scene = make_scene("six_objects")
    case "fat bytes":
      example = tf.train.Example.FromString(records.serialize(scene))
      example.features.feature["mask"].bytes_list.value[7] = b"\x00\x01"
      return example.SerializeToString()
  return records.serialize(scene)


@pytest.mark.parametrize("index", [0, 2])
@pytest.mark.parametrize(
  "kind, message",
  [
    ("no example", "not a scene of tetrominoes, (Could not parse example"),
    ("no features", "not a scene of tetrominoes, (Feature: "),
    ("no color", "(Feature: color (data type: float) is required but could"),
    ("small image", "not a scene of tetrominoes, (Key: image."),
    ("float image", "not a scene of tetrominoes, (Key: image."),
    ("fat bytes", "not a scene of tetrominoes, ("),
    ("other", "not a scene of tetrominoes, but of multi_dsprites binarized"),
    ("room", "objects_room six_objects or objects_room identical_color"),
  ],
)
def test_wrong_records(tmp_path, kind, message, index):
  scenes = [helpers.numbered_scene(0), helpers.numbered_scene(1)][:index] + [
    wrong_record(kind)
  ]
  path = helpers.write_records(tmp_path / "scenes.tfrecords", scenes)
  found = sentence(tetrominoes(path))
  assert message in found and f"record {index} of `{path}`" in found


def test_filter_that_passes_nothing_ends(eleven):
  dataset = tetrominoes(eleven, min_num_objects=5)
  for subset in ("train", "summary", "test", None):
    with pytest.raises(errors.UserError, match="no scene of .* from 5") as info:
      dataset(subset)
    assert eleven in str(info.value)
  for test in ([11, None], [5, 5], [5, 2]):
    assert "change `min_num_objects`" in sentence(
      tetrominoes(eleven, test=test)
    )


@pytest.mark.parametrize("region", [[[0, 36], [0, 35]], [[0, 35], [20, 10]]])
def test_regions_are_within_images(region):
  with pytest.raises(errors.UserError, match="`crop_region` is"):
    tetrominoes("unused", crop_region=region)


def test_an_unknown_subset(eleven):
  with pytest.raises(errors.UserError, match="`subset` is 'valid'"):
    tetrominoes(eleven)("valid")
