"""Two processes train together, over the loopback interface."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import helpers
import numpy as np
import pytest
import tensorflow as tf

import main
from iodine.commands import make_data

ROOT = pathlib.Path(main.__file__).parent


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
  data = main.get_config(("tetrominoes",))["data"]
  folder = tmp_path_factory.mktemp("scenes")
  return make_data.make_data(data, str(folder), 12, seed=0)


class Workers:
  """Processes `python main.py with ...` that know of each other."""

  def __init__(self, folder, scenes, number=2, **updates):
    self.folder = folder
    folder.mkdir(exist_ok=True)
    updates = {
      **helpers.TINY,
      "num_iters": 1,
      "batch_size": 4,
      "data.path": scenes,
      "checkpoint_dir": folder / "run",
      "strategy": "multi_worker",
      "seed": 0,
      "stop_after_steps": 60,
      "save_checkpoint_steps": 10,
      **updates,
    }
    words = [f"{name}={value}" for name, value in updates.items()]
    addresses = [f"localhost:{free_port()}" for _ in range(number)]
    self._processes = []
    for index in range(number):
      cluster = {
        "cluster": {"worker": addresses},
        "task": {"type": "worker", "index": index},
      }
      self._processes.append(
        subprocess.Popen(
          [sys.executable, "main.py", "with", "tetrominoes", *words],
          cwd=ROOT,
          env={**os.environ, "TF_CONFIG": json.dumps(cluster)},
          stdout=subprocess.PIPE,
          stderr=subprocess.STDOUT,
          text=True,
        )
      )

  def kill(self, index, number, after):
    """Sends a signal once a file of the run is there."""
    deadline = time.monotonic() + 120
    while after and not list(self.folder.glob(after)):
      assert time.monotonic() < deadline
      assert self._processes[index].poll() is None
      time.sleep(0.02)
    self._processes[index].send_signal(number)

  def end(self, seconds=120):
    """Waits for all; returns their exit statuses and what they said."""
    try:
      texts = [p.communicate(timeout=seconds)[0] for p in self._processes]
    finally:
      for process in self._processes:
        process.kill()
    return [p.returncode for p in self._processes], texts


def free_port():
  with socket.socket() as listener:
    listener.bind(("localhost", 0))
    return listener.getsockname()[1]


def values(prefix):
  reader = tf.train.load_checkpoint(str(prefix))
  names = reader.get_variable_to_shape_map()
  counted = ("OBJECT_GRAPH", "save_counter")  # not of the training
  return {
    name: reader.get_tensor(name)
    for name in names
    if not any(part in name for part in counted)
  }


def assert_same_bits(first, second):
  first, second = values(first), values(second)
  assert first.keys() == second.keys()
  for name, value in first.items():
    np.testing.assert_array_equal(second[name], value, name)


def test_a_worker_that_is_killed_ends_all_and_the_run_goes_on(tmp_path, scenes):
  whole = Workers(tmp_path / "whole", scenes)
  statuses, (chief, other) = whole.end()
  assert statuses == [0, 0]
  first, second, *_ = chief.splitlines()
  assert first.startswith("waiting for the workers {'worker': ['localhost:")
  assert (
    second == "on the CPU, float32; 2 replicas share every batch, 2 workers"
  )
  assert "step 60/60" in chief and "step 60/60" not in other
  # One of them writes.
  assert [path.name for path in (tmp_path / "whole").iterdir()] == ["run_1"]
  assert len(list((tmp_path / "whole/run_1").glob("events*"))) == 1

  parts = Workers(tmp_path / "parts", scenes)
  parts.kill(1, signal.SIGKILL, after="run_1/ckpt-10.index")
  statuses, (chief, _) = parts.end(60)
  assert statuses == [1, -signal.SIGKILL]
  (sentence,) = [x for x in chief.splitlines() if x.startswith("error: ")]
  assert "another of the 2 workers" in sentence
  folder = tmp_path / "parts/run_1"
  assert sentence.endswith(f"`continue_run=True checkpoint_dir={folder}`")
  assert "Traceback" not in chief
  assert not (folder / "ckpt-60.index").exists()

  rest = Workers(
    tmp_path / "parts", scenes, continue_run=True, checkpoint_dir=folder
  )
  assert rest.end()[0] == [0, 0]
  assert_same_bits(folder / "ckpt-60", tmp_path / "whole/run_1/ckpt-60")


@pytest.mark.slow  # one test of the three is for every day
@pytest.mark.parametrize("index", [0, 1])
def test_a_worker_that_does_not_come_is_a_sentence(tmp_path, scenes, index):
  run = Workers(tmp_path, scenes, worker_timeout=15)
  run.kill(index, signal.SIGKILL, after="")  # before it listens
  statuses, texts = run.end(60)
  assert statuses[1 - index] == 1
  (sentence,) = texts[1 - index].splitlines()
  assert "do not meet within 15 s this one ends" in sentence


@pytest.mark.slow  # likewise
@pytest.mark.parametrize("index", [0, 1])
def test_sigterm_at_one_worker_saves_and_ends_all(tmp_path, scenes, index):
  run = Workers(tmp_path, scenes, stop_after_steps=10**6)
  run.kill(index, signal.SIGTERM, after="run_1/ckpt-10.index")
  statuses, (chief, _) = run.end(60)
  assert statuses == [128 + signal.SIGTERM] * 2
  (step,) = re.findall(r"stopped by SIGTERM at step (\d+);", chief)
  assert f"checkpoint: {tmp_path}/run_1/ckpt-{step}" in chief
  assert (tmp_path / f"run_1/ckpt-{step}.index").exists()
