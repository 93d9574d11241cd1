"""One answer for one image, whatever is decomposed beside it."""

import json
import pathlib

import helpers
import numpy as np
import pytest
import tensorflow as tf
import tree

import iodine
from iodine import (
  building,
  checkpoints,
  errors,
  evaluation,
  pretrained,
  segmentation,
  synthetic,
)

NUM_SCENES = 64
# What is of the batch as a whole, the running statistics included.
OF_THE_BATCH = {
  ("losses", "total"),
  ("losses", "factor"),
  ("factor_regressor", "metrics"),
}


@pytest.fixture(scope="module")
def data():
  """Scenes such as the shipped model knows."""
  scenes = [
    synthetic.DATASETS["tetrominoes"].make_scene(
      np.random.default_rng([9, number])
    )
    for number in range(NUM_SCENES)
  ]
  position = np.stack([s["x"] for s in scenes]), np.stack(
    [s["y"] for s in scenes]
  )
  return {
    "image": as_float([s["image"] for s in scenes])[:, None],
    "mask": as_float([s["mask"] for s in scenes])[:, None],
    "visibility": tf.constant(
      np.stack([s["visibility"] for s in scenes]), tf.float32
    ),
    "factors": {
      "position": tf.constant(np.stack(position, axis=-1), tf.float32),
      "color": tf.constant(np.stack([s["color"] for s in scenes]), tf.float32),
      "shape": tf.constant(
        np.stack([s["shape"] for s in scenes])[..., None], tf.float32
      ),
    },
  }


def as_float(images):
  return tf.constant(np.stack(images).astype(np.float32) / 255)


def seeds(start, stop):
  return tf.constant([[3, number] for number in range(start, stop)], tf.int64)


def rows(data, start, stop):
  return tf.nest.map_structure(lambda x: x[start:stop], data)


def infos(model, data):
  """The info of all scenes, of three, and of one, alone and among others."""
  compiled = tf.function(
    lambda data, seed: model.eval(data, seed=seed, update=False),
    autograph=False,
  )
  return {
    (start, stop): compiled(rows(data, start, stop), seeds(start, stop))
    for start, stop in ((0, NUM_SCENES), (20, 23), (21, 22))
  }


def deviations(found):
  """Of each tensor of a part, relative to its largest magnitude."""
  whole = found.pop((0, NUM_SCENES))
  for (start, stop), part in found.items():
    pairs = zip(
      tree.flatten_with_path(whole), tree.flatten_with_path(part), strict=True
    )
    for (path, expected), (_, actual) in pairs:
      if path[:2] not in OF_THE_BATCH:
        expected = expected.numpy()
        difference = expected[start:stop] - actual.numpy()
        yield path, np.abs(difference).max() / np.abs(expected).max()


def restore(updates):
  config = checkpoints.config_beside(checkpoints.find(pretrained.TETROMINOES))
  config["model"].update(updates)
  config["batch_size"] = None
  model, _ = checkpoints.restore_model(pretrained.TETROMINOES, config)
  return model


def test_info_of_a_scene_does_not_depend_on_the_others(data):
  model = restore({"refinement_batch_size": 64, "num_iters": 3})
  found = dict(deviations(infos(model, data)))
  assert len(found) > 30
  assert max(found.values()) < 1e-4, found  # rounding


def test_without_the_size_it_does_as_in_the_original(data):
  model = restore({"num_iters": 3})
  found = dict(deviations(infos(model, data)))
  assert found["latent", "z_mean"] > 0.01
  assert found["outputs", "recons"] > 0.01


def test_at_the_size_of_the_batch_it_changes_nothing():
  batch = helpers.make_batch(batch_size=3)
  seed = tf.constant([1, 2])
  own, same = (
    helpers.tiny_model({"model.refinement_batch_size": size})
    for size in (None, 3)
  )
  helpers.perturb(own)
  helpers.perturb(same)
  for one, other in zip(own.variables, same.variables, strict=True):
    other.assign(one)
  for a, b in zip(
    tree.flatten(own.eval(batch, seed=seed, update=False)),
    tree.flatten(same.eval(batch, seed=seed, update=False)),
    strict=True,
  ):
    helpers.assert_near(a, b, 1e-5)  # the sum is taken in another order


def test_it_acts_like_copies_of_the_image():
  """Sixteen copies of an image among themselves are that image alone."""
  batch = rows(helpers.make_batch(), 0, 1)
  copies = tf.nest.map_structure(lambda x: tf.repeat(x, 16, axis=0), batch)
  models = [
    helpers.tiny_model({"model.refinement_batch_size": size, "kl_weight": 0.3})
    if False
    else helpers.tiny_model({"model.refinement_batch_size": size})
    for size in (None, 16)
  ]
  for model in models:
    helpers.perturb(model)
  alone = models[1].eval(batch, seed=seeds(4, 5), update=False)
  among = models[0].eval(copies, seed=tf.repeat(seeds(4, 5), 16, 0), update=False)
  for name in ("z_mean", "z_std"):
    expected = among["latent"][name][:1]
    helpers.assert_near(alone["latent"][name], expected, 1e-4)  # rounding
  single = models[0].eval(batch, seed=seeds(4, 5), update=False)
  difference = single["latent"]["z_mean"] - among["latent"]["z_mean"][:1]
  assert np.abs(difference).max() > 1e-3
