"""What the running process says about itself."""

import pathlib
import subprocess
import sys
import time

import pytest

from iodine.benchmark import process_cost

ROOT = pathlib.Path(__file__).parents[1]


def test_a_process_knows_its_start_and_its_peak():
  code = (
    "import time; time.sleep(0.5)\n"
    "import numpy as np\n"
    "from iodine.benchmark import process_cost\n"
    "print(process_cost.seconds_since_start())\n"
    "peaks = [process_cost.peak_memory_bytes()]\n"
    "numbers = np.ones(2 * peaks[0] // 8)\n"
    "del numbers\n"
    "print(peaks[0], process_cost.peak_memory_bytes())\n"
  )
  before = time.monotonic()
  result = subprocess.run(
    [sys.executable, "-c", code],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  seconds, first, last = map(float, result.stdout.split())
  assert 0.45 < seconds < time.monotonic() - before + 0.05
  # It held twice the first peak, and it was not empty before.
  assert 2 * first <= last <= 3.1 * first


def test_without_proc_there_are_other_sources(monkeypatch):
  monkeypatch.setattr(pathlib.Path, "exists", lambda self: False)
  assert process_cost.peak_memory_bytes() > 1e8


@pytest.mark.parametrize("gpus, expected", [([], None), (["GPU:0"], 7)])
def test_no_gpu_no_figure(monkeypatch, gpus, expected):
  config = process_cost.tf.config
  peak = {"current": 1, "peak": 7}
  monkeypatch.setattr(config, "list_physical_devices", lambda kind: gpus)
  monkeypatch.setattr(config.experimental, "get_memory_info", lambda _: peak)
  assert process_cost.gpu_peak_memory_bytes() == expected
