"""A cache of decoded scenes, compact batches, and rows of batches."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf
from data_test import LAYOUTS, make_scene, numbered, write

from iodine import errors, files, synthetic
from iodine.modules import data
from iodine.ops import resizing
from iodine.readers import cache


def generated(tmp_path, name, num_scenes):
  path = str(tmp_path / f"{name}.tfrecords")
  synthetic.write_dataset(name, path, num_scenes, 0, num_workers=1)
  return path


def assert_same(found, expected):
  tf.nest.map_structure(np.testing.assert_array_equal, found, expected)
  tf.nest.map_structure(
    lambda a, b: a.dtype == b.dtype or 1 / 0, found, expected
  )


def take(batches, num):
  found = list(batches.take(num))
  assert len(found) == num
  return found


def tetrominoes(path, **options):
  return data.Tetrominoes(**({"path": path, "batch_size": 4} | options))


@pytest.fixture(scope="module")
def eleven(tmp_path_factory):
  """Scenes whose visibilities sum to 1, 2, 3, 4, 1, ...; masks overlap."""
  path = tmp_path_factory.mktemp("data") / "eleven.tfrecords"
  return write(path, [numbered(i, 1 + i % 4) for i in range(11)])


FAMILIES = {
  "tetrominoes": (data.Tetrominoes, {}),
  "multi_dsprites_colored_on_grayscale": (
    data.MultiDSprites,
    {"image_dim": (37, 41)},
  ),
  "multi_dsprites_binarized": (
    data.MultiDSprites,
    {"dataset_variant": "binarized"},
  ),
  "clevr": (data.CLEVR, {}),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_cache_and_compact_batches_change_no_bit(name, tmp_path):
  cls, options = FAMILIES[name]
  num_scenes = 3 if name == "clevr" else 5
  path = generated(tmp_path, name, num_scenes)
  options = {"path": path, "batch_size": 2, **options}
  plain = cls(**options)
  cached = cls(**options, cache=str(tmp_path / "cache"))

  expected = take(plain(), 4)
  assert_same(take(cached(), 4), expected)
  compiled = tf.function(cached.expand, jit_compile=True, autograph=False)
  for dataset in (plain, cached):
    compact = take(dataset(compact=True), 4)
    spec = dataset(compact=True).element_spec
    assert spec["mask"].dtype == tf.uint8
    assert spec["mask"].shape[2] == (
      1 if dataset is cached else plain.num_true_objects
    )
    # What XLA could not resize to the same bits comes resized.
    is_resized = "image_dim" in options
    assert spec["image"].dtype == (tf.float32 if is_resized else tf.uint8)
    assert_same([dataset.expand(batch) for batch in compact], expected)
    assert_same(compiled(compact[0]), expected[0])
  assert_same(cached.expand(expected[0]), expected[0])
  mask = np.load(tmp_path / "cache/train/mask.npy", mmap_mode="r")
  assert mask.shape == (num_scenes, *plain.image_dim, 1)


@pytest.mark.parametrize("variant", ["train", "empty_room"])
def test_masks_that_overlap_are_kept_as_they_are(variant, tmp_path):
  scenes = [make_scene(variant, seed) for seed in range(3)]
  options = {
    "path": write(tmp_path / "room.tfrecords", scenes),
    "batch_size": 2,
    "dataset_variant": variant,
    "grayscale": True,
  }
  plain = data.ObjectsRoom(**options)
  cached = data.ObjectsRoom(**options, cache=str(tmp_path / "cache"))
  expected = take(plain(), 3)
  assert_same(take(cached(), 3), expected)
  for dataset in (plain, cached):
    compact = take(dataset(compact=True), 3)
    assert compact[0]["mask"].shape[2] == LAYOUTS[variant][3][0]
    assert_same([dataset.expand(batch) for batch in compact], expected)


def test_one_pixel_of_two_entities_is_found():
  mask = np.zeros((2, 3, 4, 4, 1), np.uint8)
  mask[:, 1] = 255
  np.testing.assert_array_equal(cache._labels(mask), np.ones((2, 4, 4, 1)))
  for value, entity in ((255, 2), (1, 0), (0, 1), (254, 1)):
    other = mask.copy()
    other[1, entity, 2, 3] = value
    assert cache._labels(other) is None


def test_all_bytes_are_scaled_as_by_division():
  values = tf.range(256)
  expected = tf.cast(values, tf.float32) / 255.0
  scale = tf.function(resizing.scale_bytes, jit_compile=True, autograph=False)
  for found in (resizing.scale_bytes(values), scale(values)):
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("size", [(128, 128), (37, 41), (250, 200), (192, 96)])
def test_resizing_by_gathering_changes_no_bit(size):
  rng = np.random.default_rng(0)
  images = rng.uniform(size=(1, 192, 192, 3)).astype(np.float32)
  expected = data.resize(images, size)
  np.testing.assert_array_equal(
    resizing.resize_bilinear(tf.constant(images), size), expected
  )
  assert resizing.is_exact((192, 192), size) == (size[0] in (128, 192))


@pytest.mark.parametrize(
  "options",
  [
    {},
    {"shuffle_buffer": 3, "seed": 5},
    {"shuffle_buffer": None},
    {"min_num_objects": 2, "max_num_objects": 3, "train": [1, 10]},
  ],
)
def test_the_order_is_that_without_a_cache(options, eleven, tmp_path):
  plain = tetrominoes(eleven, **options)
  cached = tetrominoes(eleven, cache=str(tmp_path / "cache"), **options)
  for subset in ("train", "summary", None):
    expected = take(plain(subset), 9)  # Three epochs of eleven, or more.
    for skip in (0, 1, 5):
      assert_same(take(cached(subset, skip), 9 - skip), expected[skip:])
  assert_same(list(cached("test")), list(plain("test")))
  assert_same(list(cached("test", 1)), list(plain("test", 1)))
  batches = cached.batches("train", 2)
  assert_same([next(batches) for _ in range(2)], take(plain(), 4)[2:])


@pytest.mark.parametrize("is_cached", [False, True])
def test_rows_of_workers_make_the_batches(is_cached, eleven, tmp_path):
  folder = str(tmp_path / "cache") if is_cached else None
  whole = tetrominoes(eleven, min_num_objects=2)
  dataset = tetrominoes(eleven, min_num_objects=2, cache=folder)
  halves = [(0, 2), (2, 4)]
  quarters = [(0, 1), (1, 2), (2, 3), (3, 4)]
  # Within the first epoch, which has two batches, and beyond it.
  for subset, skip, workers in (
    ("train", 1, quarters),
    ("train", 4, halves),
    (None, 1, halves),
    ("test", 0, quarters),
  ):
    expected = list(whole(subset, skip).take(4))
    parts = [list(dataset(subset, skip, r).take(4)) for r in workers]
    joined = [
      tf.nest.map_structure(
        lambda *x: tf.concat(x, 0), *[p[i] for p in parts if i < len(p)]
      )
      for i in range(len(expected))
    ]
    assert_same(joined, expected)
  for rows in ((0, 5), (2, 2), (-1, 2), 3):
    with pytest.raises(errors.UserError, match="`rows` is"):
      dataset(rows=rows)


def test_only_the_rows_that_are_wanted_are_decoded(eleven, decoded):
  batches = list(tetrominoes(eleven)("test", rows=(1, 2)))
  # In parallel, so that it is not known which one is first.
  assert sorted(decoded) == [1, 5, 9] and len(batches) == 3


def test_batches_never_end_and_have_static_shapes(eleven, tmp_path):
  for folder in (None, str(tmp_path / "cache")):
    for compact in (False, True):
      dataset = tetrominoes(eleven, cache=folder)
      batches = dataset("train", rows=(1, 4), compact=compact)
      assert batches.cardinality() == tf.data.INFINITE_CARDINALITY
      for spec in tf.nest.flatten(batches.element_spec):
        assert spec.shape.is_fully_defined() and spec.shape[0] == 3


def test_the_second_use_decodes_nothing(eleven, tmp_path, monkeypatch):
  options = {"cache": str(tmp_path / "cache"), "seed": 3, "batch_size": 2}
  expected = take(tetrominoes(eleven, **options)(), 3)
  monkeypatch.setattr(cache, "_write", None)
  # Neither the batch size nor the order matter to what is kept.
  assert_same(take(tetrominoes(eleven, **options)(), 3), expected)
  tetrominoes(eleven, **options | {"batch_size": 3, "grayscale": True})()
  assert os.listdir(tmp_path / "cache") == ["train"]


@pytest.mark.parametrize(
  "options, message",
  [
    ({"image_dim": (35, 36)}, "`image_dim` .35, 35., but it is .35, 36. now"),
    ({"crop_region": [[0, 35], [0, 35]]}, "`crop_region` None, but"),
    ({"train": [0, 5]}, "`train` .0, None., but it is .0, 5. now"),
    ({"max_num_objects": 3}, "`max_num_objects` None, but it is 3 now"),
  ],
)
def test_other_options_are_refused(options, message, eleven, tmp_path):
  folder = str(tmp_path / "cache")
  tetrominoes(eleven, cache=folder)()
  with pytest.raises(errors.UserError, match=f"{message}.*give another"):
    tetrominoes(eleven, cache=folder, **options)()
  tetrominoes(eleven, cache=folder, num_test_scenes=2)("test")
  with pytest.raises(errors.UserError, match="`num_test_scenes` 2, but it is"):
    tetrominoes(eleven, cache=folder)("test")


@pytest.mark.parametrize("compression", ["GZIP", ""])
def test_other_files_are_refused_but_may_be_moved(compression, tmp_path):
  path = tmp_path / "a.tfrecords"
  folder = str(tmp_path / "cache")
  write(path, [make_scene("tetrominoes", i) for i in range(4)], compression)
  tetrominoes(str(path), cache=folder)()
  moved = str(path.rename(tmp_path / "b.tfrecords"))
  tetrominoes(moved, cache=folder)()
  write(
    moved, [make_scene("tetrominoes", i) for i in (0, 1, 5, 3)], compression
  )
  with pytest.raises(errors.UserError, match="other files .* or delete this"):
    tetrominoes(moved, cache=folder)()


def test_what_is_damaged_or_foreign_is_refused(eleven, tmp_path):
  folder = tmp_path / "cache"
  dataset = tetrominoes(eleven, cache=str(folder))
  dataset()
  for name in ("image", "factors_color"):
    path = folder / f"train/{name}.npy"
    content = path.read_bytes()
    for wrong in (content[:-1], content[:50], b"", b"foreign" * 99):
      path.write_bytes(wrong)
      with pytest.raises(errors.UserError, match="train` is damaged: delete"):
        dataset()
    path.unlink()
    with pytest.raises(errors.UserError, match="is damaged"):
      dataset()
    path.write_bytes(content)
  take(dataset(), 1)
  for wrong in ("{", "[1]", ""):
    (folder / "train/cache.json").write_text(wrong)
    with pytest.raises(errors.UserError, match="is not a cache of scenes"):
      dataset()
  (folder / "train/cache.json").write_text(json.dumps({"path": 3}))
  with pytest.raises(errors.UserError, match="was made with"):
    dataset()
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.UserError, match="cannot create the folder"):
    tetrominoes(eleven, cache=str(tmp_path / "file"))()
  with pytest.raises(errors.UserError, match="`cache` is 5.*path of a folder"):
    tetrominoes(eleven, cache=5)


@pytest.mark.parametrize(
  "error, raised",
  [
    (KeyboardInterrupt(), KeyboardInterrupt),
    (OSError(28, "No space left on device"), errors.UserError),
  ],
)
def test_what_ends_in_the_middle_leaves_nothing(
  error, raised, eleven, tmp_path, monkeypatch
):
  def fail(*_):
    raise error

  monkeypatch.setattr(files, "write_json", fail)
  with pytest.raises(raised):
    tetrominoes(eleven, cache=str(tmp_path / "cache"))()
  assert os.listdir(tmp_path / "cache") == []


def test_a_record_that_cannot_be_read_is_named(tmp_path):
  path = write(tmp_path / "bad.tfrecords", [numbered(0), numbered(1), b"?"])
  folder = tmp_path / "cache"
  with pytest.raises(errors.UserError, match="record 2 of"):
    tetrominoes(path, cache=str(folder))()
  assert os.listdir(folder) == []
  dataset = tetrominoes(path, batch_size=1)
  with (
    pytest.raises(errors.UserError, match="record 2 of"),
    dataset.explained_errors("test"),
  ):
    list(dataset("test"))


def test_a_cache_without_scenes_is_not_made(eleven, tmp_path):
  dataset = tetrominoes(eleven, min_num_objects=5, cache=str(tmp_path / "c"))
  with pytest.raises(errors.UserError, match="no scene of .* from 5"):
    dataset.batches("test")
  assert os.listdir(tmp_path / "c") == []


def test_of_two_makers_the_first_one_stays(eleven, tmp_path, monkeypatch):
  folder = str(tmp_path / "cache")
  write_json = files.write_json
  expected = take(tetrominoes(eleven)(), 3)
  opened = []

  def overtaken(path, content):
    write_json(path, content)
    monkeypatch.setattr(files, "write_json", write_json)
    opened.append(tetrominoes(eleven, cache=folder)())

  monkeypatch.setattr(files, "write_json", overtaken)
  second = tetrominoes(eleven, cache=folder)()
  assert_same(take(opened[0], 3), expected)
  assert_same(take(second, 3), expected)
  assert os.listdir(folder) == ["train"]
