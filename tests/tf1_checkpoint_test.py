import json
import os
import pathlib
import shutil

import helpers
import numpy as np
import pytest
import tensorflow as tf

import main
from iodine import building, checkpoints, errors
from iodine.checkpoints import tf1

GOLDEN = pathlib.Path(__file__).parent / "golden"
CASES = ["tiny_tetrominoes", "tiny_dsprites", "tiny_clevr", "tiny_sequential"]


def build(name, **updates):
  """A fresh model and optimizer of a recorded case."""
  case = json.loads((GOLDEN / name / "case.json").read_text())
  config = main.get_config(
    (case["named_config"],), {**case["config_updates"], **updates}
  )
  return helpers.build_both(config, (*case["image"], 3))


def read(prefix):
  reader = tf.train.load_checkpoint(str(prefix))
  return {k: reader.get_tensor(k) for k in reader.get_variable_to_shape_map()}


def rewrite(source, target, change):
  """Copies a checkpoint with changed tensors."""
  tensors = change(read(source))
  names = sorted(tensors)
  tf.raw_ops.SaveV2(
    prefix=str(target),
    tensor_names=names,
    shape_and_slices=[""] * len(names),
    tensors=[tensors[n] for n in names],
  )
  return str(target)


def randomize(model, optimizer, seed=0):
  """Values of every magnitude, so that any rounding shows."""
  rng = np.random.default_rng(seed)
  for variable in [*model.variables, *optimizer.m, *optimizer.v]:
    exponent = rng.integers(-12, 4, variable.shape)
    values = rng.normal(size=variable.shape) * 10.0**exponent
    variable.assign(values.astype(np.float32))
  optimizer.global_step.assign(123456789012)
  optimizer.beta1_power.assign(rng.uniform())
  optimizer.beta2_power.assign(rng.uniform())


@pytest.mark.parametrize("name", CASES)
def test_restoring_a_recorded_checkpoint_and_exporting_it_is_the_identity(
  name, tmp_path
):
  model, optimizer = build(name)
  source = str(GOLDEN / name / "model.ckpt")
  tf1.restore(source, model, optimizer)
  prefix = tf1.export(f"{tmp_path}/model.ckpt", model, optimizer)
  expected, actual = read(source), read(prefix)
  helpers.assert_same_bits(actual, expected)
  for key in expected:
    assert actual[key].dtype == expected[key].dtype


@pytest.mark.parametrize("name", CASES)
def test_an_export_is_the_originals_and_restores_to_the_bit(name, tmp_path):
  model, optimizer = build(name)
  randomize(model, optimizer)
  prefix = tf1.export(f"{tmp_path}/model.ckpt", model, optimizer)
  names_types_and_shapes = [
    f"{key} {value.dtype} {list(value.shape)}"
    for key, value in sorted(read(prefix).items())
  ]
  listed = (GOLDEN / name / "variables.txt").read_text().splitlines()
  assert names_types_and_shapes == sorted(listed)
  other_model, other_optimizer = build(name)
  tf1.restore(prefix, other_model, other_optimizer)
  helpers.assert_same_bits(
    [*model.variables, *optimizer.variables],
    [*other_model.variables, *other_optimizer.variables],
  )


def test_a_tf1_saver_reads_an_export(tmp_path):
  model, optimizer = build("tiny_clevr")
  randomize(model, optimizer)
  prefix = tf1.export(f"{tmp_path}/model.ckpt", model, optimizer)
  written = read(prefix)
  with tf.Graph().as_default():
    variables = {
      name: tf.compat.v1.get_variable(
        name, value.shape, value.dtype, use_resource=False
      )
      for name, value in written.items()
    }
    saver = tf.compat.v1.train.Saver()
    with tf.compat.v1.Session() as session:
      saver.restore(session, tf.compat.v1.train.latest_checkpoint(tmp_path))
      for name, value in session.run(variables).items():
        np.testing.assert_array_equal(value, written[name])


def test_reports_say_what_happened(tmp_path):
  model, optimizer = build("tiny_clevr")
  source = str(GOLDEN / "tiny_clevr/model.ckpt")
  everything = set(read(source))
  report = tf1.restore(source, model, optimizer)
  assert report.status == dict.fromkeys(everything, "restored")
  assert checkpoints.open_checkpoint(source).step == 3
  assert int(optimizer.global_step) == 3
  without = tf1.restore(source, model)
  assert without.status.keys() == everything
  assert without.status["global_step"] == "unused"
  assert all(report.shapes[k] == v.shape for k, v in read(source).items())


@pytest.mark.parametrize("powers", [False, True])
def test_without_slots_adam_starts_afresh(powers, tmp_path):
  """As in a release, whatever the global step says."""
  dropped = ("/Adam", "/Adam_1") if powers else ("/Adam", "/Adam_1", "_power")
  source = rewrite(
    GOLDEN / "tiny_clevr/model.ckpt",
    tmp_path / "model.ckpt-1000000",
    lambda tensors: {
      k: v for k, v in tensors.items() if not k.endswith(dropped)
    },
  )
  model, optimizer = build("tiny_clevr")
  randomize(model, optimizer)
  report = tf1.restore(source, model, optimizer)
  moments = tf1.all_variables(model, optimizer).keys()
  moments -= {*tf1.model_variables(model), "global_step"}
  fresh = {name for name, x in report.status.items() if x == "left fresh"}
  assert fresh == moments
  assert int(optimizer.global_step) == 3
  assert not any(np.any(v) for v in [*optimizer.m, *optimizer.v])
  assert float(optimizer.beta1_power) == np.float32(0.95)
  assert float(optimizer.beta2_power) == np.float32(0.999)


def test_an_export_without_optimizer_is_like_a_release(tmp_path):
  model, optimizer = build("tiny_clevr")
  prefix = tf1.export(f"{tmp_path}/model.ckpt", model)
  written = read(prefix)
  assert set(written) == {
    *tf1.model_variables(model),
    "global_step",
  }
  assert written["global_step"].dtype == np.int64
  tf1.restore(prefix, *build("tiny_clevr"))


def test_folders_with_and_without_a_state_file(tmp_path):
  for end in (".index", ".data-00000-of-00001"):
    source = GOLDEN / f"tiny_clevr/model.ckpt{end}"
    shutil.copy(source, tmp_path / f"model.ckpt-11{end}")
  tf1.restore(str(tmp_path), build("tiny_clevr")[0])
  shutil.copy(tmp_path / "model.ckpt-11.index", tmp_path / "other.index")
  # Of another machine or not.
  for place in ("/elsewhere/", ""):
    (tmp_path / "checkpoint").write_text(
      f'model_checkpoint_path: "{place}model.ckpt-11"\n'
    )
    assert (
      checkpoints.open_checkpoint(str(tmp_path)).prefix
      == f"{tmp_path}/model.ckpt-11"
    )
  os.remove(tmp_path / "checkpoint")
  with pytest.raises(errors.UserError, match="2 checkpoints and no state"):
    checkpoints.open_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
  "updates, parts",
  [
    (
      {"n_z": 7},
      [
        "sample_distribution is [10] there and [14] here",
        "predict_latents/w is [5, 19] there and [7, 19] here",
      ],
    ),
    (
      {"model.refinement_core.recurrent_net.hidden_sizes": []},
      ["recurrent_net/lstm/lstm/b_gates [48] is only there"],
    ),
    (
      {"model.output_dist.component_dist.scale_val": -1.0},
      ["component_dist/pixel_distribution/scale [] is only here"],
    ),
  ],
)
def test_another_config_is_one_sentence_and_changes_nothing(updates, parts):
  model, optimizer = build("tiny_clevr", **updates)
  before = [np.array(v) for v in [*model.variables, *optimizer.variables]]
  with pytest.raises(errors.UserError) as info:
    tf1.restore(str(GOLDEN / "tiny_clevr/model.ckpt"), model, optimizer)
  message = str(info.value)
  assert "\n" not in message
  for part in parts:
    assert part in message
  helpers.assert_same_bits(before, [*model.variables, *optimizer.variables])


def test_the_number_of_slots_does_not_matter():
  model, optimizer = build("tiny_clevr", num_components=5, num_iters=1)
  tf1.restore(str(GOLDEN / "tiny_clevr/model.ckpt"), model, optimizer)
  assert int(optimizer.global_step) == 3


@pytest.mark.parametrize(
  "lost", ["encoder_net/cnn/mlp/linear_0/w/Adam", "beta1_power"]
)
def test_half_of_adam_is_an_error(tmp_path, lost):
  source = rewrite(
    GOLDEN / "tiny_clevr/model.ckpt",
    tmp_path / "model.ckpt",
    lambda tensors: {k: v for k, v in tensors.items() if k != lost},
  )
  with pytest.raises(errors.UserError, match=f"{lost} .* is only here"):
    tf1.restore(source, *build("tiny_clevr"))


@pytest.mark.parametrize(
  "part, updates",
  [
    ("component_dist", {"model.output_dist.component_dist.scale_val": -1.0}),
    (
      "latent_dist",
      {"model.latent_dist.scale": "fixed", "model.latent_dist.scale_val": -1.0},
    ),
  ],
)
def test_a_learned_scale_has_its_name(tmp_path, part, updates):
  def dist(model):
    owner = model if part == "latent_dist" else model.output_dist
    return getattr(owner, part)

  model, optimizer = build("tiny_clevr", **updates)
  dist(model).scale.assign(0.25)
  prefix = tf1.export(f"{tmp_path}/model.ckpt", model, optimizer)
  name = f"{part}/{dist(model).name}/scale"
  assert read(prefix)[name] == 0.25 and f"{name}/Adam" in read(prefix)
  other, _ = build("tiny_clevr", **updates)
  tf1.restore(prefix, other)
  assert float(dist(other).scale) == 0.25


def test_decoder_mlp_and_two_layers_have_their_names():
  model, _ = build(
    "tiny_clevr",
    **{
      "model.decoder.pixel_decoder.mlp_opt": {
        "output_sizes": [4, 6],
        "activation": "elu",
      },
      "model.refinement_core.recurrent_net.hidden_sizes": [12, 4],
    },
  )
  names = tf1.model_variables(model)
  assert names["pixel_decoder/broadcast_conv/mlp/linear_1/w"].shape == (4, 6)
  assert names["recurrent_net/lstm/lstm_1/w_gates"].shape == (16, 16)
  assert len({id(v) for v in names.values()}) == len(model.variables)


def test_inputs_without_spatial_ones_leave_the_encoder_out():
  model, _ = build("tiny_clevr", **{"model.inputs": ["zp", "dzp"]})
  names = tf1.model_variables(model)
  assert not any(name.startswith("encoder_net") for name in names)
  assert len(names) == len(model.variables)


def test_a_deconv_has_no_tf1_checkpoint():
  config = main.get_config(("quick",))
  model = building.build(config["model"])
  model.initialize((35, 35, 3))
  with pytest.raises(errors.UserError, match="the original cannot run"):
    tf1.model_variables(model)


def test_export_errors_leave_nothing_behind(tmp_path):
  model, optimizer = build("tiny_clevr")
  with pytest.raises(errors.UserError, match="is a folder"):
    tf1.export(str(tmp_path), model)
  assert os.listdir(tmp_path) == []
  # Nor does one hide a run.
  checkpoints.CheckpointStore(f"{tmp_path}/run", model, optimizer).save()
  (tmp_path / "run/config.json").write_text("{}")
  with pytest.raises(errors.UserError, match="holds a run"):
    tf1.export(f"{tmp_path}/run/model.ckpt", model, optimizer)
  assert not list(tmp_path.glob("run/model*"))


def test_a_model_without_variables_says_so(tmp_path):
  model = helpers.tiny_model()
  source = str(GOLDEN / "tiny_clevr")
  for call in (
    lambda: tf1.restore(source, model),
    lambda: tf1.export(f"{tmp_path}/model.ckpt", model),
    lambda: checkpoints.restore(source, model=model),
  ):
    with pytest.raises(errors.UserError, match="initialize"):
      call()
  assert not list(tmp_path.iterdir())


def test_an_exported_folder_can_be_moved(tmp_path):
  model, _ = build("tiny_clevr")
  tf1.export(tmp_path / "old/model.ckpt", model)
  shutil.move(tmp_path / "old", tmp_path / "new")
  assert (
    checkpoints.open_checkpoint(tmp_path / "new").prefix
    == f"{tmp_path}/new/model.ckpt"
  )
