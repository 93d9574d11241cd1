"""One image decomposed, from Python."""

import json
import shutil

import helpers
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import iodine
import main
from iodine import building, checkpoints, errors, segmentation
from iodine.checkpoints import tf1
from iodine.modules import data
from iodine.segmentation import segmenter as segmenter_lib

SEED = 3
CONFIG = helpers.tiny_config({"data.image_dim": [8, 8], "seed": SEED})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  """The folder of a run, config.json included."""
  folder = tmp_path_factory.mktemp("run")
  helpers.save_checkpoint(folder, CONFIG)
  (folder / "config.json").write_text(json.dumps(CONFIG))
  return str(folder)


@pytest.fixture(scope="module")
def model(checkpoint):
  trained = {"refinement_batch_size": CONFIG["batch_size"]}
  model = building.build({**CONFIG["model"], **trained})
  model.initialize((8, 8, 3))
  checkpoints.restore(checkpoint, model=model)
  return model


@pytest.fixture(scope="module")
def segmenter(checkpoint):
  return segmentation.Segmenter.from_checkpoint(checkpoint)


def noise(shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def assert_same(one, other):
  for name, value in one._replace(source=other.source)._asdict().items():
    np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)


def test_it_is_the_final_estimate_of_eval(model, segmenter):
  image = noise([8, 8, 3])
  found = segmenter(image)
  batch = helpers.make_batch(batch_size=1)
  batch["image"] = tf.constant(image / np.float32(255))[None, None]
  info = model.eval(batch, seed=tf.constant([SEED, 0], tf.int64), update=False)
  expected = {
    **helpers.final_segmentation(info),
    "image": batch["image"][0, 0],
  }
  for name, value in expected.items():
    # A compiled graph and single operations round differently, over and over.
    helpers.assert_near(getattr(found, name), value, 1e-4)
  np.testing.assert_allclose(found.masks.sum(axis=0), 1, atol=1e-6)  # float32
  np.testing.assert_array_equal(found.labels(), np.argmax(found.masks, axis=0))
  assert found.active_slots() == sorted(set(found.labels().flat))
  mixed = (found.masks[..., None] * found.components).sum(axis=0)
  np.testing.assert_allclose(
    found.reconstruction, mixed, atol=1e-5
  )  # float32 sums


@pytest.mark.parametrize(
  "size, region",
  [((50, 31), ((9, 40), (0, 31))), ((3, 4), ((0, 3), (0, 3)))],
)
def test_images_are_resized_as_those_of_the_data_sets(segmenter, size, region):
  image = noise([*size, 3])
  found = segmenter(image)
  expected, _ = data.preprocess(
    image[None], np.zeros([1, 1, *size, 1], np.uint8), (8, 8), region
  )
  np.testing.assert_array_equal(found.image, expected[0, 0])
  assert found.region == region


def test_every_kind_of_image_and_call_gives_the_same(
  checkpoint, segmenter, tmp_path
):
  image = noise([9, 13, 3])
  path = tmp_path / "image.png"
  PIL.Image.fromarray(image).save(path)
  expected = segmenter(image)
  for same in (str(path), path, PIL.Image.open(path), image / 255.0):
    assert_same(segmenter(same), expected)
  # Neither what came before nor the kind of call matters; the config of the
  # best checkpoint is one folder above.
  segmenter(noise([5, 5, 3]))
  assert_same(segmenter(image), expected)
  shutil.copytree(checkpoint, tmp_path / "run/best")
  shutil.move(tmp_path / "run/best/config.json", tmp_path / "run/config.json")
  assert_same(iodine.segment(path, tmp_path / "run/best"), expected)
  other = iodine.segment(
    image,
    checkpoints.open_checkpoint(checkpoint).prefix,
    config=CONFIG,
    seed=SEED + 1,
  )
  assert np.abs(other.latents - expected.latents).max() > 0.01


def test_many_images_come_back_in_their_order(segmenter, checkpoint, tmp_path):
  images = noise([12, 8, 8, 3])
  expected = [segmenter(image) for image in images]
  names = [f"{tmp_path}/photos/{i}.png" for i in range(12)]
  for name, image in zip(names, images, strict=True):
    helpers.save_image(name, image)
  folder = tmp_path / "photos"
  for several in (
    *(images, images / 255.0, list(images), names, folder),
    *(str(folder / "*.png"), [names[0], f"{folder}/[1-9].png", *images[10:]]),
  ):
    found = segmenter(several)
    assert len(found) == 12
    for one, other in zip(found, expected, strict=True):
      assert_same(one, other)
  batches = iodine.segment(names, checkpoint, batch_size=5)
  for one, other, name in zip(batches, expected, names, strict=True):
    helpers.assert_near(one.masks, other.masks, 1e-4)
    assert one.source == name
  assert repr(batches[3]) == f"Segmentation of {names[3]}: 3 slots, 8 x 8"
  # A path in a list twice is two images; a glob of one image a list of it.
  assert len(segmenter(names[:2] * 2)) == 4
  assert [x.source for x in segmenter(f"{folder}/7*")] == [names[7]]
  assert segmenter.segment([]) == []
  with pytest.raises(errors.UserError, match="where there is no file"):
    segmenter(tmp_path / "nothing")


def test_a_checkpoint_is_opened_and_compiled_once(
  checkpoint, tmp_path, monkeypatch
):
  opened, traced = [], []
  restore, infer = checkpoints.restore_model, segmenter_lib.infer

  def counting(*args, **kwargs):
    opened.append(args[0])
    return restore(*args, **kwargs)

  def tracing(*args):
    traced.append(args[1].shape)
    return infer(*args)

  monkeypatch.setattr(checkpoints, "restore_model", counting)
  monkeypatch.setattr(segmenter_lib, "infer", tracing)
  run = shutil.copytree(checkpoint, tmp_path / "run")
  image = noise([8, 8, 3])
  found = [iodine.segment(image, place) for place in (run, str(run), run)]
  for each in found:
    assert_same(each, found[0])
  other = iodine.segment(image, run, seed=SEED + 1)
  assert np.abs(other.latents - found[0].latents).max() > 0.01
  assert len(opened) == len(traced) == 1
  # A later checkpoint, another config beside it, and one that is given.
  helpers.save_checkpoint(run, CONFIG, step=7)
  iodine.segment(image, run)
  assert len(opened) == 2
  few = {**CONFIG, "model": {**CONFIG["model"], "num_iters": 1}}
  few["evaluation"] = {**CONFIG["evaluation"], "num_iters": None}
  (run / "config.json").write_text(json.dumps(few))
  fewer = iodine.segment(image, run)
  assert len(opened) == 3
  assert_same(iodine.segment(image, run, few), fewer)
  assert_same(
    iodine.segment(image, run, CONFIG), iodine.segment(image, run, CONFIG)
  )
  assert len(opened) == len(traced) == 5
  with pytest.raises(errors.UserError, match="no checkpoint"):
    iodine.segment(image, tmp_path / "gone")


def test_gray_models_and_films():
  config = helpers.tiny_config(
    {"data.image_dim": [8, 8], "model.sequential": True, "num_iters": 1}
  )
  model = building.build(config["model"])
  helpers.perturb(model)
  segmenter = segmentation.Segmenter(model, (8, 8, 1))
  image = noise([8, 8, 3])
  found = segmenter(image)
  assert segmenter(noise([2, 8, 8, 3])).is_film  # to a model of films
  np.testing.assert_allclose(
    found.image[..., 0], image.mean(-1) / 255, rtol=1e-6
  )  # float32
  assert found.components.shape == (3, 8, 8, 1)
  # A film of one image is that image to a model of single images.
  single = building.build({**config["model"], "sequential": False})
  single.initialize((8, 8, 1))
  for mine, other in zip(single.variables, model.variables, strict=True):
    mine.assign(other)
  assert_same(segmentation.Segmenter(single, (8, 8, 1))(image), found)


def test_a_tf1_checkpoint_with_its_config():
  folder = helpers.GOLDEN / "tiny_tetrominoes"
  case = json.loads((folder / "case.json").read_text())
  config = main.get_config((case["named_config"],), case["config_updates"])
  config["data"]["image_dim"] = case["image"]
  config["model"]["num_iters"] = 1  # is in no variable, and takes less time
  image = np.load(folder / "inputs.npz")["image"][0, 0]
  found = iodine.segment(image, folder, config)
  np.testing.assert_array_equal(found.image, image)
  trained = {"refinement_batch_size": config["batch_size"]}
  model = building.build({**config["model"], **trained})
  model.initialize(image.shape)
  tf1.restore(str(folder), model)
  film = tf.constant(image[None, None])
  direct = segmenter_lib.infer(model, film, config["seed"])
  for name, value in direct.items():
    # A compiled graph and single operations round differently.
    helpers.assert_near(getattr(found, name), value[0, 0], 1e-5)
  with pytest.raises(errors.UserError, match="config.json.*give `config="):
    iodine.segment(noise([20, 20, 3]), folder)
  with pytest.raises(errors.UserError, match="the config has no `model`"):
    iodine.segment(image, folder, {"data": config["data"]})
