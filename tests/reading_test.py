"""The config that travels with a checkpoint."""

import json
import shutil

import helpers
import numpy as np
import PIL.Image
import pytest

import iodine
import main
from iodine import checkpoints, config_files, synthetic

run = helpers.run_main
SCALE = "model.output_dist.component_dist.scale_val"
UPDATES = {"batch_size": 6, SCALE: 0.1, "data.image_dim": [8, 8], "seed": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A run of a config that no named config gives, and scenes for it."""
  folder = tmp_path_factory.mktemp("reading")
  path = str(folder / "scenes.tfrecords")
  synthetic.write_dataset("tetrominoes", path, 4, 0)
  config = helpers.tiny_config({**UPDATES, "data.path": path})
  helpers.save_checkpoint(folder / "run", config)
  (folder / "run/config.json").write_text(json.dumps(config))
  return folder


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  return tmp_path


def config_of(command, updates, names=()):
  """What a command is given."""
  return main.ex._create_run(command, updates, names).config


def unlike(capsys):
  """What the command says differs."""
  lines = capsys.readouterr().out.splitlines()
  return [line for line in lines if line.startswith("unlike ")]


def test_every_command_takes_the_config_beside_the_checkpoint(
  folder, empty_folder, capsys
):
  place = f"checkpoint_dir={folder}/run"
  here = "results_dir=results"
  run("evaluate", "with", place, here, "json_path=evaluation.json")
  found = json.loads((empty_folder / "evaluation.json").read_text())
  assert (found["num_scenes"], found["num_components"]) == (4, 3)
  run("plot", "with", place, here, "plot.scenes=[]")
  run("report", "with", place, here, "plot.scenes=[]")
  PIL.Image.new("RGB", (8, 8), "green").save("image.png")
  run("segment", "with", place, "images=image.png")
  run("load_checkpoint", "with", place)
  run("export_tf1", "with", place, "output=tf1/model.ckpt")
  run("export_savedmodel", "with", place, "output=saved_model")
  assert unlike(capsys) == []
  # No more than its prefix is needed, and the best one's is one folder above.
  shutil.copytree(folder / "run", "other/best")
  shutil.move("other/best/config.json", "other/config.json")
  run("load_checkpoint", "with", "checkpoint_dir=other/best")
  run("load_checkpoint", "with", "checkpoint_dir=other/best/ckpt-0")


def test_it_is_that_of_the_training_but_for_what_one_call_does(folder):
  stored = json.loads((folder / "run/config.json").read_text())
  given = {"checkpoint_dir": f"{folder}/run", "json_path": "here.json"}
  config = config_of("evaluate", given)
  assert config["json_path"] == "here.json"
  assert config["data"] == stored["data"]
  assert config["model"] == {**stored["model"], "refinement_batch_size": 6}
  assert config["seed"] == 2
  # What only looks at variables has no batch to speak of.
  for command in ("load_checkpoint", "export_tf1", "compare"):
    config = config_of(command, {"checkpoint_dir": f"{folder}/run"})
    assert config["model"] == stored["model"]


def test_updates_reach_what_depends_on_them(folder, capsys):
  place = {"checkpoint_dir": f"{folder}/run"}
  updates = {"num_components": 5, "batch_size": 2, "compute_dtype": "bfloat16"}
  config = config_of("evaluate", {**place, **updates})
  model = config["model"]
  assert model["num_components"] == 5
  assert model["output_dist"]["num_components"] == 5
  assert model["decoder"]["pixel_decoder"]["compute_dtype"] == "bfloat16"
  assert model["refinement_core"]["encoder_net"]["compute_dtype"] == "bfloat16"
  assert config["data"]["batch_size"] == config["batch_size"] == 2
  # How many at a time is no matter of how they are decomposed.
  assert model["refinement_batch_size"] == 6
  (line,) = unlike(capsys)
  assert f"`{folder}/run`" in line
  assert "model.num_components 5 (3 there)" in line
  assert "compute_dtype bfloat16 (float32 there)" in line
  assert "batch_size" not in line
  # A named config on top has another scale, which nothing else would say.
  same = {**helpers.TINY, "data.path": f"{folder}/scenes.tfrecords"}
  config_of("evaluate", {**place, **same}, ("tetrominoes",))
  (line,) = unlike(capsys)
  assert line == (
    f"unlike the config of `{folder}/run`: {SCALE} 0.03 (0.1 there)"
  )
  # What says more wins.
  config = config_of(
    "evaluate", {**place, "num_iters": 4, "model.num_iters": 1}
  )
  assert config["model"]["num_iters"] == 1


@pytest.mark.parametrize("name", ["num_iters", "model.num_iters"])
def test_the_number_of_refinements_asked_for_is_that_of_evaluate(folder, name):
  stored = json.loads((folder / "run/config.json").read_text())
  stored["evaluation"]["num_iters"] = 12
  shutil.copytree(folder / "run", folder / name)
  (folder / name / "config.json").write_text(json.dumps(stored))
  place = {"checkpoint_dir": f"{folder}/{name}"}

  def num_iters(updates):
    config = config_of("evaluate", {**place, **updates})
    return checkpoints.as_evaluated(config)["model"]["num_iters"]

  assert num_iters({}) == 12
  assert num_iters({name: 3}) == 3
  assert num_iters({"evaluation.num_iters": 4, name: 3}) == 4
  segmenter = iodine.Segmenter.from_checkpoint(folder / name)
  image = np.full([8, 8, 3], 0.5, np.float32)
  model, _ = iodine.restore(folder / name, checkpoints.as_evaluated(stored))
  same = iodine.Segmenter(model, (8, 8, 3), seed=2)(image)
  np.testing.assert_array_equal(segmenter(image).masks, same.masks)


def test_another_batch_size_of_the_refinement(folder, capsys):
  place = {"checkpoint_dir": f"{folder}/run"}
  for size in (None, 16):
    updates = {**place, "model.refinement_batch_size": size}
    config = config_of("segment", updates)
    assert config["model"]["refinement_batch_size"] == size
    (line,) = unlike(capsys)
    assert line.endswith(f"model.refinement_batch_size {size} (6 there)")


def test_tf1_checkpoints_have_the_batch_size_of_the_named_config():
  checkpoint = {"checkpoint_dir": str(helpers.GOLDEN / "tiny_tetrominoes")}
  for updates in ({}, {"batch_size": 7}, {"data.batch_size": 7}):
    config = config_of("evaluate", {**checkpoint, **updates}, ("tetrominoes",))
    assert config["model"]["refinement_batch_size"] == 128
    assert config["data"]["batch_size"] == (7 if updates else 128)


def test_sentences(folder, empty_folder, capsys):
  fails = helpers.fails_with_sentence
  shutil.copytree(folder / "run", "run")
  place = "checkpoint_dir=run"
  text = (empty_folder / "run/config.json").read_text()
  config = json.loads(text)
  config["generated_path"] = config["data"]["path"]
  (empty_folder / "run/config.json").write_text(json.dumps(config))
  for update in ("data_seed=3", "num_scenes=9"):
    sentence = fails(capsys, "evaluate", "with", place, update)
    assert "does not change `data.path`" in sentence
  sentence = fails(capsys, "evaluate", "with", place, "num_itres=9")
  assert "did you mean `num_iters`?" in sentence
  for content, part in (
    ("{", "`run/config.json` cannot be read"),
    ("[]", "a list is not a dict of entries"),
    ('{"data": {"a": 1}}', "`run/config.json` has no `model`"),
  ):
    (empty_folder / "run/config.json").write_text(content)
    for command in ("evaluate", "load_checkpoint"):
      for names in ((), ("tetrominoes",)):
        sentence = fails(capsys, command, "with", *names, place)
        assert part in sentence
        assert "move it away and name the config" in sentence
  (empty_folder / "run/config.json").unlink()
  for command in ("evaluate", "plot", "report", "load_checkpoint", "compare"):
    sentence = fails(capsys, command, "with", place)
    assert "there is no `run/config.json`" in sentence
    assert "name the config, as in `with tetrominoes`" in sentence
  sentence = fails(capsys, "evaluate", "with", "checkpoint_dir=nowhere")
  assert "there is no checkpoint at `nowhere`" in sentence


def test_what_an_older_config_does_not_know_is_no_difference():
  new = {"model": {"a": 1, "off": 0, "none": None, "on": 2, "same": [1, 2]}}
  old = {"model": {"a": 3, "gone": 4, "same": (1, 2)}}
  rest = "model.gone nothing (4 there); model.on 2 (nothing there)"
  assert config_files.differences(new, old) == f"model.a 1 (3 there); {rest}"
  found = config_files.differences(new, old, ("model",), ("model.a",))
  assert found == rest


def test_a_continued_run_says_what_is_another_now(folder, empty_folder, capsys):
  shutil.copytree(folder / "run", "run")
  config = json.loads((empty_folder / "run/config.json").read_text())
  same = [
    *(f"{name}={value}" for name, value in helpers.TINY.items()),
    *(f"{SCALE}=0.1", "data.image_dim=[8,8]", "batch_size=6"),
    f"data.path={config['data']['path']}",
    *("continue_run=True", "checkpoint_dir=run", "data.shuffle_buffer=2"),
  ]
  run("with", "tetrominoes", *same, "stop_after_steps=1")
  (line,) = unlike(capsys)
  assert line.startswith(
    "unlike the run so far: data.shuffle_buffer 2 (nothing there); "
  )
  run("with", "tetrominoes", *same, "stop_after_steps=2")
  assert unlike(capsys) == [
    "unlike the run so far: stop_after_steps 2 (1 there)"
  ]
  run("with", "tetrominoes", *same, "stop_after_steps=2")
  assert unlike(capsys) == []
  run("with", "tetrominoes", *same, "batch_size=2", "stop_after_steps=3")
  (line,) = unlike(capsys)
  assert "data.batch_size 2 (6 there)" in line
