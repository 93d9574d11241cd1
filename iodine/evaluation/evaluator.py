"""Metrics over a whole data set, every scene once; `docs/evaluation.md`.

Dimensions: S seeds, N scenes, B batch, T iterations + 1, K slots, L true
entities.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine import errors, replicas
from iodine.evaluation import catalogue, scores
from iodine.modules import iodine

Data = dict[str, Any]


class Summary(NamedTuple):
  """One metric over all scenes.

  Attributes:
    mean: over the scenes, and over the seeds of sampling.
    standard_error: of that mean, from the scatter of the scenes; None for a
      single scene.
    standard_deviation: of the seeds' means over the scenes; None for a single
      seed.
  """

  mean: float
  standard_error: float | None
  standard_deviation: float | None = None

  def as_json(self) -> dict[str, float | None]:
    """Returns a dict, without a deviation for one seed; None for nan."""
    values = {
      name: value if value is not None and math.isfinite(value) else None
      for name, value in self._asdict().items()
    }
    if self.standard_deviation is None:
      del values["standard_deviation"]
    return values


class Evaluation(NamedTuple):
  """The metrics of one evaluation.

  Attributes:
    num_scenes: how many scenes they cover.
    metrics: of the final decode, by name, see `catalogue`. Those of factors
      are over visible objects only and over all scenes at once. The training
      scalars factor/<name> are others: they include the background, and R2
      counts invisible entities as 1 and takes the variance of all that was seen
      in training.
    per_iteration: the same, of the first decode and of that after each
      refinement; without those that the iterations have together (total).
    scenes: of the final decode, a value for every scene, averaged over seeds,
      of those metrics in which it says something.
    num_components: K.
    seeds: how often the latents were sampled.
    generalisation: the same scenes with other numbers of slots, if asked for.
    catalogue: what there is to say about `metrics`, in their order.
    left_out: sentences on what was not measured, and why.
  """

  num_scenes: int
  metrics: dict[str, Summary]
  per_iteration: dict[str, list[Summary]]
  scenes: dict[str, list[float]]
  num_components: int
  seeds: int = 1
  generalisation: tuple[Evaluation, ...] = ()
  catalogue: tuple[catalogue.Metric, ...] = ()
  left_out: tuple[str, ...] = ()

  @property
  def num_iters(self) -> int:
    """Returns the number of refinements."""
    return len(self.per_iteration["mse"]) - 1

  @property
  def main_metrics(self) -> list[str]:
    """Names of those in the tables with a row for each iteration."""
    return [metric.name for metric in self.catalogue if metric.main]

  def means(self) -> dict[str, np.ndarray]:
    """Returns the means of `per_iteration`, each [num_iters + 1]."""
    return {
      name: np.array([summary.mean for summary in summaries])
      for name, summaries in self.per_iteration.items()
    }

  def standard_errors(self) -> dict[str, np.ndarray]:
    """Returns the standard errors of `per_iteration`; nan for one scene."""
    return {
      name: np.array([s.standard_error for s in summaries], np.float64)
      for name, summaries in self.per_iteration.items()
    }

  def as_json(self) -> dict[str, Any]:
    """Returns a nested dict that the json module can write."""
    result = {
      "num_scenes": self.num_scenes,
      "num_components": self.num_components,
      "num_iters": self.num_iters,
      "seeds": self.seeds,
      **{name: value.as_json() for name, value in self.metrics.items()},
      "per_iteration": {
        name: [value.as_json() for value in values]
        for name, values in self.per_iteration.items()
      },
    }
    if self.generalisation:
      result["generalisation"] = [g.as_json() for g in self.generalisation]
    return result


def evaluate(
  model: iodine.IODINE,
  batches: Iterable[Data],
  batch_size: int,
  seed: int = 0,
  num_scenes: int | None = None,
  on_progress: Callable[[int], None] = lambda num_scenes: None,
  seeds: int = 1,
  metrics: Sequence[catalogue.Metric] = (),
  strategy: tf.distribute.Strategy | None = None,
) -> Evaluation:
  """Evaluates a model once: what an `Evaluator` of it gives.

  Args:
    model: see `Evaluator`, as batch_size and strategy.
    batches: see `Evaluator.__call__`, as all the others.
    batch_size: see there.
    seed: see there.
    num_scenes: see there.
    on_progress: see there.
    seeds: see there.
    metrics: see there.
    strategy: see there.

  Raises:
    errors.UserError: see there.
  """
  evaluator = Evaluator(model, batch_size, strategy)
  return evaluator(batches, seed, num_scenes, on_progress, seeds, metrics)


class Evaluator:
  """Evaluates a model as often as it is called, by a graph made once.

  The samples of a scene follow from the seed and its number, so that with a
  `refinement_batch_size` the result for a scene depends on no other and on no
  batch size, but for rounding. Without it the result depends on the batch size
  (see `IODINE.__call__`). A smaller batch is therefore filled up to the full
  size with copies of its first scene, which do not count. The state of the
  model does not change.
  """

  def __init__(
    self,
    model: iodine.IODINE,
    batch_size: int,
    strategy: tf.distribute.Strategy | None = None,
  ):
    """Prepares the graph, which the first call makes.

    Args:
      model: the model.
      batch_size: how many scenes are decomposed at a time.
      strategy: whose replicas share every batch; None for one device.

    Raises:
      errors.UserError: if a batch cannot be shared.
    """
    strategy = strategy or tf.distribute.get_strategy()
    replicas.check_batch_size(strategy, batch_size)
    self._num_components = model.num_components
    self._has_regressor = model.factor_evaluator is not None
    self._batch_size = batch_size
    self._score = tf.function(
      replicas.divided(strategy, functools.partial(scores.score_batch, model)),
      autograph=False,
    )

  def __call__(
    self,
    batches: Iterable[Data],
    seed: int = 0,
    num_scenes: int | None = None,
    on_progress: Callable[[int], None] = lambda num_scenes: None,
    seeds: int = 1,
    metrics: Sequence[catalogue.Metric] = (),
  ) -> Evaluation:
    """Evaluates the model as it is now on every scene exactly once.

    Args:
      batches: batches of at most batch_size scenes.
      seed: the latents are sampled from it.
      num_scenes: stop after so many; None for all.
      on_progress: called with the number of scenes done.
      seeds: how often the latents of a scene are sampled: from seed, seed + 1
        and so on.
      metrics: further ones beside the standard ones.

    Raises:
      errors.UserError: if there is no scene, or a metric gives no values for
        them or has the name of another.
    """
    results: list[list[scores.Arrays]] = []
    left_out: list[str] = []
    done = 0
    for batch in batches:
      size = batch["image"].shape[0]
      if num_scenes is not None:
        size = min(size, num_scenes - done)
      if size <= 0:
        break
      padded = pad(batch, self._batch_size)
      sampled = [
        self._score(padded, scene_seeds(seed + s, done, self._batch_size))
        for s in range(seeds)
      ]
      results.append([scores.to_numpy(result, size) for result in sampled])
      if not done:
        # What does not work should say so before the other batches.
        _measure(scores.join(results), metrics)
        of_films = bool(results[0][0]["frame"].any())
        left_out = self._left_out(batch, of_films)
      done += size
      on_progress(done)
    if not results:
      raise errors.UserError(
        "there is no scene to evaluate: give `data.path` a file with scenes, "
        "or widen `data.test` and the bounds on the number of objects"
      )
    result = _summarize_all(scores.join(results), self._num_components, metrics)
    return result._replace(left_out=tuple(left_out))

  def _left_out(self, batch: Data, of_films: bool) -> list[str]:
    """Returns what is not measured of such scenes, and why."""
    missing = [] if "mask" in batch else ["masks"]
    if self._has_regressor and not batch["factors"]:
      missing.append("factors")
    return [
      f"the scenes have no {truth}: left out are "
      + "; ".join(catalogue.left_out(truth, of_films))
      for truth in missing
    ]


def _measure(
  arrays: scores.Arrays, metrics: Sequence[catalogue.Metric]
) -> list[tuple[catalogue.Metric, np.ndarray]]:
  """Computes the standard metrics and others, whose names have to differ."""
  measured = catalogue.measure(arrays, (*catalogue.STANDARD, *metrics))
  names = [metric.name for metric, _ in measured]
  for name in names:
    if names.count(name) > 1:
      raise errors.UserError(
        f"there are two metrics `{name}`: give yours another name"
      )
  return measured


def _summarize_all(
  arrays: scores.Arrays,
  num_components: int,
  more: Sequence[catalogue.Metric],
) -> Evaluation:
  """Turns scores [S, N, ...] into means and errors."""
  metrics: dict[str, Summary] = {}
  per_iteration: dict[str, list[Summary]] = {}
  scenes: dict[str, list[float]] = {}
  measured = _measure(arrays, more)
  for metric, values in measured:
    if values.ndim == 2:
      metrics[metric.name] = _summarize(metric, values)
      continue
    steps = np.moveaxis(values, 2, 0)
    per_iteration[metric.name] = [_summarize(metric, step) for step in steps]
    metrics[metric.name] = per_iteration[metric.name][-1]
    if metric.of_scenes:
      scenes[metric.name] = steps[-1].mean(axis=0).tolist()
  seeds, num_scenes = arrays["mse"].shape[:2]
  return Evaluation(
    num_scenes,
    metrics,
    per_iteration,
    scenes,
    num_components,
    seeds,
    catalogue=tuple(metric for metric, _ in measured),
  )


def _summarize(metric: catalogue.Metric, values: np.ndarray) -> Summary:
  if metric.needs_objects:
    values = values[:, ~np.isnan(values).any(axis=0)]
  return summarize(values)


def summarize(values: np.ndarray) -> Summary:
  """Returns the mean and spread of one number per scene.

  Args:
    values: [N], or [S, N] for several seeds.
  """
  values = np.atleast_2d(np.asarray(values, np.float64))
  seeds, num_scenes = values.shape
  if not num_scenes:
    return Summary(math.nan, None)
  error, deviation = None, None
  if num_scenes > 1:
    error = values.mean(axis=0).std(ddof=1) / math.sqrt(num_scenes)
  if seeds > 1:
    deviation = values.mean(axis=1).std(ddof=1)
  return Summary(
    float(values.mean()),
    None if error is None else float(error),
    None if deviation is None else float(deviation),
  )


def scene_seeds(seed: int, first: int, size: int) -> tf.Tensor:
  """Returns seeds [size, 2] for the scenes from the number `first` on."""
  return tf.constant([[seed, first + i] for i in range(size)], tf.int64)


def pad(batch: Data, batch_size: int) -> Data:
  """Repeats the first scene of a batch until it has batch_size scenes."""
  missing = batch_size - batch["image"].shape[0]
  if not missing:
    return batch
  return tf.nest.map_structure(
    lambda x: tf.concat([x, tf.repeat(x[:1], missing, axis=0)], axis=0), batch
  )
