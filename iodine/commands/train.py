"""Training."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from iodine import (
  benchmark,
  building,
  checkpoints,
  errors,
  files,
  optimizers,
  training,
)
from iodine.commands import common, make_data
from iodine.modules import data as data_lib
from iodine.modules import iodine

Config = common.Config


class Place(NamedTuple):
  """Where a run lives.

  Attributes:
    folder: for checkpoints and TensorBoard logs.
    start: prefix of the checkpoint to begin with; None to begin afresh.
    is_new: whether the folder has yet to be made, and belongs to nobody else.
  """

  folder: str
  start: str | None
  is_new: bool


def find_place(checkpoint_dir: str, run_id: Any, continue_run: bool) -> Place:
  """Where a run goes, and what it begins with.

  A continued run goes on in exactly `checkpoint_dir`. A new one, and one that
  goes on from a TF1 checkpoint, gets `<checkpoint_dir>_<run_id>`, 1 if no
  observer gave an id.

  Raises:
    errors.UserError: if a run is to be continued that is not there.
  """
  if not isinstance(checkpoint_dir, str) or not checkpoint_dir:
    raise errors.UserError(
      f"`checkpoint_dir` is {checkpoint_dir!r}: give the path of a folder"
    )
  start = None
  if continue_run:
    start = checkpoints.find(checkpoint_dir)
    if not checkpoints.open_checkpoint(start).is_tf1:
      if not os.path.isdir(checkpoint_dir):
        raise errors.UserError(
          f"`{checkpoint_dir}` is a checkpoint, and a run is continued in its "
          f"folder: give `checkpoint_dir={os.path.dirname(start) or '.'}`"
        )
      return Place(checkpoint_dir, start, is_new=False)
    checkpoint_dir = checkpoint_dir.rstrip("/")
  return Place(f"{checkpoint_dir}_{run_id or 1}", start, is_new=True)


def _claim(place: Place) -> str:
  """Makes the folder of a run; the next free number where one is taken."""
  if not place.is_new:
    files.make_folder(place.folder)
    return place.folder
  stem, _, number = place.folder.rpartition("_")
  files.make_folder(os.path.dirname(stem) or ".")
  folder, next_number = place.folder, int(number) if number.isdigit() else 0
  while True:
    try:
      os.mkdir(folder)  # fails where another run, even a young one, has it
      return folder
    except FileExistsError:
      next_number += 1
      folder = f"{stem}_{next_number}"
    except OSError as error:
      raise errors.UserError(
        f"cannot create the folder `{folder}` ({error.strerror}): choose a "
        "`checkpoint_dir` that you may write to"
      ) from error


class _Shared(NamedTuple):
  """What all stages of a training share."""

  config: Config
  schedule: training.Schedule
  seed: int
  dataset: data_lib.IODINEDataset
  example: dict[str, tf.Tensor]
  log_scalar: Callable[[str, float, int], None]
  on_folder: Callable[[str], None]


def run(
  config: Config,
  place: Place,
  log_scalar: Callable[[str, float, int], None],
  on_folder: Callable[[str], None] = lambda folder: None,
) -> training.Outcome:
  """Trains, with progress on the terminal, TensorBoard and Sacred.

  Args:
    config: the complete config.
    place: where the run lives and what it begins with.
    log_scalar: takes name, value and step.
    on_folder: takes the folder once it is known.

  Raises:
    errors.UserError: see `training.train`, `checkpoints.restore` and
      `training.plan`.
  """
  schedule = _schedule(config)
  plan = training.plan(config)
  seed = config["seed"]
  if place.start and not checkpoints.open_checkpoint(place.start).is_tf1:
    # Samples and the order of scenes go on as they would have.
    seed = checkpoints.read_seed(place.start)
    print(f"the run's own seed {seed} is used", flush=True)
  tf.random.set_seed(seed)
  make_data.provide(config)
  dataset = common.build_dataset(config["data"], seed)
  example = next(iter(dataset.batches("summary")))
  shared = _Shared(
    config, schedule, seed, dataset, example, log_scalar, on_folder
  )
  models = _build_models(plan, dataset.image_shape)
  step = 0
  for number, (stage, model) in enumerate(zip(plan, models, strict=True), 1):
    optimizer: optimizers.Adam = building.build(
      config["optimizer"], "optimizer"
    )
    optimizer.initialize(model.trainable_variables)
    restored = _restore(place.start, model, optimizer) if place.start else ""
    step = int(optimizer.global_step)
    if step >= stage.last_step:
      continue
    if restored:
      print(restored, flush=True)
    if len(plan) > 1:
      print(
        f"stage {number} of {len(plan)}, to step {stage.last_step}"
        + (f", with {json.dumps(stage.changes)}" if stage.changes else ""),
        flush=True,
      )
    folder, outcome = _train_stage(
      shared, place, stage.last_step, model, optimizer
    )
    if outcome.interrupted_by or outcome.step == schedule.stop_after_steps:
      return outcome
    # The next stage goes on as a continued run does.
    place = Place(folder, outcome.checkpoint, is_new=False)
  print(
    f"nothing is left to train: step {step} of {schedule.stop_after_steps} "
    "is done, a larger `stop_after_steps` goes on",
    flush=True,
  )
  return training.Outcome(step, place.start, None)


def _build_models(
  plan: list[training.Stage], image_shape: tuple[int, ...]
) -> list[iodine.IODINE]:
  """The models of all stages, as what is wrong with a later one costs hours.

  Raises:
    errors.UserError: if one cannot be built or cannot take over the weights
      of the one before.
  """
  models = [common.build_model(stage.model, image_shape) for stage in plan]
  shapes = [{v.name: v.shape for v in m.trainable_variables} for m in models]
  for number, others in enumerate(shapes[:-1]):
    if others != shapes[-1]:
      raise errors.UserError(
        f"`stages[{number}]` changes the shapes of weights, which later "
        "stages take over: change entries that leave them, such as "
        "`num_components`, `num_iters` or `kl_weight`"
      )
  return models


def _train_stage(
  shared: _Shared,
  place: Place,
  last_step: int,
  model: iodine.IODINE,
  optimizer: optimizers.Adam,
) -> tuple[str, training.Outcome]:
  """Trains a model from where its optimizer is; returns the folder, too."""
  step = int(optimizer.global_step)
  # Scenes are read while the graph is made.
  batches = shared.dataset.batches("train", skip_batches=step)
  compiled = training.CompiledStep(
    model, optimizer, shared.seed, shared.config["jit_compile"]
  )
  try:
    # Whatever is wrong with the config shows here, before a folder is made.
    compiled.trace(shared.example)
  except common.CONFIG_ERRORS as error:
    raise common.misfit(shared.dataset.image_shape, error) from error
  folder = _claim(place)
  shared.on_folder(folder)
  store = checkpoints.CheckpointStore(folder, model, optimizer, shared.seed)
  if place.start and not checkpoints.open_checkpoint(place.start).is_tf1:
    store.restore()  # what it knows of earlier checkpoints, too
  _save_config(shared.config, folder)
  num_parameters = sum(
    v.shape.num_elements() for v in model.trainable_variables
  )
  print(
    f"training {num_parameters:,} parameters, step {step} to {last_step}, "
    f"into {folder}",
    flush=True,
  )
  schedule = shared.schedule._replace(stop_after_steps=last_step)
  writer = training.SummaryWriter(folder)
  draw = training.OverviewImages(model)
  outcome = training.train(
    _announcing_first(compiled),
    batches,
    shared.dataset.batch_size,
    store,
    schedule,
    start_step=step,
    loss_after=compiled.loss,
    on_report=_reporter(schedule, writer, shared.log_scalar),
    on_images=lambda at: writer.images(at, draw(shared.example)),
  )
  if outcome.interrupted_by:
    print(
      f"stopped by {outcome.interrupted_by.name} at step {outcome.step}; go on "
      "with the same command and `continue_run=True "
      f"checkpoint_dir={shlex.quote(folder)}`",
      flush=True,
    )
  print(f"checkpoint: {outcome.checkpoint}", flush=True)
  return folder, outcome


def _announcing_first(step: training.CompiledStep) -> Callable[..., Any]:
  """The step, which says once how long it took to get there."""
  calls = 0

  def call(batch: dict[str, Any]) -> Any:
    nonlocal calls
    scalars = step(batch)
    calls += 1
    if calls == 1:
      seconds = benchmark.seconds_since_start()
      print(f"first step done {seconds:.1f} s after the start", flush=True)
    return scalars

  return call


def _restore(
  prefix: str, model: iodine.IODINE, optimizer: optimizers.Adam
) -> str:
  """Restores a TF1 or TF2 checkpoint; a sentence for the terminal."""
  report = checkpoints.restore(prefix, model=model, optimizer=optimizer).report
  if report is None:
    return f"continuing from {prefix}"
  fresh = ", Adam starts afresh" if report.left_fresh else ""
  return f"continuing from the TF1 checkpoint {prefix}{fresh}"


def _reporter(
  schedule: training.Schedule,
  writer: training.SummaryWriter,
  log_scalar: Callable[[str, float, int], None],
) -> Callable[[training.Report], None]:
  """What happens at every report: terminal, TensorBoard, Sacred."""

  def on_report(report: training.Report) -> None:
    print(_progress_line(report, schedule.stop_after_steps), flush=True)
    writer.scalars(
      report.step,
      {**report.means, "debug/images_per_second": report.images_per_second},
    )
    log_scalar("loss", report.means["loss/total"], report.step)
    log_scalar("ari_nobg", report.means["loss/ari_nobg"], report.step)

  return on_report


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
  files.write_json(os.path.join(folder, "config.json"), dict(config))
