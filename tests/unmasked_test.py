"""Scenes without masks, and without factors: nothing is made up for them."""

import json
import os
import re

import helpers
import numpy as np
import pytest
import tensorflow as tf

import main
from iodine import checkpoints, evaluation, replicas, training
from iodine.benchmark import measuring
from iodine.commands import train
from iodine.modules import data

SMALL = {
  **helpers.TINY,
  "num_iters": 1,
  "batch_size": 2,
  "data.image_dim": [8, 8],
  "data.shuffle_buffer": None,
}
NEED_MASKS = {"ari", "ari_nobg", "miou", "msc", "sc", "recall"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  """Six noisy photos without masks, and with them in a folder beside."""
  folder = tmp_path_factory.mktemp("scenes")
  labels = np.repeat(np.arange(3, dtype=np.uint8), 32)[:64].reshape(8, 8)
  for i in range(6):
    for name in ("bare", "masked"):
      pixels = helpers.noise([8, 8, 3], seed=i)
      helpers.save_image(folder / name / f"{i}.png", pixels)
    helpers.save_image(folder / f"masked/{i}.mask.png", labels)
  return folder


def config(photos, name="bare", **updates):
  constructor = "iodine.modules.data.Images"
  return main.get_config(
    ("tetrominoes",),
    {
      **SMALL,
      "data.constructor": constructor,
      "data.path": str(photos / name),
      "data.test": [2, None],
      **updates,
    },
  )


def build(photos, name):
  dataset = data.Images(
    path=str(photos / name), batch_size=2, image_dim=[8, 8], shuffle_buffer=None
  )
  return *helpers.build_both(config(photos, name)), dataset


@pytest.mark.parametrize("name", ["bare", "masked"])
def test_a_step_and_what_is_measured_and_left_out(photos, name):
  model, optimizer, dataset = build(photos, name)
  batch = next(iter(dataset("train")))
  has_masks = name == "masked"
  assert ("mask" in batch) == has_masks
  before = model.decoder.trainable_variables[0].numpy()
  scalars = training.train_step(model, optimizer, batch)
  assert np.any(model.decoder.trainable_variables[0].numpy() != before)
  assert ("loss/ari" in scalars) == ("loss/ari_nobg" in scalars) == has_masks
  assert "loss/mse" in scalars
  assert not any(name.startswith("factor") for name in scalars)
  info = model.eval(batch)
  assert set(info["metrics"]) == (
    {"mse", "ari", "ari_nobg"} if has_masks else {"mse"}
  )
  assert ("true_mask" in info["data"]) == has_masks
  assert "factor_regressor" not in info
  images = model.get_overview_images(batch, num_images=1)
  assert images["overview"].shape[-1] == 3

  tf.config.run_functions_eagerly(True)
  try:
    result = evaluation.evaluate(model, dataset.batches("test"), 2)
  finally:
    tf.config.run_functions_eagerly(False)
  measured = {"mse", "recons", "kl", "total", "num_active_slots"}
  assert measured <= result.metrics.keys()
  assert NEED_MASKS & result.metrics.keys() == (
    NEED_MASKS if has_masks else set()
  )
  assert "factor" not in result.metrics
  factors = [line for line in result.left_out if "no factors" in line]
  assert "factor loss; accuracy; R2" in factors[0]
  masks = [line for line in result.left_out if "no masks" in line]
  assert len(masks) == (not has_masks)
  assert has_masks or "ARI, foreground; mean IoU" in masks[0]


def test_the_benchmark_makes_up_no_masks(photos):
  model, optimizer, dataset = build(photos, "bare")
  mapping = config(photos)["model"]["factor_evaluator"]["mapping"]
  batch = measuring.synthetic_batch(dataset, mapping)
  assert batch.keys() == next(iter(dataset("train"))).keys()
  assert batch["image"].shape == (2, 1, 8, 8, 3) and batch["factors"] == {}
  assert "loss/mse" in training.train_step(model, optimizer, batch)


def test_stages_lose_their_regressor_and_a_trained_one_rests(photos, capsys):
  options = config(photos)
  changed = {"factor_evaluator": {"name": "x"}, "num_iters": 2}
  options = {**options, "stages": [{"until": 1, "model": changed}]}
  model, optimizer, dataset = build(photos, "bare")
  batch = next(iter(dataset("train")))
  fresh = train._as_read(options, dataset, batch, None)
  assert "will be no factor regressor" in capsys.readouterr().out
  assert fresh["model"]["factor_evaluator"] is None
  assert fresh["stages"] == [{"until": 1, "model": {"num_iters": 2}}]
  assert training.plan(fresh)[0].model["num_iters"] == 2

  tensors = {"model/factor_evaluator/predict_latents/w": np.zeros([3, 4])}
  start = checkpoints.Opened("somewhere/ckpt-1", tensors)
  rests = train._as_read(options, dataset, batch, start)
  assert "the factor regressor rests" in capsys.readouterr().out
  assert rests["model"]["factor_evaluator"] and rests["stages"]
  regressor = model.factor_evaluator.predict_latents
  before = regressor.w.numpy()
  training.train_step(model, optimizer, batch)
  np.testing.assert_array_equal(regressor.w.numpy(), before)


def test_two_replicas_share_scenes_without_masks(photos):
  model, optimizer, dataset = build(photos, "bare")
  strategy = tf.distribute.MirroredStrategy(
    ["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice()
  )
  batch = next(iter(dataset("train")))
  expected = training.train_step(model, optimizer, batch, seed=[0, 1])
  with replicas.scope(strategy):
    shared, its_optimizer = helpers.build_both(config(photos))
  feed = training.Feed(dataset, strategy)
  step = training.compile_step(shared, its_optimizer, 0, num_replicas=2)
  steps = training.compile_steps(step, strategy, feed.expand)
  scalars = steps(feed.batches, tf.constant(1))
  assert scalars.keys() == expected.keys()
  assert np.isfinite(scalars["loss/total"].numpy()).all()


@pytest.mark.slow
def test_the_commands_from_training_to_the_page(photos, tmp_path, capsys):
  where = [
    *(f"{key}={value}" for key, value in SMALL.items()),
    "data.constructor=iodine.modules.data.Images",
    f"data.path={photos / 'bare'}",
    "data.test=[2,None]",
  ]
  folder = f"{tmp_path}/run_1"
  train = ["with", "tetrominoes", *where, f"checkpoint_dir={tmp_path}/run"]
  schedule = ["stop_after_steps=2", "save_summaries_steps=1", "seed=0"]
  helpers.run_main(*train, *schedule)
  said = capsys.readouterr().out
  assert "no factors: there will be no factor regressor" in said
  assert "squared error" in said and "ARI" not in said
  with open(f"{folder}/config.json") as file:
    assert json.load(file)["model"]["factor_evaluator"] is None
  train[-1] = f"checkpoint_dir={folder}"
  more = ["stop_after_steps=3", "continue_run=True"]
  helpers.run_main(*train, *more)

  show = ["with", f"checkpoint_dir={folder}", "evaluation.num_scenes=2"]
  show += ["plot.scenes=[0]", "plot.num_scenes_for_map=2"]
  capsys.readouterr()
  page = f"{tmp_path}/report.html"
  helpers.run_main("report", *show, f"output={page}")
  assert "the scenes have no masks: left out are" in capsys.readouterr().out
  with open(page) as file:
    text = file.read()
  assert "The scenes have no masks: left out are" in text
  assert "Map of the latents" not in text
  assert re.search("<h1>2 photos from .*/</h1>", text)
  helpers.run_main("evaluate", *show, f"json_path={tmp_path}/metrics.json")
  with open(f"{tmp_path}/metrics.json") as file:
    metrics = json.load(file)
  assert metrics["mse"]["mean"] > 0 and not NEED_MASKS & metrics.keys()
  helpers.run_main("plot", *show)
  plots = set(os.listdir(f"{folder}/plots"))
  assert "latents.png" not in plots
  assert {"scene_0_iterations.png", "metrics.png", "samples.png"} <= plots
