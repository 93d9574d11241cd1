"""The commands as users run them: files, output, exit status, sentences."""

import atexit
import glob
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import weakref

import helpers
import numpy as np
import pytest
import tensorflow as tf

import main
from iodine import checkpoints, errors
from iodine.commands import common, experiment, make_data, quickstart

ROOT = pathlib.Path(__file__).parents[1]
run = helpers.run_main
fails_with_sentence = helpers.fails_with_sentence

# A model of few channels that trains on 8x8 images.
TINY = [
  *(f"{key}={value}" for key, value in helpers.TINY.items()),
  "batch_size=2",
  "data.image_dim=[8,8]",
  "data.shuffle_buffer=10",
  "save_summaries_steps=1",
  "stop_after_steps=2",
  "seed=3",
]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
  """Twelve generated Tetrominoes scenes."""
  folder = tmp_path_factory.mktemp("data")
  return make_data.make_data(
    {**main.get_config(("tetrominoes",))["data"]}, str(folder), 12, seed=0
  )


@pytest.fixture(scope="module")
def trained(tmp_path_factory, scenes):
  """The folder of a training of two steps."""
  checkpoint_dir = tmp_path_factory.mktemp("runs") / "tiny"
  run(
    *("with", "tetrominoes", *TINY),
    *(f"data.path={scenes}", f"checkpoint_dir={checkpoint_dir}"),
  )
  return f"{checkpoint_dir}_1"


def event_values(folder):
  values = {}
  for path in glob.glob(f"{folder}/events*"):
    for raw in tf.data.TFRecordDataset(path):
      event = tf.compat.v1.Event.FromString(raw.numpy())
      values.update({(v.tag, event.step): v for v in event.summary.value})
  return values


# ------------------------------------------------------------------ make_data


def test_make_data_writes_where_it_is_told(tmp_path, capsys):
  run(
    *("make_data", "with", "tetrominoes", f"data_dir={tmp_path}"),
    *("num_scenes=3", "seed=1"),
  )
  path = tmp_path / "tetrominoes_train.tfrecords"
  assert str(path) in capsys.readouterr().out
  first = path.read_bytes()
  run(
    *("make_data", "with", "tetrominoes", f"data.path={tmp_path}/again"),
    *("num_scenes=3", "seed=1"),
  )
  assert (tmp_path / "again").read_bytes() == first


def test_the_scenes_may_have_a_seed_of_their_own(tmp_path):
  files = []
  for i, options in enumerate(
    (
      ["laptop", "seed=5"],
      ["tetrominoes", "seed=0"],
      ["laptop", "seed=0", "data_seed=5"],
    )
  ):
    folder = tmp_path / str(i)
    run("make_data", "with", *options, "num_scenes=3", f"data_dir={folder}")
    (path,) = folder.iterdir()
    files.append(path.read_bytes())
  assert files[0] == files[1] != files[2]


def test_a_config_makes_its_own_scenes_and_no_others(tmp_path, capsys):
  options = ["with", "laptop", *TINY, "num_scenes=12", "data.train=[0,8]"]
  options += ["data.test=[8,None]", f"checkpoint_dir={tmp_path}/run"]
  made = f"generated_path={tmp_path}/scenes"
  message = fails_with_sentence(
    capsys, *options, made, f"data.path={tmp_path}/misspelt"
  )
  assert "misspelt" in message
  assert os.listdir(tmp_path) == []
  run(*options, made)
  assert "generating 12 scenes" in capsys.readouterr().out
  run("evaluate", *options, made, f"checkpoint_dir={tmp_path}/run_1")
  assert "generating" not in capsys.readouterr().out


def test_results_go_where_they_are_told(trained, scenes, tmp_path, capsys):
  options = [
    *("evaluate", "with", "tetrominoes", *TINY, f"data.path={scenes}"),
    *(f"checkpoint_dir={trained}", "evaluation.num_scenes=2"),
  ]
  before = sorted(os.listdir(trained))
  run(*options, f"results_dir={tmp_path}/results")
  assert sorted(os.listdir(tmp_path / "results")) == ["evaluation", "pictures"]
  assert sorted(os.listdir(trained)) == before
  message = fails_with_sentence(capsys, *options, "results_dir=3")
  assert "`results_dir` is 3" in message


@pytest.mark.parametrize(
  "options, file_name",
  [
    (
      ["multi_dsprites"],
      "multi_dsprites_colored_on_grayscale.tfrecords",
    ),
    (
      ["multi_dsprites", "data.dataset_variant=binarized"],
      "multi_dsprites_binarized.tfrecords",
    ),
    (
      ["multi_dsprites", "data.dataset_variant=colored_on_colored"],
      "multi_dsprites_colored_on_colored.tfrecords",
    ),
    (["clevr6"], "clevr_with_masks_train.tfrecords"),
    (["quick"], "tetrominoes_train.tfrecords"),
  ],
)
def test_make_data_for_every_config(tmp_path, options, file_name):
  run(
    *("make_data", "with", *options, f"data_dir={tmp_path}"),
    *("num_scenes=2", "seed=0"),
  )
  assert os.listdir(tmp_path) == [file_name]
  config = main.get_config(options[:1], dict(o.split("=") for o in options[1:]))
  dataset = common.build_dataset(
    {
      **config["data"],
      "path": str(tmp_path / file_name),
      "batch_size": 1,
      "test": None,
      "min_num_objects": None,
      "max_num_objects": None,
    },
    seed=0,
  )
  (first, second) = dataset.batches("test")
  assert np.abs(first["image"] - second["image"]).max() > 0.1


@pytest.mark.parametrize(
  "updates, part",
  [
    (["data_dir=/proc/no/such"], "/proc/no/such"),
    (
      ["data.constructor=iodine.modules.data.ObjectsRoom"],
      "no generator for this data set",
    ),
    (["data.path=['a','b']"], "give `data_dir`"),
    (["data.path=/x/*.tfrecords"], "give `data_dir`"),
  ],
)
def test_make_data_errors(capsys, updates, part):
  message = fails_with_sentence(
    capsys, "make_data", "with", "tetrominoes", *updates
  )
  assert part in message


# ------------------------------------------------------------------- training


def test_training_leaves_checkpoints_logs_and_config(trained):
  assert sorted(os.path.basename(f) for f in glob.glob(f"{trained}/*.index"))
  assert checkpoints.find(trained).endswith("ckpt-2")
  assert checkpoints.find(f"{trained}/best").endswith("ckpt-2")
  config = json.loads(pathlib.Path(trained, "config.json").read_text())
  assert config["n_z"] == 3
  values = event_values(trained)
  scalars = {tag for tag, step in values if step == 1}
  assert scalars == {
    *("loss/total", "loss/recons", "loss/kl", "loss/mse", "loss/ari"),
    *("loss/ari_nobg", "factor/loss", "factor/position", "factor/color"),
    *("factor/shape", "debug/global_grad_norm", "debug/learning_rate"),
    "debug/images_per_second",
  }
  images = {tag for tag, step in values if step == 2} - scalars
  assert images == {"overview", "sequence", "samples"}


def test_progress_shows_step_loss_ari_speed_and_time(scenes, tmp_path, capsys):
  run(
    *("with", "tetrominoes", *TINY, f"data.path={scenes}"),
    f"checkpoint_dir={tmp_path}/run",
  )
  lines = capsys.readouterr().out.splitlines()
  (line,) = [x for x in lines if x.startswith("step 1/2")]
  for part in ("loss ", "ARI ", "ARI-nobg ", " images/s", " left"):
    assert part in line
  assert lines[-1] == f"checkpoint: {tmp_path}/run_1/ckpt-2"


def test_a_second_run_gets_another_folder(scenes, tmp_path):
  options = [*TINY, f"data.path={scenes}", f"checkpoint_dir={tmp_path}/run"]
  for _ in range(2):
    run("with", "tetrominoes", *options, "stop_after_steps=1")
  assert sorted(os.listdir(tmp_path)) == ["run_1", "run_2"]
  # The same seed gives the same run.
  values = [
    tf.train.load_checkpoint(f"{tmp_path}/run_{i}/ckpt-1") for i in (1, 2)
  ]
  names = values[0].get_variable_to_shape_map()
  for name in names:
    if name != "_CHECKPOINTABLE_OBJECT_GRAPH":
      np.testing.assert_array_equal(*(v.get_tensor(name) for v in values))


def _weights(prefix):
  reader = tf.train.load_checkpoint(prefix)
  return {
    name: reader.get_tensor(name)
    for name in reader.get_variable_to_shape_map()
    # Not the best loss, a mean over another span, and TensorFlow's own.
    if name.startswith(("model/", "optimizer/"))
  }


def test_continue_run_goes_on_in_the_same_folder(scenes, tmp_path, capsys):
  options = ["with", "tetrominoes", *TINY, f"data.path={scenes}"]
  run(*options, f"checkpoint_dir={tmp_path}/run")
  folder = f"{tmp_path}/run_1"
  run(
    *(*options, f"checkpoint_dir={folder}", "continue_run=True"),
    *("stop_after_steps=3", "seed=99"),
  )
  out = capsys.readouterr().out
  assert "own seed 3 is used" in out
  assert f"continuing from {folder}/ckpt-2" in out
  assert checkpoints.find(folder) == f"{folder}/ckpt-3"
  assert os.listdir(tmp_path) == ["run_1"]
  assert checkpoints.open_checkpoint(folder).seed == 3
  # Three steps at a stretch come to the same numbers.
  run(*options, f"checkpoint_dir={tmp_path}/whole", "stop_after_steps=3")
  expected = _weights(f"{tmp_path}/whole_1/ckpt-3")
  weights = _weights(f"{tmp_path}/run_1/ckpt-3")
  assert weights.keys() == expected.keys()
  for name, value in weights.items():
    np.testing.assert_array_equal(value, expected[name])


@pytest.mark.slow
def test_stages_are_what_continued_runs_would_be(scenes, tmp_path, capsys):
  options = ["with", "tetrominoes", *TINY, f"data.path={scenes}"]
  four_slots = {"num_components": 4, "output_dist": {"num_components": 4}}
  stages = [
    {"until": 2, "model": {**four_slots, "num_iters": 1}},
    {"until": 3, "model": four_slots},
  ]
  run(
    *(*options, f"checkpoint_dir={tmp_path}/stages", "stop_after_steps=1"),
    f"stages={stages}",
  )
  out = capsys.readouterr().out
  assert 'stage 1 of 3, to step 1, with {"num_components": 4' in out
  # Interrupted within a stage, it goes on there.
  run(
    *(*options, f"checkpoint_dir={tmp_path}/stages_1", "stop_after_steps=4"),
    *("continue_run=True", f"stages={stages}"),
  )
  lines = [
    line.partition("  ")[0]
    for line in capsys.readouterr().out.splitlines()
    if line.startswith(("stage", "step", "continuing"))
  ]
  folder = f"{tmp_path}/stages_1"
  assert lines == [
    f"continuing from {folder}/ckpt-1",
    f"stage 1 of 3, to step 2, with {json.dumps(stages[0]['model'])}",
    "step 2/2",
    f"continuing from {folder}/ckpt-2",
    f"stage 2 of 3, to step 3, with {json.dumps(four_slots)}",
    "step 3/3",
    f"continuing from {folder}/ckpt-3",
    "stage 3 of 3, to step 4",
    "step 4/4",
  ]
  # What evaluates it later finds the model of the last stage.
  config = json.loads(pathlib.Path(folder, "config.json").read_text())
  assert config["model"]["num_components"] == 3

  # The same by hand.
  by_hand = ["num_components=4", "stop_after_steps=2", "num_iters=1"]
  run(*options, f"checkpoint_dir={tmp_path}/hand", *by_hand)
  options += [f"checkpoint_dir={tmp_path}/hand_1", "continue_run=True"]
  run(*options, "num_components=4", "stop_after_steps=3")
  run(*options, "stop_after_steps=4")
  expected = _weights(f"{tmp_path}/hand_1/ckpt-4")
  for name, value in _weights(f"{folder}/ckpt-4").items():
    np.testing.assert_array_equal(value, expected[name])


def test_file_storage_observer_and_metrics(scenes, tmp_path):
  observer = tmp_path / "sacred"
  run(
    *("-F", observer, "with", "tetrominoes", *TINY),
    *(f"data.path={scenes}", f"checkpoint_dir={tmp_path}/run"),
  )
  info = json.loads((observer / "1/info.json").read_text())
  assert info["tensorflow"]["logdirs"] == [f"{tmp_path}/run_1"]
  metrics = json.loads((observer / "1/metrics.json").read_text())
  assert metrics["loss"]["steps"] == [1, 2]
  assert len(metrics["ari_nobg"]["values"]) == 2
  assert json.loads((observer / "1/run.json").read_text())["status"] == (
    "COMPLETED"
  )


def test_observers_learn_what_ran(tmp_path):
  observer = tmp_path / "sacred"
  run(
    *("-F", observer, "make_data", "with", "quick", "num_scenes=1"),
    f"data_dir={tmp_path}",
  )
  record = json.loads((observer / "1/run.json").read_text())["experiment"]
  assert record["mainfile"] == "main.py"
  versions = dict(line.split("==") for line in record["dependencies"])
  assert versions["tensorflow"] == tf.__version__
  packages = ["dm-sonnet", "tensorflow-probability", "tf-keras", "shapeguard"]
  for name in [*packages, "numpy", "sacred"]:
    assert versions[name][0].isdigit(), name
  sources = {name for name, _ in record["sources"]}
  expected = {
    str(path.relative_to(ROOT))
    for folder in ("configs", "iodine")
    for path in (ROOT / folder).rglob("*.py")
  }
  assert sources == expected | {"main.py"}


# ------------------------------------------------------- code of one's own

OWN_DECODERS = """
import sonnet as snt


class Unbuildable(snt.Module):
  def __init__(self):
    super().__init__()
    self.size = self.sise


class Untraceable(snt.Module):
  def __init__(self, size):
    super().__init__()
    self.size = size

  def set_output_shape(self, shape):
    del shape

  def __call__(self, z, *_):
    return self.sise
"""


@pytest.mark.parametrize(
  "name, options, expected",
  [
    ("Unbuildable", [], "while building `model.decoder.pixel_decoder`:"),
    (
      *("Untraceable", ["model.decoder.pixel_decoder.size=3"]),
      "while tracing `model.decoder.pixel_decoder` (own_decoders.Untraceable):",
    ),
  ],
)
def test_errors_in_code_of_ones_own_have_a_traceback(
  scenes, tmp_path, capsys, monkeypatch, name, options, expected
):
  own = tmp_path / "own_decoders.py"
  own.write_text(OWN_DECODERS)
  monkeypatch.syspath_prepend(tmp_path)
  # Other tests may have imported the file of another folder.
  monkeypatch.delitem(sys.modules, "own_decoders", raising=False)
  with pytest.raises(SystemExit) as info:
    run(
      *("with", "tetrominoes", "batch_size=2", "data.image_dim=[8,8]"),
      *(f"data.path={scenes}", f"checkpoint_dir={tmp_path}/run"),
      "model.decoder.pixel_decoder.replace=True",
      f"model.decoder.pixel_decoder.constructor=own_decoders.{name}",
      *options,
    )
  assert info.value.code == 1
  lines = capsys.readouterr().err.splitlines()
  assert lines[0] == expected
  assert lines[1].startswith("Traceback")
  assert not [line for line in lines if line.startswith("error: ")]
  files = [line for line in lines if line.startswith("  File ")]
  assert files[-1].startswith(f'  File "{own}", line ')
  last = [line for line in lines if line.strip()][-1]
  assert last.startswith("AttributeError: ") and "'sise'" in last


def test_a_broken_import_of_ones_own_has_a_traceback(
  scenes, tmp_path, capsys, monkeypatch
):
  (tmp_path / "own_broken.py").write_text("import does_not_exist_at_all\n")
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(SystemExit):
    run(
      *("with", "tetrominoes", f"data.path={scenes}"),
      "model.latent_dist.constructor=own_broken.Distribution",
    )
  err = capsys.readouterr().err
  assert err.startswith("while building `model.latent_dist`:\nTraceback")
  assert "own_broken.py" in err and "does_not_exist_at_all" in err


def test_native_messages_are_filtered_not_silenced(capfd):
  with experiment.filtered_native_output():
    os.write(2, b"I0000 oneDNN custom operations are on. You may\n\n")
    os.write(2, b"libfoo: the driver is too old\n")
    print("from Python", file=sys.stderr)
  assert capfd.readouterr().err == (
    "from Python\nlibfoo: the driver is too old\n"
  )


@pytest.mark.parametrize(
  "updates, part",
  [
    (["data.path=/no/such.tfrecords"], "/no/such.tfrecords"),
    (["data.path=/no/such.tfrecords"], "make_data with tetrominoes"),
    (["data.pathh=x"], "`data.pathh` is not an argument"),
    (["model.n_zz=3"], "`model.n_zz` is not an argument"),
    (["model.constructor=iodine.No"], "`iodine.No`, which does not exist"),
    (["num_iters=2", "model.iter_loss_weight=[1,2]"], "iter_loss_weight"),
    (["model.coord_type=polar"], "coord_type"),
    (["model.output_dist.num_components=5"], "5 for `output_dist`"),
    (["continue_run=True", "checkpoint_dir=/no/such"], "/no/such"),
    (["checkpoint_dir=/proc/no/such"], "cannot write"),
    (["model.factor_evaluator.mapping=[('size',1,'scalar')]"], "`size`"),
    (["model.factor_evaluator.mapping=[]"], "mapping"),
    (["data.image_dim=[1,1]"], "more points than groups"),
    (["model.sequential=True"], "needs 3 frames"),
    (["model.decoder.pixel_decoder.cnn_opt.foo=3"], "foo"),
    (["model.decoder.pixel_decoder.cnn_opt.output_channels=[]"], "is empty"),
    (["model.latent_dist=None"], "`latent_dist` is None"),
    (
      ["model.refinement_core.recurrent_net.hidden_sizes=[0]"],
      "`hidden_sizes` is [0]",
    ),
    (
      ["model.refinement_core.encoder_net.cnn_opt.strides=[0]"],
      "`strides` is [0]",
    ),
    (["num_components=1"], "`num_components`"),
    (["optimizer.max_gradient_norm=-1"], "`max_gradient_norm` is -1"),
    (["optimizer.learning_rate.decay_steps=0"], "`decay_steps` is 0"),
    (["model.output_dist.component_dist.scale_val=0"], "`scale_val` is 0"),
    (["model.coord_type=cos", "model.coord_freqs=0"], "`coord_freqs` is 0"),
    (["stages=[{'until':1,'model':{'n_z':5}}]"], "shapes of weights"),
    (["stages=[{'until':1,'model':{'num_components':5}}]"], "5 for the model"),
  ],
)
def test_training_errors(capsys, scenes, tmp_path, updates, part):
  options = [*TINY, f"data.path={scenes}", f"checkpoint_dir={tmp_path}/run"]
  message = fails_with_sentence(
    capsys, "with", "tetrominoes", *options, *updates
  )
  assert part.replace(", did", ": did") in message
  assert not list(tmp_path.iterdir())


def test_no_experiment_is_an_error(capsys):
  assert "no experiment is chosen" in fails_with_sentence(capsys, "train")


def test_an_unknown_named_config_is_an_error(capsys):
  message = fails_with_sentence(capsys, "with", "tetromino")
  assert "no named config `tetromino`" in message


def test_a_diverging_run_is_a_sentence(capsys, scenes, tmp_path):
  message = fails_with_sentence(
    capsys,
    *("with", "tetrominoes", *TINY, f"data.path={scenes}"),
    *(f"checkpoint_dir={tmp_path}/run", "learn_rate=1e30"),
    *("stop_after_steps=5", "save_checkpoint_steps=1"),
  )
  # The update of step 1 ruined the weights: they are never saved.
  assert "diverged at step 1" in message
  assert "norm of weights and moments = inf" in message
  assert "there is no checkpoint yet" in message
  assert not list(tmp_path.glob("**/*.index"))


def test_a_broken_record_in_training_names_file_and_record(
  capsys, scenes, tmp_path
):
  records = [r.numpy() for r in tf.data.TFRecordDataset(scenes, "GZIP")]
  path = str(tmp_path / "broken.tfrecords")
  with tf.io.TFRecordWriter(path) as writer:
    for record in [*records[:5], b"nonsense", *records[5:]]:
      writer.write(record)
  message = fails_with_sentence(
    capsys,
    *("with", "tetrominoes", *TINY, f"data.path={path}"),
    *("stop_after_steps=9", f"checkpoint_dir={tmp_path}/run"),
  )
  assert path in message
  assert "ecord 5" in message


# -------------------------------------------------- load_checkpoint, evaluate


def test_load_checkpoint_prints_every_variable(trained, scenes, capsys):
  options = ["with", "tetrominoes", *TINY, f"data.path={scenes}"]
  run("load_checkpoint", *options, f"checkpoint_dir={trained}")
  out = capsys.readouterr().out
  model = helpers.tiny_model()
  model.initialize((8, 8, 3))
  for name, variable in checkpoints.variables_by_path(model).items():
    (line,) = [x for x in out.splitlines() if x.startswith(f"{name} ")]
    assert str(tuple(variable.shape)) in line
    assert line.endswith(f" {variable.shape.num_elements()}")
  trainable = sum(v.shape.num_elements() for v in model.trainable_variables)
  assert f"trainable: {trainable:,} of" in out
  assert f"restored: {trained}/ckpt-2" in out


def test_evaluate_reports_every_scene(trained, scenes, tmp_path, capsys):
  json_path = tmp_path / "figures/evaluation.json"
  run(
    *("evaluate", "with", "tetrominoes", *TINY, f"data.path={scenes}"),
    *(f"checkpoint_dir={trained}", "batch_size=5", f"json_path={json_path}"),
    f"pictures_dir={tmp_path}/pictures",
  )
  result = json.loads(json_path.read_text())
  assert result.pop("num_scenes") == 12
  for name in ("ari", "ari_nobg", "miou", "mse", "recons", "kl", "total"):
    assert result[name].keys() == {"mean", "standard_error"}
    assert np.isfinite(result[name]["mean"])
  out = capsys.readouterr().out
  assert "12 scenes" in out
  assert "ari_nobg" in out
  for name in ("overview", "sequence", "samples"):
    png = (tmp_path / f"pictures/{name}.png").read_bytes()
    assert tf.io.decode_png(png).shape[0] > 100


def test_evaluate_some_scenes(trained, scenes, tmp_path):
  json_path = tmp_path / "some.json"
  run(
    *("evaluate", "with", "tetrominoes", *TINY, f"data.path={scenes}"),
    *(f"checkpoint_dir={trained}", "evaluation.num_scenes=3"),
    *(f"json_path={json_path}", f"pictures_dir={tmp_path}"),
  )
  assert json.loads(json_path.read_text())["num_scenes"] == 3


@pytest.mark.parametrize("command", ["load_checkpoint", "evaluate"])
@pytest.mark.parametrize(
  "updates, part",
  [
    (["checkpoint_dir=/no/such"], "there is no checkpoint at `/no/such`"),
    (["n_z=4"], "initial_sample_distribution is [6] there and [8] here"),
  ],
)
def test_wrong_checkpoints(capsys, trained, scenes, command, updates, part):
  options = [*TINY, f"data.path={scenes}", f"checkpoint_dir={trained}"]
  message = fails_with_sentence(
    capsys, command, "with", "tetrominoes", *options, *updates
  )
  assert part in message


@pytest.mark.parametrize(
  "updates, part",
  [
    (["json_path=/tmp"], "`/tmp` is not a file"),
    (["pictures_dir=/proc/no/such"], "cannot write"),
    (["data.test=[99,None]"], "test"),
    (["json_path=/proc/no/such.json"], "/proc/no"),
    (["virtual_devices=2"], "or `strategy=mirrored`, too"),
    (
      [
        *("strategy=mirrored", "virtual_devices=2"),
        "model.refinement_batch_size=None",
      ],
      "a size, since with `strategy`",
    ),
  ],
)
def test_evaluate_errors(capsys, trained, scenes, tmp_path, updates, part):
  options = [*TINY, f"data.path={scenes}", f"checkpoint_dir={trained}"]
  message = fails_with_sentence(
    capsys,
    *("evaluate", "with", "tetrominoes", *options),
    *(f"pictures_dir={tmp_path}", *updates),
  )
  assert part in message


# ----------------------------------------------------------------------- plot


def test_plot_draws_chosen_scenes(trained, scenes, tmp_path, capsys):
  folder = tmp_path / "plots"
  run(
    *("plot", "with", "tetrominoes", *TINY, f"data.path={scenes}"),
    *(f"checkpoint_dir={trained}", "plot.scenes=[11,0,11]", "batch_size=5"),
    *("plot.slot=2", "num_iters=1", f"pictures_dir={folder}"),
  )
  of_scene = [
    *("example.png", "inputs.png", "iterations.png"),
    *("refinement.gif", "traversal.png"),
  ]
  names = [f"scene_{n}_{name}" for n in (0, 11) for name in of_scene]
  names += ["latents.png", "metrics.png", "samples.png"]
  assert sorted(os.listdir(folder)) == sorted(names)
  out = capsys.readouterr().out
  for name in names:
    assert out.count(f"wrote {folder}/{name}\n") == 1
    image = tf.io.decode_image((folder / name).read_bytes())
    assert image.shape[-3] > 100 and np.std(image) > 1.0
    assert (image.ndim, image.shape[0]) == (4, 2) or name.endswith("png")


def test_plot_draws_what_needs_no_scene(exported, scenes, capsys):
  run(
    *("plot", "with", "tetrominoes", *TINY, f"data.path={scenes}"),
    *(f"checkpoint_dir={exported}", "plot.scenes=[]", "num_iters=0"),
    "plot.num_scenes_for_map=1",
  )
  folder = os.path.join(os.path.dirname(exported), "plots")
  names = ["latents.png", "metrics.png", "samples.png"]
  assert sorted(os.listdir(folder)) == names
  assert "scenes to draw: " in capsys.readouterr().err


@pytest.mark.parametrize(
  "updates, part",
  [
    (["plot.slot=4"], "`plot.slot` is 4, and the model has 3 slots"),
    (["plot.scenes=[0,12]"], "no scene 12: the test subset has 12 scenes"),
    (["data.test=[99,None]"], "test"),
    (["pictures_dir=/proc/no/such"], "cannot write"),
    (["n_z=4"], "initial_sample_distribution is [6] there and [8] here"),
    (["checkpoint_dir=/no/such"], "there is no checkpoint at `/no/such`"),
  ],
)
def test_plot_errors(capsys, trained, scenes, tmp_path, updates, part):
  folder = tmp_path / "plots"
  message = fails_with_sentence(
    capsys,
    *("plot", "with", "tetrominoes", *TINY, f"data.path={scenes}"),
    *(f"checkpoint_dir={trained}", f"pictures_dir={folder}", "num_iters=1"),
    *updates,
  )
  assert part in message
  assert not list(tmp_path.glob("plots/*"))


# ---------------------------------------------------------- TF1 checkpoints


@pytest.fixture(scope="module")
def exported(trained, scenes, tmp_path_factory):
  """The training of two steps as a TF1 checkpoint."""
  prefix = f"{tmp_path_factory.mktemp('tf1')}/model.ckpt"
  options = ["with", "tetrominoes", *TINY, f"data.path={scenes}"]
  run("export_tf1", *options, f"checkpoint_dir={trained}", f"output={prefix}")
  return prefix


def test_both_kinds_of_checkpoint_evaluate_alike(
  trained, exported, scenes, tmp_path
):
  figures = []
  for i, checkpoint in enumerate((trained, exported)):
    run(
      *("evaluate", "with", "tetrominoes", *TINY, f"data.path={scenes}"),
      *(f"checkpoint_dir={checkpoint}", f"json_path={tmp_path}/{i}.json"),
      # That of the training, which only one of them has beside it.
      *(f"pictures_dir={tmp_path}", "model.refinement_batch_size=2"),
    )
    figures.append((tmp_path / f"{i}.json").read_text())
  assert figures[0] == figures[1]


def test_load_checkpoint_reports_on_a_tf1_checkpoint(exported, scenes, capsys):
  run(
    *("load_checkpoint", "with", "tetrominoes", *TINY, f"data.path={scenes}"),
    f"checkpoint_dir={exported}",
  )
  out = capsys.readouterr().out
  names = tf.train.load_checkpoint(exported).get_variable_to_shape_map()
  for name in names:
    (line,) = [x for x in out.splitlines() if x.startswith(f"{name} ")]
    assert " restored " in line
  assert "global step: 2" in out


def test_a_run_goes_on_from_a_tf1_checkpoint_with_adams_state(
  trained, exported, scenes, tmp_path, capsys
):
  tf1_folder = tmp_path / "tf1"
  shutil.copytree(os.path.dirname(exported), tf1_folder)
  before = sorted(os.listdir(tf1_folder))
  options = ["with", "tetrominoes", *TINY, f"data.path={scenes}"]
  more = ["continue_run=True", "stop_after_steps=3"]
  run(*options, *more, f"checkpoint_dir={tf1_folder}")
  assert "continuing from the TF1 checkpoint" in capsys.readouterr().out
  assert sorted(os.listdir(tf1_folder)) == before
  shutil.copytree(trained, tmp_path / "tf2")
  run(*options, *more, f"checkpoint_dir={tmp_path}/tf2")
  # The third step is the same to the bit, from either checkpoint.
  values = [
    tf.train.load_checkpoint(f"{tmp_path}/{name}/ckpt-3")
    for name in ("tf1_1", "tf2")
  ]
  for name in values[0].get_variable_to_shape_map():
    if name.startswith(("model/", "optimizer/")):
      np.testing.assert_array_equal(*(v.get_tensor(name) for v in values))


def test_export_needs_an_output(trained, scenes, capsys):
  message = fails_with_sentence(
    capsys,
    *("export_tf1", "with", "tetrominoes", *TINY, f"data.path={scenes}"),
    f"checkpoint_dir={trained}",
  )
  assert "`output` is not set" in message


def test_a_wrong_tf1_checkpoint_is_a_sentence(exported, scenes, capsys):
  message = fails_with_sentence(
    capsys,
    *("evaluate", "with", "tetrominoes", *TINY, f"data.path={scenes}"),
    *(f"checkpoint_dir={exported}", "n_z=4"),
  )
  assert "initial_sample_distribution is [" in message


# -------------------------------------------------------- quickstart, the rest


def test_quickstart_makes_everything_and_reuses_it(
  tmp_path, capsys, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(quickstart, "_NUM_SHOWN", 4)  # to take less time
  options = [
    *("quickstart", "with", "quick", *TINY, "num_scenes=12"),
    *("data.train=[0,8]", "data.test=[8,None]"),
    *(f"data.path={tmp_path}/data/scenes", f"checkpoint_dir={tmp_path}/run"),
  ]
  run(*options)
  out = capsys.readouterr().out
  written = os.path.getmtime(f"{tmp_path}/data/scenes")
  for part in ("4 scenes", "pictures:", "checkpoint:", "TensorBoard:", "Next"):
    assert part in out
  shown = "runs/pretrained/plots/scene_0_example.png"
  assert out.index(f"\n  {shown}\n") < out.index("step 1/2")
  assert os.path.exists(shown)
  assert os.path.exists(f"{tmp_path}/run/pictures/overview.png")
  monkeypatch.setattr(quickstart, "show", lambda config: None)  # likewise
  run(*options)
  assert "already there" in capsys.readouterr().out
  assert os.path.getmtime(f"{tmp_path}/data/scenes") == written
  assert checkpoints.find(f"{tmp_path}/run") == f"{tmp_path}/run/ckpt-2"


def test_sacreds_own_commands(capsys):
  run("print_config", "with", "tetrominoes", "batch_size=3")
  out = capsys.readouterr().out
  assert "batch_size" in out
  run("print_named_configs")
  assert "multi_dsprites" in capsys.readouterr().out


@pytest.mark.parametrize("path", ["/usr/bin:/bin", "/nowhere"])
def test_folders_that_git_does_not_tell_of(path, tmp_path, monkeypatch):
  monkeypatch.setenv("PATH", path)  # without git, or with it and no repository
  assert not experiment.git_tells(str(tmp_path))


def test_user_errors_reach_python_callers():
  with pytest.raises(errors.UserError, match="no experiment is chosen"):
    main.ex.run("train")


def test_two_runs_at_once_have_a_folder_each(scenes, tmp_path):
  (tmp_path / "run_1").mkdir()  # of a run that has not saved yet
  run(
    *("with", "tetrominoes", *TINY, f"data.path={scenes}"),
    *(f"checkpoint_dir={tmp_path}/run", "stop_after_steps=1"),
  )
  assert os.listdir(tmp_path / "run_1") == []
  assert checkpoints.find(f"{tmp_path}/run_2").endswith("ckpt-1")


def test_a_finished_run_says_that_nothing_is_left(trained, scenes, capsys):
  run(
    *("with", "tetrominoes", *TINY, f"data.path={scenes}"),
    *(f"checkpoint_dir={trained}", "continue_run=True"),
  )
  assert "nothing is left to train: step 2 of 2" in capsys.readouterr().out


def test_observers_that_cannot_be_used(capsys, scenes, monkeypatch):
  options = ["with", "tetrominoes", *TINY, f"data.path={scenes}"]
  message = fails_with_sentence(capsys, "-F", "/proc/no/such", *options)
  assert "/proc/no" in message
  monkeypatch.setitem(sys.modules, "pymongo", None)
  message = fails_with_sentence(capsys, "-m", "localhost:1:db", *options)
  assert "pip install 'pymongo>=4'" in message


def test_paper_data_alone_says_where_it_goes(capsys):
  for words in (["paper_data"], ["paper_data", "clevr6"]):
    message = fails_with_sentence(capsys, "with", *words)
    assert "give it after that" in message


def test_sigterm_in_make_data_leaves_nothing(tmp_path):
  process = subprocess.Popen(
    [
      *(sys.executable, "main.py", "make_data", "with", "tetrominoes"),
      *(f"data_dir={tmp_path}/data", "num_scenes=1000000", "seed=0"),
    ],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  deadline = time.monotonic() + 100
  # Scenes are written, no worker is being started any more.
  while not any(p.stat().st_size for p in tmp_path.glob("data/.iodine-*/*")):
    assert time.monotonic() < deadline
    time.sleep(0.2)
  process.send_signal(signal.SIGTERM)
  out = process.communicate(timeout=100)[0]
  assert process.returncode == 143
  assert "Traceback" not in out
  assert not list(tmp_path.glob("data/*"))


def test_ctrl_c_saves_and_leaves_with_130(scenes, tmp_path):
  process = subprocess.Popen(
    [
      *(sys.executable, "main.py", "with", "tetrominoes", *TINY),
      *(f"data.path={scenes}", f"checkpoint_dir={tmp_path}/run"),
      "stop_after_steps=100000",
    ],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  lines = []
  for line in process.stdout:
    lines.append(line)
    if line.startswith("step 3/"):
      process.send_signal(signal.SIGINT)
      break
  lines += process.stdout.readlines()
  assert process.wait(timeout=120) == 130
  out = "".join(lines)
  assert "Traceback" not in out
  assert "stopped by SIGINT" in out
  step = int(checkpoints.find(f"{tmp_path}/run_1").rsplit("-", 1)[1])
  assert f"at step {step};" in out


# ----------------------------------------------------------- the real scenes


@helpers.needs_real_scenes
def test_training_on_real_scenes(tmp_path):
  run(
    *(
      "with",
      "tetrominoes",
      f"data.path={helpers.REAL_SCENES}",
      "batch_size=4",
    ),
    *("stop_after_steps=1", "data.shuffle_buffer=10", "num_iters=1"),
    f"checkpoint_dir={tmp_path}/real",
  )
  assert checkpoints.find(f"{tmp_path}/real_1").endswith("ckpt-1")


# ------------------------------------------------- paths that read as numbers


@pytest.mark.parametrize(
  "command, entry",
  [
    ("train", "checkpoint_dir"),
    ("make_data", "data.path"),
    ("evaluate", "json_path"),
    ("segment", "images"),
  ],
)
def test_a_path_that_reads_as_a_number_is_to_be_quoted(
  capsys, trained, scenes, tmp_path, monkeypatch, command, entry
):
  monkeypatch.chdir(tmp_path)
  message = fails_with_sentence(
    capsys,
    *(command, "with", "tetrominoes", *TINY, f"data.path={scenes}"),
    *(f"checkpoint_dir={trained}", f"{entry}=2024"),
  )
  assert "2024" in message.partition("; quote a name")[0]
  assert """'"2024"'`""" in message and "./2024`" in message
  assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
  "kind", [errors.UserError, KeyboardInterrupt, KeyError]
)
def test_what_an_error_came_through_is_let_go(monkeypatch, capsys, kind):
  class Reader:
    pass

  readers, at_exit = [], []
  monkeypatch.setattr(atexit, "register", at_exit.append)

  def fail(*_, **__):
    reader = Reader()
    readers.append(weakref.ref(reader))
    raise kind()

  monkeypatch.setattr(make_data, "run", fail)
  with pytest.raises(SystemExit) as info:
    main.ex.run_commandline(["main.py", "make_data", "with", "tetrominoes"])
  assert info.value.code and len(at_exit) == 1
  at_exit[0]()
  assert readers[0]() is None
