"""The trained model that comes with the project, and the commands it serves."""

import json
import os
import pathlib

import helpers
import numpy as np
import PIL.Image
import pytest
import sklearn.metrics

import iodine
import main
from iodine import (
  building,
  checkpoints,
  config_files,
  pretrained,
  synthetic,
  training,
)
from iodine.modules import data

FOLDER = pathlib.Path(pretrained.TETROMINOES)
FOREGROUND_ARI = 0.965  # on 320 scenes
ARI = 0.97
run = helpers.run_main


def ari_nobg(path):
  return json.loads(pathlib.Path(path).read_text())["ari_nobg"]


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.fixture(scope="module")
def committed():
  """The folder's files: commands must leave them as they are."""
  return {p: p.stat().st_mtime_ns for p in FOLDER.rglob("*")}


@pytest.mark.slow  # a minute on two cores
def test_evaluate_with_nothing_else_finds_the_objects(
  empty_folder, committed, capsys
):
  run("evaluate")
  out, progress = capsys.readouterr()
  found = dict(
    line.split()[:2] for line in out.splitlines() if line.startswith("ari")
  )
  assert float(found["ari_nobg"]) >= FOREGROUND_ARI
  assert float(found["ari"]) >= ARI
  # What is committed as its metrics; rounding differs between processors.
  committed_mean = ari_nobg(FOLDER / "metrics.json")["mean"]
  assert float(found["ari_nobg"]) == pytest.approx(committed_mean, abs=0.005)
  assert "4 slots, 12 refinements" in progress
  assert "320 scenes" in out
  assert "unlike" not in out
  assert sorted(os.listdir("runs/pretrained")) == ["evaluation", "pictures"]
  assert committed == {p: p.stat().st_mtime_ns for p in FOLDER.rglob("*")}


@pytest.mark.slow  # a minute on two cores
def test_scenes_of_another_seed_are_made_for_it(empty_folder):
  options = ["num_scenes=32", "batch_size=32", "json_path=a.json"]
  run("evaluate", "with", *options, "data_seed=77")
  assert os.listdir("runs/data") == ["tetrominoes_32_of_seed_77.tfrecords"]
  found = ari_nobg("a.json")
  error = 4 * found["standard_error"]  # of 32 scenes only
  assert found["mean"] > ari_nobg(FOLDER / "metrics.json")["mean"] - error


def test_segment_from_python_needs_no_checkpoint():
  scene = synthetic.DATASETS["tetrominoes"].make_scene(np.random.default_rng(8))
  found = iodine.segment(scene["image"])
  assert found.masks.shape == (4, 35, 35)
  assert found.active_slots() == [0, 1, 2, 3]
  assert np.square(found.image - found.reconstruction).mean() < 0.002
  truth = np.argmax(scene["mask"][..., 0], axis=0)
  agree = [found.labels()[truth == entity] for entity in range(4)]
  regions = [np.bincount(labels).argmax() for labels in agree]
  assert sorted(regions) == [0, 1, 2, 3]
  assert regions[0] == 0  # the background comes first
  for labels, region in zip(agree, regions, strict=True):
    assert np.mean(labels == region) > 0.95


@helpers.needs_real_scenes
def test_segment_gives_a_real_scene_a_region_an_object(empty_folder):
  dataset = data.Tetrominoes(path=str(helpers.REAL_SCENES), batch_size=10)
  scenes = next(dataset.batches("test"))
  for number in range(10):
    pixels = np.round(scenes["image"][number, 0] * 255).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(f"{number}.png")
  run("segment", "with", "images=*.png", "json_path=segments.json")
  described = json.loads(pathlib.Path("segments.json").read_text())["images"]
  scores = []
  for number, image in enumerate(described):
    assert image["active_slots"] == [1, 2, 3, 4], number
    with PIL.Image.open(f"segments/{number}/mask.png") as mask:
      labels = np.asarray(mask)
    truth = np.argmax(scenes["mask"][number, 0, ..., 0], axis=0)
    scores.append(sklearn.metrics.adjusted_rand_score(truth.flat, labels.flat))
  assert min(scores) > 0.9
  assert np.mean(scores) > 0.97


def test_it_is_small_and_says_how_it_was_made():
  assert sum(p.stat().st_size for p in FOLDER.rglob("*")) < 5e6
  stored = config_files.read(str(FOLDER / "config.json"))
  config = json.loads(json.dumps(main.get_config(("tetrominoes", "minutes"))))
  assert stored["seed"] == checkpoints.open_checkpoint(FOLDER).seed
  for entry in ("model", "optimizer", "data", "batch_size", "learn_rate"):
    assert stored[entry] == config[entry], entry
  metrics = json.loads((FOLDER / "metrics.json").read_text())
  assert metrics["num_scenes"] == 320
  assert metrics["num_iters"] == config["evaluation"]["num_iters"] == 12
  assert metrics["ari_nobg"]["mean"] >= FOREGROUND_ARI


def test_its_training_curve_is_beside_it():
  (curve,) = training.read_scalars(str(FOLDER), ["loss/ari_nobg"]).values()
  steps, values = zip(*curve, strict=True)
  prefix = checkpoints.open_checkpoint(str(FOLDER)).prefix
  assert prefix.endswith(f"ckpt-{steps[-1]}")
  assert len(steps) == len(set(steps)) and steps[0] < 1000
  assert min(values) < 0.1 and np.mean(values[-5:]) > 0.93  # 5 refinements


def test_its_state_is_whole_so_that_a_training_goes_on(empty_folder):
  config = main.get_config(("tetrominoes", "minutes"), {"seed": 0})
  model, optimizer = (building.build(config[x]) for x in ("model", "optimizer"))
  model.initialize((35, 35, 3))
  optimizer.initialize(model.trainable_variables)
  checkpoints.restore(str(FOLDER), model=model, optimizer=optimizer)
  assert int(optimizer.global_step) == 30350
  assert all(np.any(moment.numpy() > 0) for moment in optimizer.v)
