"""The training step: a loss, its gradients and an update.

Source: section B.3 of the paper and the original's `main.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from iodine import optimizers, replicas
from iodine.modules import iodine, types

Data = dict[str, Any]

SKIPPED = "debug/skipped_updates"


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
  part: types.BatchPart | None = None,
) -> Gradients:
  """Returns the loss and its gradients.

  Arguments as for `train_step` and `IODINE.__call__`.
  """
  with tf.GradientTape() as tape:
    loss, scalars, iterations = model(data, z=z, seed=seed, part=part)
  gradients = tape.gradient(
    loss,
    model.trainable_variables,
    unconnected_gradients=tf.UnconnectedGradients.ZERO,
  )
  return Gradients(loss, scalars, iterations, gradients)


def train_step(
  model: iodine.IODINE,
  optimizer: types.Optimizer,
  data: Data,
  z: tf.Tensor | Sequence[tf.Tensor] | None = None,
  seed: tf.Tensor | None = None,
  run_seed: int | None = None,
  skip_nonfinite: bool = False,
  compute: Callable[..., Gradients] | None = None,
) -> dict[str, tf.Tensor]:
  """Updates every trainable variable once.

  With `skip_nonfinite` an update is left out whose loss or gradients are not
  finite. Of the model and the optimizer only `global_step` changes then.

  A replica of `tf.distribute` makes the update of the batch that all of them
  have together, see `replicas`.

  Args:
    model: the model.
    optimizer: its optimizer.
    data: a batch, see `IODINE.__call__`, or this replica's part of one; left
      unchanged.
    z: recorded samples to replay.
    seed: [2] integers to draw samples from.
    run_seed: instead of `seed`: samples follow from it and from the number of
      updates, so that a continued run draws what it would have drawn.
    skip_nonfinite: whether an update that is not finite is left out.
    compute: a compiled form of `compute_gradients`; None for itself.

  Returns:
    In float32, the model's scalars, debug/global_grad_norm (before clipping)
    and debug/learning_rate. With `skip_nonfinite`, debug/skipped_updates is 1
    for an update that was left out, and 0 for others.
  """
  if run_seed is not None:
    seed = tf.stack([tf.constant(run_seed, tf.int64), optimizer.global_step])
  statistics: list[tf.Variable] = []
  if skip_nonfinite:
    model.initialize(data["image"].shape[2:])
    # The model's call updates them.
    statistics = [v for v in model.variables if not v.trainable]
  before = [tf.identity(variable) for variable in statistics]
  step = (compute or compute_gradients)(
    model, data, z=z, seed=seed, part=replicas.batch_part(data)
  )
  loss, scalars, gradients = replicas.mean(
    (step.loss, step.scalars, step.gradients)
  )
  learning_rate = optimizer.learning_rate
  global_norm = optimizer.apply(
    gradients, model.trainable_variables, loss if skip_nonfinite else None
  )
  scalars = {
    **scalars,
    "debug/global_grad_norm": global_norm,
    "debug/learning_rate": learning_rate,
  }
  if skip_nonfinite:
    is_finite = optimizers.is_finite(loss, global_norm)
    for variable, value in zip(statistics, before, strict=True):
      variable.assign(tf.where(is_finite, variable, value))
    scalars[SKIPPED] = tf.logical_not(is_finite)
  # Of one type, so that the loop can read them together.
  return {name: tf.cast(value, tf.float32) for name, value in scalars.items()}


def compile_step(
  model: iodine.IODINE,
  optimizer: types.Optimizer,
  seed: int,
  jit_compile: bool = False,
  skip_nonfinite: bool = False,
  num_replicas: int = 1,
) -> Any:
  """Returns `train_step` as a function of the batch alone, run as a graph.

  The graph is made at the first call, or by `get_concrete_function(data)`; once
  for every batch shape, which `experimental_get_tracing_count()` counts. The
  scalars are tensors: to read one waits for the device.

  Of several replicas it is part of the graph that `compile_steps` makes.

  Args:
    model: the model.
    optimizer: its optimizer.
    seed: the run's, see `run_seed` of `train_step`.
    jit_compile: whether XLA compiles the graph. Its random numbers are others
      than TensorFlow's for the same seed.
    skip_nonfinite: see `train_step`.
    num_replicas: how many make the step together.
  """
  step = functools.partial(
    train_step,
    model,
    optimizer,
    run_seed=seed,
    skip_nonfinite=skip_nonfinite,
  )
  if num_replicas == 1:
    # Without AutoGraph, which has nothing to convert and takes its time. None
    # leaves XLA to TensorFlow, which compiles for TPUs.
    return tf.function(step, autograph=False, jit_compile=jit_compile or None)
  if jit_compile:
    # What waits for other devices is not for XLA.
    return functools.partial(step, compute=_compile_gradients())
  return step


def _compile_gradients() -> Callable[..., Gradients]:
  """Returns `compute_gradients` compiled by XLA, without the iterations."""

  def compute(*args: Any, **kwargs: Any) -> Gradients:
    # They hold distributions, which a graph cannot return.
    return compute_gradients(*args, **kwargs)._replace(iterations={})

  return tf.function(compute, autograph=False, jit_compile=True)


def steps_per_call(value: int | None) -> int:
  """Returns how many steps a call makes; None is as suits the device."""
  if value is not None:
    return value
  # On a CPU Python costs nothing beside a step.
  return 10 if tf.config.list_physical_devices("GPU") else 1


def compile_steps(
  step: Callable[[Data], dict[str, tf.Tensor]],
  strategy: tf.distribute.Strategy,
  expand: Callable[[Data], Data] = lambda data: data,
) -> tf.types.experimental.PolymorphicFunction:
  """Returns a function that makes several steps, run as one graph.

  Its arguments are an iterator of a `tf.data.Dataset`, or of one that the
  strategy distributes, and the number of steps, a scalar int32 tensor. It
  returns the scalars of `step`, each [number of steps]. The graph is the same
  for every number.

  Args:
    step: see `compile_step`.
    strategy: where it runs.
    expand: from what the iterator gives to the batch.
  """
  names: list[str] = []

  def steps(batches: Any, num_steps: tf.Tensor) -> dict[str, tf.Tensor]:
    def once(
      number: tf.Tensor, rows: tf.TensorArray
    ) -> tuple[tf.Tensor, tf.TensorArray]:
      data = strategy.run(expand, args=(next(batches),))
      scalars = strategy.run(step, args=(data,))
      names[:] = scalars
      # All replicas have the same.
      local = strategy.experimental_local_results
      row = tf.stack([local(value)[0] for value in scalars.values()])
      return number + 1, rows.write(number, row)

    _, rows = tf.while_loop(
      lambda number, _: number < num_steps,
      once,
      (0, tf.TensorArray(tf.float32, num_steps)),
      # A step needs what the one before it leaves.
      parallel_iterations=1,
    )
    columns = tf.ensure_shape(tf.transpose(rows.stack()), [len(names), None])
    return dict(zip(names, tf.unstack(columns), strict=True))

  return tf.function(steps, autograph=False)
