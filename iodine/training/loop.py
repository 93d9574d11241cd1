"""The training step, the loop around it, and when it stops.

Dimensions: B batch, T iterations + 1, K slots, Z latent size. Source: section
B.3 of the paper and the original's `main.py`.
"""

from __future__ import annotations

import contextlib
import functools
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine import checkpoints, errors, loss_scaling, optimizers
from iodine.modules import iodine

Data = dict[str, Any]
# What has to stay finite; a factor's R2 may be infinite where it is constant.
_VITAL = ("loss/total", "debug/global_grad_norm")


class Gradients(NamedTuple):
  """The loss of a batch and its gradients.

  Attributes:
    loss: scalar.
    scalars: see `IODINE.__call__`.
    iterations: see `IODINE.__call__`.
    gradients: of the model's trainable variables, in their order.
  """

  loss: tf.Tensor
  scalars: dict[str, tf.Tensor]
  iterations: dict[str, list[Any]]
  gradients: list[tf.Tensor]


def compute_gradients(
  model: iodine.IODINE,
  data: Data,
  z: tf.Tensor | Sequence[tf.Tensor] | None = None,
  seed: tf.Tensor | None = None,
  loss_scale: loss_scaling.LossScale | None = None,
) -> Gradients:
  """The loss and its gradients, both without the loss scale.

  Arguments as for `train_step`.
  """
  with tf.GradientTape() as tape:
    loss, scalars, iterations = model(data, z=z, seed=seed)
    target = loss if loss_scale is None else loss_scale.scaled(loss)
  gradients = tape.gradient(
    target,
    model.trainable_variables,
    unconnected_gradients=tf.UnconnectedGradients.ZERO,
  )
  if loss_scale is not None:
    gradients = loss_scale.unscaled(gradients)
  return Gradients(loss, scalars, iterations, gradients)


def train_step(
  model: iodine.IODINE,
  optimizer: optimizers.Adam,
  data: Data,
  z: tf.Tensor | Sequence[tf.Tensor] | None = None,
  seed: tf.Tensor | None = None,
) -> dict[str, tf.Tensor]:
  """One update of every trainable variable.

  Args:
    model: the model.
    optimizer: its optimizer.
    data: a batch, see `IODINE.__call__`; left unchanged.
    z: recorded samples to replay.
    seed: [2] integers to draw samples from.

  Returns:
    The model's scalars, debug/global_grad_norm (before clipping),
    debug/learning_rate and, with a loss scale, debug/loss_scale of this step.
  """
  loss_scale = optimizer.loss_scale
  step = compute_gradients(model, data, z=z, seed=seed, loss_scale=loss_scale)
  learning_rate = optimizer.learning_rate
  debug = {}
  if loss_scale is not None:
    debug["debug/loss_scale"] = tf.identity(loss_scale.scale)
  global_norm = optimizer.apply(step.gradients, model.trainable_variables)
  return {
    **step.scalars,
    "debug/global_grad_norm": global_norm,
    "debug/learning_rate": learning_rate,
    **debug,
  }


class CompiledStep:
  """`train_step` as a graph, with samples that depend on the step alone.

  A run that is continued therefore draws what it would have drawn.

  Attributes:
    num_traces: how often the graph was made; once for every batch shape.
  """

  def __init__(
    self,
    model: iodine.IODINE,
    optimizer: optimizers.Adam,
    seed: int,
    jit_compile: bool = False,
  ):
    """Prepares the graph; it is made at the first call.

    Args:
      model: the model.
      optimizer: its optimizer.
      seed: what samples follow from, beside the step.
      jit_compile: whether XLA compiles the graph. Its random numbers are
        others than TensorFlow's for the same seed.

    Raises:
      errors.UserError: if jit_compile is neither True nor False.
    """
    if not isinstance(jit_compile, bool):
      raise errors.UserError(
        f"`jit_compile` is {jit_compile!r}: use True or False"
      )
    self.num_traces = 0

    def step(data: Data) -> dict[str, tf.Tensor]:
      self.num_traces += 1
      step_seed = tf.stack([tf.constant(seed, tf.int64), optimizer.global_step])
      return train_step(model, optimizer, data, seed=step_seed)

    # Without AutoGraph, which has nothing to convert and takes its time. None
    # leaves it to TensorFlow, which compiles for TPUs.
    function = functools.partial(
      tf.function, autograph=False, jit_compile=jit_compile or None
    )
    self._step = function(step)
    self._loss = function(
      lambda data: model(
        data, seed=tf.constant([seed, -1], tf.int64), update=False
      )[0]
    )

  def trace(self, data: Data) -> Any:
    """Makes the graph for batches like this one, without a step.

    Whatever does not fit in a config shows here.

    Returns:
      A `tf.types.experimental.ConcreteFunction`, which the calls then use.
    """
    return self._step.get_concrete_function(data)

  def loss(self, data: Data) -> float:
    """The loss of a batch as the weights are now; changes nothing."""
    return float(self._loss(data))

  def __call__(self, data: Data) -> dict[str, float]:
    """One update; returns its scalars as numbers."""
    return {name: float(value) for name, value in self._step(data).items()}


class Schedule(NamedTuple):
  """When a training does what, in steps.

  Attributes:
    stop_after_steps: the step after which it ends.
    save_summaries_steps: between two reports.
    save_checkpoint_steps: between two checkpoints.
    save_images_steps: between two sets of overview images.
  """

  stop_after_steps: int
  save_summaries_steps: int = 10
  save_checkpoint_steps: int = 1000
  save_images_steps: int = 1000


class Report(NamedTuple):
  """Progress since the last report.

  Attributes:
    step: number of updates so far.
    means: mean of every scalar since the last report.
    images_per_second: training images.
    seconds_left: until the last step, at this pace.
  """

  step: int
  means: dict[str, float]
  images_per_second: float
  seconds_left: float


class Outcome(NamedTuple):
  """How a training ended.

  Attributes:
    step: number of updates.
    checkpoint: prefix of the last checkpoint.
    interrupted_by: the signal that ended it, or None.
  """

  step: int
  checkpoint: str | None
  interrupted_by: signal.Signals | None


def train(
  compiled_step: Callable[[Data], Mapping[str, float]],
  batches: Iterable[Data],
  batch_size: int,
  store: checkpoints.CheckpointStore,
  schedule: Schedule,
  start_step: int = 0,
  loss_after: Callable[[Data], float] = lambda data: 0.0,
  on_report: Callable[[Report], None] = lambda report: None,
  on_images: Callable[[int], None] = lambda step: None,
) -> Outcome:
  """Trains until the last step, SIGINT or SIGTERM, and saves.

  Args:
    compiled_step: from a batch to its scalars.
    batches: of the steps to come.
    batch_size: scenes in each of them.
    store: where checkpoints go.
    schedule: when what happens.
    start_step: number of updates already done.
    loss_after: the loss of a batch as the weights are after the update: only
      weights that give a finite one are saved.
    on_report: called every `save_summaries_steps` and at the end.
    on_images: called with the step every `save_images_steps`.

  Raises:
    errors.UserError: if the loss or a gradient is no longer finite, and no
      smaller loss scale may help, with the step, the scalars and the last good
      checkpoint; or if data or checkpoints cannot be read or written.
  """
  step, last = start_step, schedule.stop_after_steps
  recent = _Means(step, batch_size)
  since_save = _Means(step, batch_size)
  saved = step if store.latest else None

  def save(batch: Data, mean_loss: float | None = None) -> None:
    # The loss of a step is that before its update, which may do harm.
    loss = {"loss/total": loss_after(batch), _VITAL[1]: 0.0}
    _check_finite(loss, step, store)
    store.save(mean_loss)

  with _catch_signals() as caught:
    for batch in batches:
      if step >= last or caught:
        break
      scalars = compiled_step(batch)
      step += 1
      _check_finite(scalars, step, store)
      report_due = step % schedule.save_summaries_steps == 0 or step == last
      if step == start_step + 1 and not report_due:
        recent.restart_clock(step)  # the first step makes the graph
      recent.add(scalars)
      since_save.add(scalars)
      if report_due:
        on_report(recent.report(step, last))
        recent = _Means(step, batch_size)
      if step % schedule.save_images_steps == 0 or step == last:
        on_images(step)
      if step % schedule.save_checkpoint_steps == 0 or step == last:
        save(batch, since_save.means()["loss/total"])
        since_save = _Means(step, batch_size)
        saved = step
    if saved != step:
      save(batch)
  return Outcome(step, store.latest, caught[0] if caught else None)


class _Means:
  """Running means of scalars, and the time they took."""

  def __init__(self, step: int, batch_size: int):
    self._first_step = step
    self._batch_size = batch_size
    self._start = time.monotonic()
    self._scalars: list[Mapping[str, float]] = []

  def restart_clock(self, step: int) -> None:
    self._first_step = step
    self._start = time.monotonic()

  def add(self, scalars: Mapping[str, float]) -> None:
    self._scalars.append(scalars)

  def means(self) -> dict[str, float]:
    return {
      name: float(np.mean([scalars[name] for scalars in self._scalars]))
      for name in self._scalars[0]
    }

  def report(self, step: int, last_step: int) -> Report:
    seconds = max(time.monotonic() - self._start, 1e-9)
    num_steps = max(step - self._first_step, 1)
    return Report(
      step=step,
      means=self.means(),
      images_per_second=num_steps * self._batch_size / seconds,
      seconds_left=(last_step - step) * seconds / num_steps,
    )


def _check_finite(
  scalars: Mapping[str, float], step: int, store: checkpoints.CheckpointStore
) -> None:
  if all(math.isfinite(scalars[name]) for name in _VITAL):
    return
  if math.isfinite(scalars["loss/total"]) and (
    scalars.get("debug/loss_scale", 0.0) > loss_scaling.LossScale.MIN
  ):
    return  # gradients overflowed, and the next loss scale is smaller
  offending = ", ".join(
    f"{name} = {value}"
    for name, value in scalars.items()
    if not math.isfinite(value)
  )
  remedy = (
    f"the last good checkpoint is `{store.latest}`, go on from it with "
    f"`continue_run=True checkpoint_dir={store.folder}` and a lower "
    "`learn_rate`"
    if store.latest
    else "there is no checkpoint yet, start again with a lower `learn_rate`"
  )
  raise errors.UserError(
    f"the training diverged at step {step} ({offending}): {remedy}"
  )


@contextlib.contextmanager
def _catch_signals() -> Iterator[list[signal.Signals]]:
  """Collects the first SIGINT or SIGTERM; a second one acts as usual."""
  caught: list[signal.Signals] = []
  numbers = (signal.SIGINT, signal.SIGTERM)

  def catch(number: int, _: Any) -> None:
    caught.append(signal.Signals(number))
    for each, handler in previous.items():
      signal.signal(each, handler)

  previous = {number: signal.getsignal(number) for number in numbers}
  for number in numbers:
    signal.signal(number, catch)
  try:
    yield caught
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)
