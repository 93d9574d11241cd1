"""Values that make no sense in data end in a sentence."""

import math

import h5py
import helpers
import numpy as np
import pytest
import tensorflow as tf

from iodine import errors
from iodine.commands import common
from iodine.modules import data, datasets
from iodine.readers import validity
from iodine.synthetic import records

MAPPING = [
  ["position", 2, "scalar"],
  ["color", 3, "scalar"],
  ["shape", 20, "categorical"],
]
SIZE = (4, 4)


def scene(number=0, **changes):
  """A tiny scene in the layout of Tetrominoes; changes are (entity, value)."""
  rng = np.random.default_rng(number)
  floats = {
    name: rng.uniform(1, 3, [4]).astype(np.float32)
    for name in ("x", "y", "shape")
  }
  features = {
    "image": rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8),
    "mask": np.full((4, *SIZE, 1), 255, np.uint8),
    "visibility": np.array([1, 1, 1, 0], np.float32),
    "color": rng.uniform(size=[4, 3]).astype(np.float32),
    **floats,
  }
  for name, (entity, value) in changes.items():
    features[name][entity] = value
  return features


def tetrominoes(path, **options):
  options = {"batch_size": 2, "shuffle_buffer": None, **options}
  return data.Tetrominoes(
    path=str(path), image_dim=SIZE, stored_dim=SIZE, **options
  )


def read_all(dataset, mapping=MAPPING):
  dataset.expect(mapping)
  return sum(len(batch["image"]) for batch in dataset.batches("test"))


UNSOUND = {
  "color": (1, math.nan),
  "visibility": (2, math.inf),
  "x": (3, 1e38),
  "shape": (2, 20.0),
}


@pytest.mark.parametrize(
  ("name", "compression"), [*((name, "") for name in UNSOUND), ("x", "GZIP")]
)
def test_records_with_numbers_that_no_loss_can_take(
  tmp_path, name, compression
):
  path = tmp_path / "a.tfrecords"
  scenes = [scene(i) for i in range(5)]
  scenes[3] = scene(3, **{name: UNSOUND[name]})
  records.write(path, scenes, compression)
  field = {"x": "position"}.get(name, name)
  with pytest.raises(
    errors.UserError,
    match=rf"^`{path}` has numbers from .* in `{field}`.* mend the data",
  ):
    read_all(tetrominoes(path))
  # Where nothing is made of it, it does no harm.
  assert read_all(tetrominoes(path), None) == 5
  assert read_all(tetrominoes(path, test=[0, 3])) == 3


def test_classes_of_what_is_not_visible_are_anything(tmp_path):
  records.write(tmp_path / "a", [scene(shape=(3, 99.0))], "")
  assert read_all(tetrominoes(tmp_path / "a")) == 1


def test_a_training_is_told_of_the_second_of_two_files(tmp_path):
  for name in "ab":
    unsound = {"shape": (1, -2.0)} if name == "b" else {}
    records.write(tmp_path / name, [scene(1), scene(**unsound)], "")
  dataset = tetrominoes(tmp_path / "?", shuffle_buffer=4)
  dataset.expect(MAPPING)
  with (
    pytest.raises(
      errors.UserError,
      match=f"^`{tmp_path}/b` has numbers from -2 to .* in `shape`.*0 to 19",
    ),
    dataset.explained_errors("train"),
  ):
    list(dataset("train", compact=True).take(4))


@pytest.mark.parametrize(
  ("name", "suffix"), [("color", "h5"), ("visibility", "npz"), ("image", "npz")]
)
def test_arrays_with_numbers_that_no_loss_can_take(tmp_path, name, suffix):
  rng = np.random.default_rng(0)
  content = {
    "image": rng.uniform(size=[4, *SIZE, 3]).astype(np.float32),
    "mask": rng.integers(0, 3, [4, *SIZE]),
    "visibility": np.ones([4, 3], np.float32),
    "factors/color": rng.uniform(size=[4, 3, 3]).astype(np.float32),
  }
  key = "factors/color" if name == "color" else name
  content[key].reshape(4, -1)[2, 1] = math.nan
  path = tmp_path / f"a.{suffix}"
  if suffix == "npz":
    np.savez(path, **content)
  else:
    with h5py.File(path, "w") as file:
      file.update(content)
  dataset = data.Arrays(path=str(path), batch_size=2, image_dim=SIZE)
  with pytest.raises(errors.UserError, match=rf"`{path}`.* from nan to") as e:
    read_all(dataset)
  assert f"`{name}`" in str(e.value)


def test_images_of_others_are_checked(tmp_path):
  batch = {"image": tf.fill([2, 1, 2, 2, 3], 1e38), "factors": {}}
  assert not validity.all_valid(batch, ())
  batch["image"] = tf.zeros([2, 1, 2, 2, 3])
  assert validity.all_valid(batch, ())


def test_commands_have_scenes_checked_for_their_model():
  config = helpers.tiny_config()
  dataset = common.build_dataset(config["data"], 0, config["model"])
  assert isinstance(dataset, datasets.SceneDataset)
  names = [name for name, _, _ in dataset._regressed]
  assert names == ["position", "color", "shape"]
  # What is no mapping is left to the model.
  for mapping in (None, 5, "abc", [[1, 2, 3], ["a", 0, "scalar"], "abc"]):
    dataset.expect(mapping)
    assert not dataset._regressed
