"""Metrics over a whole data set, every scene once; `docs/evaluation.md`.

Dimensions: S seeds, N scenes, B batch, T iterations + 1, K slots, L true
entities.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine.evaluation import catalogue, decomposing
from iodine.evaluation import scores as scores_lib
from iodine.modules import iodine


def finite(value: float | None) -> float | None:
  """Returns None for what is not a number."""
  return value if value is not None and math.isfinite(value) else None


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
    values = {k: finite(value) for k, value in self._asdict().items()}
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

  def __repr__(self) -> str:
    means = [f"{k} {self.metrics[k].mean:.3g}" for k in self.main_metrics]
    return f"Evaluation of {self.num_scenes} scenes: {', '.join(means)}"

  def _repr_html_(self) -> str:
    from iodine.evaluation import tables  # which are of these

    return f"<pre>{html.escape(tables.final_table(self))}</pre>"

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
  batches: Iterable[decomposing.Data],
  batch_size: int,
  seed: int = 0,
  num_scenes: int | None = None,
  seeds: int = 1,
  metrics: Sequence[catalogue.Metric] = (),
  strategy: tf.distribute.Strategy | None = None,
  score: decomposing.Decompose | None = None,
) -> Evaluation:
  """Evaluates a model on every scene exactly once; its state stays as it is.

  Args:
    model: the model.
    batches: batches of at most batch_size scenes, see
      `decomposing.decompose_batches`.
    batch_size: how many scenes are decomposed at a time.
    seed: the latents are sampled from it.
    num_scenes: stop after so many; None for all.
    seeds: how often the latents of a scene are sampled: from seed, seed + 1
      and so on.
    metrics: further ones beside the standard ones.
    strategy: whose replicas share every batch; None for one device.
    score: `score_batch`, `compiled` before, for several evaluations with one
      graph.

  Raises:
    errors.UserError: if there is no scene, a batch cannot be shared, or a
      metric gives no values for the scenes or has the name of another.
  """
  score = score or decomposing.compiled(model, scores_lib.score_batch, strategy)
  metrics = (*catalogue.STANDARD, *metrics)
  results: list[scores_lib.Arrays] = []
  for numbers, decompose in decomposing.decompose_batches(
    score, batches, batch_size, num_scenes
  ):
    sampled = [decompose(seed + s) for s in range(seeds)]
    results.append(scores_lib.to_numpy(sampled, len(numbers)))
    if len(results) == 1:
      # What does not work should say so before the other batches.
      catalogue.measure(results[0], metrics)
  scores = tf.nest.map_structure(lambda *x: np.concatenate(x, 1), *results)
  return _summarize_all(scores, model, metrics)


def _summarize_all(
  scores: scores_lib.Arrays,
  model: iodine.IODINE,
  metrics: Sequence[catalogue.Metric],
) -> Evaluation:
  """Turns scores [S, N, ...] into means and errors."""
  summaries: dict[str, Summary] = {}
  per_iteration: dict[str, list[Summary]] = {}
  scenes: dict[str, list[float]] = {}
  measured = catalogue.measure(scores, metrics)
  for metric, values in measured:
    steps = np.moveaxis(np.atleast_3d(values), 2, 0)
    over_time = [summarize(step, metric.needs_objects) for step in steps]
    summaries[metric.name] = over_time[-1]
    if values.ndim == 3:
      per_iteration[metric.name] = over_time
      if metric.of_scenes:
        scenes[metric.name] = steps[-1].mean(axis=0).tolist()
  seeds, num_scenes = scores["mse"].shape[:2]
  return Evaluation(
    num_scenes,
    summaries,
    per_iteration,
    scenes,
    model.num_components,
    seeds,
    catalogue=tuple(metric for metric, _ in measured),
    left_out=catalogue.left_out(scores, model.factor_evaluator is not None),
  )


def summarize(values: np.ndarray, skips_nan: bool = False) -> Summary:
  """Returns the mean and spread of one number per scene.

  Args:
    values: [N], or [S, N] for several seeds.
    skips_nan: whether scenes with nan do not count.
  """
  values = np.atleast_2d(np.asarray(values, np.float64))
  if skips_nan:
    values = values[:, ~np.isnan(values).any(axis=0)]
  seeds, num_scenes = values.shape
  if not num_scenes:
    return Summary(math.nan, None)
  error, deviation = None, None
  if num_scenes > 1:
    error = float(values.mean(axis=0).std(ddof=1)) / math.sqrt(num_scenes)
  if seeds > 1:
    deviation = float(values.mean(axis=1).std(ddof=1))
  return Summary(float(values.mean()), error, deviation)
