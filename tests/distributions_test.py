"""Tests of the distributions against SciPy and the original."""

import json

import helpers
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from iodine.modules import distributions

tfd = tfp.distributions
LocScale = distributions.LocScaleDistribution

FAMILIES = {
  "normal": lambda m, s: scipy.stats.norm(m, s),
  "log_normal": lambda m, s: scipy.stats.lognorm(s, scale=np.exp(m)),
  "laplace": lambda m, s: scipy.stats.laplace(m, s),
  "logistic": lambda m, s: scipy.stats.logistic(m, s),
}
SCALES = {
  "stddev": lambda act: act,
  "var": np.sqrt,
  "prec": lambda act: 1.0 / act,
}


def _params(shape, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(scale=0.7, size=shape).astype(np.float32)


# ------------------------------------------------------------ location-scale


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("mode", [*SCALES, "fixed"])
def test_density_in_every_scale_mode(family, mode):
  is_fixed = mode == "fixed"
  params = _params([4, 3 if is_fixed else 6])
  x = np.abs(_params([4, 3], seed=1)) + 0.1
  options = {"scale_act": "softplus", "loc_act": "tanh", "scale_val": 0.3}
  dist = LocScale(family, scale=mode, **options)
  assert not dist.variables
  loc, raw = params[:, :3].astype(float), params[:, 3:].astype(float)
  scale = 0.3 if is_fixed else SCALES[mode](np.log1p(np.exp(raw)))
  reference = FAMILIES[family](np.tanh(loc), scale)
  actual = dist(tf.constant(params))
  assert actual.batch_shape == (4,) and actual.event_shape == (3,)
  expected = reference.logpdf(x).sum(axis=-1)
  np.testing.assert_allclose(actual.log_prob(x), expected, 1e-5)  # float32
  # float32 rounding of exp and softplus
  np.testing.assert_allclose(actual.mean(), reference.mean(), 1e-5, 1e-6)
  np.testing.assert_allclose(actual.stddev(), reference.std(), 1e-4)


@pytest.mark.parametrize("case", range(4))
def test_location_scale_as_in_the_original(units, case):
  kwargs = json.loads(str(units[f"locscale/{case}/kwargs"]))
  dist = LocScale(**kwargs)(tf.constant(units[f"locscale/{case}/params"]))
  log_prob = dist.log_prob(units[f"locscale/{case}/value"])
  helpers.assert_near(log_prob, units[f"locscale/{case}/log_prob"])
  helpers.assert_near(dist.mean(), units[f"locscale/{case}/mean"])


def test_distribution_class_and_its_arguments():
  dist = LocScale(tfd.StudentT, scale="fixed", dist_kwargs={"df": 3.0})
  x = _params([5, 2], seed=1)
  expected = scipy.stats.t(3.0).logpdf(x).sum(-1)
  actual = dist(tf.zeros([5, 2])).log_prob(x)
  np.testing.assert_allclose(actual, expected, 1e-5)  # float32 rounding


def test_learned_scale_is_one_trained_scalar_used_as_it_is():
  dist = LocScale("logistic", scale="fixed", scale_val=-1.0, scale_act="exp")
  (variable,) = dist.trainable_variables
  assert variable.shape == () and "scale" in variable.name
  np.testing.assert_allclose(variable, 0.1, 1e-7)  # float32 rounding
  loc, x = _params([4, 3]), _params([4, 3], seed=1)
  with tf.GradientTape() as tape:
    log_prob = tf.reduce_sum(dist(tf.constant(loc)).log_prob(x))
  reference = scipy.stats.logistic(loc.astype(float), 0.1).logpdf(x).sum()
  np.testing.assert_allclose(log_prob, reference, 1e-5)  # float32 rounding
  u = (x - loc).astype(float) / 0.1
  expected = ((u * np.tanh(u / 2) - 1) / 0.1).sum()
  actual = tape.gradient(log_prob, variable)
  np.testing.assert_allclose(actual, expected, 1e-5)  # float32 rounding


def test_default_prior_has_variance_ln_2():
  dist = LocScale(scale="var", scale_act="softplus")
  dist.set_output_shape([5])
  prior = dist.default_prior()
  assert prior.batch_shape == () and prior.event_shape == (5,)
  np.testing.assert_array_equal(prior.mean(), np.zeros(5))
  np.testing.assert_allclose(prior.variance(), np.log(2.0), 1e-6)  # float32


# ------------------------------------------------------------ samples


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("mode", ["var", "fixed"])
def test_replay_gives_the_value_and_the_gradient_of_the_draw(family, mode):
  dist = LocScale(family, scale=mode, scale_act="softplus", scale_val=0.4)
  params = tf.constant(_params([4, 5, 3 if mode == "fixed" else 6]))
  weights = _params([4, 5, 3], seed=2)

  def loss(z):
    return tf.reduce_sum(weights * z**2)

  with tf.GradientTape() as tape:
    tape.watch(params)
    drawn = dist(params).sample(seed=tf.constant([1, 2]))
    drawn_loss = loss(drawn)
  drawn_gradient = tape.gradient(drawn_loss, params)
  with tf.GradientTape() as tape:
    tape.watch(params)
    replayed = distributions.replay(dist(params), tf.constant(drawn.numpy()))
    replayed_loss = loss(replayed)
  gradient = tape.gradient(replayed_loss, params)
  helpers.assert_near(replayed, drawn, 1e-6)  # one float32 division and back
  helpers.assert_near(gradient, drawn_gradient, 1e-5)  # float32 rounding


def test_replay_of_a_learned_scale_reaches_the_scale():
  dist = LocScale(scale="fixed", scale_val=-1.0)
  value = tf.constant([[0.3, -0.2]])
  with tf.GradientTape() as tape:
    loss = tf.reduce_sum(distributions.replay(dist(tf.zeros([1, 2])), value))
  # d (0.1 n) / d 0.1 with the noise n = value / 0.1, float32 rounding
  np.testing.assert_allclose(tape.gradient(loss, dist.scale), 1.0, 1e-5)


# ------------------------------------------------------------ Bernoulli


def test_bernoulli_as_in_the_original(units):
  dist = distributions.BernoulliOutput()(tf.constant(units["bernoulli/params"]))
  helpers.assert_near(
    dist.log_prob(units["bernoulli/value"]), units["bernoulli/log_prob"]
  )


# ------------------------------------------------------------ mixture


def test_mixture_as_in_the_original(units):
  mixture = distributions.MaskedMixture(
    LocScale("logistic", scale="fixed", scale_val=0.1), num_components=4
  )
  x_dist = mixture(
    tf.constant(units["mixture/pixel"]), tf.constant(units["mixture/mask"])
  )
  log_prob = x_dist.log_prob(units["mixture/value"])
  helpers.assert_near(log_prob, units["mixture/log_prob"])
  helpers.assert_near(x_dist.mean(), units["mixture/mean"])


@pytest.mark.parametrize("activation", [None, "tanh"])
@pytest.mark.parametrize("num_components", [1, 2, 5])
def test_mixture_and_its_scores_against_scipy(activation, num_components):
  pixel = _params([2, num_components, 3, 4, 6])
  mask = 3.0 * _params([2, num_components, 3, 4, 1], seed=1)
  x = _params([2, 1, 3, 4, 3], seed=2)
  mixture = distributions.MaskedMixture(LocScale(), activation, num_components)
  x_dist = mixture(tf.constant(pixel), tf.constant(mask))
  assert x_dist.batch_shape == (2, 1, 3, 4) and x_dist.event_shape == (3,)
  scores = distributions.score(x_dist, tf.constant(x))

  loc, raw = np.split(pixel.astype(float), 2, axis=-1)
  component = scipy.stats.norm(loc, np.exp(raw)).logpdf(x).sum(-1)
  logits = np.tanh(mask) if activation else mask
  weight = helpers.log_softmax(logits[..., 0].astype(float), axis=1)
  log_prob = scipy.special.logsumexp(weight + component, axis=1)[:, None]
  mean = (np.exp(weight)[..., None] * loc).sum(1, keepdims=True)
  slots_last = [0, 2, 3, 1]
  helpers.assert_near(
    scores.component, component.transpose(slots_last)[:, None]
  )
  helpers.assert_near(scores.log_weight, weight.transpose(slots_last)[:, None])
  helpers.assert_near(scores.log_prob, log_prob)
  helpers.assert_near(x_dist.log_prob(x), log_prob)
  helpers.assert_near(x_dist.mean(), mean)
  probabilities = np.exp(weight)[..., None]
  rendering = distributions.render(x_dist)
  helpers.assert_near(rendering.masks, probabilities)
  helpers.assert_near(rendering.components, loc)
  helpers.assert_near(rendering.reconstruction, mean)
