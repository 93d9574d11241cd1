"""A training that is killed at any moment goes on as if it had not been."""

import pathlib
import shutil
import signal
import subprocess
import sys

import helpers
import pytest
import training_test
from tensorflow.python.checkpoint import checkpoint_management

import main
from iodine import checkpoints

ROOT = pathlib.Path(main.__file__).parent
LAST = 12


def options(scenes, folder, last=LAST):
  """Words of a training that saves after every step."""
  small = {"data.shuffle_buffer": 4, "num_iters": 1, "stop_after_steps": last}
  periods = {"save_checkpoint_steps": 1, "save_summaries_steps": 1}
  return helpers.training_words(scenes, folder, **small, **periods)


def train_until_killed(words, step):
  """Kills a training right after it has told of a step, while it saves."""
  with subprocess.Popen(
    [sys.executable, "main.py", *words],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    for line in process.stdout:
      if line.startswith(f"step {step}/"):
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_a_run_that_is_killed_is_the_run_that_is_not(tmp_path, capsys):
  scenes = helpers.make_scenes(tmp_path, 6)
  helpers.run_main(*options(scenes, f"{tmp_path}/whole"))
  train_until_killed(options(scenes, f"{tmp_path}/run"), 4)
  folder = f"{tmp_path}/run_1"
  words = [*options(scenes, folder), "continue_run=True"]
  saved = checkpoints.open_checkpoint(folder).step
  assert saved in (3, 4)
  for step in (5, 8):
    train_until_killed(words, step)
    assert checkpoints.open_checkpoint(folder).step >= step - 1
  capsys.readouterr()
  helpers.run_main(*words)
  assert f"continuing from {folder}/ckpt-" in capsys.readouterr().out
  first, second = (
    checkpoints.open_checkpoint(f"{tmp_path}/{name}_1/ckpt-{LAST}").tensors
    for name in ("whole", "run")
  )
  # TensorFlow counts the saves of a process.
  names = [n for n in first if "GRAPH" not in n and "save_counter" not in n]
  assert len(names) > 50 and first.keys() == second.keys()
  helpers.assert_same_bits(
    [first[name] for name in names], [second[name] for name in names]
  )


@pytest.mark.parametrize(
  "name", ["update_checkpoint_state_internal", "_delete_file_if_exists"]
)
def test_a_save_that_is_killed_leaves_the_older_ones(
  tmp_path, monkeypatch, name
):
  """Before each of its operations after the files are written."""
  run = training_test.Run(tmp_path / "run")
  run.train(5, step=run.fake_step(), save_checkpoint_steps=1)
  original = shutil.copytree(tmp_path / "run", tmp_path / "original")
  real, left = getattr(checkpoint_management, name), 0

  def killed(*args, **kwargs):
    nonlocal left
    left -= 1
    if not left:
      raise KeyboardInterrupt
    return real(*args, **kwargs)

  monkeypatch.setattr(checkpoint_management, name, killed)
  for moment in (1, 2):
    shutil.rmtree(tmp_path / "run")
    shutil.copytree(original, tmp_path / "run")
    again = training_test.Run(tmp_path / "run")
    again.store.restore()
    left = moment
    with pytest.raises(KeyboardInterrupt):
      again.train(6, step=again.fake_step())
    assert checkpoints.open_checkpoint(tmp_path / "run").prefix[-1] in "56"
    again = training_test.Run(tmp_path / "run")
    again.store.restore()
    again.train(7, step=again.fake_step(), save_checkpoint_steps=1)
    there = {path.stem for path in (tmp_path / "run").glob("ckpt-*.index")}
    assert there == {f"ckpt-{step}" for step in range(3, 8)}
