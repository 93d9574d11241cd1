"""Tests of generated scenes as PNGs and as arrays."""

import os
import zipfile

import helpers
import numpy as np
import PIL.Image
import pytest

from iodine import errors, synthetic
from iodine.files import MARK as FOLDER_MARK
from iodine.synthetic import DATASETS, records, write_dataset, writer


def write(name, path, num_scenes, data_format):
  write_dataset(
    name, path, num_scenes, 3, num_workers=1, data_format=data_format
  )


def drawn(name, index):
  return DATASETS[name].make_scene(np.random.default_rng([3, index]))


@pytest.mark.parametrize(
  "name", ["tetrominoes", "multi_dsprites_binarized", "clevr6"]
)
def test_both_formats_hold_the_pixels(name, tmp_path):
  for data_format in ("png", "npz"):
    write(name, tmp_path / data_format, 3, data_format)
  files = sorted(os.listdir(tmp_path / "png"))
  expected = [f"scene_0000{i}{s}.png" for i in range(3) for s in (".mask", "")]
  assert files == [FOLDER_MARK, *expected]
  arrays = dict(np.load(tmp_path / "npz"))
  for i in range(3):
    scene = drawn(name, i)
    np.testing.assert_array_equal(arrays["image"][i], scene["image"])
    with PIL.Image.open(tmp_path / f"png/scene_0000{i}.png") as image:
      assert image.mode == ("L" if scene["image"].shape[-1] == 1 else "RGB")
      pixels = np.asarray(image).reshape(scene["image"].shape)
    np.testing.assert_array_equal(pixels, scene["image"])
    with PIL.Image.open(tmp_path / f"png/scene_0000{i}.mask.png") as image:
      assert image.mode == "L"
      labels = np.asarray(image)
    np.testing.assert_array_equal(arrays["mask"][i], labels)
    # Multi-dSprites has its entities last.
    masks = np.moveaxis(scene["mask"], 2, 0) if "dsp" in name else scene["mask"]
    for entity, mask in enumerate(masks[..., 0]):
      np.testing.assert_array_equal(labels == entity, mask == 255)
    np.testing.assert_array_equal(arrays["visibility"][i], scene["visibility"])
    for key in set(scene) - {"image", "mask", "visibility"}:
      factor = arrays[f"factors/{key}"][i]
      assert factor.ndim == 2
      np.testing.assert_array_equal(factor.ravel(), scene[key].ravel())
  assert len(arrays) == len(scene)


@pytest.mark.parametrize("data_format", ["tfrecords", "png", "npz"])
def test_what_is_interrupted_is_gone_on_with(
  data_format, tmp_path, monkeypatch
):
  dataset = synthetic.DATASETS["tetrominoes"]
  monkeypatch.setattr(writer, "_SECONDS_OF_A_PART", 2 * 0.001)
  drawn = []

  def make(path, seed=0, ends_at=None):
    def draw(rng):
      drawn.append(len(drawn))
      if len(drawn) == ends_at:
        raise KeyboardInterrupt
      return dataset.make_scene(rng)

    drawn.clear()
    other = dataset._replace(make_scene=draw)
    monkeypatch.setitem(synthetic.DATASETS, "tetrominoes", other)
    synthetic.write_dataset(
      "tetrominoes", path, 7, seed, num_workers=1, data_format=data_format
    )

  def content(path):
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    names = [file.relative_to(path) for file in files if file.is_file()]
    return [(name, (path / name).read_bytes()) for name in names]

  make(tmp_path / "whole")
  path, partial = tmp_path / "cut", tmp_path / "cut.partial"
  with pytest.raises(KeyboardInterrupt):
    make(path, ends_at=6)
  assert len(list(partial.glob("0*"))) == 2 and not path.exists()
  make(path)
  # Two parts of two scenes were there.
  assert len(drawn) == 3 and not partial.exists()
  assert content(path) == content(tmp_path / "whole")
  with pytest.raises(KeyboardInterrupt):
    make(path, ends_at=6)
  make(path, seed=1)
  assert len(drawn) == 7 and content(path) != content(tmp_path / "whole")
  # Without a part there is nothing to keep.
  with pytest.raises(KeyboardInterrupt):
    make(path, ends_at=2)
  assert not partial.exists() and path.exists()


def test_large_files_are_taken_for_downloaded_ones(tmp_path, monkeypatch):
  path = tmp_path / "scenes.tfrecords"
  write("tetrominoes", path, 1, "tfrecords")
  content = path.read_bytes()
  monkeypatch.setattr(records, "_MOST_REPLACED", len(content) - 1)
  with pytest.raises(errors.UserError, match="as the public files have"):
    write("tetrominoes", path, 2, "tfrecords")
  assert path.read_bytes() == content


# -------------------------------------------------------------- make_data


@pytest.mark.parametrize(
  "options, name",
  [
    (["data_dir={}", "data_format=npz"], "tetrominoes_train.npz"),
    (["data_dir={}", "generator=moving_sprites"], "moving_sprites.npz"),
    (["data.path={}/own.npz"], "own.npz"),
    (["data.path={}/own", "data_format=png"], "own"),
    (["data_dir={}/photos", "data_format=png"], "photos"),
  ],
)
def test_where_make_data_writes(options, name, tmp_path):
  options = [option.format(tmp_path) for option in options]
  helpers.run_main("make_data", "with", "tetrominoes", "num_scenes=1", *options)
  assert os.listdir(tmp_path) == [name]
  if name.endswith(".npz"):
    assert zipfile.is_zipfile(tmp_path / name)
  else:
    assert "scene_00000.mask.png" in os.listdir(tmp_path / name)


@pytest.mark.parametrize(
  "options, part",
  [
    (["generator=cats"], "`generator` is 'cats'"),
    (
      ["generator=moving_sprites", "data_format=png", "data_dir=films"],
      "moving_sprites are films: write them as 'npz'",
    ),
    (["data_format=png"], "no 'png' are written: give `data_dir`"),
    (["data_format=png", "data_dir={}"], "is there already"),
  ],
)
def test_what_make_data_refuses(options, part, tmp_path, capsys):
  (tmp_path / "notes.txt").write_text("mine")
  options = [option.format(tmp_path) for option in options]
  message = helpers.fails_with_sentence(
    capsys, "make_data", "with", "tetrominoes", "num_scenes=1", *options
  )
  assert part in message


def test_films_are_made_at_the_first_use_and_trained_on(tmp_path, capsys):
  path = tmp_path / "films.npz"
  tiny = [
    *("n_z=3", "num_iters=1", "batch_size=2", "num_scenes=6"),
    "model.decoder.pixel_decoder.cnn_opt.output_channels=[4,None]",
    "model.refinement_core.encoder_net.cnn_opt.output_channels=[4]",
    *("data.train=[0,4]", "data.test=[4,None]", "stop_after_steps=1"),
    *(f"generated_path={path}", f"checkpoint_dir={tmp_path}/run"),
  ]
  helpers.run_main("with", "moving_sprites", *tiny)
  with np.load(path) as arrays:
    assert arrays["image"].shape == (6, 10, 24, 24, 3)
  assert (tmp_path / "run_1/ckpt-1.index").exists()
  capsys.readouterr()
  helpers.run_main(
    *("evaluate", "with", f"checkpoint_dir={tmp_path}/run_1", "batch_size=2")
  )
  assert "video_ari_nobg" in capsys.readouterr().out
