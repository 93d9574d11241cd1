"""What docs/extending.md shows runs as it stands there, made small."""

import json
import pathlib
import re
import shlex
import sys

import helpers
import numpy as np
import pytest

import main
from iodine import training

PAGE = pathlib.Path(__file__).parents[1] / "docs/extending.md"
FILES = {
  re.match(r"# (\w+)\.py\n", code).group(1): code
  for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
}
COMMANDS = [
  line
  for block in re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
  for line in block.splitlines()
]
SMALLER = {
  "batch_size": 2,
  "data.shuffle_buffer": 2,
  "data.image_dim": [8, 8],
  "num_iters": 1,
  "stop_after_steps": 1,
  "save_summaries_steps": 1,
  "evaluation.num_scenes": 3,
}


def run(line, leave_out=()):
  """Runs a command of the page on a tiny model.

  Args:
    line: the command.
    leave_out: entries that the part which the command names does not have.
  """
  place, python, script, *words = shlex.split(line)
  assert (place, python, script) == ("PYTHONPATH=mine", "python", "main.py")
  smaller = {**helpers.TINY, **SMALLER}
  updates = [
    f"{key}={value}"
    for key, value in smaller.items()
    if not key.startswith(tuple(leave_out))
  ]
  return helpers.run_main(*words, *updates)


def commands_with(name):
  return [
    line
    for line in COMMANDS
    if f"{name}." in line or f"--trust {name} " in line
  ]


def trained(capsys, line, leave_out=()):
  """Trains for a step and returns the config that was saved beside it."""
  run(line, leave_out)
  folder = re.search(r"into (\S+)", capsys.readouterr().out).group(1)
  means = training.read_scalars(folder, ["loss/total"])
  assert np.all(np.isfinite(np.asarray(means["loss/total"])))
  return json.loads(pathlib.Path(folder, "config.json").read_text())


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """An empty folder but for what the page shows, and scenes."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / "mine").mkdir()
  for name, code in FILES.items():
    (tmp_path / "mine" / f"{name}.py").write_text(code)
    monkeypatch.delitem(sys.modules, name, raising=False)
  monkeypatch.syspath_prepend(str(tmp_path / "mine"))
  helpers.run_main(
    *("make_data", "with", "tetrominoes", "num_scenes=8"),
    "data_dir=multi_object_datasets",
  )
  return tmp_path


def test_every_command_is_run_here():
  named = [line for name in FILES for line in commands_with(name)]
  assert sorted(named) == sorted(COMMANDS)
  assert len(FILES) == 5


def test_every_file_is_short():
  for name, code in FILES.items():
    lines = [x for x in code.splitlines() if x and not x.startswith("#")]
    assert len(lines) <= 24, name


def test_pixel_decoder(folder, capsys):
  train, evaluate = commands_with("my_decoder")
  part = "model.decoder.pixel_decoder"
  config = trained(capsys, train, leave_out=[part])
  assert config["model"]["decoder"]["pixel_decoder"] == {
    "constructor": "my_decoder.PixelMLP",
    "hidden_sizes": [64, 64],
  }
  # What is read has its sizes in its config.
  options = [*helpers.TINY, "batch_size", "num_iters", "stop_", "save_"]
  assert run(evaluate, leave_out=options).result["num_scenes"] == 3
  untrusted = evaluate.replace("--trust my_decoder ", "").split()[3:]
  sentence = helpers.fails_with_sentence(capsys, *untrusted)
  assert "names 'my_decoder.PixelMLP'" in sentence
  assert "is not a class of this project and would be run" in sentence
  assert 'iodine.trust("my_decoder.PixelMLP")' in sentence


def test_head(folder, capsys):
  (line,) = commands_with("my_head")
  config = trained(capsys, line)
  assert config["model"]["refinement_core"]["refinement_head"] == {
    "constructor": "my_head.GatedHead"
  }


def test_refinement_input(folder, capsys):
  (line,) = commands_with("my_input")
  config = trained(capsys, line)
  assert config["model"]["inputs"][-2:] == [
    "my_input.error",
    "my_input.brightness",
  ]


def test_metric(folder, capsys):
  config = main.get_config(("tetrominoes",), helpers.TINY)
  helpers.save_checkpoint("iodine/checkpoints/tetrominoes_1", config)
  (line,) = commands_with("my_metric")
  run(line)
  assert "purity" in capsys.readouterr().out
  evaluated = json.loads(pathlib.Path("evaluation.json").read_text())
  assert 0.0 < evaluated["purity"]["mean"] <= 1.0
  assert len(evaluated["per_iteration"]["purity"]) == 2


def test_data_set(folder, capsys):
  rng = np.random.default_rng(0)
  owner = rng.integers(0, 3, [5, 8, 8])
  mask = np.moveaxis(np.eye(3)[owner], -1, 1)[..., None]
  np.savez("scenes.npz", image=rng.uniform(size=[5, 8, 8, 3]), mask=mask)
  train, evaluate = commands_with("my_data")
  options = ["data.image_dim", "data.shuffle_buffer", "evaluation.num_scenes"]
  config = trained(capsys, train, leave_out=options)
  assert config["data"]["constructor"] == "my_data.Arrays"
  result = run(evaluate, leave_out=options).result
  assert result["num_scenes"] == 5
