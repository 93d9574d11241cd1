"""Training."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import os
import shlex
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tqdm

from iodine import (
  benchmark,
  checkpoints,
  config_files,
  devices,
  errors,
  files,
  replicas,
  training,
)
from iodine.commands import common, help, make_data
from iodine.modules import datasets, iodine, types
from iodine.training import run_folder

Config = common.Config
LogScalar = Callable[[str, float, int], None]

_DAY = 86400  # seconds
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} steps{postfix}"

# Entries that workers need not share: paths are of a machine.
_OF_ONE_WORKER = (
  *("seed", "checkpoint_dir", "generated_path", "data.path", "data.cache"),
  *(f"environment.{name}" for name in ("device", "precision")),
)


def run(
  config: Config,
  folder: run_folder.RunFolder,
  log_scalar: LogScalar = lambda name, value, step: None,
  on_folder: Callable[[str], None] = lambda folder: None,
  max_seconds: float = math.inf,
  dataset: Any = None,
  model: iodine.IODINE | None = None,
) -> training.Outcome:
  """Trains, with progress on the terminal, TensorBoard and Sacred.

  Args:
    config: the complete config.
    folder: where the run lives and what it begins with.
    log_scalar: takes name, value and step.
    on_folder: takes the folder's path once it is known.
    max_seconds: after which it ends, wherever it is.
    dataset: the scenes, if they are not the config's.
    model: what is trained, if it is there already.
  """
  training.plan(config)  # a mistake in it is told before scenes are read
  # Before TensorFlow computes anything.
  strategy = replicas.make_strategy(config)
  workers = replicas.Workers(strategy)
  remedy = "see why in its last lines, then start all of them again"
  with (
    folder.held,
    workers.explained_loss(lambda: f"{remedy}, or {_go_on(folder.path)}"),
  ):
    opened = _Run(
      config, folder, strategy, workers, log_scalar, on_folder, dataset
    )
    plan = opened.plan
    with training.uninterrupted(), help.while_waiting("building the model"):
      models = opened.build_models() if model is None else [model]
    for stage, model in zip(plan, models, strict=True):
      if folder.step >= stage.last_step:
        continue
      outcome = opened.train(stage, model, max_seconds)
      is_cut = outcome.interrupted_by or outcome.step < stage.last_step
      if is_cut or outcome.step == plan[-1].last_step:
        return outcome
      # The next stage goes on as a continued run does.
      folder.start = checkpoints.open_checkpoint(folder.path)
  print(
    f"nothing is left to train: step {folder.step} of {plan[-1].last_step} is "
    "done, a larger `stop_after_steps` goes on",
    flush=True,
  )
  assert folder.start is not None
  checkpoints.restore(folder.start, models[-1])
  return training.Outcome(folder.step, folder.start.prefix, None, models[-1])


class _Run:
  """What the stages of a training share."""

  def __init__(
    self,
    config: Config,
    folder: run_folder.RunFolder,
    strategy: tf.distribute.Strategy,
    workers: replicas.Workers,
    log_scalar: LogScalar,
    on_folder: Callable[[str], None],
    dataset: Any,
  ):
    """Locks the folder and reads the first scenes, which may be made before."""
    self._folder, self._strategy, self._workers = folder, strategy, workers
    self._log_scalar, self._on_folder = log_scalar, on_folder
    config = {**config, "environment": devices.describe(config)}
    self._tell_devices(config["environment"])
    if workers.is_chief:
      folder.lock()
    seed = config["seed"]
    if folder.start and not folder.start.is_tf1:
      # Samples and the order of scenes go on as they would have.
      seed = folder.start.seed
      print(f"the run's own seed {seed} is used", flush=True)
    workers.check_alike(_shared(config))
    # Where none is given, each process has drawn its own.
    self._seed = workers.of_chief(seed)
    tf.random.set_seed(self._seed)
    self._dataset, self._example = workers.chief_first(
      lambda: _read_first(config, self._seed, dataset)
    )
    replicas.check_batch_size(strategy, self._dataset.batch_size)
    config = _as_read(config, self._dataset, self._example, folder.start)
    if folder.start and not folder.start.is_tf1:
      _tell_changes(config, folder.start.prefix)
    self._config, self.plan = config, training.plan(config)
    self._held_out = None
    if config["validate_every"] is not None:
      for stage in self.plan:
        size = stage.model.get("refinement_batch_size")
        replicas.check_refinement_batch_size(strategy, size)
      self._held_out = workers.chief_first(
        lambda: training.HeldOut(self._dataset, config["validate_scenes"])
      )

  def _tell_devices(self, environment: dict[str, str]) -> None:
    """Says on what the training runs."""
    line = f"on {environment['device']}, {environment['precision']}"
    if environment["xla"] == "on":
      line += ", XLA"
    num_replicas = self._strategy.num_replicas_in_sync
    if num_replicas > 1:
      line += f"; {num_replicas} replicas share every batch"
    if self._workers.number > 1:
      line += f", {self._workers.number} workers"
    print(line, flush=True)
    unused = devices.unused_gpu()
    if unused is not None:
      print(unused, flush=True)

  def build_models(self) -> list[iodine.IODINE]:
    """Builds the models of all stages: a mistake in a later one costs hours."""
    with replicas.scope(self._strategy):
      models = [
        common.build_model(
          stage.model, self._dataset.image_shape, self._dataset.batch_size
        )
        for stage in self.plan
      ]
    shapes = [{v.name: v.shape for v in m.trainable_variables} for m in models]
    for number, others in enumerate(shapes):
      if others != shapes[-1]:
        raise errors.UserError(
          f"`stages[{number}]` changes the shapes of weights, which later "
          "stages take over: change entries that leave them, such as "
          "`num_components`, `num_iters` or `kl_weight`"
        )
    return models

  def train(
    self, stage: training.Stage, model: iodine.IODINE, max_seconds: float
  ) -> training.Outcome:
    """Trains a stage: makes its graph, then the folder, then the steps."""
    config, strategy, step = self._config, self._strategy, self._folder.step
    with replicas.scope(strategy):
      optimizer = common.build_optimizer(config["optimizer"], model)
    if self._folder.start:
      _restore(self._folder.start, model, optimizer)
    if len(self.plan) > 1:
      print(_stage_line(self.plan, stage), flush=True)
    # Scenes are read while the graph is made.
    feed = training.Feed(self._dataset, strategy, skip_batches=step)
    train_step = training.compile_step(
      model,
      optimizer,
      self._seed,
      devices.uses_xla(config["jit_compile"]),
      config["skip_nonfinite"] is not None,
      strategy.num_replicas_in_sync,
    )
    make_steps = training.compile_steps(train_step, strategy, feed.expand)
    # Whatever is wrong with the config shows here, before a folder is made.
    with training.uninterrupted(), help.while_waiting("making the graph"):
      if strategy.num_replicas_in_sync == 1:
        train_step.get_concrete_function(self._example)
      num_steps = tf.TensorSpec([], tf.int32)
      make_steps.get_concrete_function(feed.batches, num_steps)
    if self._held_out:
      with help.while_waiting("reading the scenes of the validation"):
        self._held_out.read()
    is_new = self._folder.is_new
    self._folder.create(self._workers)
    store = self._open_store(model, optimizer)
    self._folder.start = None  # which lets go of its tensors
    print(_opening_line(model, step, stage, self._folder.path), flush=True)
    periods = {name: config[name] for name in training.Schedule._fields}
    state = [*model.trainable_variables, *optimizer.variables]
    bar = self._make_bar(step)
    loop = training.Loop(
      functools.partial(make_steps, feed.batches),
      [v for v in state if v.dtype.is_floating],
      self._dataset.batch_size,
      store,
      training.Schedule(**{**periods, "stop_after_steps": stage.last_step}),
      self._listener(model, bar),
      start_step=step,
      skip_nonfinite=config["skip_nonfinite"],
      steps_per_call=training.steps_per_call(config["steps_per_call"]),
      agree_to_stop=lambda told: self._workers.total(int(told)) > 0,
      max_seconds=max_seconds,
    )
    with bar, _explained_memory(), feed.explained_errors():
      try:
        outcome = loop.run()
      except training.DivergedError:
        if is_new and self._workers.is_chief:
          self._folder.remove_if_empty()
        raise
    self._workers.total(0)  # until the last checkpoint is whole
    outcome = outcome._replace(checkpoint=store.latest, model=model)
    _tell_end(outcome, self._folder.path)
    return outcome

  def _make_bar(self, step: int) -> tqdm.tqdm[Any]:
    """Returns what moves with every step of all stages, in a terminal."""
    return tqdm.tqdm(
      initial=step,
      total=self.plan[-1].last_step,
      leave=False,
      disable=None if self._workers.is_chief else True,
      bar_format=_BAR,  # the time that is left is told by the median of steps
      miniters=1,
    )

  def _open_store(
    self, model: iodine.IODINE, optimizer: types.Optimizer
  ) -> checkpoints.CheckpointStore:
    """Returns where checkpoints go, with what it knows of those before."""
    store = checkpoints.CheckpointStore(
      self._folder.path,
      model,
      optimizer,
      self._seed,
      writes=self._workers.is_chief,
      validates=self._held_out is not None,
    )
    if self._folder.start and not self._folder.start.is_tf1:
      store.restore(self._folder.start)
    if self._folder.step in [stage.last_step for stage in self.plan[:-1]]:
      store.forget_best()  # the losses of this stage are of another model
    return store

  def _listener(self, model: iodine.IODINE, bar: tqdm.tqdm[Any]) -> _Validator:
    """Returns what hears of the training; the first worker writes of it."""
    score = dict  # nobody asks for it
    if self._held_out:
      score = self._held_out.scorer(model, self._strategy)
    if not self._workers.is_chief:
      return _Validator(score)
    path = self._folder.path
    self._on_folder(path)
    # For whoever finds the checkpoints.
    config_path = os.path.join(path, files.RUN_CONFIG)
    files.write_json(config_path, dict(self._config))
    draw = functools.partial(training.OverviewImages(model), self._example)
    return _Logs(score, draw, path, bar, self._log_scalar)


def _read_first(
  config: Config, seed: int, dataset: Any
) -> tuple[datasets.SceneDataset, dict[str, tf.Tensor]]:
  """Builds the data set and reads a batch; makes scenes and cache if needed."""
  if dataset is None:
    make_data.ensure_dataset(config)
  dataset = common.build_dataset(config["data"], seed, config["model"], dataset)
  common.tell_scenes(dataset)
  with help.while_waiting("reading the first scenes"):
    return dataset, next(iter(dataset.batches("summary")))


def _shared(config: Config) -> str:
  """Returns what all workers have to have in common, as text."""
  leaves = dict(config_files.leaves(config))
  shared = {k: v for k, v in leaves.items() if k not in _OF_ONE_WORKER}
  return json.dumps(shared, sort_keys=True, default=str)


def _as_read(
  config: Config,
  dataset: datasets.SceneDataset,
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
  if not example.get("factors") and model.get(entry) is not None:
    if start is not None and any(entry in name for name in start.tensors):
      # Adam's moments are in the order of the variables, its own among them.
      outcome = "the factor regressor rests"
    else:
      outcome = "there will be no factor regressor"
      model = {**model, entry: None}
      stages = [
        {
          **stage,
          "model": {k: v for k, v in stage["model"].items() if k != entry},
        }
        for stage in stages
      ]
    print(f"the scenes have no factors: {outcome}", flush=True)
  return {**config, "data": data, "model": model, "stages": stages}


def _tell_changes(config: Config, prefix: str) -> None:
  """Says in one line what a continued run does otherwise from now on.

  Args:
    config: the complete config.
    prefix: of the checkpoint that it goes on from.
  """
  if not os.path.exists(checkpoints.config_path(prefix)):
    return
  stored = checkpoints.config_beside(prefix)
  # Not known of older runs.
  environment = ["environment"] if stored.get("environment") else []
  found = config_files.differences(
    config,
    stored,
    ("data", "model", "optimizer", "stages", "stop_after_steps", *environment),
    ("data.cache", "data.seed", "model.refinement_batch_size"),
  )
  if found:
    print(f"unlike the run so far: {found}", flush=True)


def _restore(
  start: checkpoints.Opened, model: iodine.IODINE, optimizer: types.Optimizer
) -> None:
  """Restores what a run begins with, and says so."""
  report = checkpoints.restore(start, model, optimizer)
  kind = "the TF1 checkpoint " if start.is_tf1 else ""
  is_fresh = "left fresh" in report.status.values()
  fresh = ", Adam starts afresh" if is_fresh else ""
  print(f"continuing from {kind}{start.prefix}{fresh}", flush=True)


def _stage_line(plan: list[training.Stage], stage: training.Stage) -> str:
  number = plan.index(stage) + 1
  line = f"stage {number} of {len(plan)}, to step {stage.last_step}"
  return line + (f", with {json.dumps(stage.changes)}" if stage.changes else "")


def _opening_line(
  model: iodine.IODINE, step: int, stage: training.Stage, folder: str
) -> str:
  sizes = [v.shape.num_elements() for v in model.trainable_variables]
  return (
    f"training {sum(sizes):,} parameters, step {step} to {stage.last_step}, "
    f"into {folder}"
  )


def _tell_end(outcome: training.Outcome, folder: str) -> None:
  """Says how a stage ended, and how to go on."""
  line = f"checkpoint: {outcome.checkpoint}"
  if outcome.interrupted_by:
    name = outcome.interrupted_by.name
    line = f"stopped by {name} at step {outcome.step}; {_go_on(folder)}"
  print(line, flush=True)


def _go_on(folder: str) -> str:
  return (
    f"go on with `{help.program()} with continue_run=True "
    f"checkpoint_dir={shlex.quote(folder)}`"
  )


def _explained_memory() -> contextlib.AbstractContextManager[None]:
  """Turns what is raised where memory is full into a UserError."""
  return errors.as_user_error(
    (tf.errors.ResourceExhaustedError, MemoryError),
    lambda error: (
      f"there is not enough memory ({errors.reason(error)}): give a smaller "
      "`batch_size` or `recompute=True`, or end what else takes memory"
    ),
  )


@dataclasses.dataclass
class _Validator(training.Listener):
  """Validates, which all workers do together."""

  score: Callable[[], dict[str, float]]

  def validate(self, step: int) -> float:
    return self.score()["total"]


@dataclasses.dataclass
class _Logs(_Validator):
  """What a run tells the terminal, TensorBoard and Sacred."""

  draw: Callable[[], dict[str, tf.Tensor]]
  folder: str
  bar: tqdm.tqdm[Any]
  log_scalar: LogScalar

  def __post_init__(self) -> None:
    self._writer = training.SummaryWriter(self.folder)
    self._writes_events = True

  def _events(
    self, write: Callable[[int, Any], None], step: int, values: Any
  ) -> None:
    """Writes events, until that fails as on a full disk, which is said once."""
    if not self._writes_events:
      return
    kinds = (tf.errors.OpError, OSError)
    reason = errors.message_of(lambda: write(step, values), kinds)
    if reason is not None:
      self._writes_events = False
      _say(
        "the training goes on without TensorBoard logs, which can no more be "
        f"written ({reason}): make room before it saves in `{self.folder}`"
      )

  def _scalars(self, step: int, values: dict[str, float]) -> None:
    """Writes scalars, and tells them to whoever wants to hear of them."""
    self._events(self._writer.scalars, step, values)
    training.tell(step, values)

  def rescue(self, step: int, reason: str | None) -> None:
    done = f"the state after step {step} is saved: {_go_on(self.folder)}"
    failed = f"the state after step {step} could not be saved ({reason})"
    _say(done if reason is None else failed)

  def first_step(self) -> None:
    seconds = benchmark.seconds_since_start()
    _say(f"first step done {seconds:.1f} s after the start")

  def pace(self, step: int, seconds_per_step: float) -> None:
    num_steps = self.bar.total - step
    seconds = num_steps * seconds_per_step
    line = (
      f"step {step}/{self.bar.total}: about {help.duration(seconds)} for the "
      f"{num_steps:,} steps that are left, on this machine"
    )
    if seconds > _DAY and not tf.config.list_physical_devices("GPU"):
      line += (
        "; smaller images, such as `'image_dim=[14,14]'`, or a GPU make it "
        "shorter, and the experiments `quick` and `laptop` are short"
      )
    if num_steps:
      _say(line)

  def advance(self, step: int) -> None:
    self.bar.update(step - self.bar.n)

  def report(self, report: training.Report) -> None:
    seconds = (self.bar.total - report.step) * report.seconds_per_step
    left = f"{help.duration(seconds)} left"
    self.bar.set_postfix_str(left, refresh=False)
    _say(
      f"step {report.step}/{self.bar.total}  {_scores_of(report.means)}  "
      f"{report.images_per_second:.1f} images/s  {left}"
    )
    speed = {"debug/images_per_second": report.images_per_second}
    self._scalars(report.step, {**report.means, **speed})
    for name, scalar in (("loss", "total"), ("ari_nobg", "ari_nobg")):
      # There is no ARI without masks.
      if f"loss/{scalar}" in report.means:
        self.log_scalar(name, report.means[f"loss/{scalar}"], report.step)

  def images(self, step: int) -> None:
    self._events(self._writer.images, step, self.draw())

  def validate(self, step: int) -> float:
    scores = self.score()
    mse, total = scores["mse"], scores["total"]
    line = f"squared error {mse:.4f}, total {total:.1f}"
    if "ari_nobg" in scores:
      line = f"ARI-nobg {scores['ari_nobg']:.3f}, {line}"
    _say(f"validation at step {step}: {line}")
    scores = {f"validation/{name}": value for name, value in scores.items()}
    self._scalars(step, scores)
    for name, value in scores.items():
      self.log_scalar(name, value, step)
    return total


def _say(line: str) -> None:
  """Prints a line above the bar."""
  with tqdm.tqdm.external_write_mode():
    print(line, flush=True)


def _scores_of(means: dict[str, float]) -> str:
  """Returns what a line of progress says of the means since the last one."""
  loss = f"loss {means['loss/total']:.1f}"
  if "loss/ari" not in means:
    return f"{loss}  squared error {means['loss/mse']:.5f}"
  return (
    f"{loss}  ARI {means['loss/ari']:.3f}"
    f"  ARI-nobg {means['loss/ari_nobg']:.3f}"
  )
