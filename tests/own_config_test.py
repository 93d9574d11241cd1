"""The config for images of one's own: sizes that hang together."""

import helpers
import pytest
import tensorflow as tf

import main
from iodine import building, entries, errors, training
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


def test_small_images_are_for_what_laptop_is():
  config, laptop = own((14, 14)), main.get_config(("laptop",))
  # Of the factors nothing is known.
  laptop["model"]["factor_evaluator"] = None
  for entry in (
    *("model", "optimizer", "stages", "evaluation", "seed"),
    *("stop_after_steps", "batch_size", "save_checkpoint_steps"),
  ):
    assert config[entry] == laptop[entry], entry


def test_those_of_35_pixels_for_what_minutes_is():
  config = own((35, 35), seed=0)
  minutes = main.get_config(("tetrominoes", "minutes"), {"seed": 0})
  minutes["model"] |= {"factor_evaluator": None, "kl_weight": 1.0}
  # Linear coordinates have none.
  del minutes["model"]["decoder"]["pixel_decoder"]["coord_freqs"]
  for entry in (
    *("model", "optimizer", "stages", "evaluation", "skip_nonfinite"),
    *("stop_after_steps", "batch_size"),
  ):
    assert config[entry] == minutes[entry], entry


@pytest.mark.parametrize(
  "size, name", [((64, 64), "multi_dsprites"), ((128, 128), "clevr6")]
)
def test_larger_ones_have_the_papers_model(size, name):
  config, paper = own(size)["model"], main.get_config((name,))["model"]
  paper |= {"factor_evaluator": None, "kl_weight": 1.0}
  paper["output_dist"]["component_dist"]["scale_val"] = 0.1
  for part in (
    paper["decoder"]["pixel_decoder"],
    paper["refinement_core"]["encoder_net"],
  ):
    part["compute_dtype"] = "auto"
  del paper["decoder"]["pixel_decoder"]["coord_freqs"]  # of linear coordinates
  assert config == paper


def test_every_entry_reaches_what_depends_on_it():
  config = own(
    (14, 20),
    **{"num_components": 5, "channels": 8, "kernel": 5, "kl_weight": 0.3},
    **{"scale_val": 0.2, "batch_size": 4, "num_iters": 2, "n_z": 9},
    factors=[["color", 3, "scalar"]],
  )
  model = config["model"]
  assert config["data"]["batch_size"] == 4
  assert (model["n_z"], model["num_iters"], model["kl_weight"]) == (9, 2, 0.3)
  assert model["num_components"] == model["output_dist"]["num_components"] == 5
  assert model["output_dist"]["component_dist"]["scale_val"] == 0.2
  assert [s["model"].get("num_components") for s in config["stages"]] == [
    *(6, 6, None),
  ]
  for part in (
    model["decoder"]["pixel_decoder"],
    model["refinement_core"]["encoder_net"],
  ):
    assert set(part["cnn_opt"]["output_channels"]) <= {8, None}
    assert part["cnn_opt"]["kernel_shapes"] == [5]
  model = common.build_model(model, (14, 20, 3))
  assert set(model.factor_evaluator.kinds) == {"color"}


def test_the_learning_rate_follows_the_batch_size():
  assert own((64, 64), batch_size=64)["learn_rate"] == pytest.approx(8e-4)
  assert own((128, 128), batch_size=32)["learn_rate"] == pytest.approx(1e-3)


@pytest.mark.parametrize("value", [[None, None], 5, "large", [14], [0, 14]])
def test_a_size_that_is_none_is_told_before_anything_follows(value):
  with pytest.raises(errors.UserError, match="`image_dim` is .*: give a list"):
    main.get_config(("own",), {"image_dim": value})


@pytest.mark.parametrize(
  "path, reader",
  [
    *(("photos", "Images"), ("a/b.npz", "Arrays"), ("A.HDF5", "Arrays")),
    *(("a.h5", "Arrays"), ("a.gif", "Films"), ("a.mp4", "Films")),
    (["a.png", "b.png"], "Images"),
  ],
)
def test_a_path_says_what_reads_it(path, reader):
  config = own((14, 14), **{"data.path": path})
  assert config["data"]["constructor"] == f"iodine.modules.data.{reader}"
  assert config["data"]["path"] == path
  named = "iodine.modules.data.Films"
  config = own((14, 14), **{"data.path": path, "data.constructor": named})
  assert config["data"]["constructor"] == named


def test_a_data_set_of_ones_own_gets_what_it_takes():
  name = f"{__name__}.Scenes"
  config = own((14, 14), **{"data.constructor": name, "data.path": "p"})
  assert config["data"] == {"constructor": name, "path": "p", "batch_size": 16}
  # What the user gives is never left out.
  config = own((14, 14), **{"data.constructor": name, "data.crop": 3})
  with pytest.raises(errors.UserError, match="`data.crop` is not an argument"):
    building.build(config["data"], "data")


class Scenes:
  """Somebody's data set."""

  def __init__(self, path: str, batch_size: int):
    self.path, self.batch_size = path, batch_size


def test_its_entries_are_its_own():
  added = own((14, 14)).keys() - main.get_config().keys()
  assert added == set(entries.OF_NAMED["own"])
  for names in ((), ("laptop",)):
    with pytest.raises(errors.UserError, match="no config entry `image_dim`"):
      main.get_config(names, {"image_dim": [14, 14]})
