"""The trained model that comes with the project, and the commands it serves."""

import json
import os
import pathlib

import helpers
import numpy as np
import PIL.Image
import pytest

import iodine
import main
from iodine import checkpoints, pretrained, synthetic, training

FOLDER = pathlib.Path(pretrained.LAPTOP)
FOREGROUND_ARI = 0.9  # on 320 scenes
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


def test_evaluate_with_nothing_else_finds_the_objects(
  empty_folder, committed, capsys
):
  run("evaluate")
  out = capsys.readouterr().out
  figures = dict(
    line.split()[:2] for line in out.splitlines() if line.startswith("ari_nobg")
  )
  assert float(figures["ari_nobg"]) >= FOREGROUND_ARI
  # What is committed as its figures; rounding differs between processors.
  committed_mean = ari_nobg(FOLDER / "metrics.json")["mean"]
  assert float(figures["ari_nobg"]) == pytest.approx(committed_mean, abs=0.01)
  assert "320 scenes" in out
  assert sorted(os.listdir("runs/pretrained")) == ["evaluation", "pictures"]
  assert committed == {p: p.stat().st_mtime_ns for p in FOLDER.rglob("*")}


def test_scenes_of_another_seed_are_made_for_it(empty_folder):
  options = ["evaluation.num_scenes=32", "num_scenes=32", "json_path=a.json"]
  run("evaluate", "with", *options, "data_seed=77")
  assert os.listdir("runs/data") == ["tetrominoes_32_of_seed_77.tfrecords"]
  found = ari_nobg("a.json")
  error = 4 * found["standard_error"]  # of 32 scenes only
  assert found["mean"] > ari_nobg(FOLDER / "metrics.json")["mean"] - error


def test_other_commands_show_it_too(empty_folder, committed):
  few = ["num_scenes=16", "plot.num_scenes_for_map=2"]
  run("plot", "with", *few, "plot.scenes=[0]")
  assert os.path.exists("runs/pretrained/plots/scene_0_example.png")
  run("report", "with", *few, "plot.scenes=[]")
  page = pathlib.Path("runs/pretrained/report.html").read_text()
  assert "Curves over the training steps" in page
  scene = synthetic.DATASETS["tetrominoes"].make_scene(np.random.default_rng(8))
  PIL.Image.fromarray(scene["image"]).save("scene.png")
  run("segment", "with", "images=scene.png")
  assert os.path.exists("segments/scene/overlay.png")
  run("export_savedmodel", "with", "output=saved_model")
  assert os.path.exists("saved_model/saved_model.pb")
  assert committed == {p: p.stat().st_mtime_ns for p in FOLDER.rglob("*")}


def test_segment_from_python_needs_no_checkpoint():
  scene = synthetic.DATASETS["tetrominoes"].make_scene(np.random.default_rng(8))
  found = iodine.segment(scene["image"])
  assert found.masks.shape == (3, 14, 14)
  assert len(found.active_slots()) == 3
  assert np.square(found.image - found.reconstruction).mean() < (
    np.square(found.image).mean() / 2
  )


def test_it_is_small_and_says_how_it_was_made():
  assert sum(p.stat().st_size for p in FOLDER.rglob("*")) < 5e6
  stored = json.loads((FOLDER / "config.json").read_text())
  config = json.loads(json.dumps(main.get_config(("laptop",))))
  assert stored["seed"] == checkpoints.read_seed(str(FOLDER))
  for entry in ("model", "optimizer", "data", "batch_size", "learn_rate"):
    assert stored[entry] == config[entry], entry
  metrics = json.loads((FOLDER / "metrics.json").read_text())
  assert metrics["num_scenes"] == 320
  assert metrics["num_iters"] == config["evaluation"]["num_iters"] == 16
  assert metrics["ari_nobg"]["mean"] >= FOREGROUND_ARI


def test_its_training_curve_is_beside_it():
  (curve,) = training.read_scalars(str(FOLDER), ["loss/ari_nobg"]).values()
  steps, values = zip(*curve, strict=True)
  prefix = checkpoints.find(str(FOLDER))
  assert prefix.endswith(f"ckpt-{steps[-1]}")
  assert len(steps) == len(set(steps)) and steps[0] < 1000
  assert min(values) < 0.1 and np.mean(values[-5:]) > FOREGROUND_ARI
