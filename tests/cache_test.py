"""A cache of decoded scenes, compact batches, and rows of batches."""

import json
import os

import helpers
import numpy as np
import pytest
import tensorflow as tf
from data_test import LAYOUTS, make_scene

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


def test_only_the_rows_that_are_wanted_are_decoded(eleven, decoded):
  batches = list(tetrominoes(eleven)("test", rows=(1, 2)))
  # In parallel, so that it is not known which one is first.
  assert sorted(decoded) == [1, 5, 9] and len(batches) == 3


IN_ORDER = {"shuffle_buffer": None}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_cache_and_compact_batches_change_no_bit(name, tmp_path):
  cls, options = FAMILIES[name]
  num_scenes = 3 if name == "clevr" else 5
  path = generated(tmp_path, name, num_scenes)
  options = {"path": path, "batch_size": 2, **IN_ORDER, **options}
  plain = cls(**options)
  cached = cls(**options, cache=str(tmp_path / "cache"))

  expected = take(plain(), 4)
  assert_same(take(cached(), 4), expected)
  compiled = tf.function(cached.expand, jit_compile=True, autograph=False)
  for dataset in (plain, cached):
    compact = take(dataset(compact=True), 4)
    spec = dataset(compact=True).element_spec
    assert spec["mask"].dtype == tf.uint8
    # A cache has the number of the entity for each pixel.
    num_masks = 1 if dataset is cached else plain.num_true_objects
    assert spec["mask"].shape[2] == num_masks
    # What XLA could not resize to the same bits comes resized.
    is_resized = "image_dim" in options
    assert spec["image"].dtype == (tf.float32 if is_resized else tf.uint8)
    assert_same([dataset.expand(batch) for batch in compact], expected)
    assert_same(compiled(compact[0]), expected[0])
  assert_same(cached.expand(expected[0]), expected[0])


@pytest.mark.parametrize("variant", ["train", "empty_room"])
def test_masks_that_overlap_are_kept_as_they_are(variant, tmp_path):
  scenes = [make_scene(variant, seed) for seed in range(3)]
  options = {
    **IN_ORDER,
    "path": helpers.write_records(tmp_path / "room.tfrecords", scenes),
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
  mask = np.zeros((2, 1, 3, 4, 4, 1), np.uint8)
  mask[:, :, 1] = 255
  labels = cache._labels(mask)
  np.testing.assert_array_equal(labels, np.ones((2, 1, 1, 4, 4, 1)))
  for value, entity in ((255, 2), (1, 0), (0, 1), (254, 1)):
    other = mask.copy()
    other[1, 0, entity, 2, 3] = value
    assert cache._labels(other) is None


# ---------------------------------------------------------- order and rows


@pytest.mark.parametrize(
  "options",
  [{}, {"min_num_objects": 2, "max_num_objects": 3, "train": [1, 10]}],
)
def test_scenes_of_a_cache_are_shuffled_by_their_number(
  options, eleven, tmp_path
):
  plain = tetrominoes(eleven, **options)
  options = {**options, "cache": str(tmp_path / "cache")}
  cached = tetrominoes(eleven, **options)
  for subset in ("summary", None):
    assert_same(take(cached(subset, 5), 4), take(plain(subset, 5), 4))
  assert_same(list(cached("test", 1)), list(plain("test", 1)))
  order = numbers(cached().take(33))
  num = 11 if len(options) == 1 else 5
  epochs = [order[i : i + num] for i in range(0, 4 * num, num)]
  scenes = set(numbers(plain(None).take(9)))
  assert all(set(epoch) == scenes for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == 4
  # A run goes on at once where it was, and another seed is another order.
  for skip in (1, 7, 20):
    assert numbers(cached("train", skip).take(5)) == order[4 * skip :][:20]
  assert numbers(tetrominoes(eleven, seed=1, **options)().take(33)) != order
  batches = cached.batches("train", 2)
  assert_same([next(batches) for _ in range(2)], take(cached(), 4)[2:])


def numbers(batches):
  return [
    int(number)
    for batch in batches
    for number in batch["factors"]["shape"][:, 0, 0]
  ]


@pytest.mark.parametrize("is_cached", [False, True])
def test_rows_of_workers_make_the_batches(is_cached, eleven, tmp_path):
  folder = str(tmp_path / "cache") if is_cached else None
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
    expected = list(dataset(subset, skip).take(4))
    parts = [list(dataset(subset, skip, r).take(4)) for r in workers]
    joined = [
      tf.nest.map_structure(
        lambda *x: tf.concat(x, 0), *[p[i] for p in parts if i < len(p)]
      )
      for i in range(len(expected))
    ]
    assert_same(joined, expected)


@pytest.mark.parametrize("is_cached", [False, True])
def test_batches_never_end_and_have_static_shapes(is_cached, eleven, tmp_path):
  folder = str(tmp_path / "cache") if is_cached else None
  for compact in (False, True):
    dataset = tetrominoes(eleven, cache=folder)
    batches = dataset("train", rows=(1, 4), compact=compact)
    assert batches.cardinality() == tf.data.INFINITE_CARDINALITY
    for spec in tf.nest.flatten(batches.element_spec):
      assert spec.shape.is_fully_defined() and spec.shape[0] == 3


# -------------------------------------------------------------- its folder


def test_a_cache_is_named_by_what_it_holds(tmp_path, monkeypatch):
  folder = tmp_path / "cache"
  path = tmp_path / "a.tfrecords"
  helpers.write_records(path, [make_scene("tetrominoes", i) for i in range(6)])
  options = {"path": str(path), "cache": str(folder), "seed": 3}
  expected = take(tetrominoes(**options)(), 3)
  made = []
  make = cache._make
  monkeypatch.setattr(cache, "_make", lambda *x: made.append(x[0]) or make(*x))
  # Neither the batch size nor the order matter to what is kept.
  assert_same(take(tetrominoes(**options)(), 3), expected)
  tetrominoes(**options | {"batch_size": 3, "seed": 1})()
  assert not made
  for other in (
    {"image_dim": (35, 36)},
    {"crop_region": [[0, 35], [0, 35]]},
    {"train": [0, 5]},
    {"max_num_objects": 3.5},
  ):
    tetrominoes(**options | other)()
  dataset = tetrominoes(**options)
  dataset("test")
  tetrominoes(**options, num_test_scenes=2)("test")
  # Both are all scenes, but for `num_test_scenes`.
  assert len(set(made)) == len(made) == 5
  helpers.write_records(
    path, [make_scene("tetrominoes", i) for i in range(1, 7)]
  )
  assert np.any(take(tetrominoes(**options)(None), 1)[0]["image"] != 0)
  assert len(made) == 6
  with open(f"{made[0]}/cache.json") as file:
    assert json.load(file)["image_dim"] == [35, 36]


def test_what_ends_in_the_middle_leaves_nothing(eleven, tmp_path, monkeypatch):
  def fail(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(files, "write", fail)
  with pytest.raises(errors.UserError, match="No space left"):
    tetrominoes(eleven, cache=str(tmp_path / "cache"))()
  assert all(name.endswith(".lock") for name in os.listdir(tmp_path / "cache"))
