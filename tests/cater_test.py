"""Tests of CATER: its layout, a generator in it, and the config."""

import os

import helpers
import numpy as np
import pytest
import tensorflow as tf

from iodine import errors
from iodine.modules import data
from iodine.readers import layouts, opening
from iodine.synthetic import DATASETS, cater, records, write_dataset, writer

NUM_FILMS = 3
LAYOUT = layouts.find_layout("cater_with_masks")


@pytest.fixture(scope="module")
def films():
  make_film = DATASETS["cater"].make_scene
  return [make_film(np.random.default_rng([0, i])) for i in range(NUM_FILMS)]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  path = tmp_path_factory.mktemp("cater") / "films.tfrecords"
  # Of parts of one film each, as of large files.
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(writer, "_SECONDS_OF_A_PART", 0.1)
    write_dataset("cater", path, NUM_FILMS, 0, num_workers=1)
  return str(path)


def scenes_of(dataset):
  """All scenes of a data set, as they are stored."""
  return list(dataset("test", compact=True).unbatch().as_numpy_iterator())


def assert_is(scene, film, frames):
  """A stored scene is that of some frames of a film."""
  mask = film["mask"][frames]
  np.testing.assert_array_equal(scene["image"], film["image"][frames])
  np.testing.assert_array_equal(scene["mask"], mask)
  np.testing.assert_array_equal(
    scene["visibility"], mask.any(axis=(0, 2, 3, 4)).astype(np.float32)
  )
  np.testing.assert_array_equal(
    scene["factors"]["position"],
    film["object_positions"][:, range(33)[frames][0]],
  )


def test_a_generated_film(films):
  expected = {
    "image": ((33, 64, 64, 3), "uint8"),
    "mask": ((33, 11, 64, 64, 1), "uint8"),
    "object_positions": ((11, 33, 3), "float32"),
    "camera_matrix": ((33, 4, 4), "float32"),
  }
  for film in films:
    assert {k: (v.shape, v.dtype.name) for k, v in film.items()} == expected
    # Every pixel has one entity, whose places are where its pixels are.
    assert (film["mask"].sum(axis=1, dtype=int) == 255).all()
    shows = film["mask"][0, ..., 0].any(axis=(1, 2))
    assert shows[0] and shows[: shows.sum()].all()
    for entity in range(1, shows.sum()):
      x, y, z = film["object_positions"][entity, 0]
      row, column = (np.array([y, x]) / cater.REACH + 1) * 32
      rows, columns = np.nonzero(film["mask"][0, entity, ..., 0])
      assert np.hypot(rows - row, columns - column).min() < 8 and z == 0
  assert len({film["image"].tobytes() for film in films}) == NUM_FILMS


def test_what_is_written_is_the_public_layout(films, path):
  with open(path, "rb") as file:
    assert file.read(2) == b"\x78\x9c"
  spec = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "mask": tf.io.FixedLenFeature([], tf.string),
    "camera_matrix": tf.io.FixedLenFeature([33, 4, 4], tf.float32),
    "object_positions": tf.io.FixedLenFeature([11, 33, 3], tf.float32),
  }
  found = list(tf.data.TFRecordDataset(path, "ZLIB"))
  assert len(found) == NUM_FILMS
  for film, record in zip(films, found, strict=True):
    scene = tf.io.parse_single_example(record, spec)
    for name in ("image", "mask"):
      assert scene.pop(name).numpy() == film[name].tobytes()
    helpers.assert_same_bits(
      scene, {key: value for key, value in film.items() if key in scene}
    )


@pytest.mark.parametrize(
  "options, clips",
  [
    ({}, [slice(0, 33)]),
    ({"stride": 2}, [slice(0, 33, 2)]),
    ({"frames": 10}, [slice(0, 10), slice(10, 20), slice(20, 30)]),
    ({"frames": 5, "stride": 4}, [slice(0, 20, 4)]),
    ({"stills": True}, [slice(i, i + 1) for i in range(33)]),
    (
      {"stills": True, "stride": 10},
      [slice(i, i + 1) for i in (0, 10, 20, 30)],
    ),
  ],
)
def test_scenes_are_clips_of_films(options, clips, films, path):
  dataset = data.CATER(path=path, batch_size=1, **options)
  scenes = scenes_of(dataset)
  expected = [(film, frames) for film in films for frames in clips]
  assert len(scenes) == len(expected)
  assert dataset.num_frames == len(range(33)[clips[0]])
  assert dataset.image_shape == (64, 64, 3)
  assert dataset.num_true_objects == 11
  for scene, (film, frames) in zip(scenes, expected, strict=True):
    assert_is(scene, film, frames)


def test_floats_are_those_of_the_bytes(films, path):
  dataset = data.CATER(path=path, batch_size=1, stills=True)
  (batch,) = dataset("test").take(1)
  assert batch["image"].shape == (1, 1, 64, 64, 3)
  np.testing.assert_array_equal(
    batch["image"][0, 0], films[0]["image"][0] / np.float32(255)
  )
  np.testing.assert_array_equal(
    batch["mask"][0, 0], films[0]["mask"][0] / np.float32(255)
  )


def test_masks_of_ones_are_not_black(films, path, tmp_path):
  ones = [{**film, "mask": film["mask"] // 255} for film in films]
  records.write(tmp_path / "ones", ones, "ZLIB", is_packed=True)
  for name in (path, str(tmp_path / "ones")):
    (scene, *_) = scenes_of(data.CATER(path=name, batch_size=1, frames=33))
    assert_is(scene, films[0], slice(0, 33))


def test_ranges_order_and_caches_count_stills(path, tmp_path):
  def images(subset, cache=None, take=None, skip=0, rows=None):
    dataset = data.CATER(
      **{"path": path, "batch_size": 4, "stills": True, "seed": 1},
      **{"train": [30, None], "test": [0, 30], "shuffle_buffer": 20},
      cache=cache,
    )
    batches = dataset(subset, skip, rows, compact=True)
    batches = batches if take is None else batches.take(take)
    return [x.tobytes() for b in batches for x in b["image"].numpy()]

  whole = images("test")
  assert len(whole) == 30
  assert images("test", cache=str(tmp_path)) == whole
  rest = 3 * 33 - 30
  train = images("train", take=2 * rest // 4 + 1)
  assert sorted(train[:rest]) != sorted(whole[:rest])
  assert sorted(train[:rest]) == sorted(train[rest : 2 * rest])
  assert train[:rest] != train[rest : 2 * rest]
  # A run that goes on, within the first epoch and after it; some workers.
  for skip in (3, rest // 4 + 2):
    assert images("train", take=2, skip=skip) == train[4 * skip : 4 * skip + 8]
  rows = images("train", take=3, rows=(1, 3))
  assert rows == [train[i] for i in (1, 2, 5, 6, 9, 10)]
  assert len(images("train", cache=str(tmp_path), take=3)) == 12


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_file_that_is_cut_off_is_a_sentence(share, path, tmp_path):
  with open(path, "rb") as file:
    content = file.read()
  cut = tmp_path / "cut.tfrecords"
  cut.write_bytes(content[: int(share * len(content))])
  with pytest.raises(errors.UserError, match="truncated or corrupt|complete"):
    for _ in data.CATER(path=str(cut), batch_size=1).batches("test"):
      pass


def test_records_of_another_layout_are_a_sentence(films, path, tmp_path):
  short = {**films[0], "image": films[0]["image"][:32]}
  records.write(tmp_path / "short", [short], "ZLIB", is_packed=True)
  with pytest.raises(errors.UserError, match="is not a scene of cater"):
    data.CATER(path=str(tmp_path / "short"), batch_size=1)("test")
  with pytest.raises(errors.UserError, match="but of cater_with_masks"):
    data.CLEVR(path=path, batch_size=1)("test")


def test_too_many_frames_are_a_sentence(path):
  with pytest.raises(errors.UserError, match="films have 33 frames, where"):
    data.CATER(path=path, batch_size=1, frames=12, stride=3)


def test_a_record_whose_length_looks_like_zlib_is_read(tmp_path):
  records_of = [b"x" * 0x9C78, b"y"]
  name = helpers.write_records(tmp_path / "plain", records_of, "")
  with open(name, "rb") as file:
    head = file.read(8)
  assert head[:2] == b"\x78\x9c" and opening._compression(head) == ""


@pytest.mark.parametrize("data_format", ["npz", "png"])
def test_what_cater_is_not_written_as(data_format, tmp_path, capsys):
  message = helpers.fails_with_sentence(
    *(capsys, "make_data", "with", "cater", f"data_format={data_format}"),
    *("num_scenes=1", f"data_dir={tmp_path}/films"),
  )
  assert "cater are films: write them as 'tfrecords'" in message


def test_the_config_from_data_to_segments(tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  helpers.run_main(
    *("make_data", "with", "cater", "num_scenes=2"),
    *("data_dir=multi_object_datasets", "seed=0"),
  )
  helpers.run_main(
    *(
      "with",
      "cater",
      *helpers.SMALL_FILMS,
      "data.train=[16,None]",
      "data.test=[0,16]",
    ),
    "checkpoint_dir=run",
  )
  capsys.readouterr()
  helpers.use_films(tmp_path)
  assert "video_ari_nobg" in capsys.readouterr().out


def test_the_config_with_stills(tmp_path, path):
  options = [*helpers.SMALL_FILMS, f"data.path={path}", "data.stills=True"]
  helpers.run_main(
    *("with", "cater", *options, "model.sequential=False"),
    *("data.train=[16,None]", "data.test=[0,16]"),
    f"checkpoint_dir={tmp_path}/run",
  )
  run = f"checkpoint_dir={tmp_path}/run_1"
  helpers.run_main("evaluate", "with", run, "evaluation.num_scenes=2")
  photo = helpers.save_image(f"{tmp_path}/a.png", helpers.noise((64, 64, 3)))
  helpers.run_main(
    *("segment", "with", run, f"images={photo}", f"output={tmp_path}/segments"),
  )
  assert os.listdir(f"{tmp_path}/segments")
