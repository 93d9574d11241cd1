import copy
import json
import math
import os

import helpers
import numpy as np
import pytest

import main
from iodine import building, config_files, errors, pretrained, training
from iodine.modules import data, refinement

PAPER = {
  # Z, K, batch, learning rate, decoder, kernel, encoder, MLP, LSTM, coordinates
  "clevr6": (
    *(64, 7, 4, 1e-3 * math.sqrt(4 / 32), [64] * 4, 3),
    *([64] * 4, [256, 256], [256], "linear"),
  ),
  "multi_dsprites": (
    *(16, 6, 16, 3e-4 * math.sqrt(16 / 128), [32] * 4, 5),
    *([32] * 3, [128], [128], "cos"),
  ),
  "tetrominoes": (
    *(32, 4, 128, 3e-4 * math.sqrt(128 / 256), [32] * 4, 5),
    *([32] * 3, [128], [], "cos"),
  ),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_configurations(name):
  config = main.get_config((name,))
  model = config["model"]
  decoder = model["decoder"]["pixel_decoder"]
  core = model["refinement_core"]
  encoder = core["encoder_net"]
  learning_rate = config["optimizer"]["learning_rate"]
  assert PAPER[name] == (
    model["n_z"],
    model["num_components"],
    config["data"]["batch_size"],
    learning_rate["learning_rate"],
    decoder["cnn_opt"]["output_channels"][:-1],
    decoder["cnn_opt"]["kernel_shapes"][0],
    encoder["cnn_opt"]["output_channels"],
    encoder["mlp_opt"]["output_sizes"],
    core["recurrent_net"]["hidden_sizes"],
    model["coord_type"],
  )
  assert model["num_iters"] == 5
  assert decoder["cnn_opt"]["output_channels"][-1] is None
  assert decoder["coord_type"] == "linear"
  assert encoder["mode"] == "avg_pool"
  assert encoder["cnn_opt"]["strides"] == [2]
  pixel = model["output_dist"]["component_dist"]
  assert (pixel["dist"], pixel["scale"], pixel["scale_val"]) == (
    *("logistic", "fixed", 0.03),
  )
  latent = model["latent_dist"]
  assert (latent["dist"], latent["scale"], latent["scale_act"]) == (
    *("normal", "var", "softplus"),
  )
  optimizer = config["optimizer"]
  assert (optimizer["beta1"], optimizer["beta2"]) == (0.95, 0.999)
  assert (optimizer["epsilon"], optimizer["max_gradient_norm"]) == (1e-8, 5.0)
  assert learning_rate["decay_rate"] == 0.1
  assert learning_rate["decay_steps"] == 1e6
  assert learning_rate["hold_steps"] == learning_rate["warmup_steps"] == 0
  assert config["checkpoint_dir"] == f"iodine/checkpoints/{name}"


def test_defaults():
  config = main.get_config()
  expected = {"continue_run": False, "save_summaries_steps": 10, "n_z": 64}
  expected |= {"save_checkpoint_steps": 1000, "num_components": 7}
  expected |= {"num_iters": 5, "learn_rate": 0.001, "batch_size": 4}
  assert {**expected, "stop_after_steps": 1000000}.items() <= config.items()


@pytest.mark.parametrize("name", [*PAPER, "quick", "laptop", "moving_sprites"])
def test_overrides_reach_everything_that_depends_on_them(name):
  config = main.get_config(
    (name,),
    {"batch_size": 2, "n_z": 5, "num_components": 3, "num_iters": 1},
  )
  model = config["model"]
  assert config["data"]["batch_size"] == 2
  assert model["n_z"] == 5
  assert model["num_iters"] == 1
  assert model["num_components"] == 3
  assert model["output_dist"]["num_components"] == 3
  rate = config["optimizer"]["learning_rate"]["learning_rate"]
  assert rate == config["learn_rate"]
  config = main.get_config((name,), {"learn_rate": 0.5})
  assert config["optimizer"]["learning_rate"]["learning_rate"] == 0.5


def test_a_config_saved_before_the_schedule_had_a_hold_still_builds():
  optimizer = main.get_config(("tetrominoes",))["optimizer"]
  now = building.build(optimizer)
  schedule = dict(optimizer["learning_rate"])
  del schedule["hold_steps"], schedule["warmup_steps"]
  before = building.build({**optimizer, "learning_rate": schedule})
  for adam in (now, before):
    adam.global_step.assign(250_000)
  assert float(before.learning_rate) == float(now.learning_rate)


def test_the_learning_rate_follows_the_batch_size():
  config = main.get_config(("clevr6",), {"batch_size": 32})
  assert config["learn_rate"] == pytest.approx(1e-3)


PIXEL_DECODER = "model.decoder.pixel_decoder"


@pytest.mark.parametrize("nested", [True, False])
def test_a_part_can_be_exchanged_as_a_whole(nested):
  part = {"constructor": "mine.Decoder", "sizes": [1, 2]}
  update = {**part, "replace": True}
  if nested:
    updates = {"model": {"decoder": {"pixel_decoder": update}, "n_z": 3}}
  else:
    updates = {f"{PIXEL_DECODER}.{key}": v for key, v in update.items()}
    updates["model.n_z"] = 3
  before = copy.deepcopy(updates)
  config = main.get_config(("tetrominoes",), updates)
  assert updates == before
  plain = main.get_config(("tetrominoes",), {"model.n_z": 3})
  plain["model"]["decoder"]["pixel_decoder"] = part
  assert config["model"] == plain["model"]
  # The next one starts afresh.
  again = main.get_config(("tetrominoes",))["model"]["decoder"]
  assert again["pixel_decoder"]["constructor"].endswith(".BroadcastConv")


def test_a_part_within_a_part_may_have_the_marker_too():
  core = {
    "constructor": "mine.Core",
    "replace": True,
    "net": {"constructor": "mine.Net", "replace": True},
  }
  config = main.get_config(("quick",), {"model.refinement_core": core})
  assert config["model"]["refinement_core"] == {
    "constructor": "mine.Core",
    "net": {"constructor": "mine.Net"},
  }


@pytest.mark.parametrize(
  "name, updates, part",
  [
    ("tetromino", {}, "no named config `tetromino`"),
    ("clevr6", {"modle": {"n_z": 3}}, "no config entry `modle.n_z`"),
    (
      *("clevr6", {"model.decodr": {"constructor": "mine.A", "replace": True}}),
      "no config entry `model.decodr`: did you mean `model.decoder`?",
    ),
    (
      *("clevr6", {"n_z.x": {"constructor": "mine.A", "replace": True}}),
      "`n_z` is {'x'",
    ),
    (
      *("clevr6", {f"{PIXEL_DECODER}.replace": True}),
      f"give `{PIXEL_DECODER}.constructor`",
    ),
  ],
)
def test_wrong_names(name, updates, part):
  with pytest.raises(errors.UserError) as info:
    main.get_config((name,), updates)
  assert part in str(info.value)


def test_only_entries_become_entries():
  known = main.get_config().keys()
  for name in main.ex.named_configs:
    # `own` has some more, see own_config_test.py.
    if name not in ("minutes", "own", "paper_data", "pretrained", "sprites"):
      assert main.get_config((name,)).keys() == known


def test_configs_are_plain_and_independent():
  first = main.get_config(("tetrominoes",))
  json.dumps(first)
  first["model"]["decoder"].clear()
  second = main.get_config(("tetrominoes",))
  assert second["model"]["decoder"]
  assert type(second["model"]) is dict
  assert type(second["model"]["decoder"]["pixel_decoder"]) is dict


@pytest.mark.parametrize(
  "name, num_train, bound",
  [("clevr6", 70000, 7), *((x, 60000, None) for x in list(PAPER)[1:])],
)
def test_paper_data(name, num_train, bound):
  config = main.get_config((name, "paper_data"))["data"]
  assert config["train"] == [0, num_train]
  assert config["test"] == [num_train, None]
  assert config["num_test_scenes"] == 320
  dataset = building.build(config)
  assert (dataset.min_num_objects, dataset.max_num_objects) == (None, bound)
  assert config["path"] == main.get_config((name,))["data"]["path"]
  config = main.get_config((name, "paper_data"), {"data.train": [0, 9]})
  assert config["data"]["train"] == [0, 9]


def test_clevr6_keeps_what_the_original_keeps():
  dataset = building.build(main.get_config(("clevr6",))["data"])
  assert isinstance(dataset, data.CLEVR)
  assert (dataset.min_num_objects, dataset.max_num_objects) == (6, 6)


def test_the_variant_of_multi_dsprites_is_all_that_has_to_be_said():
  config = main.get_config(
    ("multi_dsprites",), {"data.dataset_variant": "binarized"}
  )
  assert config["data"]["path"].endswith("multi_dsprites_binarized.tfrecords")
  mapping = config["model"]["factor_evaluator"]["mapping"]
  assert list(mapping[0]) == ["color", 1, "scalar"]
  assert "variant" not in config


@pytest.mark.parametrize("name", [*PAPER, "quick", "laptop"])
def test_every_config_builds(name):
  config = main.get_config((name,))
  for key in ("data", "model", "optimizer"):
    assert building.build(config[key]) is not building.build(config[key])


def test_sprites_after_laptop_has_more_slots_and_other_factors():
  config = main.get_config(("laptop", "sprites"), {"num_components": 5})
  model, dataset = (building.build(config[key]) for key in ("model", "data"))
  assert model.num_components == model.output_dist.num_components == 5
  assert type(dataset).__name__ == "MultiDSprites"
  model.initialize(dataset.image_shape)
  kinds = model.factor_evaluator.kinds
  assert "orientation" in kinds and "position" not in kinds


def test_pretrained_changes_the_data_only():
  names = ("tetrominoes", "minutes")
  own, shown = (main.get_config(n) for n in (names, (*names, "pretrained")))
  assert own["model"] == shown["model"]
  assert own["data"]["path"] != shown["data"]["path"]
  assert own["data_seed"] != shown["data_seed"]
  assert os.path.samefile(shown["checkpoint_dir"], pretrained.TETROMINOES)


def test_minutes_is_what_the_log_did():
  """Of docs/results.md: batches, scale, learning rate, convolutions."""
  config = main.get_config(("tetrominoes", "minutes"), {"seed": 0})
  paper = main.get_config(("tetrominoes",), {"seed": 0})
  assert config["batch_size"] == config["data"]["batch_size"] == 64
  assert config["stop_after_steps"] == 30000
  optimizer = building.build(config["optimizer"])
  for step, rate in ((0, 8e-4), (5800, 8e-4), (33800, 8e-5)):
    optimizer.global_step.assign(step)
    np.testing.assert_allclose(optimizer.learning_rate, rate, 1e-6)  # float32
  changed = {
    ("decoder", "pixel_decoder", "compute_dtype"): "auto",
    ("refinement_core", "encoder_net", "compute_dtype"): "auto",
    ("output_dist", "component_dist", "scale_val"): 0.1,
  }
  for path, value in changed.items():
    *parents, key = path
    part = paper["model"]
    for name in parents:
      part = part[name]
    part[key] = value
  assert config["model"] == paper["model"]
  rate = paper["optimizer"]["learning_rate"]
  rate |= {"learning_rate": 8e-4, "hold_steps": 5800, "decay_steps": 28000}
  assert config["optimizer"] == paper["optimizer"]
  assert (config["skip_nonfinite"], paper["skip_nonfinite"]) == (10, None)
  dataset = building.build(config["data"])
  assert (dataset.train, dataset.test) == ([0, 100000], [100000, None])


def test_moving_sprites_make_a_step_frame_by_frame():
  tiny = {
    **{"n_z": 3, "num_iters": 2, "batch_size": 2},
    "model.decoder.pixel_decoder.cnn_opt.output_channels": [4, None],
    "model.refinement_core.encoder_net.cnn_opt.output_channels": [4],
    "model.factor_evaluator": None,
  }
  config = main.get_config(("moving_sprites",), tiny)
  assert config["data"]["frames"] == 3
  model = building.build(config["model"])
  head = model.refinement_core.refinement_head
  assert isinstance(head, refinement.PredictorCorrectorHead)
  batch = {**helpers.make_batch(size=(32, 32), frames=3), "factors": {}}
  optimizer = building.build(config["optimizer"])
  scalars = training.train_step(model, optimizer, batch)
  assert np.isfinite(scalars["loss/total"])
  # In the last of the three frames, not in the first.
  _, _, iterations = model(batch)
  assert len(iterations["inputs"]) == 2
  np.testing.assert_array_equal(
    iterations["inputs"][1].spatial["image"], batch["image"][:, 1:2]
  )


def test_named_configs_that_do_not_go_together_are_a_sentence():
  with pytest.raises(errors.UserError, match="own, laptop do not go together"):
    main.get_config(("own", "laptop"), {"data.path": "photos"})


def test_a_checkpoint_within_a_stage_has_the_model_of_then():
  config = main.get_config(("laptop",))
  first, told = config_files.at_step(config, 2500)
  assert first["num_components"] == first["model"]["num_components"] == 4
  assert first["model"]["output_dist"]["num_components"] == 4
  assert "step 2500 is in stage 1 of 4" in told
  assert told.endswith("later stages are to come")
  last, told = config_files.at_step(config, 20001)
  assert (last, told) == (config, None)
