"""What pictures show, against independent computations."""

import helpers
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from iodine import errors, evaluation
from iodine.evaluation import inspection

SEED = 5
K, T, Z = 3, 3, 3


def batches(sizes):
  return [helpers.make_batch(n, seed=i) for i, n in enumerate(sizes)]


def make_model(updates=None):
  tf.random.set_seed(0)  # a module's fixture is made before it is set
  model = helpers.tiny_model(updates)
  model.initialize((8, 8, 3))
  # With 0.3, logits of masks are 1,052, whose float32 steps are 1e-4.
  helpers.perturb(model, stddev=0.2)
  return model


@pytest.fixture(scope="module")
def model():
  return make_model()


@pytest.fixture(scope="module")
def before(model):
  """All variables before anything is looked at."""
  return [v.numpy() for v in model.variables]


@pytest.fixture(scope="module")
def seen(model, before):
  """Two scenes and the statistics of four, of batches of 3 and 2."""
  data = batches([3, 2])
  result = evaluation.decompose_scenes(
    model, data, 3, scenes=[4, 1], num_scenes=4, seed=SEED
  )
  tf.nest.map_structure(np.testing.assert_array_equal, data, batches([3, 2]))
  return result


def eval_batch(model, index, size):
  """The info of a batch, filled up by hand, without any graph."""
  data = batches([3, 2])[index]
  if size < 3:
    data = tf.nest.map_structure(
      lambda x: tf.concat([x, *[x[:1]] * (3 - size)], axis=0), data
    )
  seeds = [[SEED, 3 * index + i] for i in range(3)]
  return model.eval(data, seed=tf.constant(seeds, tf.int64), update=False)


def flat(info, prefix=""):
  if not isinstance(info, dict):
    return {prefix: np.asarray(info)}
  return {
    name: leaf
    for key, value in info.items()
    for name, leaf in flat(value, f"{prefix}/{key}").items()
  }


# What has slots in info, and on which axis.
SLOT_AXES = {
  **{f"/latent/{name}": 2 for name in ("z", "z_mean", "z_std")},
  **{
    f"/outputs/{name}": 2
    for name in ("pred_mask", "pred_mask_logits", "components")
  },
  **{f"/inputs/flat/{name}": 2 for name in ("zp", "dzp", "flat_capacity")},
  **{
    f"/inputs/spatial/{name}": 2
    for name in (
      *("mask", "pred_mask", "components", "dmask", "dcomponents"),
      *("posterior", "capacity", "counterfactual"),
    )
  },
  "/losses/kl": 2,
  "/factor_regressor/assignment": 3,
}


def renumber(info, order):
  """The flat info of a batch with all slots in the order [K]."""
  return {
    name: np.take(value, order, SLOT_AXES[name]) if name in SLOT_AXES else value
    for name, value in flat(info).items()
  }


def test_all_that_has_slots_is_renumbered_alike(model):
  info = eval_batch(model, 0, 3)
  before = flat(info)
  found = flat(evaluation.background_first(info))
  assert SLOT_AXES.keys() < found.keys() == before.keys()
  orders = [
    helpers.background_first(mask)
    for mask in info["outputs"]["pred_mask"][:, -1]
  ]
  assert any(order != sorted(order) for order in orders)
  for row, order in enumerate(orders):
    for name, expected in renumber(info, order).items():
      chosen = row if expected.ndim > 1 else ...
      np.testing.assert_array_equal(found[name][chosen], expected[chosen], name)
  for name, value in flat(info).items():
    np.testing.assert_array_equal(value, before[name], name)


# --------------------------------------------------------------------- scenes


def test_scenes_are_those_of_eval(model, seen):
  scenes, _ = seen
  assert [scene.number for scene in scenes] == [4, 1]
  for scene, (index, size, row) in zip(
    scenes, [(1, 2, 1), (0, 3, 1)], strict=True
  ):
    info = eval_batch(model, index, size)
    order = helpers.background_first(info["outputs"]["pred_mask"][row, -1])
    expected = renumber(info, order)
    found = flat(scene.info)
    batchwise = {
      name
      for name in expected
      if name == "/losses/total" or name.startswith("/factor_regressor/metrics")
    }
    assert found.keys() == expected.keys() - batchwise
    for name, value in found.items():
      if name == "/losses/factor":
        continue  # tested below
      # A graph rounds in another order, and gradients pass that on.
      helpers.assert_near(value, expected[name][row : row + 1], 2e-3)
    total = scene.info["losses"]["kl"][0, -1]
    helpers.assert_near(scene.latent_kl.sum(-1), total)  # float32


def test_another_family_and_no_regressor():
  model = make_model(
    {
      "model.latent_dist.dist": "laplace",
      "model.factor_evaluator": None,
      "num_iters": 1,
    }
  )
  (scene,), statistics = evaluation.decompose_scenes(
    model, batches([2]), 2, [0], 2
  )
  assert "factor" not in statistics.info["losses"]
  assert len(statistics.latents) == 5
  latent = scene.info["latent"]
  # The deviation of a Laplace distribution is sqrt(2) times its scale.
  ratio = latent["z_std"][0, -1] / np.sqrt(2.0) / np.sqrt(np.log(2.0))
  distance = np.abs(latent["z_mean"][0, -1]) / np.sqrt(np.log(2.0))
  expected = -np.log(ratio) - 1.0 + distance + ratio * np.exp(-distance / ratio)
  helpers.assert_near(scene.latent_kl, expected)  # float32


def test_the_statistics_agree_with_the_evaluation(model, seen):
  _, statistics = seen
  assert statistics.num_scenes == 4
  result = evaluation.evaluate(
    model, batches([3, 2]), batch_size=3, seed=SEED, num_scenes=4
  )
  losses, metrics = statistics.info["losses"], statistics.info["metrics"]
  for name, found in {
    "recons": losses["recons"],
    "kl": losses["kl"].sum(-1),
    "factor": losses["factor"],
    "ari": metrics["ari"],
    "ari_nobg": metrics["ari_nobg"],
    "mse": metrics["mse"],
  }.items():
    assert found.shape == (4, T), name
    # Two graphs round in different orders.
    np.testing.assert_allclose(
      found[:, -1].mean(), result.metrics[name].mean, rtol=1e-4, atol=1e-6
    )


def test_objects_have_the_latents_of_their_slots(model, seen):
  latents, factors = [], {"position": [], "color": [], "shape": []}
  for index, size, used in ((0, 3, 3), (1, 2, 1)):
    info = eval_batch(model, index, size)
    for row in range(used):
      true_mask = info["data"]["true_mask"][row, 0, ..., 0].numpy()
      pred_mask = info["outputs"]["pred_mask"][row, -1, ..., 0].numpy()
      for entity in range(1, 4):  # without the background
        if not true_mask[entity].any():
          continue  # the last entity of the first scene is not there
        slot = np.argmax([(true_mask[entity] * m).sum() for m in pred_mask])
        latents.append(info["latent"]["z_mean"][row, -1, slot])
        for name, values in factors.items():
          values.append(info["data"]["factors"][name][row, entity])
  _, statistics = seen
  assert len(latents) == 4 * 3 - 2
  # A graph rounds in another order, and gradients pass that on.
  helpers.assert_near(statistics.latents, np.array(latents), 2e-3)
  for name, values in factors.items():
    np.testing.assert_array_equal(statistics.factors[name], np.array(values))


def test_scenes_that_are_not_there(model):
  with pytest.raises(errors.UserError, match="no scene 5: .* has 5 scenes"):
    evaluation.decompose_scenes(model, batches([3, 2]), 3, scenes=[5])
  with pytest.raises(errors.UserError, match="there is no scene to evaluate"):
    evaluation.decompose_scenes(model, [], 3, num_scenes=2)


def test_looking_changes_no_state(model, before, seen):
  decoder = evaluation.Decoder(model, 2)
  evaluation.traverse(decoder, seen[0][0], num_latents=1)
  evaluation.sample(decoder, 3)
  for variable, value in zip(model.variables, before, strict=True):
    np.testing.assert_array_equal(variable, value)


# ----------------------------------------------------------------- decoding


def decode(model, z):
  """One image by the decoder's raw output alone."""
  params = model.decoder(tf.concat([z[None], tf.fill([1, K, 1], 5.0)], axis=-1))
  mask = scipy.special.softmax(params.mask[0].numpy(), axis=0)
  components = params.pixel[0].numpy()
  return (mask * components).sum(0), components, mask


def test_decoding_in_chunks(model):
  z = np.random.default_rng(0).normal(size=[5, K, Z]).astype(np.float32)
  decoded = evaluation.Decoder(model, batch_size=2)(z)
  for i in range(5):
    recons, components, mask = decode(model, z[i])
    helpers.assert_near(decoded.reconstruction[i, 0], recons)  # float32
    helpers.assert_near(decoded.components[i], components)  # float32
    helpers.assert_near(decoded.masks[i], mask)  # float32


def test_samples_come_from_the_prior(model):
  decoder = evaluation.Decoder(model, 4)
  decoded = evaluation.sample(decoder, 6, seed=3)
  assert decoded.reconstruction.shape == (6, 1, 8, 8, 3)
  again = evaluation.sample(decoder, 6, seed=3)
  np.testing.assert_array_equal(decoded.reconstruction, again.reconstruction)
  for mask in decoded.masks:
    assert helpers.background_first(mask) == list(range(K))
  mixed = (decoded.masks * decoded.components).sum(axis=1)
  helpers.assert_near(decoded.reconstruction[:, 0], mixed)  # float32
  other = evaluation.sample(decoder, 6, seed=4)
  assert np.any(other.reconstruction != decoded.reconstruction)
  drawn = []

  class Recorder(evaluation.Decoder):
    def __call__(self, z):
      drawn.append(z)
      return super().__call__(z[:4])

  evaluation.sample(Recorder(model, 4), 2000)
  # 18,000 draws of variance ln 2; 6 and more standard errors.
  np.testing.assert_allclose(drawn[0].mean(), 0.0, atol=0.04)
  np.testing.assert_allclose(drawn[0].var(), np.log(2.0), rtol=0.07)


def test_a_traversal_changes_one_latent_at_a_time(model, seen):
  scene = seen[0][0]
  traversal = evaluation.traverse(
    evaluation.Decoder(model, 4),
    scene,
    slot=1,
    num_latents=2,
    values=[-2.0, 1.5],
  )
  z = scene.info["latent"]["z_mean"][0, -1]
  recons, components, mask = decode(model, z)
  for row in range(2):
    helpers.assert_near(traversal.recons[row, 0], recons)  # float32
    helpers.assert_near(traversal.components[row, 0], components[1])  # float32
    helpers.assert_near(traversal.masks[row, 0], mask[1])  # float32
  deviation = np.sqrt(np.log(2.0))
  kl = scene.latent_kl[1]
  assert list(traversal.latents) == sorted(range(Z), key=lambda i: -kl[i])[:2]
  np.testing.assert_array_equal(traversal.kl, np.sort(kl)[::-1][:2])
  for row, latent in enumerate(traversal.latents):
    helpers.assert_near(traversal.inferred[row], z[1, latent] / deviation)
    for column, value in enumerate([-2.0, 1.5], start=1):
      changed = z.copy()
      changed[1, latent] = value * deviation
      recons, components, mask = decode(model, changed)
      found = traversal.recons[row, column]
      helpers.assert_near(found, recons)  # float32
      assert np.any(found != traversal.recons[row, 0])
      own = traversal.components[row, column], traversal.masks[row, column]
      helpers.assert_near(own[0], components[1])  # float32
      helpers.assert_near(own[1], mask[1])  # float32


def test_the_default_slot_is_the_second_largest(model, seen):
  masks = np.zeros([4, 2, 6, 1])
  masks[[3, 3, 3, 1, 1, 0], :, np.arange(6)] = 0.9
  assert inspection.foreground_slot(masks) == 1
  assert inspection.foreground_slot(masks[[3, 2]]) == 0
  assert inspection.foreground_slot(np.ones([1, 2, 2, 1])) == 0
  one = np.zeros([3, 2, 2, 1])
  one[2] = 1.0
  assert inspection.foreground_slot(one) == 2
  scene = seen[0][0]
  expected = inspection.foreground_slot(
    scene.info["outputs"]["pred_mask"][0, -1]
  )
  traversal = evaluation.traverse(evaluation.Decoder(model, 8), scene)
  assert traversal.slot == expected and traversal.num_slots == K
