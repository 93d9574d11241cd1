"""Latents of many scenes in one file: equal to evaluate's, gone on with."""

import json
import os
import shutil
import tracemalloc

import helpers
import numpy as np
import pytest

import iodine
from iodine import checkpoints, errors, evaluation
from iodine.commands import common
from iodine.drawing import palette
from iodine.studies import encode, latents

fails_with_sentence = helpers.fails_with_sentence


@pytest.fixture(scope="module")
def options(tmp_path_factory):
  """The words of a tiny model on seven scenes, for batches of three."""
  folder = tmp_path_factory.mktemp("encode")
  scenes = helpers.make_scenes(folder / "data", 7)
  config = helpers.tiny_config({"batch_size": 3, "data.image_dim": [8, 8]})
  helpers.save_checkpoint(folder / "run", config)
  words = ["with", "tetrominoes", *helpers.TINY_OPTIONS, f"data.path={scenes}"]
  return [*words, f"checkpoint_dir={folder}/run"]


@pytest.fixture(scope="module")
def whole(options, tmp_path_factory):
  path = tmp_path_factory.mktemp("whole") / "latents.h5"
  helpers.run_main("encode", *options, f"output={path}")
  return str(path)


def decomposed(path):
  """What `evaluate` makes of the same, by its own functions."""
  config = json.loads(latents.about(path)["config"])
  opened = checkpoints.open_checkpoint(config["checkpoint_dir"])
  model = common.restore(config, opened).model
  dataset = common.build_dataset(config["data"], 3)
  result = evaluation.evaluate(model, dataset.batches("test"), 3, 3)
  scenes, _ = evaluation.decompose_scenes(
    model, dataset.batches("test"), 3, range(7), seed=3
  )
  return result, scenes, list(dataset.batches("test"))


def test_values_are_those_of_evaluate(whole):
  found = iodine.read_latents(whole)
  result, scenes, batches = decomposed(whole)
  assert found["mean"].shape == (7, 3, 3)
  for scene in scenes:
    n, info = scene.number, scene.info
    for name, key in (("mean", "z_mean"), ("scale", "z_std")):
      helpers.assert_same_bits(found[name][n], info["latent"][key][0, -1])
    helpers.assert_same_bits(found["kl"][n], scene.latent_kl)
    masks = info["outputs"]["pred_mask"][0, -1, ..., 0]
    helpers.assert_same_bits(found["labels"][n], masks.argmax(axis=0))
  assert found["labels"].dtype == np.uint8
  for name in ("ari", "ari_nobg", "mse", "miou", "kl", "total"):
    of_scenes = result.scenes.get(name)
    if of_scenes is not None:
      helpers.assert_same_bits(found[f"metrics/{name}"], np.array(of_scenes))
    mean = result.metrics[name].mean
    np.testing.assert_allclose(np.nanmean(found[f"metrics/{name}"]), mean)
  truth = np.concatenate([x["mask"].numpy()[:, -1] for x in batches])
  colors = np.concatenate([x["factors"]["color"].numpy() for x in batches])
  helpers.assert_same_bits(found["factors/color"], colors)
  for n, slots in enumerate(found["slot"]):
    table = evaluate_counts(truth[n], found["labels"][n])
    assert list(palette.match_by_iou(table)) == list(slots)
    helpers.assert_same_bits(found["pixels"][n], table.sum(axis=1))
  visible = np.concatenate([x["visibility"].numpy() for x in batches])
  helpers.assert_same_bits(found["visibility"], visible)


def evaluate_counts(truth, labels):
  """[L, K] pixels that true masks [L, H, W, 1] and slots share."""
  slots = labels == np.arange(3)[:, None, None]
  return np.einsum("lhw,khw->lk", truth[..., 0], slots)


def test_what_was_interrupted_goes_on(
  options, whole, tmp_path, monkeypatch, capsys
):
  path = tmp_path / "latents.h5"
  words = ["encode", *options, f"output={path}"]
  rows_of, calls = encode._rows_of, []

  def interrupted(*found):
    calls.append(found)
    if len(calls) == 2:
      raise KeyboardInterrupt
    return rows_of(*found)

  with monkeypatch.context() as patch, pytest.raises(SystemExit):
    patch.setattr(encode, "_rows_of", interrupted)
    helpers.run_main(*words)
  assert os.listdir(tmp_path) == ["latents.h5.partial"]
  monkeypatch.setattr(
    encode, "_rows_of", lambda *x: calls.append(x) or rows_of(*x)
  )
  with monkeypatch.context() as patch:
    usage = shutil.disk_usage(tmp_path)
    patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    said = helpers.fails_with_sentence(capsys, *words)
  assert "No space left on device" in said
  assert os.listdir(tmp_path) == ["latents.h5.partial"]
  helpers.run_main(*words)
  assert len(calls) == 4  # of three batches one was kept
  assert os.listdir(tmp_path) == ["latents.h5"]
  once, twice = iodine.read_latents(whole), iodine.read_latents(path)
  helpers.assert_same_bits(once, twice)
  helpers.run_main(*words)
  assert len(calls) == 4  # there already


def test_photos_have_names_and_probabilities_may_be_kept(tmp_path, capsys):
  for i in (2, 10, 1):
    pixels = helpers.noise([8, 8, 3], seed=i)
    helpers.save_image(tmp_path / f"photos/{i}.png", pixels)
  words = [*helpers.TINY_OPTIONS, f"data.path={tmp_path}/photos"]
  words += ["data.constructor=iodine.modules.data.Images"]
  config = helpers.tiny_config({"data.image_dim": [8, 8]})
  helpers.save_checkpoint(tmp_path / "run", config)
  helpers.run_main(
    *("encode", "with", "tetrominoes", *words, "encode.masks=probabilities"),
    *(f"checkpoint_dir={tmp_path}/run", f"output={tmp_path}/found.h5"),
  )
  found = iodine.read_latents(tmp_path / "found.h5", lazy=True)
  names = [os.path.basename(name) for name in found["names"][:]]
  assert names == ["1.png", "2.png", "10.png"]
  assert found["masks"].shape == (3, 3, 8, 8)
  np.testing.assert_allclose(found["masks"][:].sum(axis=1), 1.0, atol=1e-5)
  missing = {"slot", "labels", "visibility", "metrics/ari"}
  assert not missing & found.keys() and "metrics/mse" in found
  (tmp_path / "text.h5").write_text("a text")
  for name in ("text.h5", "none.h5"):
    with pytest.raises(errors.UserError, match="not a file of latents"):
      iodine.read_latents(tmp_path / name)
  words += [f"checkpoint_dir={tmp_path}/run", f"output={tmp_path}/text.h5"]
  assert "choose another `output`" in helpers.fails_with_sentence(
    capsys, "encode", "with", "tetrominoes", *words
  )
  assert (tmp_path / "text.h5").read_text() == "a text"


def test_objects_come_before_the_background():
  # The slots divide the background; one has an object.
  table = [[40, 30, 20], [0, 9, 0], [0, 0, 0]]
  assert list(palette.match_by_iou(np.array(table, float))) == [0, 1, -1]
  table = [[1, 0], [5, 4], [6, 0]]
  assert list(palette.match_by_iou(np.array(table, float))) == [-1, 1, 0]


def encoded(options, scenes, folder, words=()):
  """The most memory that Python allocated meanwhile, in bytes."""
  tracemalloc.start()
  helpers.run_main(
    *("encode", *options, f"data.path={scenes}", f"output={folder}/found.h5"),
    *("batch_size=16", *words),
  )
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  return peak


def test_memory_does_not_grow(options, tmp_path):
  scenes = helpers.make_scenes(tmp_path / "data", 320)
  # What is imported and traced comes first.
  encoded(options, scenes, tmp_path, ["evaluation.num_scenes=16"])
  peaks = [
    encoded(options, scenes, tmp_path, [f"evaluation.num_scenes={number}"])
    for number in (32, 320)
  ]
  assert peaks[1] < 1.1 * peaks[0]
  assert len(iodine.read_latents(tmp_path / "found.h5")["mean"]) == 320


@pytest.mark.slow
def test_ten_thousand_scenes_are_gone_on_with(options, tmp_path, monkeypatch):
  scenes = helpers.make_scenes(tmp_path / "data", 10_000)
  rows_of, calls = encode._rows_of, []

  def interrupted(*found):
    calls.append(found[1])
    if sum(calls) > 6000:
      raise KeyboardInterrupt
    return rows_of(*found)

  with monkeypatch.context() as patch, pytest.raises(SystemExit):
    patch.setattr(encode, "_rows_of", interrupted)
    encoded(options, scenes, tmp_path, ["batch_size=64"])
  peak = encoded(options, scenes, tmp_path, ["batch_size=64"])
  assert peak < 2**26
  found = iodine.read_latents(tmp_path / "found.h5")
  assert len(found["mean"]) == 10_000
  os.mkdir(tmp_path / "whole")
  encoded(options, scenes, tmp_path / "whole", ["batch_size=64"])
  helpers.assert_same_bits(
    found, iodine.read_latents(tmp_path / "whole/found.h5")
  )
