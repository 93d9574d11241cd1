"""One answer for one image, whatever is decomposed beside it."""

import helpers
import numpy as np
import pytest
import tensorflow as tf
import tree

import iodine
from iodine import (
  checkpoints,
  evaluation,
  pretrained,
  segmentation,
  synthetic,
)
from iodine.modules import data as data_lib

NUM_SCENES = 64
# What is of the batch as a whole.
OF_THE_BATCH = {
  ("losses", "total"),
  ("losses", "factor"),
  ("factor_regressor", "metrics"),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  """Scenes such as the shipped model knows."""
  path = str(tmp_path_factory.mktemp("data") / "scenes.tfrecords")
  synthetic.write_dataset("tetrominoes", path, NUM_SCENES, 9)
  return path


def read(path, batch_size):
  dataset = data_lib.Tetrominoes(path=path, batch_size=batch_size)
  return dataset.batches("test")


@pytest.fixture(scope="module")
def scenes(path):
  return next(read(path, NUM_SCENES))


def restore(**updates):
  """The shipped model, with entries of its config replaced."""
  config = checkpoints.config_beside(
    checkpoints.open_checkpoint(pretrained.TETROMINOES).prefix
  )
  config["model"].update(updates)
  return checkpoints.restore_model(
    pretrained.TETROMINOES, {**config, "batch_size": None}
  )[0]


def rows(batch, start, stop):
  return tf.nest.map_structure(lambda x: x[start:stop], batch)


def seeds(start, stop):
  return tf.constant([[3, number] for number in range(start, stop)], tf.int64)


def test_info_of_a_scene_does_not_depend_on_the_others(scenes):
  model = restore(refinement_batch_size=64, num_iters=3)
  eval_ = tf.function(
    lambda batch, seed: model.eval(batch, seed=seed, update=False),
    autograph=False,
  )
  whole = eval_(scenes, seeds(0, NUM_SCENES))
  found = {}
  for start, stop in ((20, 23), (21, 22)):
    part = eval_(rows(scenes, start, stop), seeds(start, stop))
    for (name, expected), (_, actual) in zip(
      tree.flatten_with_path(whole), tree.flatten_with_path(part), strict=True
    ):
      if name[:2] not in OF_THE_BATCH:
        difference = np.abs(expected[start:stop] - actual).max()
        deviation = difference / max(np.abs(expected).max(), 1e-30)
        found[name] = max(deviation, found.get(name, 0.0))
  assert len(found) > 30
  assert max(found.values()) < 1e-4, found  # rounding


def tiny_model(size):
  tf.random.set_seed(0)  # the same weights for every size
  updates = {"model.refinement_batch_size": size}
  model = helpers.tiny_model(updates, image_shape=(8, 8, 3))
  helpers.perturb(model)
  return model


def test_an_image_alone_is_like_many_copies_of_it():
  batch = helpers.make_batch(batch_size=1)
  copies = tf.nest.map_structure(lambda x: tf.repeat(x, 16, axis=0), batch)
  own, of_sixteen = tiny_model(None), tiny_model(16)
  seed = seeds(4, 5)
  options = {"seed": tf.repeat(seed, 16, axis=0), "update": False}
  expected = own.eval(copies, **options)
  # At the size of the batch it changes nothing.
  same = of_sixteen.eval(copies, **options)
  for a, b in zip(tree.flatten(same), tree.flatten(expected), strict=True):
    helpers.assert_near(a, b, 1e-5)  # sums in another order
  for model, is_same in ((of_sixteen, True), (own, False)):
    found = model.eval(batch, seed=seed, update=False)
    for name in ("z_mean", "z_std"):
      difference = found["latent"][name] - expected["latent"][name][:1]
      # Rounding on the one hand, gradients 16 times as large on the other.
      assert (np.abs(difference).max() < 1e-5) == is_same


def test_seeds_of_their_own_make_samples_of_their_own():
  model = helpers.tiny_model()
  batch = helpers.make_batch(batch_size=3)
  estimates, _ = model.encode(batch["image"], seed=seeds(0, 3))
  other, _ = model.encode(batch["image"][1:], seed=seeds(1, 3))
  np.testing.assert_array_equal(estimates[0].z[1:], other[0].z)
  noise = [e.z - e.z_dist.mean() for e in estimates]
  drawn = np.stack(noise).reshape(-1, 9)  # one row a scene and iteration
  assert len({tuple(row) for row in drawn.round(4)}) == len(drawn)


@pytest.mark.slow
def test_evaluation_does_not_depend_on_the_batch_size(path):
  model = restore(refinement_batch_size=64, num_iters=3)
  results = [
    evaluation.evaluate(model, read(path, size), size, num_scenes=8)
    for size in (8, 7, 1)  # with 7 a scene is left for a last, filled up batch
  ]
  first = results[0]
  for other in results[1:]:
    for name in ("mse", "recons", "kl"):
      np.testing.assert_allclose(
        other.scenes[name], first.scenes[name], rtol=1e-3, err_msg=name
      )  # rounding of scenes that are still on the move
    for name in ("ari", "ari_nobg", "miou"):
      # A pixel on an edge may fall to either side.
      np.testing.assert_allclose(
        other.scenes[name], first.scenes[name], atol=0.01, err_msg=name
      )


@pytest.fixture(scope="module")
def restored():
  return iodine.restore(pretrained.TETROMINOES)


def test_restore_takes_the_batch_size_of_the_training(restored, scenes):
  model, config = restored
  assert config["batch_size"] == 64
  assert config["model"]["refinement_batch_size"] == 64
  alone = restore(refinement_batch_size=64)
  images = scenes["image"][:1]
  (expected, _), (actual, _) = (
    m.encode(images, seed=seeds(0, 1)) for m in (alone, model)
  )
  np.testing.assert_array_equal(actual[-1].z, expected[-1].z)


@pytest.mark.slow
def test_a_saved_model_gives_the_same(tmp_path, scenes):
  model = restore(refinement_batch_size=64, num_iters=3)
  images = scenes["image"][:3, 0]
  segmentation.export(str(tmp_path / "saved"), model, (35, 35, 3), seed=3)
  loaded = tf.saved_model.load(str(tmp_path / "saved"))
  together = loaded.segment(images)
  segmenter = segmentation.Segmenter(model, (35, 35, 3), seed=3)
  # The same images in a batch of the training's size, with the same samples.
  filled = tf.tile(images, [22, 1, 1, 1])[:64]
  same_seed = tf.constant([[3, 0]] * 64, tf.int64)
  trained = restore(num_iters=3)
  estimates, _ = trained.encode(filled[:, None], seed=same_seed)
  for i in range(3):
    alone = loaded.segment(images[i : i + 1])
    found = segmenter(images[i].numpy())
    for name, value in together.items():
      helpers.assert_near(alone[name][0], value[i], 1e-5)  # rounding
      helpers.assert_near(getattr(found, name), value[i], 1e-4)  # rounding
    helpers.assert_near(
      np.sort(found.latents_mean, axis=0),
      np.sort(estimates[-1].z_dist.mean()[i], axis=0),
      1e-3,
    )  # rounding through the refinements, with another number of images
