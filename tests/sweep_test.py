"""Many trainings by one command: what they are, what is left of them."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import helpers
import numpy as np
import pytest

import main
from iodine.studies import gather, sweep

try:
  import submitit  # which closes what absl logs to, so not within a test
except ImportError:
  submitit = None

ROOT = pathlib.Path(__file__).parents[1]


def words(scenes, folder, **updates):
  """A sweep of tiny trainings."""
  updates = {"stop_after_steps": 3, "save_summaries_steps": 1, **updates}
  options = helpers.training_words(scenes, folder, **updates)
  return ["sweep", *(x for x in options if not x.startswith("seed="))]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
  return helpers.make_scenes(tmp_path_factory.mktemp("data"), 8)


@pytest.fixture
def started(monkeypatch):
  """Trainings that begin, which are done in no time unless they may not."""
  calls = []

  def start(training):
    calls.append(training)
    folder = pathlib.Path(training.folder)
    folder.mkdir(exist_ok=True)
    if "learn_rate=0.5" in training.words:
      code = "print('error: no luck'); exit(1)"
    else:
      name = folder / f"ckpt-{training.stop}.index"
      code = f"print('step 2/3'); open({str(name)!r}, 'w')"
    with open(f"{training.folder}.log", "ab") as log:
      return sweep.Process([sys.executable, "-c", code], stdout=log)

  monkeypatch.setattr(sweep.Training, "start", start)
  return calls


def test_a_grid_and_side_by_side():
  swept = {"seed": [0, 1], "data": {"batch_size": [2, 4]}}
  grid = sweep.list_rows(swept, False)
  assert grid[1] == {"seed": 0, "data.batch_size": 4} and len(grid) == 4
  zipped = sweep.list_rows(swept, True)
  assert zipped == [grid[0], grid[3]]
  assert len(sweep.list_rows({"seed": [0, 0]}, False)) == 1


@pytest.mark.parametrize(
  "options, part",
  [
    (["sweep.learn_rat=[1]"], "did you mean `learn_rate`?"),
    (["sweep.model.n_zz=[1]"], "`model.n_zz` is not an argument"),
    (["sweep.data.batch_sise=[1]"], "`data.batch_sise` is not an argument"),
    (["sweep.n_z=[3,0]"], "`n_z` is 0: give an integer, at least 1"),
    (["sweep.seed=3"], "`sweep.seed` is 3: give a list"),
    ([], "none; give entries and theirs, as `'sweep.seed"),
    (
      ["sweep.seed=[0,1]", "sweep.n_z=[3]", "sweep_zip=True"],
      "lists of so many values: {'n_z': 1, 'seed': 2}",
    ),
    (["sweep.seed=[0]", "sweep_launcher=slurm"], "no Slurm here"),
    (["sweep.seed=[0]", "sweep_launcher=pbs"], "'slurm'"),
  ],
)
def test_mistakes_are_told_before_anything_runs(
  options, part, scenes, tmp_path, capsys, started
):
  place = tmp_path / "sweep"
  said = helpers.fails_with_sentence(capsys, *words(scenes, place), *options)
  assert part in said
  assert not started and not list(tmp_path.glob("sweep/run*"))


def test_a_training_is_no_sweep(scenes, tmp_path, capsys):
  command = [*words(scenes, tmp_path / "a")[1:], "sweep.seed=[0]"]
  assert "main.py sweep with" in helpers.fails_with_sentence(capsys, *command)


def test_a_run_that_fails_is_named_and_ends_no_other(
  scenes, tmp_path, capsys, started
):
  root = tmp_path / "sweep"
  command = [*words(scenes, root), "sweep.learn_rate=[0.5,0.1]", "n_z=4"]
  said = helpers.fails_with_sentence(capsys, *command)
  assert "1 of 2 runs failed" in said and "error: no luck" in said
  assert f"{root}/run_1.log" in said
  assert sorted(os.listdir(root)) == [
    *(".lock", "run_1", "run_1.log", "run_2", "run_2.log", "sweep.json")
  ]
  table = json.loads((root / "sweep.json").read_text())
  rates = {name: row.pop("learn_rate") for name, row in table.items()}
  assert rates == {"run_1": 0.5, "run_2": 0.1}
  assert table["run_1"] == table["run_2"] and table["run_1"]["n_z"] == 4
  assert [x.folder for x in started] == [f"{root}/run_{i}" for i in (1, 2)]
  first, second = (x.words for x in started)
  assert "n_z=4" in first and "learn_rate=0.1" in second
  assert not any("sweep" in word.split("=")[0] for word in first)
  # Called again it does what is not done; values may be added, in any order.
  started.clear()
  command[-2] = "sweep.learn_rate=[0.2,0.1]"
  main.ex.run_commandline(["main.py", *command])
  assert [x.folder for x in started] == [f"{root}/run_3"]
  out, err = capsys.readouterr()
  # Of all steps, with the time that is left.
  assert re.search(r" 6/6 \[\d+:\d+<\d+:\d+, .* steps/s\]", err)
  assert f"{root}/run_3 (learn_rate=0.2): done" in out
  assert "gather with runs=" in out
  # With other entries they are other runs, but for what may grow.
  started.clear()
  options = ["n_z=5", "sweep_parallel=2", "stop_after_steps=4"]
  main.ex.run_commandline(["main.py", *command, *options])
  assert [x.folder for x in started] == [f"{root}/run_{i}" for i in (4, 5)]
  started.clear()
  main.ex.run_commandline(["main.py", *command, "stop_after_steps=4"])
  assert [x.folder for x in started] == [f"{root}/run_{i}" for i in (3, 2)]
  (root / "sweep.json").write_text("{")
  said = helpers.fails_with_sentence(capsys, *command)
  assert "sweep.json` cannot be read" in said
  # Without it no folder is taken for another run.
  (root / "sweep.json").unlink()
  started.clear()
  main.ex.run_commandline(["main.py", *command])
  assert [x.folder for x in started] == [f"{root}/run_{i}" for i in (6, 7)]


def test_how_far_a_training_is(tmp_path):
  each = sweep.Training([], 100, {}, str(tmp_path / "run_1"))
  assert each.told() == (0, "no output")
  (tmp_path / "run_1.log").write_text("step 10/100 loss\nstep 20/100\n")
  assert each.told() == (20, "step 20/100")


def weights(prefix):
  tensors = helpers.checkpoint_tensors(prefix)
  return {k: v for k, v in tensors.items() if k.startswith(("model", "opti"))}


@pytest.mark.skipif(submitit is None, reason="submitit is not installed")
def test_jobs_of_submitit_train(scenes, tmp_path, capsys):
  """By its own executor for a single machine."""
  command = [*words(scenes, tmp_path, stop_after_steps=2), "sweep.seed=[1]"]
  command += ["sweep_launcher=slurm"]
  slurm = "'cluster': 'local', 'partition': 'a', 'gpus': 0"
  wrong = f"sweep_slurm={{{slurm}, 'nodes': 'many'}}"
  said = helpers.fails_with_sentence(capsys, *command, wrong)
  assert "does not take `sweep_slurm`" in said
  helpers.run_main(*command, f"sweep_slurm={{{slurm}, 'hours': 0.5}}")
  assert (tmp_path / "run_1/ckpt-2.index").exists()
  assert list((tmp_path / "submitit").glob("*_result.pkl"))


@pytest.mark.slow
def test_interrupted_and_called_again_it_is_trainings_by_hand(scenes, tmp_path):
  root = tmp_path / "sweep"
  command = words(scenes, root, stop_after_steps=60, save_checkpoint_steps=20)
  command += ["sweep.seed=[0,1,2]", "sweep_parallel=2"]
  process = subprocess.Popen(
    [sys.executable, "main.py", *command],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  deadline = time.monotonic() + 300
  log = root / "run_1.log"
  while not log.exists() or "step 5/" not in log.read_text():
    assert time.monotonic() < deadline and process.poll() is None
    time.sleep(0.1)
  process.send_signal(signal.SIGINT)
  out = process.communicate(timeout=200)[0]
  assert process.returncode == 130 and "Traceback" not in out
  assert "the same command goes on" in out
  assert "stopped by SIGTERM" in log.read_text()
  assert not (root / "run_1/ckpt-60.index").exists()
  result = subprocess.run(
    [sys.executable, "main.py", *command],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
  assert "continuing from" in log.read_text()
  made = helpers.run_main("gather", "with", f"runs={root}", "plot.scenes=[1]")
  evaluations = []
  for seed in (0, 1, 2):
    by_hand = words(scenes, tmp_path / f"hand{seed}", stop_after_steps=60)[1:]
    helpers.run_main(*by_hand, f"seed={seed}")
    expected = weights(tmp_path / f"hand{seed}_1/ckpt-60")
    found = weights(root / f"run_{seed + 1}/ckpt-60")
    helpers.assert_same_bits(found, expected)
    json_path = tmp_path / f"{seed}.json"
    place = [
      f"checkpoint_dir={tmp_path}/hand{seed}_1",
      f"json_path={json_path}",
    ]
    helpers.run_main("evaluate", "with", *place)
    evaluations.append(json.loads(json_path.read_text()))
  (row,) = made.result.values()
  assert row["n"] == 3
  for name in gather.METRICS:
    means = [found[name]["mean"] for found in evaluations]
    assert row[f"{name}_mean"] == np.mean(means)
    assert row[f"{name}_deviation"] == np.std(means, ddof=1)
  assert (root / "gathered/curves.png").exists()
