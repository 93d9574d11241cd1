"""Training."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shlex
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from iodine import (
  benchmark,
  checkpoints,
  devices,
  errors,
  files,
  optimizers,
  replicas,
  training,
  validation,
)
from iodine.commands import common, make_data, reading
from iodine.modules import data as data_lib
from iodine.modules import iodine

Config = common.Config


class Place(NamedTuple):
  """Where a run lives.

  Attributes:
    folder: for checkpoints and TensorBoard logs.
    start: the checkpoint to begin with, open; None to begin afresh.
    is_new: whether the folder has yet to be made, and belongs to nobody else.
    named: the checkpoint that the user wants to go on from; None for the
      newest.
  """

  folder: str
  start: checkpoints.Opened | None
  is_new: bool
  named: str | None = None

  @property
  def goes_on(self) -> bool:
    """Returns whether a run of this project is continued."""
    return self.start is not None and not self.start.is_tf1


def find_place(checkpoint_dir: str, run_id: Any, continue_run: bool) -> Place:
  """Returns where a run goes, and what it begins with.

  A continued run goes on in exactly `checkpoint_dir`; where that is one of a
  run's checkpoints, or its best one's folder, in the folder of that run. A new
  one, and one that goes on from a TF1 checkpoint, gets
  `<checkpoint_dir>_<run_id>`, 1 if no observer gave an id.

  Raises:
    errors.UserError: if a run is to be continued that is not there.
  """
  validation.check_path(
    "checkpoint_dir", checkpoint_dir, "the path of a folder"
  )
  validation.check_flag("continue_run", continue_run)
  start = None
  if continue_run:
    start = checkpoints.open_checkpoint(checkpoint_dir)
    if not start.is_tf1:
      folder = checkpoints.run_folder(start.prefix)
      is_named = not os.path.isdir(checkpoint_dir) or not os.path.samefile(
        checkpoint_dir, folder
      )
      if is_named:
        return Place(folder, start, is_new=False, named=start.prefix)
      return Place(checkpoint_dir, start, is_new=False)
    checkpoint_dir = checkpoint_dir.rstrip("/")
  return Place(f"{checkpoint_dir}_{run_id or 1}", start, is_new=True)


def place_in(folder: str) -> Place:
  """Returns the place of a run in a folder, going on if it has a checkpoint.

  Where only its best one is left, that counts.

  Raises:
    errors.UserError: if it has some, and none can be read.
  """
  prefix = checkpoints.latest(folder)
  named = None
  if prefix is None:
    prefix = named = checkpoints.latest(os.path.join(folder, "best"))
  start = None if prefix is None else checkpoints.open_checkpoint(prefix)
  return Place(folder, start, is_new=False, named=named)


def _keep(
  place: Place, workers: replicas.Workers, stack: contextlib.ExitStack
) -> Place:
  """Locks the folder of a run that is there; returns what it goes on from.

  Who had the lock before may have saved since it was looked at.
  """
  if place.is_new:
    return place
  if workers.is_chief:
    stack.enter_context(checkpoints.locked(place.folder))
  if place.start is None:
    return place_in(place.folder)
  start = checkpoints.open_checkpoint(place.named or place.folder)
  return place._replace(start=start)


def _claim(
  place: Place, workers: replicas.Workers, stack: contextlib.ExitStack
) -> str:
  """Makes the folder of a run; the next free number where one is taken.

  The first worker does, locks it, and tells the others its number.
  """
  if not place.is_new:
    if workers.is_chief:
      files.make_folder(place.folder)
    return place.folder
  stem, _, number = place.folder.rpartition("_")
  folder, next_number = place.folder, int(number) if number.isdigit() else 0
  if workers.is_chief:
    while not files.make_new_folder(folder):
      next_number += 1
      folder = f"{stem}_{next_number}"
    stack.enter_context(checkpoints.locked(folder))
  claimed = workers.of_chief(next_number)
  return folder if workers.is_chief else f"{stem}_{claimed or number}"


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
      `training.plan`; or if another worker has gone, or another process trains
      in the folder.
  """
  schedule = _schedule(config)
  training.plan(config)  # a mistake in it is told before scenes are read
  validates = schedule.validate_every is not None
  skip_nonfinite = config["skip_nonfinite"]
  validation.check_whole(
    "skip_nonfinite", skip_nonfinite, 1, "None to leave out no update"
  )
  steps_per_call = training.steps_per_call(config["steps_per_call"])
  # Before TensorFlow computes anything.
  strategy = replicas.make_strategy(config)
  workers = replicas.Workers(strategy)
  environment = devices.describe(config)
  config = {**config, "environment": environment}
  print(_device_line(environment, strategy, workers), flush=True)
  unused = devices.unused_gpu()
  if unused is not None:
    print(unused, flush=True)
  if workers.is_chief:
    # Before scenes are read, which may take hours.
    parent = os.path.dirname(place.folder) or "."
    files.check_folder(parent if place.is_new else place.folder)
  seed = config["seed"]
  with (
    contextlib.ExitStack() as stack,
    workers.explained_loss(lambda: _after_a_loss(place.folder)),
  ):
    place = _keep(place, workers, stack)
    if place.start is not None and place.goes_on:
      # Samples and the order of scenes go on as they would have.
      seed = checkpoints.read_seed(place.start)
      print(f"the run's own seed {seed} is used", flush=True)
    # Where none is given, each process has drawn its own.
    seed = workers.of_chief(seed)
    tf.random.set_seed(seed)
    dataset, example = workers.chief_first(lambda: _read_first(config, seed))
    replicas.check_batch_size(strategy, dataset.batch_size)
    config = _as_read(config, dataset, example, place.start)
    plan = training.plan(config)
    if place.start is not None and place.goes_on:
      reading.tell_changes(config, place.start.prefix)
    held_out = None
    if validates:
      for stage in plan:
        size = stage.model.get("refinement_batch_size")
        replicas.check_refinement_batch_size(strategy, size)
      held_out = workers.chief_first(
        lambda: training.HeldOut(dataset, config["validate_scenes"])
      )
    with replicas.scope(strategy):
      models = _build_models(plan, dataset.image_shape)
    step = 0
    for number, (stage, model) in enumerate(zip(plan, models, strict=True), 1):
      with replicas.scope(strategy):
        optimizer = common.build_optimizer(config["optimizer"], model)
      restored = _restore(place.start, model, optimizer) if place.start else ""
      step = int(optimizer.global_step.numpy())
      if step >= stage.last_step:
        continue
      if restored:
        print(restored, flush=True)
      if len(plan) > 1:
        print(_stage_line(number, len(plan), stage), flush=True)
      # Scenes are read while the graph is made.
      feed = training.Feed(dataset, strategy, skip_batches=step)
      train_step = training.compile_step(
        model,
        optimizer,
        seed,
        devices.uses_xla(config["jit_compile"]),
        skip_nonfinite is not None,
        strategy.num_replicas_in_sync,
      )
      make_steps = training.compile_steps(train_step, strategy, feed.expand)
      # Whatever is wrong with the config shows here, before a folder is made.
      if strategy.num_replicas_in_sync == 1:
        train_step.get_concrete_function(example)
      make_steps.get_concrete_function(
        feed.batches, tf.TensorSpec([], tf.int32)
      )
      if held_out:
        held_out.read()
      place = place._replace(folder=_claim(place, workers, stack), is_new=False)
      store = checkpoints.CheckpointStore(
        place.folder,
        model,
        optimizer,
        seed,
        writes=workers.is_chief,
        validates=validates,
      )
      if place.start is not None and place.goes_on:
        _leave_newer(store, place.start, place.named)
      if step in [stage.last_step for stage in plan[: number - 1]]:
        store.forget_best()  # the losses of this stage are of another model
      print(_opening_line(model, step, stage, place.folder), flush=True)
      logs, listeners = None, {}
      if workers.is_chief:
        on_folder(place.folder)
        # For whoever finds the checkpoints.
        config_path = os.path.join(place.folder, files.RUN_CONFIG)
        files.write_json(config_path, dict(config))
        logs = _Logs(
          model, example, place.folder, step, stage.last_step, log_scalar
        )
        listeners = logs.listeners()
      if held_out:
        score = held_out.scorer(model, strategy)
        listeners["on_validation"] = functools.partial(_validate, score, logs)
      with _explained_memory(), feed.explained_errors():
        outcome = training.train(
          functools.partial(make_steps, feed.batches),
          [*model.trainable_variables, *optimizer.m, *optimizer.v],
          dataset.batch_size,
          store,
          schedule._replace(stop_after_steps=stage.last_step),
          start_step=step,
          skip_nonfinite=skip_nonfinite,
          steps_per_call=steps_per_call,
          agree_to_stop=lambda told: workers.total(int(told)) > 0,
          **listeners,
        )
      workers.total(0)  # until the last checkpoint is whole
      outcome = outcome._replace(checkpoint=store.latest)
      if outcome.interrupted_by:
        name = outcome.interrupted_by.name
        print(
          f"stopped by {name} at step {outcome.step}; {_go_on(place.folder)}",
          flush=True,
        )
      print(f"checkpoint: {outcome.checkpoint}", flush=True)
      if outcome.interrupted_by or outcome.step == schedule.stop_after_steps:
        return outcome
      # The next stage goes on as a continued run does.
      place = place_in(place.folder)
  print(
    f"nothing is left to train: step {step} of {schedule.stop_after_steps} "
    "is done, a larger `stop_after_steps` goes on",
    flush=True,
  )
  prefix = None if place.start is None else place.start.prefix
  return training.Outcome(step, prefix, None)


def _read_first(
  config: Config, seed: int
) -> tuple[data_lib.IODINEDataset, dict[str, tf.Tensor]]:
  """Builds the data set and reads a batch; makes scenes and cache if needed."""
  make_data.ensure_dataset(config)
  dataset = common.build_dataset(config["data"], seed, config["model"])
  return dataset, next(iter(dataset.batches("summary")))


def _as_read(
  config: Config,
  dataset: data_lib.IODINEDataset,
  example: dict[str, tf.Tensor],
  start: checkpoints.Opened | None,
) -> Config:
  """Returns the config with what the scenes decide.

  That is the size of images that keep theirs, and that there is no regressor
  without factors; one that was trained before rests.

  Args:
    config: the complete config.
    dataset: the scenes.
    example: a batch of them.
    start: what the training begins with.
  """
  data, model, stages = config["data"], config["model"], config["stages"]
  if "image_dim" in data and data["image_dim"] is None:
    data = {**data, "image_dim": list(dataset.image_shape[:2])}
  entry = "factor_evaluator"
  if not example["factors"] and model.get(entry) is not None:
    if start is not None and any(entry in name for name in start.shapes):
      # Adam's moments are in the order of the variables, its own among them.
      outcome = "the factor regressor rests"
    else:
      outcome = "there will be no factor regressor"
      model = {**model, entry: None}
      stages = [
        {
          **stage,
          "model": dict(x for x in stage["model"].items() if x[0] != entry),
        }
        for stage in stages
      ]
    print(f"the scenes have no factors: {outcome}", flush=True)
  return {**config, "data": data, "model": model, "stages": stages}


def _device_line(
  environment: dict[str, str],
  strategy: tf.distribute.Strategy,
  workers: replicas.Workers,
) -> str:
  line = f"on {environment['device']}, {environment['precision']}"
  if environment["xla"] == "on":
    line += ", XLA"
  if strategy.num_replicas_in_sync > 1:
    line += f"; {strategy.num_replicas_in_sync} replicas share every batch"
  if workers.number > 1:
    line += f", {workers.number} workers"
  return line


def _after_a_loss(folder: str) -> str:
  remedy = "see why in its last lines, then start all of them again"
  if checkpoints.latest(folder) is None:
    return remedy
  folder = shlex.quote(folder)
  return f"{remedy} with `continue_run=True checkpoint_dir={folder}`"


def _go_on(folder: str) -> str:
  return (
    "go on with the same command and `continue_run=True "
    f"checkpoint_dir={shlex.quote(folder)}`"
  )


def _explained_memory() -> contextlib.AbstractContextManager[None]:
  """Turns what is raised where memory is full into a UserError."""
  return errors.as_user_error(
    (tf.errors.ResourceExhaustedError, MemoryError),
    lambda error: (
      f"there is not enough memory ({checkpoints.first_line(error)}): give a "
      "smaller `batch_size` or `recompute=True`, or end what else takes memory"
    ),
  )


def _stage_line(number: int, num_stages: int, stage: training.Stage) -> str:
  line = f"stage {number} of {num_stages}, to step {stage.last_step}"
  return line + (f", with {json.dumps(stage.changes)}" if stage.changes else "")


def _opening_line(
  model: iodine.IODINE, step: int, stage: training.Stage, folder: str
) -> str:
  num_parameters = sum(
    v.shape.num_elements() for v in model.trainable_variables
  )
  return (
    f"training {num_parameters:,} parameters, step {step} to "
    f"{stage.last_step}, into {folder}"
  )


def _build_models(
  plan: list[training.Stage], image_shape: tuple[int, ...]
) -> list[iodine.IODINE]:
  """Builds the models of all stages, as a mistake in a later one costs hours.

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


def _restore(
  start: checkpoints.Opened, model: iodine.IODINE, optimizer: optimizers.Adam
) -> str:
  """Restores a TF1 or TF2 checkpoint; returns a sentence for the terminal."""
  prefix, report = checkpoints.restore(start, model=model, optimizer=optimizer)
  if report is None:
    return f"continuing from {prefix}"
  fresh = ", Adam starts afresh" if report.left_fresh else ""
  return f"continuing from the TF1 checkpoint {prefix}{fresh}"


def _leave_newer(
  store: checkpoints.CheckpointStore,
  start: checkpoints.Opened,
  named: str | None,
) -> None:
  """Restores what a store knows, too, and says what is left behind."""
  store.restore(start)
  moved = store.go_on(start.prefix, leaves_best=named is not None)
  if moved:
    names = errors.join_some([f"`{prefix}`" for prefix in moved])
    print(
      f"what is newer than `{start.prefix}` is left behind, as {names}",
      flush=True,
    )


def _validate(
  score: Callable[[], dict[str, float]], logs: _Logs | None, step: int
) -> float:
  """Returns the loss on held-out scenes, which all workers compute."""
  scores = score()
  if logs:
    logs.validation(step, scores)
  return scores["total"]


class _Logs:
  """What a run tells the terminal, TensorBoard and Sacred."""

  def __init__(
    self,
    model: iodine.IODINE,
    example: dict[str, tf.Tensor],
    folder: str,
    step: int,
    last_step: int,
    log_scalar: Callable[[str, float, int], None],
  ):
    self._folder = folder
    self._writer = training.SummaryWriter(folder, after_step=step)
    self._writes_events = True
    self._draw = training.OverviewImages(model)
    self._example = example
    self._last_step = last_step
    self._log_scalar = log_scalar

  def listeners(self) -> dict[str, Callable[..., Any]]:
    """Returns what `training.train` calls."""
    return {
      "on_first_step": self._first_step,
      "on_report": self._report,
      "on_images": self._images,
      "on_rescue": self._rescue,
    }

  def _events(
    self, write: Callable[[int, Any], None], step: int, values: Any
  ) -> None:
    """Writes events, until that fails as on a full disk, which is said once."""
    if not self._writes_events:
      return
    kinds = (tf.errors.OpError, errors.UserError, OSError)
    reason = errors.message_of(lambda: write(step, values), kinds)
    if reason is not None:
      self._writes_events = False
      print(
        "the training goes on without TensorBoard logs, which can no more be "
        f"written ({reason}): make room before it saves in `{self._folder}`",
        flush=True,
      )

  def _rescue(self, step: int, reason: str | None) -> None:
    """Says what an error that follows leaves of the training."""
    done = f"the state after step {step} is saved: {_go_on(self._folder)}"
    failed = f"the state after step {step} could not be saved ({reason})"
    print(done if reason is None else failed, flush=True)

  def _first_step(self) -> None:
    """Says how long it took to get there."""
    seconds = benchmark.seconds_since_start()
    print(f"first step done {seconds:.1f} s after the start", flush=True)

  def _report(self, report: training.Report) -> None:
    """Logs scalars."""
    print(_progress_line(report, self._last_step), flush=True)
    speed = {"debug/images_per_second": report.images_per_second}
    self._events(self._writer.scalars, report.step, {**report.means, **speed})
    for name, scalar in (("loss", "total"), ("ari_nobg", "ari_nobg")):
      # There is no ARI without masks.
      if f"loss/{scalar}" in report.means:
        self._log_scalar(name, report.means[f"loss/{scalar}"], report.step)

  def validation(self, step: int, scores: dict[str, float]) -> None:
    """Logs scores on held-out scenes."""
    print(_validation_line(step, scores), flush=True)
    scores = {f"validation/{name}": value for name, value in scores.items()}
    self._events(self._writer.scalars, step, scores)
    for name, value in scores.items():
      self._log_scalar(name, value, step)

  def _images(self, step: int) -> None:
    """Logs the overview images."""
    self._events(self._writer.images, step, self._draw(self._example))


def _schedule(config: Config) -> training.Schedule:
  """Reads when what happens.

  Raises:
    errors.UserError: if an entry is not a whole number of steps.
  """
  fields = {}
  for name in training.Schedule._fields:
    value = config[name]
    # 1e6 is as good as 1000000.
    if isinstance(value, float) and value.is_integer():
      value = int(value)
    need = "a whole number of steps, at least 1"
    fits = validation.is_whole(value, 1)
    if name == "validate_every":
      fits, need = fits or value is None, f"{need}, or None for no validation"
    validation.require(fits, name, config[name], need)
    fields[name] = value
  return training.Schedule(**fields)


def _validation_line(step: int, scores: dict[str, float]) -> str:
  parts = [f"squared error {scores['mse']:.4f}", f"total {scores['total']:.1f}"]
  if "ari_nobg" in scores:
    parts.insert(0, f"ARI-nobg {scores['ari_nobg']:.3f}")
  return f"validation at step {step}: {', '.join(parts)}"


def _progress_line(report: training.Report, last_step: int) -> str:
  minutes, seconds = divmod(int(report.seconds_left), 60)
  means = report.means
  line = f"step {report.step}/{last_step}  loss {means['loss/total']:.1f}"
  if "loss/ari" in means:
    line += f"  ARI {means['loss/ari']:.3f}"
    line += f"  ARI-nobg {means['loss/ari_nobg']:.3f}"
  else:
    line += f"  squared error {means['loss/mse']:.5f}"
  return (
    f"{line}  {report.images_per_second:.1f} images/s"
    f"  {minutes}:{seconds:02d} left"
  )
