"""Tests of the 14 refinement inputs against independent NumPy."""

import helpers
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from iodine import errors
from iodine.modules import (
  distributions,
  refinement_inputs,
  types,
  utils,
)

B, H, W, C, Z = 2, 4, 5, 3, 3
ALL = refinement_inputs.ALL
NAMES = {
  "image": (1, H, W, C),
  "log_prob": (1, H, W, 1),
  "mask": ("K", H, W, 1),
  "pred_mask": ("K", H, W, 1),
  "components": ("K", H, W, 2 * C),
  "dmask": ("K", H, W, 1),
  "dcomponents": ("K", H, W, 2 * C),
  "posterior": ("K", H, W, 1),
  "capacity": ("K", H, W, 1),
  "coordinates": (1, H, W, 8),
  "counterfactual": ("K", H, W, 1),
  "zp": ("K", 2 * Z),
  "dzp": ("K", 2 * Z),
  "flat_capacity": ("K", 1),
}
NORMALIZED = ["log_prob", "dmask", "dcomponents", "counterfactual", "dzp"]


def _tensors(num_components=3, seed=0):
  """The free tensors that an iteration's evidence is made of."""
  rng = np.random.default_rng(seed)
  k = num_components
  shapes = {
    "image": [B, 1, H, W, C],
    "pixel": [B, k, H, W, 2 * C],
    "mask": [B, k, H, W, 1],
    "zp": [B, k, 2 * Z],
    "dpixel": [B, k, H, W, 2 * C],
    "dmask": [B, k, H, W, 1],
    "dzp": [B, k, 2 * Z],
  }
  return {
    name: tf.constant(rng.normal(size=shape), tf.float32)
    for name, shape in shapes.items()
  }


def _evidence(tensors, mask_activation="tanh"):
  mixture = distributions.MaskedMixture(
    distributions.LocScaleDistribution(),
    mask_activation,
    tensors["mask"].shape[1],
  )
  params = types.MixtureParameters(tensors["pixel"], tensors["mask"])
  x_dist = mixture(*params)
  estimate = types.Estimate(
    zp=tensors["zp"],
    z_dist=None,
    z=tensors["zp"][..., :Z],
    params=params,
    x_dist=x_dist,
    scores=distributions.score(x_dist, tensors["image"]),
    kl=None,
    re=None,
  )
  return refinement_inputs.Evidence(
    image=tensors["image"],
    estimate=estimate,
    gradients=types.Gradients(
      tensors["dzp"], tensors["dpixel"], tensors["dmask"]
    ),
    coordinates=tf.constant(utils.coordinate_map("cos", H, W, order="wh")),
  )


def _make(tensors, mask_activation="tanh", **options):
  maker = refinement_inputs.RefinementInputMaker(**options)
  inputs = maker(_evidence(tensors, mask_activation))
  return {**inputs.spatial, **inputs.flat}


def _numpy_inputs(tensors, activation=np.tanh):
  """All inputs without layer norms, from the definitions."""
  t = {name: x.numpy().astype(float) for name, x in tensors.items()}
  num_components = t["mask"].shape[1]
  loc, raw = np.split(t["pixel"], 2, axis=-1)
  component = scipy.stats.norm(loc, np.exp(raw)).logpdf(t["image"])
  component = component.sum(-1, keepdims=True)  # [B, K, H, W, 1]
  logits = activation(t["mask"])

  def mixture(slots):
    weight = scipy.special.softmax(logits[:, slots], axis=1)
    log_joint = np.log(weight) + component[:, slots]
    return scipy.special.logsumexp(log_joint, axis=1, keepdims=True)

  every = list(range(num_components))
  log_prob = mixture(every)
  counterfactual = [
    log_prob - mixture([j for j in every if j != k])
    for k in every
    if num_components > 1
  ]
  density = np.exp(component)
  coordinates = utils.coordinate_map("cos", H, W, order="wh")
  return {
    "image": t["image"],
    "log_prob": log_prob,
    "mask": t["mask"],
    "pred_mask": scipy.special.softmax(logits, axis=1),
    "components": t["pixel"],
    "dmask": t["dmask"],
    "dcomponents": t["dpixel"],
    "posterior": density / (density.sum(1, keepdims=True) + 1e-6),
    "capacity": np.full(t["mask"].shape, 0.5),
    "coordinates": np.broadcast_to(coordinates, (B, 1, H, W, 8)),
    "counterfactual": np.concatenate(counterfactual or [log_prob], axis=1),
    "zp": t["zp"],
    "dzp": t["dzp"],
    "flat_capacity": np.full([B, num_components, 1], 0.5),
  }


def _layer_norm(x, gamma, beta):
  """Over all axes but the batch-and-slot one, eps 1e-5."""
  flat = x.reshape([x.shape[0] * x.shape[1], -1])
  expand = (x.shape[0], x.shape[1]) + (1,) * (x.ndim - 2)
  mean = flat.mean(1).reshape(expand)
  variance = flat.var(1).reshape(expand)
  return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def test_names_and_defaults_are_those_of_the_original():
  assert set(ALL) == set(NAMES) and len(ALL) == 14
  assert sorted(refinement_inputs.NORMALIZED) == sorted(NORMALIZED)


@pytest.mark.parametrize("num_components", [1, 2, 3, 5])
@pytest.mark.parametrize("activation", [None, "tanh"])
def test_every_input_against_numpy(num_components, activation):
  # What a slot adds to the others needs another one.
  names = set(NAMES) - ({"counterfactual"} if num_components == 1 else set())
  tensors = _tensors(num_components)
  actual = _make(tensors, activation, inputs=sorted(names), preprocess=[])
  expected = _numpy_inputs(tensors, np.tanh if activation else lambda x: x)
  assert set(actual) == names
  for name in names:
    shape = (B, *[num_components if n == "K" else n for n in NAMES[name]])
    assert actual[name].shape == shape, name
    # float32 log-sum-exp against float64 densities
    helpers.assert_near(actual[name], expected[name], 1e-5)


def test_posterior_vanishes_where_no_component_explains_the_pixel():
  tensors = _tensors()
  tensors["image"] += 1e4
  actual = _make(tensors, inputs=["posterior"])["posterior"]
  np.testing.assert_array_equal(actual, 0.0)  # 0 / (0 + 1e-6), not 0 / 0


def test_posterior_adds_1e_6_to_the_sum_of_densities():
  tensors = _tensors()
  tensors["image"] *= 5.0  # densities from 1e-30 to 1e-1
  actual = _make(tensors, inputs=["posterior"])["posterior"]
  total = np.sum(actual, axis=1)
  assert np.any((total > 0.1) & (total < 0.9))  # where it shows
  expected = _numpy_inputs(tensors)["posterior"]
  helpers.assert_near(actual, expected, 1e-5)  # float32 of exp


def test_counterfactual_needs_two_slots():
  with pytest.raises(ValueError, match="`num_components` of at least 2"):
    _make(_tensors(1))


@pytest.mark.parametrize("preprocess", [NORMALIZED, list(NAMES)])
def test_layer_norms_against_numpy(preprocess):
  tensors = _tensors()
  evidence = _evidence(tensors)
  maker = refinement_inputs.RefinementInputMaker(preprocess=preprocess)
  maker(evidence)
  for name, norm in maker.layer_norms.items():
    channels = NAMES[name][-1]
    assert norm.scale.shape == norm.offset.shape == (channels,), name
    np.testing.assert_array_equal(norm.scale, np.ones(channels))
    np.testing.assert_array_equal(norm.offset, np.zeros(channels))
  helpers.perturb(maker)
  inputs = maker(evidence)
  actual = {**inputs.spatial, **inputs.flat}
  for name, expected in _numpy_inputs(tensors).items():
    if name in preprocess:
      norm = maker.layer_norms[name]
      expected = _layer_norm(expected, norm.scale.numpy(), norm.offset.numpy())
    if "capacity" in name:
      # float32 rounding of 0.5 / sqrt(1e-5) = 158, which cancels
      np.testing.assert_allclose(actual[name], expected, 0, 4e-5)
    else:
      helpers.assert_near(actual[name], expected, 1e-5)  # float32 rounding


def test_layer_norm_epsilon_is_1e_5():
  tensors = _tensors()
  tensors["dzp"] *= 1e-4  # a variance of 1e-8, where epsilon rules
  actual = _make(tensors, inputs=["dzp"])["dzp"]
  expected = _layer_norm(tensors["dzp"].numpy().astype(float), 1.0, 0.0)
  assert np.abs(expected).max() < 0.2
  helpers.assert_near(actual, expected, 1e-5)  # float32 rounding


# What each of the inputs depends on.
SOURCES = {
  "log_prob": ("pixel", "mask"),
  "dmask": ("dmask",),
  "dcomponents": ("dpixel",),
  "counterfactual": ("pixel", "mask"),
  "dzp": ("dzp",),
  "posterior": ("pixel",),
  "components": ("pixel",),
  "zp": ("zp",),
  "mask": ("mask",),
  "pred_mask": ("mask",),
  "image": ("image",),
}


def _gradients(name, normalize, **options):
  tensors = _tensors()
  preprocess = [name] if normalize else []
  with tf.GradientTape() as tape:
    tape.watch(tensors)
    maker = refinement_inputs.RefinementInputMaker(
      inputs=[name], preprocess=preprocess, **options
    )
    inputs = maker(_evidence(tensors))
    (tensor,) = [*inputs.spatial.values(), *inputs.flat.values()]
    weight = np.random.default_rng(1).normal(size=tensor.shape)
    loss = tf.reduce_sum(tensor * tf.constant(weight, tf.float32))
  norms = [norm.trainable_variables for norm in maker.layer_norms.values()]
  return tape.gradient(loss, [tensors, sum(norms, ())])


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("name", sorted(SOURCES))
def test_gradients_flow_unless_stopped(name, normalize):
  gradients, _ = _gradients(name, normalize, stop_gradients=[])
  for source, gradient in gradients.items():
    if source in SOURCES[name]:
      assert np.all(np.isfinite(gradient)) and np.any(gradient), source
  others = set(gradients) - set(SOURCES[name]) - {"image"}
  assert all(gradients[source] is None for source in others)
  stopped, _ = _gradients(name, normalize, stop_gradients=[name])
  assert all(gradient is None for gradient in stopped.values())
  # As in the original.
  by_default, _ = _gradients(name, normalize)
  stopped = all(gradient is None for gradient in by_default.values())
  assert stopped == (name in NORMALIZED)


@pytest.mark.parametrize("name", NORMALIZED)
def test_scale_and_offset_are_trained_though_the_gradient_is_stopped(name):
  _, gradients = _gradients(name, normalize=True)
  assert len(gradients) == 2
  assert all(np.any(gradient) for gradient in gradients)


def squared_image(evidence):
  return evidence.image**2


def squared_zp(evidence):
  return evidence.estimate.zp**2


OWN = [f"{__name__}.squared_image", f"{__name__}.squared_zp"]


def test_inputs_of_ones_own_by_their_dotted_paths():
  tensors = _tensors()
  options = {"inputs": [*OWN, "zp"], "preprocess": [], "stop_gradients": []}
  maker = refinement_inputs.RefinementInputMaker(**options)
  inputs = maker(_evidence(tensors))
  assert list(inputs.spatial) == OWN[:1]
  assert list(inputs.flat) == ["zp", OWN[1]]
  np.testing.assert_array_equal(inputs.spatial[OWN[0]], tensors["image"] ** 2)
  np.testing.assert_array_equal(inputs.flat[OWN[1]], tensors["zp"] ** 2)


@pytest.mark.parametrize(
  "name", ["pixels", "os.nothing", "no.such.module", ".zp", "os"]
)
def test_names_of_nothing(name):
  with pytest.raises(errors.UserError, match="unknown refinement input"):
    refinement_inputs.RefinementInputMaker(inputs=["zp", name])
