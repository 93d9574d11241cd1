"""Tests of the segmentation scores against counting by hand."""

import itertools

import helpers
import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf

from iodine.modules import metrics


def _one_hot(labels, depth):
  return tf.one_hot(labels, depth)  # -1 becomes all zero


def _ari(true_labels, pred_labels, num_true=4, num_pred=4):
  return metrics.adjusted_rand_index(
    _one_hot(np.atleast_2d(true_labels), num_true),
    _one_hot(np.atleast_2d(pred_labels), num_pred),
  ).numpy()


@pytest.mark.parametrize("case", ["a", "b"])
def test_ari_as_in_the_original(units, case):
  true, pred = units[f"ari/{case}/true"], units[f"ari/{case}/pred"]
  ari = metrics.adjusted_rand_index(tf.constant(true), tf.constant(pred))
  np.testing.assert_allclose(ari, units[f"ari/{case}/ari"], 0, 1e-5)  # of 1
  nobg = metrics.adjusted_rand_index(
    tf.constant(true[..., 1:]), tf.constant(pred)
  )
  expected = units[f"ari/{case}/ari_nobg"]
  np.testing.assert_allclose(nobg, expected, 0, 1e-5)  # of 1


def test_one_degenerate_scene_does_not_spoil_the_others():
  true_labels = np.stack([np.full(20, -1), np.repeat([0, 1], 10)])
  actual = _ari(true_labels, np.stack([true_labels[1]] * 2))
  np.testing.assert_allclose(actual, 1.0, 1e-6)  # float32 rounding


def test_ari_needs_more_points_than_groups():
  few = np.zeros([1, 4], int)
  with pytest.raises(ValueError, match="more points than groups"):
    _ari(few, few, 4, 5)
  assert _ari(few, few, 3, 5) == 1.0  # more points than true groups
  assert _ari(few, few, 5, 3) == 1.0  # more points than predicted groups


def _labels_to_masks(labels, depth):
  """[B, H, W] -> [B, depth, H, W, 1]."""
  masks = tf.transpose(tf.one_hot(labels, depth), [0, 3, 1, 2])
  return masks[..., None]


@pytest.mark.parametrize("foreground", [False, True])
def test_mask_ari(foreground):
  rng = np.random.default_rng(2)
  true_labels = rng.integers(0, 3, [2, 5, 6])
  pred_labels = np.where(true_labels == 2, 1, rng.integers(0, 4, [2, 5, 6]))
  actual = metrics.mask_ari(
    _labels_to_masks(true_labels, 3),
    _labels_to_masks(pred_labels, 4),
    foreground=foreground,
  )
  counts = true_labels > 0 if foreground else true_labels >= 0
  expected = [
    sklearn.metrics.adjusted_rand_score(t[c], p[c])
    for t, p, c in zip(true_labels, pred_labels, counts, strict=True)
  ]
  np.testing.assert_allclose(actual, expected, 0, 1e-6)  # float32 of counts


@pytest.mark.parametrize("num_true, num_pred", [(2, 3), (4, 4), (7, 2)])
@pytest.mark.parametrize("ignored", [0, 9])
def test_ari_agrees_with_scikit_learn(num_true, num_pred, ignored):
  rng = np.random.default_rng(num_true + ignored)
  true_labels = rng.integers(0, num_true, [6, 60])
  pred_labels = rng.integers(0, num_pred, [6, 60])
  copied = rng.uniform(size=[6, 60]) < np.linspace(0, 1, 6)[:, None]
  pred_labels = np.where(copied, true_labels % num_pred, pred_labels)
  true_labels[:, :ignored] = -1
  expected = [
    sklearn.metrics.adjusted_rand_score(t[t >= 0], p[t >= 0])
    for t, p in zip(true_labels, pred_labels, strict=True)
  ]
  actual = _ari(true_labels, pred_labels, num_true, num_pred)
  np.testing.assert_allclose(actual, expected, 0, 1e-6)  # float32 of counts


ONE, HALVES = np.zeros(20, int), np.repeat([0, 1], 10)
EACH = np.arange(20)
TWO_POINTS = np.where(EACH < 2, EACH, -1)  # the others do not count


@pytest.mark.parametrize(
  "true_labels, pred_labels",
  [
    (ONE, ONE),
    (ONE, HALVES),
    (HALVES, ONE),
    (HALVES, 1 - HALVES),
    (EACH, ONE),
    (ONE, EACH),
    (EACH, HALVES),
    (np.where(HALVES, HALVES, -1), HALVES),  # one cluster of what counts
    (np.where(HALVES, HALVES, -1), EACH),
    (TWO_POINTS, ONE),
    (TWO_POINTS, EACH % 3),  # both in a cluster of their own, on both sides
    (np.where(EACH < 1, 0, -1), HALVES),
    (np.full(20, -1), HALVES),
  ],
)
def test_ari_of_degenerate_cases_agrees_with_scikit_learn(
  true_labels, pred_labels
):
  keep = true_labels >= 0
  expected = sklearn.metrics.adjusted_rand_score(
    true_labels[keep], pred_labels[keep]
  )
  num_true, num_pred = true_labels.max() + 1, pred_labels.max() + 1
  actual = _ari(true_labels, pred_labels, max(num_true, 1), num_pred)
  np.testing.assert_allclose(actual, [expected], 0, 1e-6)  # float32 of counts


def test_contingency_counts():
  rng = np.random.default_rng(3)
  true_labels = rng.integers(-1, 3, [2, 5, 6])
  pred = rng.uniform(size=[2, 4, 5, 6, 1]).astype(np.float32)
  expected = np.zeros([2, 3, 4])
  for b, i, j in np.ndindex(2, 5, 6):
    if true_labels[b, i, j] >= 0:
      slot = pred[b, :, i, j, 0].argmax()
      expected[b, true_labels[b, i, j], slot] += 1
  true = _labels_to_masks(true_labels, 3)
  actual = metrics.mask_contingency(true, tf.constant(pred))
  np.testing.assert_array_equal(actual, expected)
  points = metrics.contingency(
    tf.one_hot(true_labels.reshape(2, 30), 3),
    tf.constant(pred[..., 0].reshape(2, 4, 30).transpose(0, 2, 1)),
  )
  np.testing.assert_array_equal(points, expected)


def _iou_by_permutations(counts):
  counts = counts[counts.sum(1) > 0]
  num_true, num_pred = counts.shape
  size = max(num_true, num_pred)
  best = 0.0
  for slots in itertools.permutations(range(size)):
    total = 0.0
    for entity in range(num_true):
      slot = slots[entity]
      if slot < num_pred:
        shared = counts[entity, slot]
        union = counts[entity].sum() + counts[:, slot].sum() - shared
        total += shared / union
    best = max(best, total)
  return best / num_true


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (5, 2), (1, 4), (4, 1)])
def test_mean_iou_tries_all_matchings(shape):
  rng = np.random.default_rng(sum(shape))
  for _ in range(5):
    counts = rng.integers(0, 9, shape)
    counts[0] += 1
    actual = metrics.mean_iou(counts)
    assert isinstance(actual, float)
    assert actual == pytest.approx(_iou_by_permutations(counts), abs=1e-12)


def test_mean_iou_leaves_invisible_entities_out():
  counts = np.array([[5, 0, 1], [0, 0, 0], [0, 4, 0]])
  assert metrics.mean_iou(counts) == metrics.mean_iou(counts[[0, 2]])


def _labels_to_counts(true_labels, pred_labels, num_true, num_pred):
  counts = np.zeros([num_true, num_pred])
  np.add.at(counts, (true_labels, pred_labels), 1)
  return counts


def test_segmentation_covering_by_hand():
  # Engelcke et al. 2020: IoU of pixel sets, best for each object, weighted by
  # the objects' sizes or not.
  rng = np.random.default_rng(0)
  for _ in range(10):
    true_labels = rng.choice([0, 1, 2, 4], [80])  # object 3 is invisible
    pred_labels = np.where(rng.uniform(size=80) < 0.5, true_labels, 2)
    sizes, best = [], []
    for entity in (1, 2, 4):
      true = true_labels == entity
      overlaps = []
      for slot in range(6):
        pred = pred_labels == slot
        overlaps.append((true & pred).sum() / max((true | pred).sum(), 1))
      sizes.append(true.sum())
      best.append(max(overlaps))
    counts = _labels_to_counts(true_labels, pred_labels, 5, 6)
    actual = metrics.segmentation_covering(counts)
    weighted = np.dot(sizes, best) / np.sum(sizes)
    assert actual.weighted == pytest.approx(weighted, abs=1e-12)  # float64
    assert actual.unweighted == pytest.approx(np.mean(best), abs=1e-12)


def test_segmentation_covering_of_simple_cases():
  perfect = np.diag([30, 4, 6])
  assert metrics.segmentation_covering(perfect) == (1.0, 1.0)
  # One slot for everything: an object's IoU is its share of the image.
  one = np.array([[5, 0], [1, 0], [4, 0]])
  covering = metrics.segmentation_covering(one)
  assert covering.unweighted == pytest.approx((0.1 + 0.4) / 2)
  assert covering.weighted == pytest.approx((1 * 0.1 + 4 * 0.4) / 5)
  # Two objects may take the same slot, unlike in the mean IoU.
  assert metrics.mean_iou(one) == pytest.approx(0.5 / 3)
  # The background does not count as an object.
  nothing = metrics.segmentation_covering(np.array([[7, 3], [0, 0]]))
  assert np.isnan(nothing).all()


def test_active_groups_win_at_least_one_pixel():
  mask = np.full([3, 4, 2, 3, 1], 0.25, np.float32)  # the first slot wins
  mask[1, 2, 0, 0] = 0.4
  mask[2, 1] = 0.3
  mask[2, 3, 1, 2] = 0.31
  np.testing.assert_array_equal(metrics.num_active_groups(mask), [1, 2, 2])


def test_mean_squared_error():
  image, recons = np.random.default_rng(4).uniform(size=[2, 3, 1, 4, 5, 2])
  actual = metrics.mean_squared_error(
    tf.constant(image, tf.float32), tf.constant(recons, tf.float32)
  )
  assert actual.shape == (3,)
  expected = ((image - recons) ** 2).reshape(3, -1).mean(1)
  helpers.assert_near(actual, expected, 1e-6)  # float32 sums
