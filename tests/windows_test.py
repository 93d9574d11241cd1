"""Windows lacks what other systems have; nothing here needs it."""

import os
import pathlib
import subprocess
import sys

import helpers
import pytest

import main

# What is asked for there raises, where this project asks.
AS_ON_WINDOWS = """
import builtins, os, signal, sys
import psutil, tensorflow, sacred
del os.uname, os.sysconf, signal.SIGHUP
find = builtins.__import__
lacking = {"fcntl", "resource", "pwd", "grp", "termios", "pty"}
def import_there(name, globals=None, *rest):
  who = (globals or {}).get("__name__", "")
  if name in lacking and who.startswith(("iodine", "main", "configs")):
    raise ModuleNotFoundError(name)
  return find(name, globals, *rest)
builtins.__import__ = import_there
import main
main.ex.run_commandline(["main.py", *sys.argv[1:]])
"""


def run(folder, *words):
  root = pathlib.Path(main.__file__).parent
  result = subprocess.run(
    [
      sys.executable,
      "-c",
      f"import os; os.chdir({str(folder)!r})" + AS_ON_WINDOWS,
      *map(str, words),
    ],
    cwd=root,
    env={**os.environ, "PYTHONPATH": str(root)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  assert result.returncode == 0, result.stdout
  return result.stdout


@pytest.mark.slow
def test_the_commands_run(tmp_path):
  assert "num_components" in run(tmp_path, "print_config", "with", "quick")
  small = ["stop_after_steps=2", "batch_size=4"]
  small += ["checkpoint_dir=run", "data.shuffle_buffer=4"]
  run(tmp_path, "make_data", "with", "quick", "num_scenes=24")
  assert "ckpt-2" in run(tmp_path, "with", "quick", *small)
  place = "checkpoint_dir=run_1"
  run(tmp_path, "load_checkpoint", "with", place)
  few = ["evaluation.num_scenes=2", "data.test=[0,4]"]
  run(tmp_path, "evaluate", "with", place, *few)
  helpers.save_image(tmp_path / "a.png", helpers.noise([20, 20, 3]))
  run(tmp_path, "segment", "with", place, "images=a.png")
  assert (tmp_path / "segments/a/overlay.png").exists()
