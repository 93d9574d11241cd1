"""Scores of every scene and iteration, in a graph and then in NumPy.

Dimensions: S seeds, N scenes, B batch, T iterations + 1, K slots, L true
entities, n values of a factor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import sonnet as snt
import tensorflow as tf

from iodine.modules import distributions, iodine, metrics, types, utils

Data = dict[str, Any]
Arrays = dict[str, np.ndarray]


def score_batch(
  model: iodine.IODINE, data: Data, seed: tf.Tensor
) -> dict[str, tf.Tensor]:
  """Decomposes a batch and scores it; the state of the model stays as it is.

  Args:
    model: the model.
    data: see `IODINE.__call__`.
    seed: of the samples, see `IODINE.__call__`.

  Returns:
    What `score` does.

  Raises:
    errors.UserError: if a sequential model gets too few frames, or the factors
      do not fit the regressor.
  """
  data = model.cut_frames(data)
  estimates, _ = model.encode(data["image"], seed=seed)
  return score(model, data, estimates)


def score(
  model: iodine.IODINE, data: Data, estimates: Sequence[types.Estimate]
) -> dict[str, tf.Tensor]:
  """Scores a batch that is encoded already.

  Args:
    model: the model.
    data: the batch, see `IODINE.cut_frames`.
    estimates: as `IODINE.encode` returns them.

  Returns:
    ari, ari_nobg, mse, recons, num_active_slots [B, T], kl/slot [B, T, K],
    contingency [B, T, L, K], total [B], and those of `_score_factors`; frame
    [B, T], the number of the frame that an iteration is compared with. Without
    masks there is no ari, ari_nobg and contingency. The
    background's slot comes first, see `utils.background_first`.

  Raises:
    errors.UserError: if the factors do not fit the regressor.
  """
  frames = [model.frame_index(t) for t in range(len(estimates))]
  image, true_mask = _frames(data["image"], frames)[:, None], None
  if "mask" in data:
    true_mask = _frames(data["mask"], frames)
  renderings = [distributions.render(e.x_dist) for e in estimates]
  order = utils.background_first(renderings[-1].masks)
  mask = _fold_all(utils.reorder(r.masks, order) for r in renderings)
  recons = _fold_all(r.reconstruction for r in renderings)
  folded = {
    **metrics.score(image, recons, true_mask, mask),
    "recons": _fold_all(e.re for e in estimates),
    "kl/slot": _fold_all(utils.reorder(e.kl, order) for e in estimates),
    "num_active_slots": metrics.num_active_groups(mask),
  }
  if true_mask is not None:
    folded["contingency"] = metrics.mask_contingency(true_mask, mask)
  if model.regresses(data):
    z = _fold_all(utils.reorder(e.z, order) for e in estimates)
    folded |= _score_factors(model, data, z, true_mask, mask)
  scores = {
    name: tf.reshape(value, [-1, len(estimates), *value.shape[1:]])
    for name, value in folded.items()
  }
  scores["frame"] = tf.ones_like(scores["mse"]) * frames
  # Without the regressor's loss, which is a mean over the batch.
  scores["total"] = tf.add_n(model.weighted_losses(estimates, tf.identity))
  return scores


def _frames(films: tf.Tensor, numbers: Sequence[int]) -> tf.Tensor:
  """Folds T frames of [B, ...] to [B * T, ...]."""
  return snt.merge_leading_dims(tf.gather(films, numbers, axis=1), 2)


def _fold_all(tensors: Iterable[tf.Tensor]) -> tf.Tensor:
  """Folds T tensors [B, ...] to [B * T, ...]."""
  return snt.merge_leading_dims(tf.stack(list(tensors), axis=1), 2)


def _score_factors(
  model: iodine.IODINE,
  data: Data,
  z: tf.Tensor,
  true_mask: tf.Tensor,
  mask: tf.Tensor,
) -> dict[str, tf.Tensor]:
  """Scores of the factor regressor, with N = B * T.

  Args:
    model: the model; its regressor's statistics stay as they are.
    data: the batch.
    z: [N, K, Z].
    true_mask: [N, L, H, W, 1].
    mask: [N, K, H, W, 1].

  Returns:
    factor [N]; objects [N, L], 1 for visible entities other than the
    background; summed over these, of categorical factors hits/<factor> [N], of
    the others squared errors residual/<factor> [N, n]; and of those
    target/<factor> [N, L, n].
  """
  regressor = model.factor_evaluator
  assert regressor is not None  # `IODINE.regresses` says so
  num_steps = z.shape[0] // data["visibility"].shape[0]
  visibility, factors = tf.nest.map_structure(
    lambda x: tf.repeat(x, num_steps, axis=0),
    (data["visibility"], data["factors"]),
  )
  result = regressor(z, true_mask, mask, visibility, factors, update=False)
  num_visible = tf.reduce_sum(visibility, axis=1)
  # The background has factors in the data, too, which are easy to tell.
  objects = visibility * (1.0 - tf.one_hot(0, visibility.shape[1]))
  scores = {
    "factor": tf.reduce_sum(result.entity_loss, axis=1) / num_visible,
    "objects": objects,
  }
  for factor, kind in regressor.kinds.items():
    target, output = result.targets[factor], result.predictions[factor]
    if kind == "categorical":
      right = tf.equal(tf.argmax(target, axis=-1), tf.argmax(output, axis=-1))
      hits = tf.cast(right, tf.float32) * objects
      scores[f"hits/{factor}"] = tf.reduce_sum(hits, axis=1)
    else:
      squares = tf.square(target - output) * objects[..., None]
      scores[f"residual/{factor}"] = tf.reduce_sum(squares, axis=1)
      scores[f"target/{factor}"] = target
  return scores


def to_numpy(sampled: Sequence[Mapping[str, tf.Tensor]], size: int) -> Arrays:
  """Returns the scores [S, B, ...] of the first scenes of a batch, in float64.

  Args:
    sampled: the scores of each seed.
    size: B, how many scenes count.
  """
  return tf.nest.map_structure(
    lambda *x: np.stack(x)[:, :size].astype(np.float64), *sampled
  )


def r2(
  residual: np.ndarray, target: np.ndarray, objects: np.ndarray
) -> np.ndarray:
  """Returns what every scene adds to R2, a mean over the values that vary.

  Args:
    residual: [S, N, T, n] squared errors, summed over the objects.
    target: [N, L, n].
    objects: [N, L], 1 for entities that count, 0 for the others.

  Returns:
    [S, N, T]; nan if no value varies.
  """
  weight = objects[..., None]
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
  """Returns what every scene adds to a quotient of sums over the scenes.

  The mean over the scenes is the quotient itself, and their standard error is
  that of the quotient to first order in the deviations (the ratio estimator of
  Cochran 1977, Sampling Techniques, chapter 6).

  Args:
    numerator: [S, N, T].
    denominator: [N].

  Returns:
    [S, N, T].
  """
  denominator = denominator[:, None]
  ratio = numerator.sum(axis=1, keepdims=True) / denominator.sum()
  return ratio + (numerator - ratio * denominator) / denominator.mean()
