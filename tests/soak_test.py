"""Nothing grows in a training of many steps: memory, descriptors, threads."""

import os
import pathlib
import re
import subprocess
import sys

import helpers
import numpy as np
import pytest

from iodine import training

needs_proc = pytest.mark.skipif(
  not os.path.exists("/proc/self/status"), reason="there is no /proc"
)
ROOT = pathlib.Path(__file__).parents[1]
STEPS = 20_000
# In the last quarter of the steps, where the heap still rounds up a little and
# a pool of TensorFlow may start one more thread.
MOST_MEGABYTES = 1.2
MOST_NUMBER = 1


def growth(samples):
  """Returns by how much a quantity grew in the last quarter.

  Peaks are compared, as what is open for a moment may be seen or not. The first
  half is left out, in which caches fill.

  Args:
    samples: [N], taken at even distances.
  """
  third, fourth = np.array_split(samples, 4)[2:]
  return float(np.max(fourth) - np.max(third))


def look(pid):
  """Returns memory in MB, descriptors and threads of a process."""
  process = pathlib.Path("/proc", str(pid))
  status = (process / "status").read_text()
  # Not the files that are mapped, of which the system takes some back.
  sizes = re.findall(r"(?:RssAnon|VmSwap):\s+(\d+) kB", status)
  return (
    sum(map(int, sizes)) / 1024,
    len(os.listdir(process / "fd")),
    len(os.listdir(process / "task")),
  )


def soak(folder, steps):
  """Trains with frequent saves, images and reports; samples `look` at each."""
  scenes = helpers.make_scenes(folder, 24)
  updates = {
    **{"num_iters": 1, "data.shuffle_buffer": 8, "stop_after_steps": steps},
    **{"data.train": [8, None], "data.test": [0, 8], "validate_scenes": 2},
    **{"save_summaries_steps": 20, "save_checkpoint_steps": 50},
    **{"save_images_steps": 100, "validate_every": 500},
  }
  words = helpers.training_words(scenes, f"{folder}/run", **updates)
  process = subprocess.Popen(
    [sys.executable, "main.py", *words],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
  )
  samples = []
  for line in process.stdout:
    if re.match(r"step +\d", line):
      samples.append(look(process.pid))
  assert process.wait() == 0
  return np.array(samples, float)


@needs_proc
def test_reports_are_not_kept(tmp_path):
  writer = training.SummaryWriter(str(tmp_path))
  rng = np.random.default_rng(0)

  def report(steps):
    for step in steps:
      writer.scalars(step, {f"{i}": rng.normal() for i in range(20)})
    return look(os.getpid())[0]

  before = report(range(50))
  assert report(range(50, 200)) - before < 1.0  # it was 2.2 MB


@pytest.mark.slow
@needs_proc
def test_nothing_grows_in_many_steps(tmp_path):
  samples = soak(tmp_path, STEPS)
  assert len(samples) == STEPS // 20
  memory, descriptors, threads = samples.T
  assert growth(memory) < MOST_MEGABYTES
  assert growth(descriptors) <= MOST_NUMBER
  assert growth(threads) <= MOST_NUMBER
