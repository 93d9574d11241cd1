"""Latents of many scenes in one file: equal to evaluate's, gone on with."""

import json
import os

import helpers
import numpy as np
import pytest

import iodine
from iodine import checkpoints, evaluation
from iodine.commands import common
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
  helpers.assert_same_bits(found["entities/factors/color"], colors)
  for n, slots in enumerate(found["entities/slot"]):
    table = evaluate_counts(truth[n], found["labels"][n])
    assert list(encode.match_entities(table)) == list(slots)
    helpers.assert_same_bits(found["entities/pixels"][n], table.sum(axis=1))
    for slot, entity in enumerate(found["entity"][n]):
      color = found["factors/color"][n, slot]
      if entity < 0:
        assert slot not in slots and np.isnan(color).all()
        assert found["visibility"][n, slot] == 0
      else:
        assert slots[entity] == slot
        helpers.assert_same_bits(color, colors[n, entity])


def evaluate_counts(truth, labels):
  """[L, K] pixels that true masks [L, H, W, 1] and slots share."""
  slots = labels == np.arange(3)[:, None, None]
  return np.einsum("lhw,khw->lk", truth[..., 0], slots)


def test_what_was_interrupted_goes_on(options, whole, tmp_path, monkeypatch):
  monkeypatch.setattr(encode, "_PIECE_SECONDS", 0.0)
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
  helpers.run_main(*words)
  assert len(calls) == 4  # of three batches one was kept
  assert os.listdir(tmp_path) == ["latents.h5"]
  once, twice = iodine.read_latents(whole), iodine.read_latents(path)
  helpers.assert_same_bits(once, twice)
  helpers.run_main(*words)
  assert len(calls) == 4  # there already
