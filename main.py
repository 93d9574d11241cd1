"""IODINE at the command line: `python main.py [COMMAND] with CONFIG...`.

Named configs are complete experiments, see `configs/`. Every entry can be
overridden, `python main.py with tetrominoes batch_size=16 n_z=8`, and reaches
all that depends on it. Sacred's own options and commands work too:
`print_config`, `print_named_configs`, `-F FOLDER`, `-m URL:DB`, `-l LEVEL`.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal

if __name__ == "__main__":
  # A tenth of the time until a first image is segmented goes to looking for
  # garbage among what is imported and traced, and again at the end.
  gc.set_threshold(100_000)
  atexit.register(gc.freeze)
  # All other imports take a second or two; `run_commandline` catches signals
  # itself.
  signal.signal(
    signal.SIGINT,
    lambda *_: (os.write(2, b"interrupted\n"), os._exit(130)),
  )

import copy
import importlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

with warnings.catch_warnings():
  # Sacred needs what setuptools is about to drop, see requirements.txt.
  warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
  import sacred

import iodine
from iodine import config_files, entries, errors, nvidia
from iodine.commands import experiment, help

# Before TensorFlow is imported: its start-up messages are not for users, unless
# they say why a GPU is not used.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1" if nvidia.is_there() else "3")

Config = dict[str, Any]

sacred.SETTINGS.CAPTURE_MODE = "sys"

# What a command that reads a checkpoint shows where nothing else is named.
PRETRAINED = ("tetrominoes", "minutes", "pretrained")

# Beside this file, which a wheel has in `iodine` and a checkout beside it.
_FOLDER = os.path.dirname(os.path.abspath(__file__))
_NAMED_CONFIGS = (
  "clevr6",
  "clevrtex",
  "multi_dsprites",
  "objects_room",
  "tetrominoes",
  "minutes",
  "paper_data",
  "quick",
  "laptop",
  "moving_sprites",
  "cater",
  "movi",
  "own",
  "pretrained",
  "sprites",
)

_refusal = experiment.git_refusal(_FOLDER)
ex = experiment.Experiment(
  "iodine",
  save_git_info=_refusal is None,
  additional_cli_options=[experiment.trust_option],
)
ex.git_refusal = _refusal
# Of a bar its last state is recorded.
ex.captured_out_filter = sacred.utils.apply_backspaces_and_linefeeds  # type: ignore
ex.logger = experiment.quiet_logger()  # type: ignore[assignment]
ex.records(
  os.path.join(_FOLDER, "configs"),
  os.path.dirname(iodine.__file__),
  packages=(
    "dm-sonnet",
    "numpy",
    "sacred",
    "scipy",
    "shapeguard",
    "tensorflow",
    "tensorflow-probability",
    "tf-keras",
  ),
)
for _name in _NAMED_CONFIGS:
  _module = importlib.import_module(f"iodine.configs.{_name}")
  _config = getattr(_module, _name)
  _config.__doc__ = str(_module.__doc__).partition("\n")[0]
  ex.named_config(_config)


def get_config(
  named_configs: Sequence[str] = (),
  config_updates: dict[str, Any] | None = None,
) -> dict[str, Any]:
  """Returns the complete config of an experiment as a plain dict.

  Args:
    named_configs: names of named configs or paths of JSON files with some,
      later ones after earlier ones.
    config_updates: nested or dotted keys, as at the command line.

  Raises:
    errors.UserError: if a name or a key is unknown, or a file names code that
      is not trusted, see `building.trust`.
  """
  run = ex._create_run("train", copy.deepcopy(config_updates), named_configs)
  return copy.deepcopy(dict(run.config))


def _command(name: str, config: Config, room: str = "commands") -> Any:
  """Returns the module of a command; TensorFlow starts when one is run."""
  with (
    experiment.filtered_native_output(),
    help.while_waiting("starting TensorFlow"),
  ):
    importlib.import_module("iodine.devices").set_up(config)
    return importlib.import_module(f"iodine.{room}.{name}")


def _check_images(updates: Mapping[str, Any]) -> None:
  """Checks that there are images to segment."""
  if updates.get("films") is None:
    image_files = importlib.import_module("iodine.readers.image_files")
    image_files.find(updates.get("images"))


def _read(
  name: str, config: Config, *arguments: Any, room: str = "commands"
) -> Any:
  """Runs a command with the checkpoint that its config was read beside."""
  checkpoint = ex.checkpoint(config["checkpoint_dir"])
  return _command(name, config, room).run(config, checkpoint, *arguments)


@ex.main
def train(
  _run: Any,
  _config: Config,
  checkpoint_dir: str,
  continue_run: bool,
  model: Config,
  data: Config,
  optimizer: Config,
  environment: Config,
) -> int:
  """Trains a model (the default command).

  A run of its own folder, with checkpoints, logs and the config. Ctrl-C saves.
  """
  config_files.require_experiment(model)
  if _config["sweep"]:
    raise errors.UserError(
      "`sweep` is for the command of that name: `python main.py sweep with ...`"
    )
  command = _command("train", _config)
  # Arguments so that Sacred knows their entries.
  del model, data, optimizer, environment
  run_folder = importlib.import_module("iodine.training.run_folder")
  folder = run_folder.RunFolder.find(
    checkpoint_dir, _run._id, continue_run, ex.checkpoint(checkpoint_dir)
  )

  def record(folder: str) -> None:
    # What Sacred's LogFileWriter would record, which knows TF1 only.
    _run.info["tensorflow"] = {"logdirs": [folder]}

  outcome = command.run(_config, folder, ex.log_scalar, record)
  if outcome.interrupted_by:
    raise KeyboardInterrupt(outcome.interrupted_by, "told")
  return outcome.step


@ex.command
def make_data(
  _config: Config, data: Config, data_dir: str | None, num_scenes: int
) -> None:
  """Generates a data set that stands in for the public one."""
  del data, num_scenes  # arguments so that Sacred knows their entries
  _command("make_data", _config).run(_config, data_dir)


@ex.command
@ex.reads(*PRETRAINED, decomposes=False)
def load_checkpoint(_config: Config) -> None:
  """Restores a checkpoint and prints its variables."""
  _read("load_checkpoint", _config)


@ex.command
@ex.reads(*PRETRAINED)
def evaluate(_config: Config) -> Config:
  """Evaluates a checkpoint on held-out scenes, with pictures."""
  return _read("evaluate", _config, ex.log_scalar).as_json()


@ex.command
@ex.reads(*PRETRAINED, decomposes=False)
def export_tf1(_config: Config, output: str | None) -> str:
  """Writes a checkpoint that the original can read."""
  return _read("export_tf1", _config, output)


@ex.command
@ex.reads(*PRETRAINED)
def export_savedmodel(_config: Config, output: str | None) -> str:
  """Writes a model that TensorFlow alone can run."""
  return _read("export_savedmodel", _config, output)


@ex.command
@ex.reads(*PRETRAINED)
def pack(_config: Config, output: str | None, pack_optimizer: bool) -> str:
  """Packs a checkpoint, its config and pictures into one file to share."""
  del pack_optimizer  # an argument so that Sacred knows its entry
  return _read("pack", _config, output, room="studies")


@ex.command
@ex.reads(*PRETRAINED, check=_check_images)
def segment(_config: Config, images: Any, output: str | None) -> Config:
  """Segments images of your own: masks, cut-outs, overlays."""
  return _read("segment", _config, images, output)


@ex.command
@ex.reads(*PRETRAINED)
def explore(_config: Config) -> None:
  """Serves a page: click objects, move latents, edit scenes."""
  _read("serve", _config, room="explore")


@ex.command
@ex.reads(*PRETRAINED)
def encode(_config: Config, output: str | None) -> str:
  """Writes the latents of many scenes to one file."""
  return _read("encode", _config, output, room="studies")


@ex.command
@ex.reads(*PRETRAINED, unless="latents")
def probe(_config: Config, latents: str | None) -> Config:
  """Measures what latents tell of true factors, by scikit-learn."""
  return _read("probe", _config, latents, room="studies")


@ex.command
@ex.reads(decomposes=False)
def compare(_config: Config, reference: str | None) -> Config:
  """Compares a checkpoint with recorded tensors of the original."""
  result = _read("compare", _config, reference)
  if not result["passed"]:
    raise SystemExit(1)
  return result


@ex.command
@ex.reads(*PRETRAINED)
def plot(_config: Config) -> list[str]:
  """Draws held-out scenes, their refinement, and the latents."""
  return _read("plot", _config)


@ex.command
@ex.reads(*PRETRAINED)
def report(_config: Config, output: str | None) -> Config:
  """Evaluates and draws a checkpoint into one HTML page."""
  return _read("report", _config, output, ex.log_scalar).as_json()


@ex.command
def benchmark(_config: Config) -> Config:
  """Measures speed, operations and memory; needs no data."""
  return _command("benchmark", _config).run(_config)


@ex.command
def sweep(
  _config: Config, model: Config, sweep: Config, sweep_slurm: Config
) -> Config:
  """Trains many runs: seeds, or other entries with their values."""
  del sweep, sweep_slurm  # arguments so that Sacred knows their entries
  given = ex.given
  config_files.require_experiment(model)
  command = _command("sweep", _config, room="studies")
  return command.run(_config, given, get_config)


@ex.command
def gather(_config: Config) -> Config:
  """Evaluates any set of runs into one table, with pictures."""
  given = ex.given

  def open_run(folder: str) -> tuple[Config, Any]:
    """Opens a run as `evaluate` does, with what this call gives."""
    updates = {**copy.deepcopy(given.updates), "checkpoint_dir": folder}
    run = ex._create_run("evaluate", updates, given.names)
    return copy.deepcopy(dict(run.config)), ex.checkpoint(folder)

  # Of a command that needs no scenes.
  papers = {
    name: dict(ex._create_run("benchmark", {}, (name,)).config)
    for name in ("tetrominoes", "multi_dsprites", "clevr6")
  }
  command = _command("gather", _config, room="studies")
  return command.run(_config, open_run, papers)


@ex.command(unobserved=True)
def print_entries() -> None:
  """Prints docs/config.md: what entries a config has."""
  print(entries.page(), end="")


@ex.command
def quickstart(_run: Any, _config: Config, checkpoint_dir: str) -> Config:
  """Shows a trained model, then trains one; reuses what is there."""
  command = _command("quickstart", _config)
  _run.info["tensorflow"] = {"logdirs": [checkpoint_dir]}
  trained = get_config(PRETRAINED, {"seed": 0})
  return command.run(_config, ex.log_scalar, trained).as_json()


if __name__ == "__main__":
  ex.run_commandline()
