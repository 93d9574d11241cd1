"""What becomes non-finite over the ranges of float32, and what must not.

The sweeps go forward and through both gradients: those that slots are refined
by, and those of training, which go through them a second time. The value of a
distribution may be one that float32 does not hold (a KL divergence of 1e60):
that is not an accident, and stands in `BEYOND_FLOAT32`. What has a value that
float32 holds is computed.
"""

import itertools
import types

import helpers
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from iodine import optimizers
from iodine.modules import distributions, refinement_inputs

LocScale = distributions.LocScaleDistribution

MAGNITUDES = [1e-38, 1e-10, 1e-3, 1, 20, 30, 87, 88, 100]
MAGNITUDES += [1e3, 1e4, 1e10, 1e18, 1e30, 3e38]
VALUES = np.array(
  sorted({0.0, *MAGNITUDES, *(-x for x in MAGNITUDES)}), np.float32
)
FAMILIES = ["normal", "log_normal", "laplace", "logistic"]
MODES = ["stddev", "var", "prec"]
ACTIVATIONS = ["softplus", "exp", "sigmoid"]

# Of the latents of the configs, normal with variance by softplus: from where on
# the KL divergence, loc^2 or the variance over twice 0.69, is beyond float32.
BEYOND_FLOAT32 = {"loc": 1e30, "raw": 3e38}


def values_from(low, high):
  return np.array([x for x in VALUES if low <= x <= high])


def orders(function, *inputs):
  """The value of a function with its first and its second gradients.

  Returns:
    {name: [N, values]}, of inputs and a function of N rows each.
  """
  with tf.GradientTape(persistent=True) as outer:
    outer.watch(inputs)
    with tf.GradientTape() as inner:
      inner.watch(inputs)
      value = function(*inputs)
    first = inner.gradient(value, inputs, unconnected_gradients="zero")
  found = {"value": [value], "first": first, "second": []}
  for gradient in first:
    found["second"] += outer.gradient(
      gradient, inputs, unconnected_gradients="zero"
    )
  rows = len(inputs[0])
  return {
    name: np.concatenate([np.reshape(x, [rows, -1]) for x in tensors], axis=1)
    for name, tensors in found.items()
  }


def finite_rows(found):
  return np.all([np.isfinite(x).all(1) for x in found.values()], axis=0)


def latents(loc, raw):
  return tf.constant(np.stack([loc, raw], axis=-1), tf.float32)


def latent_functions(dist, x=0.3):
  """What is computed of latents: sample, KL to the prior, density."""
  dist.set_output_shape([1])
  prior = dist.default_prior()
  seed = tf.constant([1, 2])
  return {
    "sample": lambda zp: dist(zp).sample(seed=seed)[:, 0],
    "kl": lambda zp: tfp.distributions.kl_divergence(dist(zp), prior),
    "log_prob": lambda zp: dist(zp).log_prob(tf.fill([len(zp), 1], x)),
  }


# ------------------------------------------------------------ latents


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["sample", "kl"])
def test_latents_with_a_variance_are_finite_everywhere(activation, name):
  function = latent_functions(LocScale(scale="var", scale_act=activation))[name]
  pairs = np.array(list(itertools.product(VALUES, VALUES)), np.float32)
  zp = latents(pairs[:, 0], pairs[:, 1])
  found = orders(function, zp)
  held = pairs[:, 1] < BEYOND_FLOAT32["raw"]
  if name == "kl":
    held &= np.abs(pairs[:, 0]) < BEYOND_FLOAT32["loc"]
  assert held.sum() > 0.8 * len(pairs)
  if activation == "exp":
    # The second gradient has a variance of e^87 and its square.
    found["second"][pairs[:, 1] >= 87] = 0.0
  wrong = pairs[held & ~finite_rows(found)]
  assert not len(wrong), wrong
  # And beyond float32 it is not hidden.
  if name == "kl":
    huge = np.abs(pairs[:, 0]) >= BEYOND_FLOAT32["loc"]
    assert not np.isfinite(found["value"][huge]).any()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_scale_is_finite_in_its_range(family, mode, activation):
  dist = LocScale(family, scale=mode, scale_act=activation)
  functions = latent_functions(dist)
  if family == "logistic":
    del functions["kl"]  # there is none
  # A log-normal sample is e to the power of one.
  top = 3.0 if family == "log_normal" else 20.0
  bottom = -3.0 if family == "log_normal" and mode == "prec" else -20.0
  inside = values_from(bottom, top)
  for name, function in functions.items():
    found = orders(function, latents(np.full_like(inside, 0.5), inside))
    wrong = inside[~finite_rows(found)]
    assert not len(wrong), (name, wrong)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("mode", MODES)
def test_the_scale_is_neither_0_nor_infinite(mode, activation):
  dist = LocScale(scale=mode, scale_act=activation)
  raw = values_from(-4e38, 1e38 if activation == "softplus" else 4e38)
  scale = dist(latents(np.zeros_like(raw), raw)).stddev()
  assert np.all(np.isfinite(scale)) and np.all(scale > 0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("mode", MODES)
def test_where_the_original_is_finite_nothing_changes(
  mode, activation, monkeypatch
):
  raw = np.linspace(-87, 87, 349, dtype=np.float32)
  zp = latents(np.linspace(-3, 3, 349, dtype=np.float32), raw)
  functions = latent_functions(LocScale(scale=mode, scale_act=activation))
  ours = {name: orders(f, zp) for name, f in functions.items()}
  monkeypatch.setattr(distributions, "_RAW_RANGES", {})
  for name, function in functions.items():
    for order, expected in orders(function, zp).items():
      np.testing.assert_array_equal(ours[name][order], expected, (name, order))


def test_a_scale_out_of_range_is_led_back():
  dist = LocScale(scale="var", scale_act="softplus")
  kl = latent_functions(dist)["kl"]
  raw = np.array([-80, -87, -100, -1e10], np.float32)
  found = orders(kl, latents(np.zeros(4), raw))
  # (ln ln 2 - ln softplus(raw) - 1) / 2, and its slope
  expected = (np.log(np.log(2)) - np.maximum(raw, -87) - 1) / 2
  np.testing.assert_allclose(found["value"][:, 0], expected, 1e-6)
  np.testing.assert_allclose(found["first"][:, 1], -0.5, 1e-6)
  # Of loc^2 / (2 ln 2) alone.
  expected = [[1 / np.log(2), 0]] * 4
  np.testing.assert_allclose(found["second"], expected, atol=1e-6)


def test_nan_is_not_hidden():
  zp = tf.constant([[np.nan, 0.0], [0.0, np.nan]])
  for activation in ACTIVATIONS:
    dist = LocScale(scale="var", scale_act=activation)
    for name, function in latent_functions(dist).items():
      assert np.all(np.isnan(function(zp))), (activation, name)


# ------------------------------------------------------------ pixels


def mixture_values(dist, pixel, mask, image):
  """All that is computed of a mixture of N pixels of one channel.

  Args:
    dist: of a pixel.
    pixel: [N, K, Cp].
    mask: [N, K].
    image: [N].

  Returns:
    {name: function of pixel and mask to [N, ...]}, inputs for `orders`.
  """
  mixture = distributions.MaskedMixture(dist, num_components=pixel.shape[1])
  x = tf.constant(image, tf.float32)[:, None, None, None, None]

  def evidence(pixel, mask):
    x_dist = mixture(pixel[:, :, None, None], mask[:, :, None, None, None])
    scores = distributions.score(x_dist, x)
    estimate = types.SimpleNamespace(scores=scores)
    return x_dist, refinement_inputs.Evidence(x, estimate, None, None)

  spatial = refinement_inputs.SPATIAL
  functions = {
    "render": lambda p, m: distributions.render(evidence(p, m)[0])[-1],
    **{
      name: lambda p, m, name=name: spatial[name](evidence(p, m)[1])
      for name in ("log_prob", "pred_mask", "posterior", "counterfactual")
    },
  }
  inputs = tf.constant(pixel, tf.float32), tf.constant(mask, tf.float32)
  return {name: orders(f, *inputs) for name, f in functions.items()}


def assert_all_finite(found, labels, held):
  for name, values in found.items():
    wrong = labels[held & ~finite_rows(values)]
    assert not len(wrong), (name, wrong)


FIXED = {
  "logistic": LocScale("logistic", scale="fixed", scale_val=0.03),
  "normal": LocScale("normal", scale="fixed", scale_val=0.03),
  "laplace": LocScale("laplace", scale="fixed", scale_val=0.03),
}
# Of a mean or an image: from where on a log-density, the distance in scales or
# its square, is beyond float32.
LARGEST = {"logistic": 1e30, "normal": 1e10, "laplace": 1e30}


@pytest.mark.parametrize("family", FIXED)
def test_mask_logits_are_finite_everywhere(family):
  pairs = np.array(list(itertools.product(VALUES, VALUES)), np.float32)
  mask = np.concatenate([pairs, np.zeros([len(pairs), 1])], axis=1)
  pixel = np.tile([0.0, 0.5, 1.0], [len(pairs), 1])[..., None]
  found = mixture_values(FIXED[family], pixel, mask, np.full(len(pairs), 0.3))
  # The difference of two of them, a log-probability, is beyond float32.
  held = np.abs(pairs).max(1) < 3e38
  assert_all_finite(found, pairs, held)


@pytest.mark.parametrize("swept", ["one mean", "all means", "image"])
@pytest.mark.parametrize("family", FIXED)
def test_means_and_images_are_finite_everywhere(family, swept):
  pixel = np.tile([0.0, 0.5, 1.0], [len(VALUES), 1])
  image = np.full(len(VALUES), 0.3)
  if swept == "image":
    image = VALUES
  else:
    pixel[:, : 1 if swept == "one mean" else 3] = VALUES[:, None]
  mask = np.tile([0.0, 1.0, -1.0], [len(VALUES), 1])
  found = mixture_values(FIXED[family], pixel[..., None], mask, image)
  assert_all_finite(found, VALUES, np.abs(VALUES) <= LARGEST[family])


@pytest.mark.parametrize("raw", [-10.0, -20.0, -40.0, -80.0])
def test_posterior_of_densities_beyond_float32(raw):
  # e^(-raw) per channel, and three of them.
  dist = LocScale("laplace", scale="stddev", scale_act="exp")
  mixture = distributions.MaskedMixture(dist, num_components=3)
  pixel = np.zeros([1, 3, 1, 1, 6], np.float32)
  pixel[0, :, ..., 3:] = raw
  pixel[0, 1, ..., 3:] = raw + 1
  pixel[0, 2, ..., :3] = 1.0
  scores = distributions.score(
    mixture(tf.constant(pixel), tf.zeros([1, 3, 1, 1, 1])),
    tf.zeros([1, 1, 1, 1, 3]),
  )
  evidence = refinement_inputs.Evidence(
    None, types.SimpleNamespace(scores=scores), None, None
  )
  actual = refinement_inputs.SPATIAL["posterior"](evidence)
  first = 1 / (1 + np.exp(-3))
  np.testing.assert_allclose(np.ravel(actual), [first, 1 - first, 0], atol=2e-5)


def test_posterior_is_as_it_was_to_the_bit_where_it_was_finite():
  rng = np.random.default_rng(0)
  component = rng.uniform(-200, 26, [5, 1, 4, 4, 3]).astype(np.float32)
  component[0] = -1e4
  estimate = types.SimpleNamespace(
    scores=types.SimpleNamespace(component=tf.constant(component))
  )
  evidence = refinement_inputs.Evidence(None, estimate, None, None)
  density = tf.exp(component)
  total = tf.reduce_sum(density, axis=-1, keepdims=True) + 1e-6
  np.testing.assert_array_equal(
    refinement_inputs.SPATIAL["posterior"](evidence),
    tf.transpose(density / total, [0, 4, 2, 3, 1]),
  )


# ------------------------------------------------------------ the model


@pytest.mark.parametrize("stop_gradients", [True, False])
@pytest.mark.parametrize("raw", [-87.5, -120.0, -1e4, 1e4])
@pytest.mark.parametrize("loc", [0.0, 100.0])
def test_refinement_that_ran_away_has_finite_gradients(
  loc, raw, stop_gradients
):
  # That lost the full-size model: its variances underflowed to 0.
  updates = {} if stop_gradients else {"model.stop_gradients": []}
  model = helpers.tiny_model({"num_iters": 1, **updates}, image_shape=(8, 8, 3))
  model.initial_sample_distribution.assign([loc] * 3 + [raw] * 3)
  with tf.GradientTape() as tape:
    loss, _, iterations = model(helpers.make_batch(), seed=tf.constant([0, 1]))
  gradients = tape.gradient(loss, model.trainable_variables)
  assert np.isfinite(loss)
  for inputs in iterations["inputs"]:
    for name, tensor in {**inputs.spatial, **inputs.flat}.items():
      assert np.all(np.isfinite(tensor)), name
  for gradient, variable in zip(
    gradients, model.trainable_variables, strict=True
  ):
    assert np.all(np.isfinite(gradient)), variable.name


# ------------------------------------------------------------ the optimizer


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e10, 1e19, 1e25, 1e37])
def test_the_norm_of_gradients_that_float32_holds(scale):
  gradients = [tf.fill([2, 2], scale), tf.fill([5], -scale)]
  norm = optimizers.global_norm(gradients)
  if scale == 1e-30:
    assert norm == 0  # the squares underflow, as in the original
  else:
    np.testing.assert_allclose(norm, 3 * scale, 1e-6)  # float32 rounding
  for bad in (np.inf, np.nan):
    with_bad = [*gradients, tf.constant([bad])]
    assert not np.isfinite(optimizers.global_norm(with_bad))


def test_gradients_with_squares_beyond_float32_are_clipped():
  variable = tf.Variable([0.0, 0.0])
  adam = optimizers.Adam(0.1, max_gradient_norm=5.0)
  norm = adam.apply([tf.constant([3e25, -4e25])], [variable])
  np.testing.assert_allclose(norm, 5e25, 1e-6)  # float32 rounding
  helpers.assert_near(adam.m[0], [0.3, -0.4], 1e-5)  # float32: 1 - 0.9
