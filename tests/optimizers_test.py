"""Tests of Adam in TF1's form against NumPy."""

import helpers
import numpy as np
import pytest
import sonnet as snt
import tensorflow as tf

from iodine import optimizers

# The bias corrections 1 - 0.999^t are float32 differences near 1, which costs
# four digits of the step; the variables themselves keep more.
STEP = 1e-4


def _gradients(num_steps, scale=1.0, seed=0):
  rng = np.random.default_rng(seed)
  return [
    [scale * rng.normal(size=s).astype(np.float32) for s in [(3, 2), (4,)]]
    for _ in range(num_steps)
  ]


def _variables():
  return [tf.Variable(tf.zeros([3, 2])), tf.Variable(tf.zeros([4]))]


def _run(adam, gradients, apply=None):
  """The variables after every step, and the norms."""
  variables, history, norms = _variables(), [], []
  apply = apply or adam.apply
  for gradient in gradients:
    norms.append(apply([tf.constant(g) for g in gradient], variables))
    history.append([v.numpy() for v in variables])
  return history, norms


def _numpy_adam(gradients, learning_rate, beta1, beta2, epsilon, max_norm=None):
  x = [np.zeros([3, 2]), np.zeros([4])]
  m, v = [0.0, 0.0], [0.0, 0.0]
  history = []
  for step, gradient in enumerate(gradients):
    gradient = [g.astype(float) for g in gradient]
    norm = np.sqrt(sum((g**2).sum() for g in gradient))
    if max_norm is not None and norm > max_norm:
      gradient = [g * max_norm / norm for g in gradient]
    t = step + 1
    rate = learning_rate(step) * np.sqrt(1 - beta2**t) / (1 - beta1**t)
    for i, g in enumerate(gradient):
      m[i] = beta1 * m[i] + (1 - beta1) * g
      v[i] = beta2 * v[i] + (1 - beta2) * g**2
      x[i] = x[i] - rate * m[i] / (np.sqrt(v[i]) + epsilon)
    history.append(list(x))
  return history


def _assert_same(actual, expected, relative=STEP):
  for a, b in zip(actual, expected, strict=True):
    for x, y in zip(a, b, strict=True):
      helpers.assert_near(x, y, relative)


@pytest.mark.parametrize("beta1, beta2", [(0.95, 0.999), (0.5, 0.9)])
@pytest.mark.parametrize("epsilon", [1e-8, 0.1])
def test_adam_against_numpy(beta1, beta2, epsilon):
  gradients = _gradients(6)
  adam = optimizers.Adam(0.01, beta1, beta2, epsilon)
  actual, _ = _run(adam, gradients)
  expected = _numpy_adam(gradients, lambda step: 0.01, beta1, beta2, epsilon)
  _assert_same(actual, expected)


def test_schedule_counts_the_steps_before_the_update():
  gradients = _gradients(6)
  schedule = optimizers.ExponentialDecay(0.01, decay_rate=0.3, decay_steps=2.0)
  adam = optimizers.Adam(schedule, 0.95)
  actual, _ = _run(adam, gradients)
  expected = _numpy_adam(
    gradients, lambda step: 0.01 * 0.3 ** (step / 2.0), 0.95, 0.999, 1e-8
  )
  _assert_same(actual, expected)
  np.testing.assert_allclose(adam.learning_rate, 0.01 * 0.3**3, 1e-6)  # float32


def test_without_hold_and_warm_up_the_rate_is_that_of_tf1_to_the_bit():
  schedule = optimizers.ExponentialDecay(3e-4, 0.1, 1e6)
  for step in [0, 1, 7, 999, 123_456, 1_000_000, 16_777_217]:
    number = tf.constant(step, tf.int64)
    exponent = tf.cast(number, tf.float32) / 1e6
    np.testing.assert_array_equal(
      schedule(number), 3e-4 * tf.pow(0.1, exponent)
    )


@pytest.mark.parametrize(
  "step, expected",
  [
    (0, 8e-4),
    (5_799, 8e-4),
    (5_800, 8e-4),
    (5_800 + 14_000, 8e-4 * 0.1**0.5),
    (5_800 + 28_000, 8e-5),
  ],
)
def test_the_rate_is_held_before_it_decays(step, expected):
  schedule = optimizers.ExponentialDecay(8e-4, 0.1, 28_000, hold_steps=5_800)
  actual = schedule(tf.constant(step, tf.int64))
  np.testing.assert_allclose(actual, expected, 1e-6)  # float32 rounding


def test_the_rate_rises_over_the_first_updates():
  schedule = optimizers.ExponentialDecay(1.0, 0.1, 10.0, warmup_steps=4)
  actual = [float(schedule(tf.constant(step, tf.int64))) for step in range(6)]
  rise = [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
  expected = [x * 0.1 ** (step / 10) for step, x in enumerate(rise)]
  np.testing.assert_allclose(actual, expected, 1e-6)  # float32 rounding


@pytest.mark.parametrize("max_norm", [0.5, 3.0, 1e3, None])
def test_clipping_and_the_norm_before_it(max_norm):
  # Norms that vary from step to step, so that clipping does not cancel.
  gradients = [
    [scale * g for g in step]
    for scale, step in zip([0.1, 5.0, 1.0, 2.0], _gradients(4), strict=True)
  ]
  adam = optimizers.Adam(0.01, 0.95, max_gradient_norm=max_norm)
  actual, norms = _run(adam, gradients)
  expected = _numpy_adam(
    gradients, lambda step: 0.01, 0.95, 0.999, 1e-8, max_norm
  )
  _assert_same(actual, expected)
  for norm, step in zip(norms, gradients, strict=True):
    before = np.sqrt(sum((g**2).sum() for g in step))
    np.testing.assert_allclose(norm, before, 1e-6)  # float32 sums


def test_epsilon_is_not_bias_corrected_unlike_in_other_adams():
  # With gradients of the size of epsilon it shows what epsilon is added to.
  gradients = _gradients(3, scale=1e-3)
  options = [0.01, 0.95, 0.999, 1e-3]
  ours, _ = _run(optimizers.Adam(*options), gradients)
  _assert_same(ours, _numpy_adam(gradients, lambda step: 0.01, *options[1:]))
  sonnet = snt.optimizers.Adam(*options)
  theirs, _ = _run(None, gradients, sonnet.apply)
  for a, b in zip(ours, theirs, strict=True):
    assert np.abs(a[0]).max() < 0.5 * np.abs(b[0]).max()


def test_the_step_size_follows_the_powers_and_not_global_step():
  # A released checkpoint has a global_step and no moments.
  gradients = _gradients(2)
  adam = optimizers.Adam(0.01, 0.95)
  adam.global_step.assign(250_000)
  actual, _ = _run(adam, gradients)
  expected = _numpy_adam(gradients, lambda step: 0.01, 0.95, 0.999, 1e-8)
  _assert_same(actual, expected)
