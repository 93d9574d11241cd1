"""Scores of every scene and iteration, in a graph and then in NumPy.

Dimensions: S seeds, N scenes, B batch, T iterations + 1, K slots, L true
entities, n values of a factor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from iodine.modules import distributions, factor_eval, iodine, metrics, types

Data = dict[str, Any]
Arrays = dict[str, np.ndarray]

# What a scene without objects, or with nothing in it, has no value of.
NEED_OBJECTS = ("miou", "msc", "sc")


def score_batch(
  model: iodine.IODINE, data: Data, seed: tf.Tensor
) -> dict[str, tf.Tensor]:
  """Decomposes a batch and scores it; the state of the model stays as it is.

  Args:
    model: the model.
    data: see `IODINE.__call__`.
    seed: [2] integers from which all samples are drawn.

  Returns:
    total [B] and the rest [B, T, ...], see `_score_estimate`; with a regressor
    also visibility [B, L] and target/<factor> [B, L, n].
  """
  estimates, _ = model.encode(data["image"], seed=seed)
  steps = [
    _score_estimate(model, data, t, estimate)
    for t, estimate in enumerate(estimates)
  ]
  scores = {
    name: tf.stack([step[name] for step in steps], axis=1) for name in steps[0]
  }
  loss = scores["recons"] + tf.reduce_sum(scores["kl/slot"], axis=2)
  scores["total"] = tf.linalg.matvec(loss, tf.constant(model.iter_weights))
  if model.factor_evaluator is not None:
    scores["visibility"] = data["visibility"]
    targets = _evaluate_factors(model, data, 0, estimates[0]).targets
    for factor in _measured(model.factor_evaluator):
      scores[f"target/{factor}"] = targets[factor]
  return scores


def _score_estimate(
  model: iodine.IODINE, data: Data, t: int, estimate: types.Estimate
) -> dict[str, tf.Tensor]:
  """Scores of one iteration.

  Returns:
    ari, ari_nobg, mse, recons, num_active_slots, factor [B], kl/slot [B, K],
    contingency [B, L, K], hits/<factor> [B] of categorical factors and
    residual/<factor> [B, n], sums of squares, of the others.
  """
  mask = distributions.mask_probabilities(estimate.scores)
  frame = model.frame_index(t)
  true_mask = data["mask"][:, frame]
  image = data["image"][:, frame : frame + 1]
  scores = {
    "ari": metrics.mask_ari(true_mask, mask),
    "ari_nobg": metrics.mask_ari(true_mask, mask, foreground=True),
    "contingency": metrics.mask_contingency(true_mask, mask),
    "mse": metrics.mean_squared_error(image, estimate.x_dist.mean()),
    "recons": estimate.re,
    "kl/slot": estimate.kl,
    "num_active_slots": metrics.num_active_groups(mask),
  }
  if model.factor_evaluator is None:
    return scores
  visibility = data["visibility"]
  factors = _evaluate_factors(model, data, t, estimate)
  scores["factor"] = tf.reduce_sum(factors.entity_loss, axis=1) / tf.reduce_sum(
    visibility, axis=1
  )
  for factor, kind in model.factor_evaluator.kinds.items():
    target, output = factors.targets[factor], factors.predictions[factor]
    if kind == "categorical":
      right = tf.equal(tf.argmax(target, axis=-1), tf.argmax(output, axis=-1))
      hits = tf.cast(right, tf.float32) * visibility
      scores[f"hits/{factor}"] = tf.reduce_sum(hits, axis=1)
    else:
      squares = tf.square(target - output) * visibility[..., None]
      scores[f"residual/{factor}"] = tf.reduce_sum(squares, axis=1)
  return scores


def _evaluate_factors(
  model: iodine.IODINE, data: Data, t: int, estimate: types.Estimate
) -> types.FactorPredictions:
  mask = distributions.mask_probabilities(estimate.scores)
  return model.evaluate_factors(data, estimate.z, mask, frame=t, update=False)


def _measured(regressor: factor_eval.FactorRegressor) -> list[str]:
  """The factors that are no classes."""
  return [f for f, kind in regressor.kinds.items() if kind != "categorical"]


def to_numpy(scores: Mapping[str, tf.Tensor], size: int) -> Arrays:
  """The scores of the first `size` scenes, with mIoU and covering."""
  arrays = {name: value.numpy()[:size] for name, value in scores.items()}
  tables = arrays.pop("contingency")  # [B, T, L, K]
  shape = tables.shape[:2]
  arrays.update({name: np.empty(shape) for name in NEED_OBJECTS})
  for i in np.ndindex(*shape):
    covering = metrics.segmentation_covering(tables[i])
    arrays["miou"][i] = metrics.mean_iou(tables[i])
    arrays["msc"][i] = covering.unweighted
    arrays["sc"][i] = covering.weighted
  return arrays


def join(batches: Sequence[Sequence[Arrays]]) -> Arrays:
  """Scores [S, N, ...] from those of each batch and, within it, each seed."""
  return {
    name: np.stack(
      [
        np.concatenate([seeds[s][name] for seeds in batches])
        for s in range(len(batches[0]))
      ]
    )
    for name in batches[0][0]
  }


def per_iteration(scores: Arrays) -> Arrays:
  """Metrics [S, N, T], in the order of tables.

  Those of factors, accuracy/<factor> and r2/<factor>, are quotients of sums
  over all visible entities. A scene's value is what it adds to the quotient, so
  that the mean is the quotient itself, see `linearize`.

  Args:
    scores: [S, N, ...], see `join`.
  """
  slots = scores["kl/slot"]
  values = {name: scores[name] for name in ("ari", "ari_nobg", *NEED_OBJECTS)}
  values["mse"] = scores["mse"]
  values["recons"] = scores["recons"]
  values["kl"] = slots.sum(axis=-1)
  for k in range(slots.shape[-1]):
    values[f"kl/slot_{k + 1}"] = slots[..., k]
  values["num_active_slots"] = scores["num_active_slots"]
  if "factor" not in scores:
    return values
  values["factor"] = scores["factor"]
  visibility = scores["visibility"][0].astype(np.float64)  # of any seed
  for name, value in scores.items():
    kind, _, factor = name.partition("/")
    if kind == "hits":
      values[f"accuracy/{factor}"] = linearize(value, visibility.sum(axis=1))
    elif kind == "residual":
      target = scores[f"target/{factor}"][0]
      values[f"r2/{factor}"] = _r2(value, target, visibility)
  return values


def _r2(
  residual: np.ndarray, target: np.ndarray, visibility: np.ndarray
) -> np.ndarray:
  """What every scene adds to R2, a mean over the values that vary.

  Args:
    residual: [S, N, T, n] squared errors, summed over visible entities.
    target: [N, L, n].
    visibility: [N, L].

  Returns:
    [S, N, T]; nan if no value varies.
  """
  target, weight = target.astype(np.float64), visibility[..., None]
  mean = (weight * target).sum(axis=(0, 1)) / weight.sum()
  squares = (weight * (target - mean) ** 2).sum(axis=1)  # [N, n]
  # Of a value that is the same everywhere only rounding is left.
  varies = squares.sum(axis=0) > 1e-12 * weight.sum() * mean**2
  if not varies.any():
    return np.full(residual.shape[:3], np.nan)
  unexplained = [
    linearize(residual[..., i], squares[:, i]) for i in np.flatnonzero(varies)
  ]
  return 1.0 - np.mean(unexplained, axis=0)


def linearize(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  """What every scene adds to a quotient of sums over the scenes.

  The mean over the scenes is the quotient itself, and their standard error is
  that of the quotient to first order in the deviations (the ratio estimator of
  Cochran 1977, Sampling Techniques, chapter 6).

  Args:
    numerator: [S, N, T].
    denominator: [N].

  Returns:
    [S, N, T].
  """
  numerator = numerator.astype(np.float64)
  denominator = denominator[:, None]
  ratio = numerator.sum(axis=1, keepdims=True) / denominator.sum()
  return ratio + (numerator - ratio * denominator) / denominator.mean()
