"""Segmentation scores.

Dimensions: B batch, N points (pixels), L true groups, K predicted groups, H W
image. Source: the original's `iodine/modules/utils.py`; Hubert & Arabie 1985
(adjusted Rand index); Arbelaez et al. 2011 and Engelcke et al. 2020, GENESIS,
arXiv:1907.13052 (segmentation covering).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.optimize
import shapeguard
import tensorflow as tf

from iodine import errors


def score(
  image: tf.Tensor,
  reconstruction: tf.Tensor,
  true_mask: tf.Tensor | None,
  pred_mask: tf.Tensor,
) -> dict[str, tf.Tensor]:
  """Scores the decomposition of images.

  Args:
    image: [B, 1, H, W, C].
    reconstruction: [B, 1, H, W, C].
    true_mask: [B, L, H, W, 1], entity 0 is the background; None where it is not
      known.
    pred_mask: [B, K, H, W, 1].

  Returns:
    Each [B]: mse, the mean squared error of the reconstruction; and, with a
    true mask, ari, the adjusted Rand index, and ari_nobg, the same without the
    background.
  """
  scores = {}
  if true_mask is not None:
    scores["ari"] = mask_ari(true_mask, pred_mask)
    scores["ari_nobg"] = mask_ari(true_mask, pred_mask, foreground=True)
  scores["mse"] = mean_squared_error(image, reconstruction)
  return scores


def adjusted_rand_index(
  true_groups: tf.Tensor, pred_groups: tf.Tensor
) -> tf.Tensor:
  """Returns the adjusted Rand index of two segmentations, chance-corrected.

  Points whose true membership is zero in every group are ignored. Where both
  sides put everything into one cluster, or every point into one of its own, the
  score is 1.

  Args:
    true_groups: [B, N, L] one-hot membership.
    pred_groups: [B, N, K] scores; a point belongs to the largest.

  Returns:
    [B] float32 scores, 1 for identical segmentations, 0 for chance.
  """
  counts = contingency(true_groups, pred_groups)
  if min(counts.shape[1:]) >= true_groups.shape[1]:
    raise errors.UserError(
      "the adjusted Rand index needs more points than groups: give larger "
      "images"
    )
  return ari_of_contingency(counts)


def ari_of_contingency(counts: tf.Tensor) -> tf.Tensor:
  """Maps [B, L, K] `contingency` tables -> [B] `adjusted_rand_index`.

  Tables of several images add up to that of all their points together.
  """
  true_sizes = tf.reduce_sum(counts, axis=2)
  pred_sizes = tf.reduce_sum(counts, axis=1)
  num_points = tf.reduce_sum(true_sizes, axis=1)

  # Ordered pairs of points that share a cluster on both sides, on one side,
  # and all of them.
  together = _num_pairs(counts, [1, 2])
  true_pairs = _num_pairs(true_sizes, [1])
  pred_pairs = _num_pairs(pred_sizes, [1])
  all_pairs = num_points * (num_points - 1.0)

  expected = tf.math.divide_no_nan(true_pairs * pred_pairs, all_pairs)
  largest = (true_pairs + pred_pairs) / 2.0
  index = tf.math.divide_no_nan(together - expected, largest - expected)
  single = (true_pairs >= all_pairs) & (pred_pairs >= all_pairs)
  scattered = (true_pairs <= 0.0) & (pred_pairs <= 0.0)
  return tf.where(single | scattered, tf.ones_like(index), index)


def contingency(true_groups: tf.Tensor, pred_groups: tf.Tensor) -> tf.Tensor:
  """Returns how many points every true group shares with every predicted one.

  Args:
    true_groups: [B, N, L] one-hot membership.
    pred_groups: [B, N, K] scores; a point belongs to the largest.

  Returns:
    [B, L, K] float32 counts.
  """
  sg = shapeguard.ShapeGuard()
  sg.guard(true_groups, "B, N, L")
  sg.guard(pred_groups, "B, N, K")
  predicted = tf.one_hot(tf.argmax(pred_groups, axis=-1), sg.K)
  return tf.einsum("bnl,bnk->blk", true_groups, predicted)


def mask_contingency(true_mask: tf.Tensor, pred_mask: tf.Tensor) -> tf.Tensor:
  """Maps masks [B, L, H, W, 1], [B, K, H, W, 1] -> `contingency` [B, L, K]."""
  return contingency(_to_points(true_mask), _to_points(pred_mask))


def mean_iou(counts: np.ndarray) -> float:
  """Averages the intersection over union of slots matched to entities.

  The matching maximises the sum (Hungarian algorithm). The mean runs over the
  true entities that are visible, the background among them; one without a
  slot counts as 0.

  Args:
    counts: [L, K] contingency table.

  Returns:
    A number from 0 to 1; nan where nothing is visible.
  """
  counts = np.asarray(counts, np.float64)
  iou = pairwise_iou(counts)[counts.sum(axis=1) > 0]
  if not len(iou):
    return float("nan")
  rows, columns = scipy.optimize.linear_sum_assignment(iou, maximize=True)
  return float(iou[rows, columns].sum() / len(iou))


class Covering(NamedTuple):
  """How well the predicted groups cover the true objects of one scene.

  Attributes:
    weighted: mean weighted by the objects' sizes, "SC" in GENESIS.
    unweighted: mean over the objects, "mSC" in GENESIS.
  """

  weighted: float
  unweighted: float


def segmentation_covering(counts: np.ndarray) -> Covering:
  """Averages the best intersection over union of the visible objects.

  Every object takes the predicted group that suits it best, whether or not
  another object takes the same. The background, true entity 0, does not count
  as an object, but its pixels do where a group spills over them.

  Args:
    counts: [L, K] contingency table.

  Returns:
    Two numbers from 0 to 1; nan where no object is visible.
  """
  counts = np.asarray(counts, np.float64)
  sizes = counts[1:].sum(axis=1)
  visible = sizes > 0
  if not visible.any():
    return Covering(float("nan"), float("nan"))
  best = pairwise_iou(counts)[1:].max(axis=1)[visible]
  return Covering(
    weighted=float(np.average(best, weights=sizes[visible])),
    unweighted=float(best.mean()),
  )


def pairwise_iou(counts: np.ndarray) -> np.ndarray:
  """Returns the intersection over union of every pair; 0 if both are empty.

  Args:
    counts: [..., L, K] contingency tables.

  Returns:
    [..., L, K].
  """
  sizes = counts.sum(axis=-1)[..., :, None], counts.sum(axis=-2)[..., None, :]
  union = sizes[0] + sizes[1] - counts
  return counts / np.maximum(union, 1.0)


def num_active_groups(pred_mask: tf.Tensor) -> tf.Tensor:
  """Returns how many groups are the largest one in at least one pixel.

  Args:
    pred_mask: [B, K, H, W, 1]; of equal ones the first is the largest.

  Returns:
    [B] float32.
  """
  sg = shapeguard.ShapeGuard()
  sg.guard(pred_mask, "B, K, H, W, 1")
  wins = tf.one_hot(tf.argmax(pred_mask, axis=1), sg.K)  # [B, H, W, 1, K]
  return tf.reduce_sum(tf.reduce_max(wins, axis=[1, 2, 3]), axis=-1)


def _num_pairs(sizes: tf.Tensor, axis: list[int]) -> tf.Tensor:
  return tf.reduce_sum(sizes * (sizes - 1.0), axis=axis)


def mask_ari(
  true_mask: tf.Tensor, pred_mask: tf.Tensor, foreground: bool = False
) -> tf.Tensor:
  """Returns the adjusted Rand index of masks.

  Args:
    true_mask: [B, L, H, W, 1], entity 0 is the background.
    pred_mask: [B, K, H, W, 1].
    foreground: leave the background out.

  Returns:
    [B] float32.
  """
  true_mask = true_mask[:, 1:] if foreground else true_mask
  return adjusted_rand_index(_to_points(true_mask), _to_points(pred_mask))


def _to_points(mask: tf.Tensor) -> tf.Tensor:
  """Maps [B, K, H, W, 1] -> [B, H * W, K]."""
  batch_size, num_groups, height, width, _ = mask.shape
  return tf.transpose(
    tf.reshape(mask, [batch_size, num_groups, height * width]), [0, 2, 1]
  )


def mean_squared_error(image: tf.Tensor, recons: tf.Tensor) -> tf.Tensor:
  """Maps [B, 1, H, W, C] twice -> [B] mean squared error."""
  sg = shapeguard.ShapeGuard()
  sg.guard(image, "B, 1, H, W, C")
  sg.guard(recons, "B, 1, H, W, C")
  return tf.reduce_mean(tf.square(image - recons), axis=[1, 2, 3, 4])
