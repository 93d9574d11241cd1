"""Tests of the factor regressor against NumPy."""

import helpers
import numpy as np
import pytest
import tensorflow as tf

from iodine import errors
from iodine.modules import factor_eval

B, K, L, H, W, Z = 3, 4, 5, 4, 4, 6
MAPPING = [
  ("position", 2, "scalar"),
  ("shape", 4, "categorical"),
  ("rotation", 2, "angle"),
  ("scale", 1, "scalar"),
]


def _batch(seed=0):
  """One batch as NumPy arrays; some entities are invisible."""
  rng = np.random.default_rng(seed)
  visibility = np.ones([B, L])
  visibility[0, 3:], visibility[2, 1] = 0.0, 0.0
  data = {
    "z": rng.normal(size=[B, K, Z]),
    "true_mask": np.round(rng.uniform(size=[B, L, H, W, 1])),
    "pred_mask": rng.uniform(size=[B, K, H, W, 1]),
    "visibility": visibility,
    "factors": {
      "position": rng.normal(size=[B, L, 2]),
      "shape": rng.integers(0, 4, [B, L, 1]),
      "rotation": rng.uniform(0, 6, [B, L, 1]),
      "scale": rng.normal(size=[B, L, 1]),
      "unused": rng.normal(size=[B, L, 7]),
    },
  }
  return tf.nest.map_structure(lambda x: x.astype(np.float32), data)


def _tensors(batch):
  return tf.nest.map_structure(tf.constant, batch)


def _regressor(mapping=MAPPING):
  regressor = factor_eval.FactorRegressor(mapping)
  regressor.initialize(Z)
  helpers.perturb(regressor)
  return regressor


def _expectation(regressor, batch, earlier=()):
  """Loss, metrics, predictions and assignment by plain loops."""
  weights = regressor.predict_latents.w.numpy().astype(float)
  outputs = batch["z"] @ weights + regressor.predict_latents.b.numpy()
  assignment = np.zeros([B, L, K])
  for b, i in np.ndindex(B, L):
    overlap = [
      (batch["true_mask"][b, i] * batch["pred_mask"][b, k]).sum()
      for k in range(K)
    ]
    if batch["visibility"][b, i]:
      assignment[b, i, np.argmax(overlap)] = 1.0
  num_visible = batch["visibility"].sum()
  entity_loss = np.zeros([B, L])
  predictions, metrics, start = {}, {}, 0
  for name, size, kind in regressor._mapping:
    values = batch["factors"][name].astype(float)
    output = outputs[..., start : start + size]
    start += size
    predictions[name] = np.zeros([B, L, size])
    hits, residual = 0.0, np.zeros([B, L, size])
    for b, i in np.ndindex(B, L):
      if not batch["visibility"][b, i]:
        continue
      y = output[b, assignment[b, i].argmax()]
      predictions[name][b, i] = y
      if kind == "categorical":
        label = int(values[b, i, 0])
        entity_loss[b, i] -= helpers.log_softmax(y)[label]
        hits += y.argmax() == label
      else:
        residual[b, i] = (_target(values[b, i], kind) - y) ** 2
        entity_loss[b, i] += residual[b, i].sum()
    if kind == "categorical":
      metrics[name] = hits / num_visible
    else:
      seen = [*earlier, batch]
      x = np.concatenate(
        [
          _target(s["factors"][name].astype(float), kind)[s["visibility"] > 0]
          for s in seen
        ]
      )
      metrics[name] = (1.0 - residual / x.var(axis=0, ddof=1)).mean()
  return entity_loss, metrics, predictions, assignment


def _target(values, kind):
  if kind == "angle":
    return np.concatenate([np.cos(values), np.sin(values)], axis=-1)
  return values


def _assert_as_expected(result, expected, num_visible):
  entity_loss, metrics, predictions, assignment = expected
  np.testing.assert_array_equal(result.assignment, assignment)
  helpers.assert_near(result.entity_loss, entity_loss)  # float32 sums
  helpers.assert_near(result.loss, entity_loss.sum() / num_visible)  # same
  assert set(result.metrics) == set(result.predictions) == set(metrics)
  for name, metric in metrics.items():
    np.testing.assert_allclose(result.metrics[name], metric, 1e-4)  # a variance
    helpers.assert_near(result.predictions[name], predictions[name])  # float32


def test_regressor_against_numpy():
  # The variance of R2 is that of all batches so far. An entity that is
  # invisible has a residual of 0, an R2 of 1.
  regressor, batches = _regressor(), [_batch(seed) for seed in range(3)]
  for i, batch in enumerate(batches):
    result = regressor(**_tensors(batch))
    expected = _expectation(regressor, batch, batches[:i])
    _assert_as_expected(result, expected, batch["visibility"].sum())


def test_without_update_nothing_changes_and_the_result_is_the_same():
  regressor, batch = _regressor(), _tensors(_batch())
  regressor(**_tensors(_batch(seed=1)))
  before = [v.numpy() for v in regressor.variables]
  dry = regressor(**batch, update=False)
  for variable, value in zip(regressor.variables, before, strict=True):
    np.testing.assert_array_equal(variable, value)
  real = regressor(**batch)
  tf.nest.map_structure(np.testing.assert_array_equal, dry, real)
  statistics = regressor.mean_var["scale"]
  assert np.any(statistics.mean != before[0]) and statistics.total[0] == 24


@pytest.mark.parametrize(
  "factor, sentence",
  [
    (("hue", 1, "scalar"), "`hue` of size 1, and the factors .*'scale'"),
    (("position", 3, "scalar"), "`position` of size 3"),
  ],
)
def test_factors_that_do_not_fit_the_data(factor, sentence):
  batch = _tensors(_batch())
  with pytest.raises(errors.UserError, match=sentence):
    factor_eval.FactorRegressor([factor])(**batch)


# ------------------------------------------------------------ Welford


def test_estimator_as_in_the_original(units):
  estimator = factor_eval.OnlineMeanVarEstimator()
  for i in range(4):
    mean, var, total = estimator(
      tf.constant(units["welford/x"][i]), tf.constant(units["welford/w"][i])
    )
    helpers.assert_near(mean, units["welford/mean"][i])
    helpers.assert_near(var, units["welford/var"][i])
    helpers.assert_near(total, units["welford/total"][i])


def test_estimator_ignores_batches_without_weight():
  estimator = factor_eval.OnlineMeanVarEstimator()
  x = tf.random.normal([3, 4, 2])
  estimator(x, tf.zeros([3, 4, 1]))  # 0 / 0 must not reach the mean
  np.testing.assert_array_equal(estimator.mean, [0.0, 0.0])
  mean, _, total = estimator(x, tf.ones([3, 4, 1]))
  helpers.assert_near(mean, np.mean(x, axis=(0, 1)), 1e-5)  # float32 sums
  np.testing.assert_array_equal(total, [12.0, 12.0])
