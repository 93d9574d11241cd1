"""The folder of a run: one training at a time, which goes on at the newest."""

import contextlib
import shutil
import subprocess
import sys

import crash_test
import filelock
import helpers
import pytest

from iodine import checkpoints, errors
from iodine.training import run_folder

_TAKE = """
import filelock, sys
with filelock.FileLock(sys.argv[1], timeout=0):
  print("locked", flush=True)
  sys.stdin.read()
"""


@contextlib.contextmanager
def other_process(folder):
  """A process that has locked a folder."""
  with subprocess.Popen(
    [sys.executable, "-c", _TAKE, f"{folder}/{run_folder.LOCK_FILE}"],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    assert process.stdout.readline() == "locked\n"
    yield process


def test_one_training_in_a_folder(tmp_path):
  with run_folder.locked(str(tmp_path)):
    with run_folder.locked(f"{tmp_path}/"):  # a quickstart's training
      pass
    other = filelock.FileLock(tmp_path / run_folder.LOCK_FILE, timeout=0)
    with pytest.raises(filelock.Timeout):
      other.acquire()
  with other_process(tmp_path) as first:
    lock = run_folder.locked(str(tmp_path))
    with pytest.raises(errors.UserError, match="another training writes"), lock:
      pass
    first.kill()  # its lock dies with it
    first.communicate()
    with run_folder.locked(str(tmp_path)):
      pass


@pytest.mark.parametrize("run_id", ["7", None])
def test_a_new_run_has_a_folder_of_its_own(tmp_path, run_id):
  folder = run_folder.RunFolder.find(f"{tmp_path}/run/", run_id, False)
  path = f"{tmp_path}/run_{run_id or 1}"
  assert folder == run_folder.RunFolder(path, None, is_new=True)
  assert folder.step == 0


def test_a_run_does_not_go_on_beside_newer_checkpoints(tmp_path, capsys):
  scenes = helpers.make_scenes(tmp_path, 4)
  helpers.run_main(*crash_test.options(scenes, f"{tmp_path}/r", last=3))
  folder = tmp_path / "r_1"

  def again(start):
    options = crash_test.options(scenes, start, last=4)
    return [*options, "continue_run=True"]

  with other_process(folder):
    sentence = helpers.fails_with_sentence(capsys, *again(folder))
  assert "another training writes" in sentence
  before = {path: path.read_bytes() for path in folder.glob("ckpt*")}
  sentence = helpers.fails_with_sentence(capsys, *again(f"{folder}/ckpt-1"))
  assert f"newer than `{folder}/ckpt-1`, `{folder}/ckpt-3`: " in sentence
  assert before == {path: path.read_bytes() for path in folder.glob("ckpt*")}
  # In a folder of its own it goes on, with the config of the run.
  other = tmp_path / "older"
  other.mkdir()
  for path in [*folder.glob("ckpt-1.*"), folder / "config.json"]:
    shutil.copy(path, other)
  capsys.readouterr()
  helpers.run_main(*again(other))
  out = capsys.readouterr().out
  assert "the run's own seed 3 is used\n" in out
  assert f"continuing from {other}/ckpt-1\n" in out
  # What comes is what was there, to the bit.
  left = checkpoints.open_checkpoint(f"{folder}/ckpt-3")
  made = checkpoints.open_checkpoint(f"{other}/ckpt-3")
  names = [n for n in left.tensors if n.startswith(("model/", "optimizer/"))]
  assert len(names) > 20
  helpers.assert_same_bits(
    [left.tensors[name] for name in names],
    [made.tensors[name] for name in names],
  )
