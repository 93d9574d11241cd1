"""How TensorFlow is set up, what it runs on, and what is said about it."""

import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys

import helpers
import numpy as np
import pytest
import sacred.observers
import tensorflow as tf
from tensorflow.python.framework import config as tf_config

import main
from iodine import checkpoints, devices, errors, nvidia
from iodine.commands import experiment, make_data
from iodine.ops import precision

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


class Gpus(list):
  """Details of GPUs that TensorFlow seems to see, and what is set of them."""

  def __init__(self):
    super().__init__()
    self.memory_growth = {}

  def devices(self, kind):
    numbers = range(len(self)) if kind == "GPU" else ()
    return [tf.config.PhysicalDevice(f"{kind}:{n}", kind) for n in numbers]

  def details(self, gpu):
    return self[int(gpu.name.removeprefix("GPU:"))]


@pytest.fixture
def gpus(monkeypatch):
  """A `Gpus` to append details to."""
  found = Gpus()
  monkeypatch.setattr(tf.config, "list_physical_devices", found.devices)
  library = tf.config.experimental
  monkeypatch.setattr(library, "get_device_details", found.details)
  monkeypatch.setattr(
    library,
    "set_memory_growth",
    lambda gpu, on: found.memory_growth.update({gpu.name: on}),
  )
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
  split = {**DEFAULTS, "virtual_devices": 4, "strategy": "mirrored"}
  assert devices.describe(split)["device"] == "4 virtual devices of the CPU"


def test_gpus_are_described(gpus):
  gpus.append(h200())
  told = devices.describe(DEFAULTS)
  assert told["device"] == "1 GPU: NVIDIA H200"
  assert told["precision"] == "float32 rounded to TF32 in products"
  assert told["xla"] == "on"
  gpus += [h200(), h200()]
  assert devices.describe(DEFAULTS)["device"] == "3 GPUs: NVIDIA H200"
  gpus[0] = h200((7, 0), "Tesla V100")
  told = devices.describe({**DEFAULTS, "compute_dtype": "float16"})
  assert told["device"] == "3 GPUs: Tesla V100, 2 NVIDIA H200"
  # Not all of them have TF32.
  assert told["precision"] == "float32, convolutions in float16"


def test_exact_float32_is_said(gpus):
  gpus.append(h200())
  exact = devices.describe({**DEFAULTS, "tf32": False, "jit_compile": False})
  assert exact["precision"] == "float32"
  assert exact["xla"] == "off"
  assert precision.has_ampere()


@pytest.mark.parametrize("growth", [True, False])
def test_memory_growth_is_that_of_every_gpu(gpus, growth):
  gpus += [h200(), h200()]
  devices.set_up({**DEFAULTS, "memory_growth": growth})
  assert gpus.memory_growth == {"GPU:0": growth, "GPU:1": growth}


def test_tf32_is_that_of_the_last_command():
  is_on = tf.config.experimental.tensor_float_32_execution_enabled
  for tf32 in (True, False, True):
    devices.set_up({**DEFAULTS, "tf32": tf32})
    assert is_on() == tf32


def test_deterministic_kernels_get_the_seed_they_ask_for(monkeypatch):
  calls = []
  monkeypatch.setattr(
    tf.config.experimental,
    "enable_op_determinism",
    lambda: calls.append("on"),
  )
  monkeypatch.setattr(tf.random, "set_seed", calls.append)
  devices.set_up({**DEFAULTS, "seed": 7})
  assert calls == []
  devices.set_up({**DEFAULTS, "seed": 7, "deterministic": True})
  assert calls == ["on", 7]


def test_xla_is_the_default_on_gpus(gpus):
  assert not devices.uses_xla(None)
  assert devices.uses_xla(True)
  gpus.append(h200())
  assert devices.uses_xla(None)
  assert not devices.uses_xla(False)
  with pytest.raises(errors.UserError, match="`jit_compile` is 'auto'"):
    devices.uses_xla("auto")


@pytest.mark.parametrize(
  ("updates", "message"),
  [
    ({"tf32": "yes"}, "`tf32` is 'yes': give True or False"),
    ({"memory_growth": 1}, "`memory_growth` is 1: give True or False"),
    ({"deterministic": None}, "`deterministic` is None: give True or False"),
    ({"virtual_devices": 0}, "`virtual_devices` is 0: give a whole number"),
    ({"virtual_devices": 2}, "`virtual_devices` is 2: give None, or `strat"),
    (
      {"virtual_devices": 5, "strategy": "mirrored"},
      "`virtual_devices` is 5: give at most 4, as this process",
    ),
  ],
)
def test_mistakes_are_sentences(updates, message):
  tf.constant(0.0)  # TensorFlow has begun, with the four of conftest.py
  with pytest.raises(errors.UserError) as raised:
    devices.set_up({**DEFAULTS, **updates})
  assert str(raised.value).startswith(message)


def test_fewer_virtual_devices_than_there_are_will_do():
  for number in (4, 2):
    devices.set_up(
      {**DEFAULTS, "virtual_devices": number, "strategy": "mirrored"}
    )
  assert len(tf.config.list_logical_devices("CPU")) == 4


def test_the_cpu_is_split_in_a_process_of_its_own():
  code = (
    "import tensorflow as tf; from iodine import devices; "
    f"c = { ({**DEFAULTS, 'virtual_devices': 3, 'strategy': 'mirrored'})!r}; "
    "devices.set_up(c); devices.set_up(c); "
    "print(len(tf.config.list_logical_devices('CPU')))"
  )
  result = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
  )
  assert result.stdout == "3\n", result.stderr


# ------------------------------------------------------- a GPU that is not used

# What TensorFlow 2.21 writes where CUDA's libraries are missing.
MISSING = """\
WARNING: All log messages before absl::InitializeLog() is called are written
I0000 00:00:17.89 17956 cudart_stub.cc:31] Could not find cuda drivers on your \
machine, GPU will not be used.
I0000 00:00:17.90 17956 dso_loader.cc:144] Could not load dynamic library \
'libcudnn.so.9'; dlerror: libcudnn.so.9: cannot open shared object file
I0000 00:00:17.91 17956 dso_loader.cc:144] Could not load dynamic library \
'libcudnn.so.9'; dlerror: libcudnn.so.9: cannot open shared object file
W0000 00:00:17.92 17956 gpu_device.cc:2431] Cannot dlopen some GPU libraries. \
Please make sure the missing libraries mentioned above are installed properly
Skipping registering GPU devices...
"""
# And where the driver does not answer.
NO_DRIVER = (
  "E0000 00:00:17.74 17956 cuda_platform.cc:52] failed call to cuInit: INTERNAL"
  ": CUDA error: Failed call to cuInit: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH\n"
)


def writing(text):
  """A command in place of the one that looks for GPUs; it takes its cue."""
  code = (
    "import os, sys; assert os.environ['TF_CPP_MIN_LOG_LEVEL'] == '0'; "
    f"sys.stderr.write({text!r})"
  )
  return sys.executable, "-c", code


def test_reasons_are_found_in_all_that_tensorflow_writes():
  assert nvidia.reasons(MISSING) == [
    "Could not load dynamic library 'libcudnn.so.9'",
    "Cannot dlopen some GPU libraries",
  ]
  assert nvidia.reasons("I0000 1 port.cc:1] oneDNN is on.\n\n") == []


@pytest.mark.parametrize(
  ("said", "parts"),
  [
    (MISSING, ["'libcudnn.so.9'; Cannot dlopen", "`make run CUDA=1`"]),
    (NO_DRIVER, ["CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: `nvidia-smi` shows"]),
    ("", ["TensorFlow gives no reason: `make run CUDA=1`"]),
  ],
)
def test_why_a_gpu_is_not_used(said, parts):
  why = nvidia.why_unused(True, {}, writing(said))
  assert why.startswith("this machine has an NVIDIA GPU that is not used: ")
  for part in parts:
    assert part in why
  assert "\n" not in why


@pytest.mark.parametrize("visible", ["", "-1", " -1 "])
def test_a_hidden_gpu(visible):
  why = nvidia.why_unused(True, {"CUDA_VISIBLE_DEVICES": visible}, ["false"])
  assert f"CUDA_VISIBLE_DEVICES is {visible!r}, which hides it" in why


def test_a_tensorflow_without_cuda():
  shown = {"CUDA_VISIBLE_DEVICES": "0"}
  why = nvidia.why_unused(False, shown, ["false"])
  assert "built without CUDA: install the one of requirements-cuda.txt" in why


def test_only_an_idle_gpu_is_told_of(gpus, monkeypatch):
  is_there = [False]
  monkeypatch.setattr(nvidia, "is_there", lambda: is_there[0])
  monkeypatch.setattr(nvidia, "why_unused", lambda is_built: "why")
  assert devices.unused_gpu() is None
  is_there[0] = True
  assert devices.unused_gpu() == "why"
  gpus.append(h200())
  assert devices.unused_gpu() is None


def test_the_driver_is_seen(tmp_path, monkeypatch):
  monkeypatch.setattr(nvidia, "_TRACES", (f"{tmp_path}/nvidia[0-9]*",))
  assert not nvidia.is_there()
  (tmp_path / "nvidiactl").touch()
  assert not nvidia.is_there()
  (tmp_path / "nvidia0").touch()
  assert nvidia.is_there()


@pytest.mark.parametrize("is_there", [True, False])
def test_native_reasons_are_dropped_only_without_a_gpu(
  capfd, monkeypatch, is_there
):
  monkeypatch.setattr(nvidia, "is_there", lambda: is_there)
  with experiment.filtered_native_output():
    os.write(2, f"{MISSING}{NO_DRIVER}something else\n".encode())
  written = capfd.readouterr().err
  assert "something else" in written
  assert "absl::InitializeLog" not in written
  for reason in ("Cannot dlopen some", "Skipping registering", "to cuInit"):
    assert (reason in written) == is_there


# ------------------------------------------------------------ a run tells of it


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
  config = main.get_config(("tetrominoes",))
  folder = str(tmp_path_factory.mktemp("scenes"))
  return make_data.make_data(config["data"], folder, 8, seed=0)


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


def variables(folder):
  """All that a checkpoint holds."""
  reader = tf.train.load_checkpoint(checkpoints.find(folder))
  return {
    name: reader.get_tensor(name)
    for name in reader.get_variable_to_shape_map()
    if not name.startswith("_CHECKPOINTABLE")
  }


@pytest.fixture(scope="module")
def plain(scenes, tmp_path_factory):
  """(folder of a run, what it printed, what an observer got of it)."""
  folder = tmp_path_factory.mktemp("plain")
  observer = sacred.observers.FileStorageObserver(folder / "sacred")
  printed = io.StringIO()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(nvidia, "is_there", lambda: True)
    patch.setattr(nvidia, "why_unused", lambda is_built: "it is idle")
    patch.setattr(main.ex, "observers", [observer])
    with contextlib.redirect_stdout(printed):
      run = train(scenes, folder)
  record = json.loads((folder / "sacred/1/run.json").read_text())
  return run, printed.getvalue(), record


def test_a_run_tells_what_it_runs_on(plain):
  folder, printed, record = plain
  assert printed.splitlines()[:2] == ["on the CPU, float32", "it is idle"]
  expected = devices.describe(DEFAULTS)
  config = json.loads(pathlib.Path(folder, "config.json").read_text())
  assert config["environment"] == expected
  assert record["host"]["tensorflow"] == expected
  # As a named config, too.
  again = main.get_config((f"{folder}/config.json",), {"seed": 0})
  assert again["environment"] == expected


def test_that_makes_no_difference_to_who_reads_it(plain, capsys):
  words = ["with", f"checkpoint_dir={plain[0]}", "tf32=False"]
  helpers.run_main("load_checkpoint", *words)
  printed = capsys.readouterr().out
  assert "global step: 2" in printed and "unlike" not in printed


def test_deterministic_kernels_train_the_same(plain, scenes, tmp_path):
  expected = variables(plain[0])
  try:
    same = variables(train(scenes, tmp_path, deterministic=True))
    assert tf_config.is_op_determinism_enabled()
  finally:
    tf_config.disable_op_determinism()
  assert expected.keys() == same.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(value, same[name], err_msg=name)


# ------------------------------------------------------------------- installing


def test_make_installs_cuda_where_it_is_asked_for(tmp_path):
  for stamp in (".run-ready", ".test-ready"):
    (tmp_path / stamp).touch()

  def installs(*words):
    command = ["make", "--dry-run", "run", f"VENV={tmp_path}", *words]
    environment = {k: v for k, v in os.environ.items() if k != "CUDA"}
    return subprocess.run(
      command,
      cwd=ROOT,
      env=environment,
      capture_output=True,
      text=True,
      check=True,
    ).stdout.count("-r requirements-cuda.txt -c constraints.txt")

  assert [installs(), installs("CUDA=0"), installs("CUDA=1")] == [0, 0, 1]
  (tmp_path / ".cuda-ready").touch()
  assert installs("CUDA=1") == 0
