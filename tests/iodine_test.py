"""Tests of the whole model, tiny and on random scenes."""

import itertools

import helpers
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

import main
from iodine import building, errors, evaluation
from iodine.drawing import palette
from iodine.modules import (
  distributions,
  factor_eval,
  metrics,
  refinement_inputs,
  utils,
)
from iodine.modules import iterations as iterations_lib

SEED = tf.constant([3, 4])
B, K, T = 2, 3, 3
SMOOTH = {"output_dist.component_dist.scale_val": 0.5}


def build(replace=None):
  """A tiny model; those of the same shapes have the same weights."""
  tf.random.set_seed(0)
  tiny = helpers.tiny_model(replace=replace, image_shape=(8, 8, 3))
  helpers.perturb(tiny)
  return tiny


@pytest.fixture(scope="module")
def model():
  """The model that most tests share; none of them changes its weights."""
  return build()


@pytest.fixture(scope="module")
def data():
  return helpers.make_batch()


@pytest.fixture(scope="module")
def outcome(model, data):
  return model(data, seed=SEED)


def _gradients(model, data, seed=SEED):
  with tf.GradientTape() as tape:
    loss, _, _ = model(data, seed=seed)
  return loss, tape.gradient(loss, model.trainable_variables)


def _numpy(tensor):
  return np.asarray(tensor).astype(float)


# ------------------------------------------------------------ the loss


@pytest.mark.parametrize(
  "kind, expected",
  [
    ("linspace", [0.0, 0.5, 1.0]),
    (0.25, [0.25] * 3),
    (2, [2.0] * 3),
    ([3, 0.0, 1.5], [3.0, 0.0, 1.5]),
  ],
)
def test_loss_is_assembled_from_the_iterations(kind, expected, data):
  tiny = helpers.tiny_model(replace={"iter_loss_weight": kind})
  np.testing.assert_allclose(tiny.iter_weights, expected)
  loss, scalars, iterations = tiny(data)
  re = [_numpy(re).mean() for re in iterations["re"]]
  kl = [_numpy(kl).sum(1).mean() for kl in iterations["kl"]]
  recons = np.dot(expected, re)
  total = recons + np.dot(expected, kl) + scalars["factor/loss"]
  # float32 sums
  np.testing.assert_allclose(scalars["loss/recons"], recons, 1e-5)
  np.testing.assert_allclose(scalars["loss/kl"], sum(kl), 1e-5)  # unweighted
  np.testing.assert_allclose(loss, total, 1e-5)
  np.testing.assert_array_equal(scalars["loss/total"], loss)


ENCODER, PIXEL_DECODER = "refinement_core.encoder_net", "decoder.pixel_decoder"


@pytest.mark.parametrize(
  "path, value, sentence",
  [
    ("kl_weight", -0.1, "`model.kl_weight` is -0.1: give a number, at least 0"),
    ("refinement_batch_size", 0, "`model.refinement_batch_size` is 0"),
    ("inputs", [], "`model.inputs` is .*not empty"),
    ("iter_loss_weight", [0, 1], "has 2 entries, and `num_iters` 2 needs 3"),
    ("decoder", 5, "`model.decoder` is 5: give a part"),
    (f"{PIXEL_DECODER}.cnn_opt", {"a": 1}, "`cnn_opt.output_channels` is None"),
    (f"{ENCODER}.mlp_opt", {"a": 1}, "`mlp_opt.a` is not an argument"),
    ("refinement_core.refinement_head", None, "types.Head` describes"),
    ("output_dist.num_components", 4, "3 for the model and 4 for"),
    ("output_dist.component_dist.scale_val", 0, "above 0, or -1.0 for"),
    ("latent_dist.dist_kwargs", {"a": 1}, "`dist_kwargs.a` is not an argument"),
    ("factor_evaluator.mapping", [["x", 1, "angle"]], "an angle of size 2"),
  ],
)
def test_wrong_arguments_are_found_where_parts_are_built(path, value, sentence):
  config = helpers.tiny_config(replace={path: value})["model"]
  with pytest.raises(errors.UserError, match=sentence):
    building.build(config, "model")


def test_more_than_the_memory_holds_is_a_sentence():
  tiny = helpers.tiny_model({"num_components": 1_000_000})
  with pytest.raises(
    errors.UserError, match="1000000 .* GB of memory at least"
  ):
    tiny.initialize((128, 128, 3))
  assert not hasattr(tiny.decoder.pixel_decoder, "conv_net")  # nor any graph


def test_output_dist_need_not_be_told_the_number_of_slots():
  config = helpers.tiny_config()["model"]
  del config["output_dist"]["num_components"]
  assert building.build(config).output_dist.num_components == K


@pytest.mark.parametrize("weight", [0, 0.2, 3.0])
def test_the_kl_weight_counts_in_training_refinement_and_evaluation(
  weight, model, data, outcome
):
  weighted = build({"kl_weight": weight})
  loss, scalars, iterations = weighted(data, seed=SEED, update=False)
  re = [_numpy(re).mean() for re in iterations["re"]]
  kl = [_numpy(kl).sum(1).mean() for kl in iterations["kl"]]
  total = np.dot([0.0, 0.5, 1.0], np.add(re, np.multiply(weight, kl)))
  np.testing.assert_allclose(loss - scalars["factor/loss"], total, 1e-5)
  np.testing.assert_allclose(scalars["loss/kl"], sum(kl), 1e-5)  # unweighted

  # The gradient that refines differs by that of the KL, times weight - 1.
  zp, z = (outcome[2][name][0] for name in ("zp", "z"))
  source = iterations_lib.Source(z=z)
  with tf.GradientTape() as tape:
    tape.watch(zp)
    divergence = weighted.latent_dist(zp).kl_divergence(
      weighted.latent_dist.default_prior()
    )
    mean_kl = tf.reduce_sum(divergence) / B
  kl_gradient = tape.gradient(mean_kl, zp)

  frame = data["image"][:, :1]
  heavy, plain = (
    m._estimate_with_gradients(zp, frame, source, None)
    for m in (weighted, model)
  )
  np.testing.assert_allclose(
    heavy[1].zp - plain[1].zp,
    (weight - 1.0) * kl_gradient,
    atol=1e-4,  # what float32 leaves of a difference of larger gradients
  )
  scores = evaluation.score_batch(weighted, data, SEED)
  np.testing.assert_allclose(np.mean(scores["total"]), total, 1e-5)


def test_every_estimate_follows_from_its_latent_parameters(
  outcome, model, data
):
  _, _, iterations = outcome
  image = _numpy(data["image"])
  for t in range(T):
    zp, z = _numpy(iterations["zp"][t]), iterations["z"][t]
    mean, var = zp[..., :3], np.log1p(np.exp(zp[..., 3:]))
    ratio = var / np.log(2)  # the prior has variance ln 2
    kl = 0.5 * (ratio + mean**2 / np.log(2) - 1 - np.log(ratio)).sum(-1)
    helpers.assert_near(iterations["kl"][t], kl)  # float32 logarithms
    noise = (_numpy(z) - mean) / np.sqrt(var)
    assert np.abs(noise).max() < 5 and noise.std() > 0.3
    capacity = tf.fill([B, K, 1], 5.0)
    params = model.decoder(tf.concat([z, capacity], axis=-1))
    helpers.assert_near(params.pixel, iterations["params"][t].pixel)  # same
    pixel, mask = _numpy(params.pixel), _numpy(params.mask)
    component = scipy.stats.logistic(pixel, 0.03).logpdf(image).sum(-1)
    weight = helpers.log_softmax(mask[..., 0], axis=1)
    log_prob = scipy.special.logsumexp(component + weight, axis=1)
    # float32 of differences divided by 0.03
    helpers.assert_near(iterations["re"][t], -log_prob.sum((1, 2)))
  first = iterations["zp"][0]
  expected = np.broadcast_to(model.initial_sample_distribution, (B, K, 6))
  np.testing.assert_array_equal(first, expected)
  assert np.abs(iterations["zp"][1] - first).max() > 1e-3


def test_scalars(outcome, data):
  _, scalars, iterations = outcome
  recons = _numpy(iterations["x_dist"][-1].mean())
  mse = ((_numpy(data["image"]) - recons) ** 2).mean()
  np.testing.assert_allclose(scalars["loss/mse"], mse, 1e-5)  # float32 sums
  mask = iterations["params"][-1].mask
  for name, foreground in [("loss/ari", False), ("loss/ari_nobg", True)]:
    ari = metrics.mask_ari(data["mask"][:, 0], mask, foreground)
    np.testing.assert_allclose(scalars[name], np.mean(ari), 1e-6)  # float32


def test_data_is_left_unchanged(model):
  data = helpers.make_batch(frames=5)
  shallow = {**data, "factors": dict(data["factors"])}
  values = tf.nest.map_structure(lambda x: x.numpy(), data)
  model(data), model.eval(data, update=False)
  assert set(data) == set(shallow)
  assert all(data[key] is shallow[key] for key in data if key != "factors")
  assert data["factors"] == shallow["factors"]
  tf.nest.map_structure(np.testing.assert_array_equal, data, values)


# ------------------------------------------------------------ gradients


def test_refinement_gradients_are_those_of_the_mean_loss(data):
  tiny = helpers.tiny_model(
    replace={**SMOOTH, "preprocess": []}, image_shape=(8, 8, 3)
  )
  helpers.perturb(tiny)
  _, _, iterations = tiny(data, seed=SEED)
  image = _numpy(data["image"])
  for t in range(T - 1):
    inputs = iterations["inputs"][t]
    params = iterations["params"][t]
    pixel, mask = _numpy(params.pixel), _numpy(params.mask)
    component = (
      scipy.stats.logistic(pixel, 0.5).logpdf(image).sum(-1)[..., None]
    )
    weight = scipy.special.softmax(mask, axis=1)
    share = scipy.special.softmax(component + np.log(weight), axis=1)
    dmask = -(share - weight) / B
    dpixel = -share * np.tanh((image - pixel) / (2 * 0.5)) / 0.5 / B
    helpers.assert_near(inputs.spatial["dmask"], dmask)  # float32 softmax
    helpers.assert_near(inputs.spatial["dcomponents"], dpixel)  # float32 tanh

    zp = iterations["zp"][t]  # a constant here: nothing flows further back
    loc, raw = zp[..., :3], zp[..., 3:]
    noise = (iterations["z"][t] - loc) / tf.sqrt(tf.nn.softplus(raw))
    with tf.GradientTape() as tape:
      tape.watch(zp)
      z_dist = tiny.latent_dist(zp)
      z = z_dist.distribution.loc + z_dist.distribution.scale * noise
      _, x_dist = tiny.decode(z)
      kl = z_dist.kl_divergence(tiny.latent_dist.default_prior())
      loss = tf.reduce_sum(kl) - tf.reduce_sum(x_dist.log_prob(data["image"]))
    expected = tape.gradient(loss, zp) / B
    helpers.assert_near(inputs.flat["dzp"], expected)  # float32 sums


@pytest.mark.parametrize("stop", [[], refinement_inputs.NORMALIZED])
def test_training_gradient_against_differences(stop):
  # With the noise held fixed the loss is a plain function of the weights;
  # without stopped gradients its derivative includes second ones.
  data = helpers.make_batch(size=(6, 6))
  tiny = helpers.tiny_model(
    {"model.factor_evaluator": None}, {**SMOOTH, "stop_gradients": stop}
  )
  tiny.initialize((6, 6, 3))
  helpers.perturb(tiny, stddev=0.3)
  _, gradients = _gradients(tiny, data)
  direction = [g / tf.linalg.global_norm(gradients) for g in gradients]

  def loss_at(step):
    for variable, d in zip(tiny.trainable_variables, direction, strict=True):
      variable.assign_add(step * d)
    return float(tiny(data, seed=SEED)[0])

  step = 2e-3
  slope = (-loss_at(-step) + loss_at(2 * step)) / (2 * step)
  exact = float(tf.linalg.global_norm(gradients))
  # Third order in the step, and float32 of the loss over the step; what is
  # stopped is a larger part of the slope.
  assert (abs(slope / exact - 1) < 0.01) == (not stop), (slope, exact)


def test_factor_loss_trains_the_regressor_only(model, data):
  with tf.GradientTape() as tape:
    _, scalars, _ = model(data, seed=SEED)
  gradients = tape.gradient(scalars["factor/loss"], model.trainable_variables)
  own = {v.ref() for v in model.factor_evaluator.trainable_variables}
  for variable, gradient in zip(
    model.trainable_variables, gradients, strict=True
  ):
    assert (gradient is not None) == (variable.ref() in own), variable.name


# ------------------------------------------------------------ samples


def test_seeds_fix_all_samples(model, data, outcome):
  loss, _, iterations = outcome
  again, _, _ = model(data, seed=SEED)
  np.testing.assert_array_equal(again, loss)
  other, _, _ = model(data, seed=tf.constant([3, 5]))
  assert abs(other - loss) > 1e-3
  first, second = (
    (z - d.mean()) / d.stddev()
    for z, d in list(zip(iterations["z"], iterations["z_dist"], strict=True))[
      :2
    ]
  )
  assert np.abs(first - second).max() > 0.1  # iterations draw afresh
  free = [model(data)[0] for _ in range(2)]
  assert free[0] != free[1]


# ------------------------------------------------------------ variables


def test_initialize_creates_every_variable(data):
  created, used = helpers.tiny_model(), helpers.tiny_model()
  created.initialize((8, 8, 3))
  used(data)
  first, second = (
    sorted((v.name, v.shape.as_list()) for v in tiny.variables)
    for tiny in (created, used)
  )
  assert first == second


def test_initial_latent_parameters_are_glorot_uniform():
  tiny = helpers.tiny_model({"n_z": 1000})
  values = tiny.initial_sample_distribution.numpy()
  limit = np.sqrt(6 / (2 * 2000))
  assert values.shape == (2000,) and np.abs(values).max() <= limit
  # The standard error at 2000 values is 1 %.
  np.testing.assert_allclose(values.std(), limit / np.sqrt(3), 0.05)


@pytest.mark.parametrize(
  "name, shape, count",
  [
    ("clevr6", (128, 128, 3), 1_178_403),
    ("multi_dsprites", (64, 64, 3), 339_356),
    ("tetrominoes", (35, 35, 3), 200_393),
  ],
)
def test_number_of_trained_parameters_is_that_of_the_original(
  name, shape, count
):
  paper = building.build(main.get_config((name,))["model"])
  paper.initialize(shape)
  sizes = [v.shape.num_elements() for v in paper.trainable_variables]
  assert sum(sizes) == count


# ------------------------------------------------------------ graph and shape


@pytest.mark.parametrize("replayed", [False, True])
def test_gradients_of_refinements_that_share_a_graph(data, replayed):
  tiny = helpers.tiny_model({"num_iters": 3}, image_shape=(8, 8, 3))
  estimates, _ = tiny.encode(data["image"], seed=SEED)
  z = tf.stack([e.z for e in estimates]) if replayed else None
  seed = None if replayed else SEED
  decodes = []
  decode = tiny.decode

  def count(latents):
    decodes.append(latents)
    return decode(latents)

  tiny.decode = count

  def gradients(data):
    with tf.GradientTape() as tape:
      loss = tiny(data, z=z, seed=seed)[0]
    return tape.gradient(loss, tiny.trainable_variables)

  expected = gradients(data)
  assert len(decodes) == 4
  compiled = tf.function(gradients, autograph=False)
  actual = compiled(data)
  # The three refinements are traced once, and the last estimate.
  assert len(decodes) == 4 + 2
  for x, y in zip(actual, expected, strict=True):
    helpers.assert_near(x, y, 1e-4)  # float32, fused otherwise


def test_samples_of_the_global_state_differ_in_a_graph(data):
  tiny = helpers.tiny_model({"num_iters": 3}, image_shape=(8, 8, 3))
  tf.random.set_seed(0)
  compiled = tf.function(
    lambda data: [
      (e.z - e.z_dist.mean()) / e.z_dist.stddev()
      for e in tiny.encode(data["image"])[0]
    ],
    autograph=False,
  )
  noise = [x.numpy() for x in compiled(data)]
  for x, y in itertools.combinations(noise, 2):
    assert np.abs(x - y).max() > 0.1


def test_batch_and_image_sizes_in_a_row(model, data, outcome):
  for batch_size, size in [(3, (8, 8)), (1, (8, 8)), (2, (6, 9))]:
    batch = helpers.make_batch(batch_size, size)
    loss, _, iterations = model(batch)
    assert np.isfinite(loss)
    assert iterations["x_dist"][-1].mean().shape == (batch_size, 1, *size, 3)
  again, _, _ = model(data, seed=SEED)
  np.testing.assert_allclose(again - outcome[0], 0, atol=1e-3)  # of hundreds


DECONV = {
  "constructor": "iodine.modules.networks.DeConv",
  "cnn_opt": {
    "output_channels": [4, None],
    "kernel_shapes": [3],
    "strides": [2],
    "activation": "elu",
  },
  "mlp_opt": {"output_sizes": [2 * 2 * 3], "activation": "elu"},
}
BERNOULLI = {"constructor": "iodine.modules.distributions.BernoulliOutput"}
MLP = {"output_sizes": [5], "activation": "elu"}
COMPONENT = "output_dist.component_dist"
DECODER = "decoder.pixel_decoder"
VARIANTS = {
  "no regressor": ({"model.factor_evaluator": None}, {}, {}),
  "flatten": ({"model.refinement_core.encoder_net.mode": "flatten"}, {}, {}),
  "no encoder mlp": ({}, {"refinement_core.encoder_net.mlp_opt": None}, {}),
  "cos decoder": ({}, {f"{DECODER}.coord_type": "cos"}, {}),
  "no coordinates": ({}, {f"{DECODER}.coord_type": None}, {}),
  "no refinement coordinates": ({}, {"coord_type": None}, {}),
  "linear coordinates": ({"model.coord_type": "linear"}, {}, {}),
  "decoder mlp": ({}, {f"{DECODER}.mlp_opt": MLP}, {}),
  "bernoulli": ({}, {COMPONENT: BERNOULLI}, {"channels": 1, "binary": True}),
  "deconv": ({}, {DECODER: DECONV}, {"size": (5, 6)}),
  "two lstm": (
    {"num_iters": 2},
    {"refinement_core.recurrent_net.hidden_sizes": [4, 3]},
    {},
  ),
  "mask activation": ({}, {"output_dist.mask_activation": "tanh"}, {}),
  "learned scale": ({}, {f"{COMPONENT}.scale_val": -1.0}, {}),
  "predicted scale": ({}, {f"{COMPONENT}.scale": "stddev"}, {}),
  "log-normal latents": ({}, {"latent_dist.dist": "log_normal"}, {}),
  "stddev of latents": ({}, {"latent_dist.scale": "stddev"}, {}),
  "all normalised": ({}, {"preprocess": refinement_inputs.ALL}, {}),
  "flat inputs": (
    {"model.refinement_core.recurrent_net.hidden_sizes": [4]},
    {"inputs": ["zp", "dzp"]},
    {},
  ),
  "spatial inputs": ({}, {"inputs": ["image", "dmask"]}, {}),
}


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_every_variant_trains(variant):
  updates, replace, batch = VARIANTS[variant]
  data = helpers.make_batch(**{"size": (6, 6), **batch})
  tiny = helpers.tiny_model({"num_iters": 1, **updates}, replace)
  tiny.initialize(data["image"].shape[2:])
  created = {v.ref() for v in tiny.variables}
  loss, gradients = _gradients(tiny, data)
  assert {v.ref() for v in tiny.variables} == created
  assert np.isfinite(loss)
  for variable, gradient in zip(
    tiny.trainable_variables, gradients, strict=True
  ):
    assert gradient is not None, variable.name
    assert np.all(np.isfinite(gradient)), variable.name
  info = utils.flatten_dict(tiny.eval(data, seed=SEED))
  expected = data["image"][:, 0].shape
  assert info["outputs/recons"][:, -1, 0].shape == expected
  regressor = "factor_regressor/assignment" in info
  assert regressor == (variant != "no regressor")


def test_one_slot_and_no_iteration(data):
  names = [x for x in refinement_inputs.ALL if x != "counterfactual"]
  single = helpers.tiny_model({"num_components": 1}, {"inputs": names})
  assert np.isfinite(single(data)[0])
  unrefined = helpers.tiny_model({"num_iters": 0})
  loss, scalars, iterations = unrefined(data)
  np.testing.assert_array_equal(loss, scalars["factor/loss"])  # weight 0
  assert len(iterations["z"]) == 1 and iterations["inputs"] == []
  assert unrefined.eval(data)["inputs"] == {"flat": {}, "spatial": {}}


# ------------------------------------------------------------ frames


def test_iteration_t_of_a_sequential_model_sees_frame_t():
  data = helpers.make_batch(frames=5)
  tiny = helpers.tiny_model({"model.sequential": True})
  loss, scalars, iterations = tiny(data, seed=SEED)
  for t, inputs in enumerate(iterations["inputs"]):
    np.testing.assert_array_equal(
      inputs.spatial["image"], data["image"][:, t : t + 1]
    )
  recons = iterations["x_dist"][-1].mean()
  mse = np.mean((data["image"][:, 2:3] - recons) ** 2)
  np.testing.assert_allclose(scalars["loss/mse"], mse, 1e-5)  # float32 sums
  cut = {**data, "image": data["image"][:, :3], "mask": data["mask"][:, :3]}
  info = tiny.eval(cut, seed=SEED)
  np.testing.assert_allclose(info["losses"]["total"], loss, 1e-5)  # float32
  mask = info["outputs"]["pred_mask"]
  for t in range(T):
    for name, foreground in [("ari", False), ("ari_nobg", True)]:
      ari = metrics.mask_ari(data["mask"][:, t], mask[:, t], foreground)
      np.testing.assert_array_equal(info["metrics"][name][:, t], ari)
    actual = info["factor_regressor"]["assignment"][:, t]
    visibility = data["visibility"]
    expected = factor_eval.assign_slots(
      data["mask"][:, t], mask[:, t], visibility
    )
    np.testing.assert_array_equal(actual, expected)
  last = tiny.evaluate_factors(data, iterations["z"][2], mask[:, 2])
  np.testing.assert_array_equal(last.assignment, actual)
  too_few = {**data, "image": data["image"][:, :2], "mask": data["mask"][:, :2]}
  for use in (tiny, tiny.eval, tiny.get_overview_images):
    with pytest.raises(ValueError, match="needs 3 frames, and the data has 2"):
      use(too_few)


@pytest.mark.parametrize("num_iters", [0, 3])
@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("seed", [[1, 2], [[1, 2], [3, 4]]])
def test_the_last_estimate_is_that_of_encode(num_iters, sequential, seed):
  model = helpers.tiny_model(
    {"model.sequential": sequential, "num_iters": num_iters}
  )
  images = tf.random.stateless_uniform([2, 4, 8, 8, 3], [0, 1])
  seed = tf.constant(seed)
  (*_, expected), _ = model.encode(images, seed=seed)

  def last():
    return _numbers(model.last_estimate(images, seed))

  for function in (last, tf.function(last)):
    for value, number in zip(function(), _numbers(expected), strict=True):
      helpers.assert_near(value, number)


def _numbers(estimate):
  return [estimate.zp, estimate.z, estimate.re, *estimate.params]


def test_other_models_see_frame_0(model):
  data = helpers.make_batch(frames=5)
  first = {**data, "image": data["image"][:, :1], "mask": data["mask"][:, :1]}
  _, scalars, iterations = model(data, seed=SEED)
  _, expected, _ = model(first, seed=SEED)
  for name in ("loss/recons", "loss/kl", "loss/mse"):
    np.testing.assert_allclose(scalars[name], expected[name], 1e-5)  # float32
  # As in the original the ARI is that of the last frame after the cut.
  mask = iterations["params"][-1].mask
  ari = metrics.mask_ari(data["mask"][:, 2], mask)
  np.testing.assert_allclose(scalars["loss/ari"], np.mean(ari), 1e-6)  # float32


# ------------------------------------------------------------ inspection


def test_only_eval_with_update_counts_once_per_iteration(data):
  tiny = helpers.tiny_model(image_shape=(8, 8, 3))
  total = tiny.factor_evaluator.mean_var["color"].total
  num_visible = np.sum(data["visibility"])
  tiny.eval(data, update=False)
  assert total[0] == 0
  tiny(data)
  assert total[0] == num_visible
  tiny.eval(data)
  assert total[0] == (1 + 1 + T) * num_visible


def test_factors_need_a_regressor(data):
  without = helpers.tiny_model({"model.factor_evaluator": None})
  with pytest.raises(ValueError, match="no `factor_evaluator`"):
    without.evaluate_factors(data, None, None)


def test_images(model, data):
  model.initialize((8, 8, 3))
  sheet = model.get_sample_images(seed=SEED)
  assert sheet.shape == (1, 4 * 12, 4 * 12, 3)
  assert model.get_sample_images(5).shape == (1, 2 * 12, 4 * 12, 3)
  again = model.get_sample_images(seed=SEED)
  np.testing.assert_array_equal(again, sheet)
  batch, options = helpers.make_batch(6), {"mask_components": False}
  images = model.get_overview_images(batch, 3, seed=SEED, **options)
  assert images["overview"].shape == (1, 3 * 12, (3 + K) * 12, 3)
  for image in [sheet, *images.values()]:
    assert np.min(image) >= 0.0 and np.max(image) <= 1.0


def test_the_background_comes_first_in_images(model):
  batch = helpers.make_batch(4)
  images = model.get_overview_images(batch, seed=SEED)
  estimates, _ = model.encode(batch["image"], seed=SEED)
  last = distributions.render(estimates[-1].x_dist)
  orders = [helpers.background_first(mask) for mask in last.masks]
  assert any(order != sorted(order) for order in orders)
  colors = palette.slot_colors(K)
  for row, order in enumerate(orders):
    top = 12 * row + 2  # tiles of 8 pixels and a border of 2 on each side
    for column, k in enumerate(order, start=3):
      tile = images["overview"][0, top : top + 8, 12 * column + 2 :][:, :8]
      expected = palette.cut_out(last.components[row, k], last.masks[row, k])
      np.testing.assert_allclose(tile, expected, atol=1e-6)  # float32
    mixed = np.einsum(
      "khw,kc->hwc", last.masks.numpy()[row, order, ..., 0], colors
    )
    tile = images["overview"][0, top : top + 8, 26:34]
    np.testing.assert_allclose(tile, mixed, atol=1e-6)  # float32
  # All iterations have the colours of the last.
  for row, order in enumerate(orders[:2]):
    for t, estimate in enumerate(estimates):
      masks = distributions.render(estimate.x_dist).masks
      mixed = np.einsum(
        "khw,kc->hwc", masks.numpy()[row, order, ..., 0], colors
      )
      top = 12 * (3 * row + 2) + 2
      tile = images["sequence"][0, top : top + 8, 12 * t + 2 :][:, :8]
      np.testing.assert_allclose(tile, mixed, atol=1e-6)  # float32
