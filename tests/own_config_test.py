"""The config for images of one's own: sizes that hang together."""

import helpers
import pytest
import tensorflow as tf

import main
from iodine import building, errors, training
from iodine.commands import common

TINY = {"n_z": 4, "num_components": 2, "num_iters": 1, "channels": 4}


def own(image_dim, **updates):
  return main.get_config(("own",), {"image_dim": list(image_dim), **updates})


@pytest.mark.parametrize(
  "size",
  [
    *((14, 14), (20, 31), (35, 35), (48, 64), (64, 64), (100, 75)),
    *((128, 128), (256, 192), (256, 256)),
  ],
  ids=str,
)
def test_it_builds_and_steps_at_all_sizes(size):
  config = own(size, **TINY, compute_dtype="float32", batch_size=1)
  model = common.build_model(config["model"], (*size, 3))
  optimizer = common.build_optimizer(config["optimizer"], model)
  assert config["data"]["image_dim"] == list(size)
  batch = {**helpers.make_batch(1, size, num_entities=2), "factors": {}}
  scalars = training.train_step(
    model, optimizer, batch, seed=tf.constant([0, 0])
  )
  assert 0 < scalars["debug/global_grad_norm"] < 1e9
  assert "factor/loss" not in scalars
