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
import pytest

import main

ROOT = pathlib.Path(main.__file__).parent


class Workers:
  """Processes `python main.py with ...` that know of each other."""

  def __init__(self, folder, scenes, number=2, own=None, **updates):
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
    addresses = [f"localhost:{free_port()}" for _ in range(number)]
    self._processes = []
    for index in range(number):
      cluster = {
        "cluster": {"worker": addresses},
        "task": {"type": "worker", "index": index},
      }
      mine = {**updates, **(own or {}).get(index, {})}
      words = [f"{name}={value}" for name, value in mine.items()]
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


def test_a_killed_worker_ends_all_and_the_run_goes_on(tmp_path, five_scenes):
  whole = Workers(tmp_path / "whole", five_scenes)
  statuses, (chief, other) = whole.end()
  assert statuses == [0, 0]
  # On a busy machine it says that TensorFlow starts.
  lines = [x for x in chief.splitlines() if not x.endswith(" ...")]
  first, second, *_ = lines
  assert first.startswith("waiting for the workers {'worker': ['localhost:")
  assert (
    second == "on the CPU, float32; 2 replicas share every batch, 2 workers"
  )
  assert "step 60/60" in chief and "step 60/60" not in other
  # One of them writes.
  assert [path.name for path in (tmp_path / "whole").iterdir()] == ["run_1"]
  assert len(list((tmp_path / "whole/run_1").glob("events*"))) == 1

  parts = Workers(tmp_path / "parts", five_scenes)
  parts.kill(1, signal.SIGKILL, after="run_1/ckpt-10.index")
  statuses, (chief, _) = parts.end(60)
  assert statuses == [1, -signal.SIGKILL]
  (sentence,) = [x for x in chief.splitlines() if x.startswith("error: ")]
  assert "another of the 2 workers" in sentence
  folder = tmp_path / "parts/run_1"
  assert sentence.endswith(
    f"python main.py with continue_run=True checkpoint_dir={folder}`"
  )
  assert "Traceback" not in chief
  assert not (folder / "ckpt-60.index").exists()

  rest = Workers(
    tmp_path / "parts", five_scenes, continue_run=True, checkpoint_dir=folder
  )
  assert rest.end()[0] == [0, 0]
  helpers.assert_same_bits(
    helpers.checkpoint_tensors(folder / "ckpt-60"),
    helpers.checkpoint_tensors(tmp_path / "whole/run_1/ckpt-60"),
  )


def test_a_port_in_use_is_a_sentence(tmp_path, five_scenes, monkeypatch):
  with socket.create_server(("localhost", 0)) as server:
    port = server.getsockname()[1]
    monkeypatch.setitem(globals(), "free_port", lambda: port)
    ((status,), (text,)) = Workers(tmp_path, five_scenes, number=1).end()
  assert status == 1
  *_, sentence = text.splitlines()
  assert sentence.startswith("error: this worker cannot listen"), text
  assert "Traceback" not in text


@pytest.mark.slow  # likewise
def test_unlike_configs_are_a_sentence(tmp_path, five_scenes):
  run = Workers(tmp_path, five_scenes, own={1: {"n_z": 5}})
  statuses, texts = run.end()
  assert statuses == [1, 1]
  for text in texts:
    assert text.splitlines()[-1].startswith("error: the workers have unlike")
    assert "Traceback" not in text


@pytest.mark.slow  # one test of the three is for every day
@pytest.mark.parametrize("index", [0, 1])
def test_a_worker_that_does_not_come_is_a_sentence(
  tmp_path, five_scenes, index
):
  run = Workers(tmp_path, five_scenes, worker_timeout=15)
  run.kill(index, signal.SIGKILL, after="")  # before it listens
  statuses, texts = run.end(60)
  assert statuses[1 - index] == 1
  (sentence,) = texts[1 - index].splitlines()
  assert "do not meet within 15 s this one ends" in sentence


@pytest.mark.slow  # likewise
@pytest.mark.parametrize("index", [0, 1])
def test_sigterm_at_one_worker_saves_and_ends_all(tmp_path, five_scenes, index):
  run = Workers(tmp_path, five_scenes, stop_after_steps=10**6)
  run.kill(index, signal.SIGTERM, after="run_1/ckpt-10.index")
  statuses, (chief, _) = run.end(60)
  assert statuses == [128 + signal.SIGTERM] * 2
  (step,) = re.findall(r"stopped by SIGTERM at step (\d+);", chief)
  assert f"checkpoint: {tmp_path}/run_1/ckpt-{step}" in chief
  assert (tmp_path / f"run_1/ckpt-{step}.index").exists()
