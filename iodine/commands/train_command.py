"""Training, and the whole way from data to pictures."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from iodine import (
  building,
  checkpoints,
  errors,
  evaluation,
  optimizers,
  summaries,
  tf1_checkpoint,
  training,
)
from iodine.commands import common, evaluate_command, make_data_command

Config = common.Config


class Place(NamedTuple):
  """Where a run lives.

  Attributes:
    folder: for checkpoints and TensorBoard logs.
    start: prefix of the checkpoint to begin with; None to begin afresh.
  """

  folder: str
  start: str | None


def find_place(checkpoint_dir: str, run_id: Any, continue_run: bool) -> Place:
  """Where a run goes, and what it begins with.

  A continued run goes on in exactly `checkpoint_dir`. A new one, and one that
  goes on from a TF1 checkpoint, gets `<checkpoint_dir>_<run_id>`, 1 if no
  observer gave an id, and the next free number where that folder holds another
  run's checkpoints.

  Raises:
    errors.UserError: if a run is to be continued that is not there.
  """
  start = None
  if continue_run:
    start = checkpoints.find(checkpoint_dir)
    if not tf1_checkpoint.is_tf1(start):
      if not os.path.isdir(checkpoint_dir):
        raise errors.UserError(
          f"`{checkpoint_dir}` is a checkpoint, and a run is continued in its "
          f"folder: give `checkpoint_dir={os.path.dirname(start) or '.'}`"
        )
      return Place(checkpoint_dir, start)
    checkpoint_dir = checkpoint_dir.rstrip("/")
  folder = f"{checkpoint_dir}_{run_id or 1}"
  number = 1
  while os.path.exists(os.path.join(folder, "checkpoint")):
    number += 1
    folder = f"{checkpoint_dir}_{number}"
  return Place(folder, start)


def train(
  config: Config,
  place: Place,
  log_scalar: Callable[[str, float, int], None],
) -> training.Outcome:
  """Trains, with progress on the terminal, TensorBoard and Sacred.

  Args:
    config: the complete config.
    place: where the run lives and what it begins with.
    log_scalar: takes name, value and step.

  Raises:
    errors.UserError: see `training.train` and `checkpoints.restore`.
  """
  folder, start = place
  seed = config["seed"]
  if start and not tf1_checkpoint.is_tf1(start):
    # Samples and the order of scenes go on as they would have.
    seed = checkpoints.read_seed(start)
    print(f"the run's own seed {seed} is used", flush=True)
  tf.random.set_seed(seed)
  dataset = common.build_dataset(config["data"], seed)
  batches = dataset.batches("summary")  # fails early where a file is missing
  model = common.build_model(config["model"], dataset.image_shape)
  optimizer: optimizers.Adam = building.build(config["optimizer"], "optimizer")
  optimizer.initialize(model.trainable_variables)
  if start and tf1_checkpoint.is_tf1(start):
    report = tf1_checkpoint.restore(start, model, optimizer)
    fresh = ", Adam starts afresh" if report.left_fresh else ""
    print(f"continuing from the TF1 checkpoint {start}{fresh}", flush=True)
  store = checkpoints.CheckpointStore(folder, model, optimizer, seed)
  if start and not tf1_checkpoint.is_tf1(start):
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
  common.write_json(dict(config), os.path.join(folder, "config.json"))


def quickstart(
  config: Config, log_scalar: Callable[[str, float, int], None]
) -> evaluation.Evaluation:
  """Data, training, evaluation and pictures; reuses what is there.

  Raises:
    errors.UserError: see the commands that it runs.
  """
  common.require_experiment(config["data"])
  path = config["data"]["path"]
  if os.path.exists(path):
    print(f"data: {path} (already there)", flush=True)
  else:
    make_data_command.make_data(
      config["data"], None, config["num_scenes"], config["seed"]
    )
  folder = config["checkpoint_dir"]
  start = tf.train.latest_checkpoint(folder) if os.path.isdir(folder) else None
  outcome = train(config, Place(folder, start), log_scalar)
  if outcome.interrupted_by:
    raise KeyboardInterrupt(outcome.interrupted_by)
  result = evaluate_command.evaluate(config, folder)
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
