"""What the running process says about itself."""

import pathlib
import resource
import subprocess
import sys
import time

import pytest

from iodine.benchmark import process_cost

ROOT = pathlib.Path(__file__).parents[1]


def test_seconds_since_start_go_on_with_the_clock():
  first, at = process_cost.seconds_since_start(), time.monotonic()
  time.sleep(0.05)
  second = process_cost.seconds_since_start()
  # The system counts in hundredths.
  assert second - first == pytest.approx(time.monotonic() - at, abs=0.03)


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
  def missing(self):
    raise FileNotFoundError(self)

  monkeypatch.setattr(pathlib.Path, "read_text", missing)
  seconds = process_cost.seconds_since_start()
  assert 0 < seconds < time.monotonic()
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  assert process_cost.peak_memory_bytes() in (peak, peak * 1024)


def test_no_gpu_no_figure(monkeypatch):
  devices = []
  monkeypatch.setattr(
    process_cost.tf.config, "list_physical_devices", lambda kind: devices
  )
  assert process_cost.gpu_peak_memory_bytes() is None
  devices.append("GPU:0")
  monkeypatch.setattr(
    process_cost.tf.config.experimental,
    "get_memory_info",
    lambda device: {"current": 1, "peak": 7},
  )
  assert process_cost.gpu_peak_memory_bytes() == 7
