"""What the commands of `main.py` do, without Sacred.

Each function gets plain config entries, prints what it does, and returns what
it made. `main.py` wires them to the command line.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import shapeguard
import tabulate
import tensorflow as tf

from iodine import (
  building,
  checkpoints,
  errors,
  evaluation,
  optimizers,
  summaries,
  synthetic,
  training,
)
from iodine.modules import data as data_lib
from iodine.modules import iodine, plotting

Config = Mapping[str, Any]


def start_tensorflow() -> None:
  """Looks for devices, which makes some drivers write to the terminal."""
  tf.config.list_physical_devices()


# ------------------------------------------------------------------ building


def build_dataset(config: Config, seed: int) -> data_lib.IODINEDataset:
  """Builds the data set; its order follows the seed of the run.

  Raises:
    errors.UserError: if no experiment was chosen or an entry is wrong.
  """
  _require_experiment(config)
  return building.build({"seed": seed, **config}, "data")


def build_model(config: Config, image_shape: tuple[int, ...]) -> iodine.IODINE:
  """Builds the model with all of its variables.

  Raises:
    errors.UserError: if an entry is wrong or entries contradict each other.
  """
  _require_experiment(config)
  model = building.build(config, "model")
  try:
    model.initialize(image_shape)
  except (ValueError, KeyError, shapeguard.ShapeError) as error:
    reason = str(error).replace("\n", " ")
    raise errors.UserError(
      f"the parts of `model` do not fit each other or images of shape "
      f"{tuple(image_shape)}: {reason}"
    ) from error
  return model


def _require_experiment(config: Config) -> None:
  if not config:
    raise errors.UserError(
      "no experiment is chosen: name one, such as `python main.py with "
      "tetrominoes`; `python main.py print_named_configs` lists them"
    )


# ------------------------------------------------------------------ training


def run_folder(checkpoint_dir: str, run_id: Any, continue_run: bool) -> str:
  """The folder of a run.

  Exactly `checkpoint_dir` for a continued run; `<checkpoint_dir>_<run_id>` for
  a new one, 1 if no observer gave an id, and the next free number where that
  folder holds another run's checkpoints.

  Raises:
    errors.UserError: if a run is to be continued that is not there.
  """
  if continue_run:
    if not os.path.isdir(checkpoint_dir):
      raise errors.UserError(
        f"there is no folder `{checkpoint_dir}` to continue: give "
        "`checkpoint_dir` the folder that the training printed"
      )
    checkpoints.find(checkpoint_dir)
    return checkpoint_dir
  folder = f"{checkpoint_dir}_{run_id or 1}"
  number = 1
  while os.path.exists(os.path.join(folder, "checkpoint")):
    number += 1
    folder = f"{checkpoint_dir}_{number}"
  return folder


def train(
  config: Config,
  folder: str,
  resume: bool,
  log_scalar: Callable[[str, float, int], None],
) -> training.Outcome:
  """Trains, with progress on the terminal, TensorBoard and Sacred.

  Args:
    config: the complete config.
    folder: where checkpoints and TensorBoard logs go.
    resume: whether to go on from the newest checkpoint there.
    log_scalar: takes name, value and step.

  Raises:
    errors.UserError: see `training.train` and `checkpoints.restore`.
  """
  seed = config["seed"]
  if resume:
    # Samples and the order of scenes go on as they would have.
    seed = checkpoints.read_seed(folder)
    print(f"the run's own seed {seed} is used", flush=True)
  tf.random.set_seed(seed)
  dataset = build_dataset(config["data"], seed)
  batches = dataset.batches("summary")  # fails early where a file is missing
  model = build_model(config["model"], dataset.image_shape)
  optimizer: optimizers.Adam = building.build(config["optimizer"], "optimizer")
  optimizer.initialize(model.trainable_variables)
  store = checkpoints.CheckpointStore(folder, model, optimizer, seed)
  if resume:
    print(f"continuing from {store.restore()}", flush=True)
  _save_config(config, folder)

  step = int(optimizer.global_step)
  schedule = _schedule(config)
  writer = summaries.SummaryWriter(folder)
  draw = summaries.OverviewImages(model)
  example = next(iter(batches))

  def on_report(report: training.Report) -> None:
    print(_progress_line(report, schedule.stop_after_steps), flush=True)
    writer.scalars(
      report.step,
      {**report.means, "debug/images_per_second": report.images_per_second},
    )
    log_scalar("loss", report.means["loss/total"], report.step)
    log_scalar("ari_nobg", report.means["loss/ari_nobg"], report.step)

  num_parameters = sum(
    v.shape.num_elements() for v in model.trainable_variables
  )
  print(
    f"training {num_parameters:,} parameters, step {step} to "
    f"{schedule.stop_after_steps}, into {folder}",
    flush=True,
  )
  outcome = training.train(
    training.CompiledStep(model, optimizer, seed),
    dataset,
    store,
    schedule,
    start_step=step,
    on_report=on_report,
    on_images=lambda at: writer.images(at, draw(example)),
  )
  if outcome.interrupted_by:
    print(
      f"stopped by {outcome.interrupted_by.name} at step {outcome.step}; go on "
      f"with `continue_run=True checkpoint_dir={shlex.quote(folder)}`",
      flush=True,
    )
  print(f"checkpoint: {outcome.checkpoint}", flush=True)
  return outcome


def _schedule(config: Config) -> training.Schedule:
  fields = {}
  for name in training.Schedule._fields:
    value = config[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
      value = -1
    if value < 1 or value != int(value):
      raise errors.UserError(
        f"`{name}` is {config[name]!r}: give a whole number of steps, at "
        "least 1"
      )
    fields[name] = int(value)
  return training.Schedule(**fields)


def _progress_line(report: training.Report, last_step: int) -> str:
  minutes, seconds = divmod(int(report.seconds_left), 60)
  return (
    f"step {report.step}/{last_step}"
    f"  loss {report.means['loss/total']:.1f}"
    f"  ARI {report.means['loss/ari']:.3f}"
    f"  ARI-nobg {report.means['loss/ari_nobg']:.3f}"
    f"  {report.images_per_second:.1f} images/s"
    f"  {minutes}:{seconds:02d} left"
  )


def _save_config(config: Config, folder: str) -> None:
  """Leaves the config beside the checkpoints, for whoever finds them."""
  _write_json(dict(config), os.path.join(folder, "config.json"))


# ---------------------------------------------------------------- make_data


def make_data(
  config: Config, data_dir: str | None, num_scenes: int, seed: int
) -> str:
  """Generates a data set that stands in for the public one.

  Args:
    config: the config of the data set that it is for.
    data_dir: folder to write to, under the public file's name; None writes
      the file that the config reads.
    num_scenes: how many scenes.
    seed: the scenes follow from it.

  Returns:
    The path of the file.

  Raises:
    errors.UserError: if there is no generator for this data set, or the file
      cannot be written.
  """
  dataset = build_dataset(config, seed)
  name = dataset.generator_name
  if name is None:
    raise errors.UserError(
      "there is no generator for this data set: use the public files, or "
      "another named config"
    )
  if data_dir is not None:
    path = os.path.join(data_dir, synthetic.DATASETS[name].file_name)
  elif isinstance(dataset.path, str):
    path = dataset.path
  else:
    raise errors.UserError(
      "`data.path` names several files: give `data_dir`, the folder to write "
      "the generated file to"
    )
  print(f"generating {num_scenes} scenes of {name}", flush=True)
  synthetic.write_dataset(
    name, path, num_scenes, seed, progress=_Progress("scenes")
  )
  print(f"data: {path}", flush=True)
  return path


class _Progress:
  """Prints how far a command is, about twenty times in all."""

  def __init__(self, unit: str):
    self._unit = unit
    self._shown = 0.0

  def __call__(self, done: int, total: int) -> None:
    if done == total or done >= self._shown + total / 20:
      self._shown = done
      print(f"{done}/{total} {self._unit}", flush=True)


# ------------------------------------------------------- looking at checkpoints


def load_checkpoint(config: Config, checkpoint_dir: str) -> iodine.IODINE:
  """Restores a model and prints its variables.

  Raises:
    errors.UserError: see `checkpoints.restore`.
  """
  model, prefix = _restore_model(config, checkpoint_dir)
  variables = checkpoints.variables_by_path(model)
  rows = [
    (name, tuple(variable.shape), variable.shape.num_elements())
    for name, variable in sorted(variables.items())
  ]
  trainable = sum(v.shape.num_elements() for v in model.trainable_variables)
  total = sum(v.shape.num_elements() for v in model.variables)
  print(tabulate.tabulate(rows, headers=("variable", "shape", "count")))
  print(f"trainable: {trainable:,} of {total:,} numbers")
  print(f"restored: {prefix}")
  return model


def _restore_model(
  config: Config, checkpoint_dir: str
) -> tuple[iodine.IODINE, str]:
  """The model of a checkpoint, and the checkpoint's prefix."""
  # Before the model is built: a misspelt path should not cost seconds.
  checkpoints.find(checkpoint_dir)
  dataset = build_dataset(config["data"], config["seed"])
  model = build_model(config["model"], dataset.image_shape)
  return model, checkpoints.restore(checkpoint_dir, model=model)


# ----------------------------------------------------------------- evaluation


def evaluate(config: Config, checkpoint_dir: str) -> evaluation.Evaluation:
  """Evaluates a checkpoint on the test subset; table, JSON and pictures.

  Raises:
    errors.UserError: see `checkpoints.restore` and `evaluation.evaluate`.
  """
  checkpoints.find(checkpoint_dir)
  dataset = build_dataset(config["data"], config["seed"])
  batches = dataset.batches("test")
  model, prefix = _restore_model(config, checkpoint_dir)
  print(f"evaluating {prefix}", flush=True)
  if dataset.test is None:
    print(
      "`data.test` is not set: these are all scenes of the file, seen in "
      "training or not",
      flush=True,
    )
  num_scenes = config["evaluation"]["num_scenes"]
  if num_scenes is not None and (
    not isinstance(num_scenes, int) or num_scenes < 1
  ):
    raise errors.UserError(
      f"`evaluation.num_scenes` is {num_scenes!r}: give a whole number, at "
      "least 1, or None for all scenes"
    )
  result = evaluation.evaluate(
    model,
    batches,
    dataset.batch_size,
    seed=config["seed"],
    num_scenes=num_scenes,
    on_progress=lambda done: print(f"{done} scenes", flush=True),
  )
  rows = [
    (name, value.mean, value.standard_error)
    for name, value in result.metrics.items()
  ]
  print(
    tabulate.tabulate(
      rows,
      headers=(f"{result.num_scenes} scenes", "mean", "standard error"),
      floatfmt=".4f",
      missingval="-",
    )
  )
  if config["json_path"] is not None:
    _write_json(result.as_json(), config["json_path"])
    print(f"figures: {config['json_path']}")
  folder = config["pictures_dir"] or os.path.join(
    os.path.dirname(prefix), "pictures"
  )
  _write_pictures(model, dataset, folder)
  print(f"pictures: {folder}", flush=True)
  return result


def _write_pictures(
  model: iodine.IODINE, dataset: data_lib.IODINEDataset, folder: str
) -> None:
  """Writes overview.png, sequence.png and samples.png."""
  checkpoints.make_folder(folder)
  example = next(iter(dataset.batches("test")))
  images = {
    name: np.asarray(image[0])
    for name, image in summaries.OverviewImages(model)(example).items()
  }
  slots = [f"slot {k + 1}" for k in range(model.num_components)]
  titles = {
    "overview": ["image", "reconstruction", "mask", *slots],
    "sequence": [f"step {t}" for t in range(model.num_iters + 1)],
    "samples": [],
  }
  for name, image in images.items():
    plotting.save_titled_image(
      os.path.join(folder, f"{name}.png"), image, titles[name]
    )


# ----------------------------------------------------------------- quickstart


def quickstart(
  config: Config, log_scalar: Callable[[str, float, int], None]
) -> evaluation.Evaluation:
  """Data, training, evaluation and pictures; reuses what is there.

  Raises:
    errors.UserError: see the commands that it runs.
  """
  _require_experiment(config["data"])
  path = config["data"]["path"]
  if os.path.exists(path):
    print(f"data: {path} (already there)", flush=True)
  else:
    make_data(config["data"], None, config["num_scenes"], config["seed"])
  folder = config["checkpoint_dir"]
  there = tf.train.latest_checkpoint(folder) if os.path.isdir(folder) else None
  outcome = train(config, folder, there is not None, log_scalar)
  if outcome.interrupted_by:
    raise KeyboardInterrupt(outcome.interrupted_by)
  result = evaluate(config, folder)
  pictures = config["pictures_dir"] or os.path.join(folder, "pictures")
  print(
    "\nDone. Look at"
    f"\n  pictures:     {pictures}/overview.png"
    f"\n  checkpoint:   {outcome.checkpoint}"
    f"\n  TensorBoard:  .venv/bin/tensorboard --logdir {folder}"
    "\nNext, train on for better objects:"
    f"\n  .venv/bin/python main.py with quick continue_run=True "
    f"checkpoint_dir={folder} stop_after_steps="
    f"{10 * int(config['stop_after_steps'])}",
    flush=True,
  )
  return result


# ---------------------------------------------------------------------- files


def _write_json(content: Any, path: str) -> None:
  """Writes a JSON file at once, or leaves an older one as it is.

  Raises:
    errors.UserError: if it cannot be written.
  """
  temporary = f"{path}.tmp"
  try:
    checkpoints.make_folder(os.path.dirname(path) or ".")
    with open(temporary, "w", encoding="utf-8") as file:
      json.dump(content, file, indent=2)
      file.write("\n")
    os.replace(temporary, path)
  except OSError as error:
    raise errors.UserError(
      f"cannot write `{path}` ({error.strerror}): give a path in a folder "
      "that you may write to"
    ) from error
