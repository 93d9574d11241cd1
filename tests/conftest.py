"""Fixtures for all tests."""

import pathlib
import signal
import sys

# So that `pytest` finds the project however it is started.
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

# Before TensorFlow, as everywhere.
import iodine  # isort: skip  # noqa: F401
import headless
import helpers
import numpy as np
import pytest
import tensorflow as tf

import main
from iodine.commands import make_data
from iodine.modules import data

# Several devices, of which a test uses the first unless it asks for more; they
# can be had before TensorFlow computes anything only.
tf.config.set_logical_device_configuration(
  tf.config.list_physical_devices("CPU")[0],
  [tf.config.LogicalDeviceConfiguration()] * 4,
)


@pytest.fixture(autouse=True)
def fixed_seed():
  tf.random.set_seed(0)


@pytest.fixture(autouse=True)
def terminal():
  """Signals of the terminal have their usual meaning, under `nohup`, too."""
  before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
  yield
  signal.signal(signal.SIGHUP, before)


@pytest.fixture(autouse=True)
def exact_products():
  """Float32 as it is, also where a GPU would round it to TF32."""
  tf.config.experimental.enable_tensor_float_32_execution(False)


@pytest.fixture
def decoded(monkeypatch):
  """The numbers of the scenes that were decoded."""
  numbers = []
  read = data.IODINEDataset._read

  def counting(self, record):
    scene = read(self, record)
    tf.numpy_function(numbers.append, [scene["factors"]["shape"][0, 0]], [])
    return scene

  monkeypatch.setattr(data.IODINEDataset, "_read", counting)
  return numbers


@pytest.fixture(scope="session")
def five_scenes(tmp_path_factory):
  """The path of five Tetrominoes scenes, which is HTML, too."""
  folder = tmp_path_factory.mktemp("data") / "a&b<i>"
  config = main.get_config(("tetrominoes",))["data"]
  return make_data.make_data(config, str(folder), 5, seed=0)


@pytest.fixture(scope="session")
def eleven(tmp_path_factory):
  """A file of scenes 0 to 10 whose visibilities sum to 1, 2, 3, 4, 1, ..."""
  path = tmp_path_factory.mktemp("data") / "eleven.tfrecords"
  scenes = [helpers.numbered_scene(i, 1 + i % 4) for i in range(11)]
  return helpers.write_records(path, scenes)


@pytest.fixture(scope="session")
def units():
  """Recorded inputs and outputs of single parts of the original."""
  path = pathlib.Path(__file__).parent / "golden/units/units.npz"
  return dict(np.load(path))


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
  """A `headless.Browser`; skips where Chromium is not installed."""
  reason = headless.missing()
  if reason:
    pytest.skip(reason)
  with headless.start(tmp_path_factory.mktemp("profile")) as window:
    yield window
