"""Tests of what TensorFlow Datasets has, on a small builder written by it."""

import os
import shutil
import sys

import helpers
import numpy as np
import pytest
import tensorflow as tf

from iodine import config_files, errors
from iodine.modules import data

tfds = pytest.importorskip("tensorflow_datasets")

SIZE = (16, 20)
FRAMES, TRAIN, HELD_OUT, LABELS = 7, 5, 3, 4
VIDEO = helpers.noise((TRAIN + HELD_OUT, FRAMES, *SIZE, 3))
# Of the last scene entity 3 is not in any frame.
MASKS = helpers.noise((TRAIN + HELD_OUT, FRAMES, *SIZE, 1), LABELS - 1, seed=1)
MASKS[-1] %= 3


def info_of(builder, **features):
  return tfds.core.DatasetInfo(
    builder=builder, features=tfds.features.FeaturesDict(features)
  )


# As MOVi's, whose code is not part of the package.
class MoviA(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="16x20")]

  def _info(self):
    mask = tfds.features.Image(shape=(*SIZE, 1), dtype=np.uint8)
    return info_of(
      self,
      video=tfds.features.Video(shape=(FRAMES, *SIZE, 3)),
      segmentations=tfds.features.Sequence(mask, length=FRAMES),
      metadata={"number": np.int32},
    )

  def _split_generators(self, dl_manager):
    return {
      "train": self._generate_examples(range(TRAIN)),
      "validation": self._generate_examples(range(TRAIN, len(VIDEO))),
    }

  def _generate_examples(self, numbers):
    for i in numbers:
      yield (
        i,
        {
          "video": VIDEO[i],
          "segmentations": MASKS[i],
          "metadata": {"number": i},
        },
      )


class Photos(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    label = tfds.features.Image(shape=(*SIZE, 1), dtype=np.uint16)
    image = tfds.features.Image(shape=(*SIZE, 3))
    return info_of(self, picture=image, labels=label)

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples()}

  def _generate_examples(self):
    for i, (image, mask) in enumerate(zip(VIDEO, MASKS, strict=True)):
      yield i, {"picture": image[0], "labels": np.uint16(mask[0])}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Where both are prepared."""
  folder = str(tmp_path_factory.mktemp("tfds"))
  for builder in (MoviA, Photos):
    builder(data_dir=folder).download_and_prepare()
  return folder


def movi(folder, **options):
  options = {"name": "movi_a/16x20", "data_dir": folder, **options}
  options.setdefault("image_dim", SIZE)
  return data.TFDS(**{"batch_size": 1, "num_entities": LABELS, **options})


def scenes_of(dataset):
  """All scenes of a data set's test subset, as they are read."""
  return list(dataset("test", compact=True).unbatch().as_numpy_iterator())


def number_of(scene, frames=slice(None)):
  """Which of the written films has the pixels."""
  (number,) = [
    i
    for i, film in enumerate(VIDEO[:, frames])
    if (film == scene["image"]).all()
  ]
  return number


def assert_is(scene, number, frames=slice(None)):
  labels = MASKS[number, frames]
  np.testing.assert_array_equal(scene["image"], VIDEO[number, frames])
  np.testing.assert_array_equal(scene["mask"], labels[:, None])
  assert scene["image"].dtype == scene["mask"].dtype == np.uint8
  there = [label == 0 or label in labels for label in range(LABELS)]
  np.testing.assert_array_equal(scene["visibility"], np.float32(there))
  assert scene["factors"] == {}


@pytest.mark.parametrize("by", ["name", "version", "folder"])
def test_films_come_to_the_bit(by, folder):
  names = {"name": "movi_a/16x20", "version": "movi_a/16x20:1.0.0"}
  place = f"{folder}/movi_a/16x20/1.0.0"
  dataset = movi(folder, name=names.get(by, place))
  assert dataset.image_shape == (*SIZE, 3)
  assert (dataset.num_frames, dataset.num_true_objects) == (FRAMES, LABELS)
  assert dataset.ranges() == ("train", "validation")
  scenes = scenes_of(dataset)
  numbers = [number_of(scene) for scene in scenes]
  assert sorted(numbers) == [*range(TRAIN, len(VIDEO))]
  for number, scene in zip(numbers, scenes, strict=True):
    assert_is(scene, number)
  (batch,) = dataset("test").take(1)
  np.testing.assert_array_equal(
    batch["image"][0], VIDEO[numbers[0]] / np.float32(255)
  )
  labels = np.moveaxis(np.eye(LABELS)[MASKS[numbers[0], ..., 0]], -1, 1)
  np.testing.assert_array_equal(batch["mask"][0, ..., 0], labels)
  assert dataset.about() == (
    "`movi_a/16x20/1.0.0`, images of `video`, masks of `segmentations`"
  )


@pytest.mark.parametrize(
  "options, clips",
  [
    ({"frames": 3}, [slice(0, 3), slice(3, 6)]),
    ({"stride": 3}, [slice(0, 7, 3)]),
    ({"stills": True}, [slice(i, i + 1) for i in range(FRAMES)]),
  ],
)
def test_a_film_gives_several_scenes(options, clips, folder):
  dataset = movi(folder, **options)
  numbers = [number_of(scene) for scene in scenes_of(movi(folder))]
  scenes = scenes_of(dataset)
  assert len(scenes) == len(clips) * HELD_OUT
  expected = [(number, clip) for number in numbers for clip in clips]
  for scene, (number, clip) in zip(scenes, expected, strict=True):
    assert_is(scene, number, clip)
    assert len(scene["image"]) == dataset.num_frames


def test_stills_with_keys_of_their_own(folder):
  dataset = movi(folder, name="photos", image="picture", masks="labels")
  assert dataset.ranges() == ("train", None)
  assert dataset.num_frames == 1
  scenes = scenes_of(dataset)
  first = slice(0, 1)
  numbers = [number_of(scene, first) for scene in scenes]
  assert sorted(numbers) == [*range(len(VIDEO))]
  for number, scene in zip(numbers, scenes, strict=True):
    assert_is(scene, number, first)


def test_images_are_cropped_and_resized(folder):
  (scene, *_) = scenes_of(movi(folder, image_dim=[8, 8]))
  whole = scenes_of(movi(folder))[0]
  resized = data.resize(tf.cast(whole["image"], tf.float32) / 255.0, [8, 8])
  np.testing.assert_array_equal(scene["image"], resized)
  np.testing.assert_array_equal(
    scene["mask"],
    whole["mask"][:, :, ::2][..., [0, 2, 5, 7, 10, 12, 15, 17], :],
  )
  (grey, *_) = scenes_of(movi(folder, grayscale=True))
  assert grey["image"].shape == (FRAMES, *SIZE, 1)
  (cut, *_) = scenes_of(
    movi(folder, crop_region=[[0, 8], [4, 12]], image_dim=[8, 8])
  )
  np.testing.assert_array_equal(cut["image"], whole["image"][:, :8, 4:12])


def test_slices_order_and_caches(folder, tmp_path):
  def images(subset, cache=None, take=None, skip=0, rows=None, **options):
    dataset = movi(
      folder, batch_size=4, stills=True, seed=1, cache=cache, **options
    )
    batches = dataset(subset, skip, rows, compact=True)
    batches = batches if take is None else batches.take(take)
    return [x.tobytes() for b in batches for x in b["image"].numpy()]

  whole = images("test", test="train")
  assert len(whole) == TRAIN * FRAMES == len({*whole})
  assert images("test", test="train[:40%]") == whole[: 2 * FRAMES]
  assert images("test", test="train[4:]") == whole[4 * FRAMES :]
  for _ in range(2):
    assert images("test", cache=str(tmp_path), test="train") == whole
  assert len([x for x in os.listdir(tmp_path) if "." not in x]) == 1
  assert images("test", cache=str(tmp_path)) != whole
  train = images("train", take=20)
  assert sorted(train[:35]) == sorted(whole) != train[:35]
  for skip in (3, 10):
    assert images("train", take=2, skip=skip) == train[4 * skip : 4 * skip + 8]
  rows = images("train", take=3, rows=(1, 3))
  assert rows == [train[i] for i in (1, 2, 5, 6, 9, 10)]


def test_clevr_has_no_masks():
  with tfds.testing.mock_data(num_examples=3):
    dataset = data.TFDS(name="clevr:3.1.0", batch_size=2, image_dim=[8, 10])
    assert "without masks" in dataset.about()
    assert dataset.num_true_objects == 0
    batches = list(dataset.batches("test"))
    assert [batch["image"].shape[0] for batch in batches] == [2, 1]
    assert batches[0]["image"].shape == (2, 1, 8, 10, 3)
    assert set(batches[0]) == {"image", "factors"}
    (train,) = dataset("train").take(1)
    assert train["image"].shape == (2, 1, 8, 10, 3)


@pytest.mark.parametrize(
  "options, part",
  [
    ({"image": "film"}, "another one of metadata, segmentations, video"),
    ({"image": "metadata"}, "is 'metadata', which is `FeaturesDict"),
    ({"masks": "depth"}, "`data.masks` is 'depth', which is `None`"),
    ({"masks": "video"}, "'video', which is `Video.*: name another one of"),
    ({"frames": 8}, "have 7 frames, where `frames` is 8"),
    ({"test": "tst"}, "Unknown split 'tst'"),
    ({"test": "train[:0]"}, "corresponds to no data"),
    ({"num_entities": 3, "test": "train"}, "a label beyond 2, the last of"),
    (
      {"name": "movi_b"},
      r"Dataset movi_b not found.\): say by `data.data_dir=",
    ),
    ({"name": "clevr", "image_dim": [8, 8]}, "could not find data in"),
    ({"name": "clevr:9.0.0"}, "cannot be loaded at version 9.0.0"),
    ({"name": "huggingface:cats"}, "neither `name:version` nor"),
  ],
)
def test_what_is_wrong_is_a_sentence(options, part, folder):
  with pytest.raises(errors.UserError, match=part) as info:
    list(movi(folder, **options).batches("test"))
  assert "\n" not in str(info.value) and "NaN" not in str(info.value)


def test_a_broken_file_is_a_sentence(folder, tmp_path):
  place = shutil.copytree(f"{folder}/movi_a/16x20/1.0.0", tmp_path / "copy")
  (path,) = place.glob("*validation*")
  path.write_bytes(path.read_bytes()[:-100])
  with pytest.raises(errors.UserError, match="has a scene that cannot be read"):
    list(movi(folder, name=str(place)).batches("test"))


def test_without_the_package(folder, monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
  with pytest.raises(errors.UserError, match="-r requirements-tfds.txt`"):
    movi(folder)("test")


def test_no_config_file_asks_for_a_download():
  config = {"data": {"name": "clevr", "download": True}, "generated_path": None}
  assert config_files.for_another_call(config)["data"] == {"name": "clevr"}


def test_the_config_from_training_to_segments(folder, tmp_path, capsys):
  helpers.run_main(
    *("with", "movi", *helpers.SMALL_FILMS, "data.name=movi_a/16x20"),
    *(f"data.data_dir={folder}", "data.frames=2"),
    f"checkpoint_dir={tmp_path}/run",
  )
  assert "masks of `segmentations`" in capsys.readouterr().out
  helpers.use_films(tmp_path)
  assert "video_ari_nobg" in capsys.readouterr().out


def test_missing_films_end_the_config_in_a_sentence(tmp_path, capsys):
  message = helpers.fails_with_sentence(
    *(capsys, "with", "movi", *helpers.SMALL_FILMS),
    *(f"data.data_dir={tmp_path}", f"checkpoint_dir={tmp_path}/run"),
  )
  assert "`data.name` 'movi_a/128x128' cannot be read" in message
