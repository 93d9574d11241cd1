"""How TensorFlow is set up, what it runs on, and what is said about it."""

import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys

import helpers
import pytest
import sacred.observers
import tensorflow as tf
from tensorflow.python.framework import config as tf_config

import main
from iodine import checkpoints, devices, errors, nvidia
from iodine.commands import experiment

ROOT = pathlib.Path(main.__file__).parent
DEFAULTS = {
  "memory_growth": True,
  "tf32": True,
  "deterministic": False,
  "seed": 0,
  "strategy": None,
  "virtual_devices": None,
  "compute_dtype": "float32",
  "jit_compile": None,
}
SPLIT = {**DEFAULTS, "virtual_devices": 3, "strategy": "mirrored"}


@pytest.fixture
def gpus(monkeypatch):
  """Details of GPUs that TensorFlow seems to see, to append to."""
  found = []

  def list_devices(kind):
    numbers = range(len(found)) if kind == "GPU" else ()
    return [tf.config.PhysicalDevice(f"{kind}:{n}", kind) for n in numbers]

  def details(gpu):
    return found[int(gpu.name.removeprefix("GPU:"))]

  monkeypatch.setattr(tf.config, "list_physical_devices", list_devices)
  monkeypatch.setattr(tf.config.experimental, "get_device_details", details)
  return found


def h200(capability=(9, 0), name="NVIDIA H200"):
  return {"device_name": name, "compute_capability": capability}


def test_the_cpu_is_described():
  assert devices.describe(DEFAULTS) == {
    "device": "the CPU",
    "precision": "float32",
    "xla": "off",
    "deterministic": "off",
    "tensorflow": tf.__version__,
  }
  assert devices.describe(SPLIT)["device"] == "3 virtual devices of the CPU"


def test_gpus_are_described(gpus):
  gpus.append(h200())
  told = devices.describe(DEFAULTS)
  assert told["device"] == "1 GPU: NVIDIA H200"
  assert told["precision"] == "float32 rounded to TF32 in products"
  assert told["xla"] == "on"
  exact = devices.describe({**DEFAULTS, "tf32": False, "jit_compile": False})
  assert (exact["precision"], exact["xla"]) == ("float32", "off")
  gpus += [h200((7, 0), "Tesla V100"), h200()]
  told = devices.describe({**DEFAULTS, "compute_dtype": "bfloat16"})
  assert told["device"] == "3 GPUs: NVIDIA H200, Tesla V100"
  # Not all of them have TF32.
  assert told["precision"] == "float32, convolutions in bfloat16"


@pytest.mark.parametrize("is_on", [True, False])
def test_options_are_those_of_the_last_command(gpus, is_on, monkeypatch):
  gpus += [h200(), h200()]
  growth = {}
  monkeypatch.setattr(
    tf.config.experimental,
    "set_memory_growth",
    lambda gpu, on: growth.update({gpu.name: on}),
  )
  devices.set_up({**DEFAULTS, "memory_growth": is_on, "tf32": is_on})
  assert growth == {"GPU:0": is_on, "GPU:1": is_on}
  tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
  assert tf32 == is_on


def test_virtual_devices():
  with pytest.raises(errors.UserError, match="`virtual_devices` is 3, and"):
    devices.set_up({**SPLIT, "strategy": None})
  devices.set_up(SPLIT)  # the four of conftest.py will do
  assert len(tf.config.list_logical_devices("CPU")) == 4
  code = (
    "import tensorflow as tf; from iodine import devices; "
    f"devices.set_up({SPLIT!r}); devices.set_up({SPLIT!r}); "
    "print(len(tf.config.list_logical_devices('CPU')))"
  )
  command = [sys.executable, "-c", code]
  result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert result.stdout == "3\n", result.stderr


# ------------------------------------------------------- a GPU that is not used


def test_only_an_idle_gpu_is_told_of(gpus, tmp_path, monkeypatch):
  monkeypatch.setenv("PATH", str(tmp_path))
  monkeypatch.setattr(os.path, "exists", lambda path: False)
  assert devices.unused_gpu() is None
  monkeypatch.setattr(os.path, "exists", lambda p: p == "/proc/driver/nvidia")
  assert "`make run CUDA=1`" in devices.unused_gpu()
  gpus.append(h200())
  assert devices.unused_gpu() is None


@pytest.mark.parametrize("is_there", [True, False])
def test_native_reasons_are_dropped_only_without_a_gpu(
  capfd, monkeypatch, is_there
):
  monkeypatch.setattr(nvidia, "is_there", lambda: is_there)
  reason = "W0000 1 gpu_device.cc:1] Cannot dlopen some GPU libraries."
  with experiment.filtered_native_output():
    os.write(2, f"{reason}\nsomething else\n".encode())
  written = capfd.readouterr().err
  assert "something else" in written
  assert (reason in written) == is_there


# ------------------------------------------------------------ a run tells of it


def train(scenes, folder, **updates):
  """Trains a tiny model for two steps; returns the folder of the run."""
  words = {
    **helpers.TINY,
    "batch_size": 2,
    "num_iters": 1,
    "stop_after_steps": 2,
    "data.path": scenes,
    "checkpoint_dir": f"{folder}/run",
    "seed": 3,
    **updates,
  }
  helpers.run_main(
    "with", "tetrominoes", *(f"{name}={value}" for name, value in words.items())
  )
  return f"{folder}/run_1"


@pytest.mark.slow
def test_a_run_tells_what_it_runs_on_and_deterministic_kernels_change_nothing(
  five_scenes, tmp_path, monkeypatch, capsys
):
  observer = sacred.observers.FileStorageObserver(tmp_path / "sacred")
  printed = io.StringIO()
  with monkeypatch.context() as patch, contextlib.redirect_stdout(printed):
    patch.setattr(nvidia, "is_there", lambda: True)
    patch.setattr(main.ex, "observers", [observer])
    folder = train(five_scenes, tmp_path)
  record = json.loads((tmp_path / "sacred/1/run.json").read_text())
  first, second, *_ = printed.getvalue().splitlines()
  assert first == "on the CPU, float32" and "`make run CUDA=1`" in second
  told = devices.describe(DEFAULTS)
  config = json.loads(pathlib.Path(folder, "config.json").read_text())
  assert config["environment"] == record["host"]["tensorflow"] == told
  # As a named config, too; it makes no difference to who reads the checkpoint.
  again = main.get_config((f"{folder}/config.json",), {"seed": 0})
  assert again["environment"] == told
  helpers.run_main(
    "load_checkpoint", "with", f"checkpoint_dir={folder}", "tf32=False"
  )
  shown = capsys.readouterr().out
  assert "global step: 2" in shown and "unlike" not in shown
  expected = helpers.checkpoint_tensors(
    checkpoints.open_checkpoint(folder).prefix
  )
  try:
    again = train(five_scenes, tmp_path / "again", deterministic=True)
    assert tf_config.is_op_determinism_enabled()
  finally:
    tf_config.disable_op_determinism()
  same = helpers.checkpoint_tensors(checkpoints.open_checkpoint(again).prefix)
  helpers.assert_same_bits(same, expected)


def test_make_installs_cuda_where_it_is_asked_for(tmp_path, monkeypatch):
  monkeypatch.delenv("CUDA", raising=False)
  for stamp in (".run-ready", ".test-ready"):
    (tmp_path / stamp).touch()

  def installs(*words):
    command = ["make", "--dry-run", "run", f"VENV={tmp_path}", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.count("-r requirements-cuda.txt -c constraints.txt")

  assert [installs(), installs("CUDA=0"), installs("CUDA=1")] == [0, 0, 1]
  (tmp_path / ".cuda-ready").touch()
  assert installs("CUDA=1") == 0
