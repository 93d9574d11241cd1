"""The commands as users run them: files, output, exit status, sentences."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import helpers
import numpy as np
import pytest
import tensorflow as tf

import iodine
import main
from iodine import checkpoints
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
def options(scenes):
  """What most commands are given."""
  return ["with", "tetrominoes", *TINY, f"data.path={scenes}"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, options):
  """The folder of a training of two steps."""
  checkpoint_dir = tmp_path_factory.mktemp("runs") / "tiny"
  observer = checkpoint_dir.parent / "sacred"
  run("-F", observer, *options, f"checkpoint_dir={checkpoint_dir}")
  return f"{checkpoint_dir}_1"


# ------------------------------------------------------------------ make_data


def test_scenes_are_written_where_told_and_may_have_a_seed(tmp_path):
  contents = []
  for i, words in enumerate(
    (
      ["laptop", "seed=5", f"data.path={tmp_path}/0/scenes"],
      ["tetrominoes", "seed=0", f"data_dir={tmp_path}/1"],
      ["laptop", "seed=0", "data_seed=5", f"data_dir={tmp_path}/2"],
    )
  ):
    run("make_data", "with", *words, "num_scenes=3")
    (path,) = (tmp_path / str(i)).iterdir()
    contents.append(path.read_bytes())
  assert contents[0] == contents[1] != contents[2]


def test_a_config_makes_its_own_scenes_and_no_others(tmp_path, capsys):
  own = ["with", "laptop", *TINY, "num_scenes=12", "data.train=[0,8]"]
  own += ["data.test=[8,None]", f"generated_path={tmp_path}/scenes"]
  own += [f"checkpoint_dir={tmp_path}/run"]
  misspelt = f"data.path={tmp_path}/misspelt"
  assert "misspelt" in fails_with_sentence(capsys, *own, misspelt)
  assert os.listdir(tmp_path) == []
  run(*own)
  assert "generating 12 scenes" in capsys.readouterr().out
  run("evaluate", *own, f"checkpoint_dir={tmp_path}/run_1")
  assert "generating" not in capsys.readouterr().out


def test_results_go_where_they_are_told(trained, options, tmp_path):
  before = sorted(os.listdir(trained))
  run(
    *("evaluate", *options, f"checkpoint_dir={trained}", "batch_size=5"),
    *("evaluation.num_scenes=7", f"results_dir={tmp_path}/results"),
    f"json_path={tmp_path}/new/found.json",
  )
  found = json.loads((tmp_path / "new/found.json").read_text())
  assert found["num_scenes"] == 7
  assert found["ari"].keys() == {"mean", "standard_error"}
  assert found["checkpoint"] == f"{trained}/ckpt-2" and found["step"] == 2
  assert found["version"] == iodine.__version__
  assert found["config"]["data"]["path"] == options[-1].split("=")[1]
  assert sorted(os.listdir(tmp_path / "results")) == ["evaluation", "pictures"]
  for name in ("overview", "sequence", "samples"):
    png = (tmp_path / f"results/pictures/{name}.png").read_bytes()
    assert tf.io.decode_png(png).shape[0] > 100
  assert sorted(os.listdir(trained)) == before


@pytest.mark.parametrize(
  "words, file_name",
  [
    (["multi_dsprites"], "multi_dsprites_colored_on_grayscale"),
    *(
      (["multi_dsprites", f"data.dataset_variant={x}"], f"multi_dsprites_{x}")
      for x in ("binarized", "colored_on_colored")
    ),
    (["clevr6"], "clevr_with_masks_train"),
    (["quick"], "tetrominoes_train"),
  ],
)
def test_make_data_for_every_config(tmp_path, words, file_name):
  places = [f"data_dir={tmp_path}", "num_scenes=2", "seed=0"]
  run("make_data", "with", *words, *places)
  (path,) = tmp_path.iterdir()
  assert path.name == f"{file_name}.tfrecords"
  updates = dict(word.split("=") for word in words[1:])
  data = main.get_config(words[:1], updates)["data"]
  anything = dict.fromkeys(["test", "min_num_objects", "max_num_objects"])
  data |= {"path": str(path), "batch_size": 1, **anything}
  dataset = common.build_dataset(data, seed=0)
  (first, second) = dataset.batches("test")
  assert np.abs(first["image"] - second["image"]).max() > 0.1


# ------------------------------------------------------------------- training


def test_training_leaves_checkpoints_logs_and_config(trained):
  assert checkpoints.open_checkpoint(trained).prefix.endswith("ckpt-2")
  assert checkpoints.open_checkpoint(f"{trained}/best").prefix.endswith(
    "ckpt-2"
  )
  config = json.loads(pathlib.Path(trained, "config.json").read_text())
  assert config["n_z"] == 3
  values = helpers.event_values(trained)
  scalars = {tag for tag, step in values if step == 1}
  assert scalars == {
    *("loss/total", "loss/recons", "loss/kl", "loss/mse", "loss/ari"),
    *("loss/ari_nobg", "factor/loss", "factor/position", "factor/color"),
    *("factor/shape", "debug/global_grad_norm", "debug/learning_rate"),
    "debug/images_per_second",
  }
  images = {tag for tag, step in values if step == 2} - scalars
  assert images == {"overview", "sequence", "samples"}


def test_a_second_run_gets_another_folder(options, tmp_path, capsys):
  (tmp_path / "run_1").mkdir()  # of a run that has not saved yet
  for _ in range(2):
    run(*options, f"checkpoint_dir={tmp_path}/run")
  assert sorted(os.listdir(tmp_path)) == ["run_1", "run_2", "run_3"]
  assert os.listdir(tmp_path / "run_1") == []
  # The same seed gives the same run.
  first, second = (_weights(f"{tmp_path}/run_{i}/ckpt-2") for i in (2, 3))
  assert_same(first, second)
  lines = capsys.readouterr().out.splitlines()
  line = next(x for x in lines if x.startswith("step 1/2"))
  for part in ("loss ", "ARI ", "ARI-nobg ", " images/s", " left"):
    assert part in line
  assert lines[-1] == f"checkpoint: {tmp_path}/run_3/ckpt-2"
  run(*options, f"checkpoint_dir={tmp_path}/run_3", "continue_run=True")
  assert "nothing is left to train: step 2 of 2" in capsys.readouterr().out


def assert_same(weights, expected):
  """Compares two dicts of arrays, to the bit."""
  assert weights.keys() == expected.keys()
  for name, value in weights.items():
    np.testing.assert_array_equal(value, expected[name])


def _weights(prefix):
  reader = tf.train.load_checkpoint(prefix)
  return {
    name: reader.get_tensor(name)
    for name in reader.get_variable_to_shape_map()
    # Not the best loss, a mean over another span, and TensorFlow's own.
    if name.startswith(("model/", "optimizer/"))
  }


def test_continue_run_goes_on_in_the_same_folder(options, tmp_path, capsys):
  run(*options, f"checkpoint_dir={tmp_path}/run")
  folder = f"{tmp_path}/run_1"
  run(
    *(*options, f"checkpoint_dir={folder}", "continue_run=True"),
    *("stop_after_steps=3", "seed=99"),
  )
  out = capsys.readouterr().out
  assert "own seed 3 is used" in out
  assert f"continuing from {folder}/ckpt-2" in out
  assert checkpoints.open_checkpoint(folder).prefix == f"{folder}/ckpt-3"
  assert os.listdir(tmp_path) == ["run_1"]
  assert checkpoints.open_checkpoint(folder).seed == 3
  # Three steps at a stretch come to the same numbers.
  run(*options, f"checkpoint_dir={tmp_path}/whole", "stop_after_steps=3")
  expected = _weights(f"{tmp_path}/whole_1/ckpt-3")
  assert_same(_weights(f"{tmp_path}/run_1/ckpt-3"), expected)


@pytest.mark.slow
def test_stages_are_what_continued_runs_would_be(options, tmp_path, capsys):
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
    "step 2/4",
    f"continuing from {folder}/ckpt-2",
    f"stage 2 of 3, to step 3, with {json.dumps(four_slots)}",
    "step 3/4",
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
  assert_same(_weights(f"{folder}/ckpt-4"), expected)


def test_observers_learn_what_ran(trained):
  observer = pathlib.Path(trained).parent / "sacred/1"
  info, metrics, ran = (
    json.loads((observer / f"{name}.json").read_text())
    for name in ("info", "metrics", "run")
  )
  assert info["tensorflow"]["logdirs"] == [trained]
  assert metrics["loss"]["steps"] == [1, 2]
  assert len(metrics["ari_nobg"]["values"]) == 2
  assert ran["status"] == "COMPLETED"
  record = ran["experiment"]
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
    (["model.n_zz=3"], "`model.n_zz` is not an argument"),
    (["num_iters=2", "model.iter_loss_weight=[1,2]"], "iter_loss_weight"),
    (["model.output_dist.num_components=5"], "5 for `output_dist`"),
    (["continue_run=True", "checkpoint_dir=/no/such"], "/no/such"),
    (["model.factor_evaluator.mapping=[('size',1,'scalar')]"], "`size`"),
    (["model.factor_evaluator.mapping=[]"], "mapping"),
    (["data.image_dim=[1,1]"], "more points than groups"),
    (["model.sequential=True"], "needs 3 frames"),
    (["model.decoder.pixel_decoder.cnn_opt.output_channels=[]"], "not empty"),
    (["model.latent_dist=None"], "`model.latent_dist` is None"),
    (["num_components=1"], "`num_components`"),
    (["stages=[{'until':1,'model':{'n_z':5}}]"], "shapes of weights"),
    (["stages=[{'until':1,'model':{'num_components':5}}]"], "5 for the model"),
  ],
)
def test_training_errors(capsys, options, tmp_path, updates, part):
  place = f"checkpoint_dir={tmp_path}/run"
  assert part in fails_with_sentence(capsys, *options, place, *updates)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  "words, part",
  [
    (["train"], "no experiment is chosen"),
    (["with", "paper_data"], "give it after that"),
    (["with", "paper_data", "clevr6"], "give it after that"),
    (["with", "quick", "checkpoint_dir=2024"], "./2024`"),
    (
      ["with", "own", "data.constructor=iodine.modules.data.Tetrominoes"],
      "`data.path` is not set: give",
    ),
    (
      ["make_data", "with", "tetrominoes"]
      + ["data.constructor=iodine.modules.data.ObjectsRoom"],
      "no generator for this data set",
    ),
    *(
      (["make_data", "with", "tetrominoes", f"data.path={x}"], "`data_dir`")
      for x in ("['a','b']", "/x/*.tfrecords")
    ),
  ],
)
def test_errors_without_data(capsys, tmp_path, monkeypatch, words, part):
  monkeypatch.chdir(tmp_path)
  assert part in fails_with_sentence(capsys, *words)
  assert not list(tmp_path.iterdir())


N_Z = "initial_sample_distribution is [6] there and [8] here"


@pytest.mark.parametrize(
  "command, updates, part",
  [
    *((x, ["n_z=4"], N_Z) for x in ("load_checkpoint", "evaluate", "plot")),
    ("plot", ["plot.slot=4"], "`plot.slot` is 4, and the model has 1 to 3"),
    ("plot", ["plot.latent=3"], "`plot.latent` is 3, and the model has 0 to 2"),
    (
      *("evaluate", ["plot.iterations=[0,9]"]),
      "`plot.iterations` is [0, 9], and the model has 0 to",
    ),
    ("plot", ["plot.scenes=[0,12]"], "no scene 12: the test subset has 12"),
    ("plot", ["checkpoint_dir=/no/such"], "no checkpoint at `/no/such`"),
    ("evaluate", ["data.test=[99,None]"], "test"),
    ("evaluate", ["virtual_devices=2"], "give `strategy=mirrored`, too"),
    (
      "evaluate",
      ["strategy=mirrored", "virtual_devices=2"]
      + ["model.refinement_batch_size=None"],
      "a size, since with `strategy`",
    ),
    ("export_tf1", [], "`output` is not set"),
  ],
)
def test_errors_with_a_checkpoint(
  capsys, trained, options, tmp_path, command, updates, part
):
  places = [f"checkpoint_dir={trained}", f"pictures_dir={tmp_path}/a"]
  words = [command, *options, *places, "num_iters=1", *updates]
  assert part in fails_with_sentence(capsys, *words)
  assert not list(tmp_path.glob("*/*"))


# -------------------------------------------------- load_checkpoint, evaluate


def test_load_checkpoint_prints_every_variable(trained, options, capsys):
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


# ----------------------------------------------------------------------- plot


def test_plot_draws_chosen_scenes(trained, options, tmp_path, capsys):
  folder = tmp_path / "plots"
  run(
    *("plot", *options),
    *(f"checkpoint_dir={trained}", "plot.scenes=[11,0,11]", "batch_size=5"),
    *("plot.slot=2", "num_iters=1", f"pictures_dir={folder}"),
    *("plot.latent=1", "plot.traversal_film=gif", "plot.dpi=120"),
  )
  of_scene = [
    *("example.png", "inputs.png", "iterations.png"),
    *("refinement.gif", "traversal.png", "traversal_film.gif"),
  ]
  names = [f"scene_{n}_{name}" for n in (0, 11) for name in of_scene]
  names += ["latents.png", "metrics.png", "samples.png"]
  assert sorted(os.listdir(folder)) == sorted(names)
  out = capsys.readouterr().out
  for name in names:
    assert out.count(f"wrote {folder}/{name}\n") == 1
    image = tf.io.decode_image((folder / name).read_bytes())
    assert image.shape[-3] > 100 and np.std(image) > 1.0
    # Frames: iterations; 25 values of a latent, and back.
    frames = 49 if "film" in name else 2
    assert (image.ndim, image.shape[0]) == (4, frames) or name.endswith("png")


def test_a_video_needs_pyav(trained, options, tmp_path, capsys, monkeypatch):
  monkeypatch.setitem(sys.modules, "av", None)
  words = [*options, f"checkpoint_dir={trained}", "plot.traversal_film=mp4"]
  message = helpers.fails_with_sentence(
    capsys, "plot", *words, f"pictures_dir={tmp_path}/plots"
  )
  assert "needs PyAV: run `pip install av`" in message
  assert not (tmp_path / "plots").exists()


# ---------------------------------------------------------- TF1 checkpoints


@pytest.fixture(scope="module")
def exported(trained, options, tmp_path_factory):
  """The training of two steps as a TF1 checkpoint."""
  prefix = f"{tmp_path_factory.mktemp('tf1')}/model.ckpt"
  run("export_tf1", *options, f"checkpoint_dir={trained}", f"output={prefix}")
  return prefix


def test_both_kinds_of_checkpoint_evaluate_alike(
  trained, exported, options, tmp_path
):
  figures = []
  for i, checkpoint in enumerate((trained, exported)):
    run(
      *("evaluate", *options),
      *(f"checkpoint_dir={checkpoint}", f"json_path={tmp_path}/{i}.json"),
      # That of the training, which only one of them has beside it.
      *(f"pictures_dir={tmp_path}", "model.refinement_batch_size=2"),
    )
    found = json.loads((tmp_path / f"{i}.json").read_text())
    assert found.pop("checkpoint").startswith(str(checkpoint))
    del found["config"]  # which names the checkpoint, too
    figures.append(found)
  assert figures[0] == figures[1]


def test_a_run_goes_on_from_a_tf1_checkpoint_with_adams_state(
  trained, exported, options, tmp_path, capsys
):
  tf1_folder = tmp_path / "tf1"
  shutil.copytree(os.path.dirname(exported), tf1_folder)
  before = sorted(os.listdir(tf1_folder))
  more = ["continue_run=True", "stop_after_steps=3"]
  run(*options, *more, f"checkpoint_dir={tf1_folder}")
  assert "continuing from the TF1 checkpoint" in capsys.readouterr().out
  assert sorted(os.listdir(tf1_folder)) == before
  shutil.copytree(trained, tmp_path / "tf2")
  run(*options, *more, f"checkpoint_dir={tmp_path}/tf2")
  # The third step is the same to the bit, from either checkpoint.
  assert_same(
    *(_weights(f"{tmp_path}/{name}/ckpt-3") for name in ("tf1_1", "tf2"))
  )


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
  assert (
    checkpoints.open_checkpoint(f"{tmp_path}/run").prefix
    == f"{tmp_path}/run/ckpt-2"
  )


@pytest.mark.parametrize("path", ["/usr/bin:/bin", "/nowhere"])
def test_folders_that_git_does_not_tell_of(path, tmp_path, monkeypatch):
  monkeypatch.setenv("PATH", path)  # without git, or with it and no repository
  assert experiment.git_refusal(str(tmp_path)) is not None


def test_a_commit_that_git_does_not_tell_is_told(
  monkeypatch, trained, tmp_path, capsys
):
  refusal = "fatal: detected dubious ownership in repository at '/x'"
  monkeypatch.setattr(main.ex, "git_refusal", refusal)
  words = ("load_checkpoint", "with", f"checkpoint_dir={trained}")
  run(*words)
  assert "commit" not in capsys.readouterr().out
  run("-F", tmp_path, *words)
  out = capsys.readouterr().out
  assert out.count("the commit is not recorded, as git refuses") == 1
  assert "safe.directory" in out


def test_observers_that_cannot_be_used(capsys, options, tmp_path, monkeypatch):
  message = fails_with_sentence(capsys, "-F", "/proc/no/such", *options)
  assert "/proc/no" in message
  for name in ("pymongo", "hashfs", "tinydb", "sqlalchemy"):
    monkeypatch.setitem(sys.modules, name, None)
  for flag, package in (
    (("-m", "localhost:1:db"), "'pymongo>=4'"),
    (("-t", tmp_path), "tinydb tinydb-serialization hashfs"),
    (("-s", f"sqlite:///{tmp_path}/db"), "sqlalchemy"),
  ):
    message = fails_with_sentence(capsys, *flag, *options)
    assert f"`pip install {package}`" in message


def test_pictures_do_not_ask_for_the_users_backend(trained, tmp_path):
  backend = "module://matplotlib_inline.backend_inline"
  place = f"checkpoint_dir={trained}"
  result = subprocess.run(
    [sys.executable, "main.py", "evaluate", "with", place]
    + ["evaluation.num_scenes=2", f"results_dir={tmp_path}"],
    cwd=ROOT,
    env={**os.environ, "MPLBACKEND": backend},
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
  # Nor is what TensorFlow says of processors and drivers shown.
  assert not re.search("^[EIW][0-9]{4} ", result.stderr, re.MULTILINE)
  assert (tmp_path / "pictures/overview.png").exists()


def test_the_best_checkpoint_can_be_copied_alone(trained, tmp_path, capsys):
  folder = shutil.copytree(f"{trained}/best", tmp_path / "copied")
  run("load_checkpoint", "with", f"checkpoint_dir={folder}")
  assert "global step: 2" in capsys.readouterr().out
  model, config = checkpoints.restore_model(str(folder))
  assert model.num_components == 3 and config["batch_size"] == 2


def test_a_training_that_diverges_at_once_leaves_no_folder(
  options, tmp_path, capsys
):
  absurd = ["learn_rate=1e9", "optimizer.max_gradient_norm=None"]
  absurd += [f"checkpoint_dir={tmp_path}/run", "save_summaries_steps=50"]
  words = (*options, *absurd, "stop_after_steps=50")
  assert "diverged at step" in fails_with_sentence(capsys, *words)
  assert os.listdir(tmp_path) == []


def test_a_checkpoint_within_a_stage_is_shown_as_it_was_trained(
  options, tmp_path, capsys
):
  slots = {"num_components": 4, "output_dist": {"num_components": 4}}
  stages = [{"until": 5, "model": slots}]
  words = [*options, f"stages={stages}", f"checkpoint_dir={tmp_path}/run"]
  run(*words)
  place = f"checkpoint_dir={tmp_path}/run_1"
  capsys.readouterr()
  run("evaluate", "with", place, "evaluation.num_scenes=2")
  out = capsys.readouterr().out
  assert "step 2 is in stage 1 of 2" in out
  assert "stages are to come" not in out  # it was to end there
  assert "unlike" not in out
  assert checkpoints.restore_model(f"{tmp_path}/run_1")[0].num_components == 4
  assert len(iodine.segment(helpers.noise([8, 8, 3]), tmp_path / "run_1").masks)
  # To go on it is the training that it was.
  run("with", place, "continue_run=True", "stop_after_steps=6")
  out = capsys.readouterr().out
  assert "stage 1 of 2, to step 5" in out
  assert "unlike the run so far: stop_after_steps 6 (2 there)\n" in out
  assert checkpoints.restore_model(f"{tmp_path}/run_1")[0].num_components == 3


def start(*words):
  """Starts a command as a process of its own."""
  return subprocess.Popen(
    [sys.executable, "main.py", *words],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def test_sigterm_in_make_data_keeps_what_is_made(tmp_path):
  words = ["tetrominoes", f"data_dir={tmp_path}", "num_scenes=1000000"]
  process = start("make_data", "with", *words, "seed=0")
  deadline = time.monotonic() + 100
  # A part is written, no worker is being started any more.
  while not list(tmp_path.glob("*.partial/0*")):
    assert time.monotonic() < deadline
    time.sleep(0.2)
  process.send_signal(signal.SIGTERM)
  out = process.communicate(timeout=100)[0]
  assert process.returncode == 143
  assert "Traceback" not in out and ".partial`: the same command goes on" in out
  (folder,) = tmp_path.iterdir()
  assert not list(folder.glob(".iodine-*"))


def test_a_run_goes_on_by_its_folder_alone(trained, tmp_path, capsys):
  folder = shutil.copytree(trained, tmp_path / "run_1")
  place = f"checkpoint_dir={folder}"
  run("with", "continue_run=True", place, "stop_after_steps=3", "n_z=3")
  out = capsys.readouterr().out
  assert f"continuing from {folder}/ckpt-2" in out
  assert "unlike the run so far: stop_after_steps 3 (2 there)\n" in out
  config = json.loads((folder / "config.json").read_text())
  before = json.loads(pathlib.Path(trained, "config.json").read_text())
  assert checkpoints.open_checkpoint(folder).prefix.endswith("ckpt-3")
  assert config["model"] == before["model"] and config["data"] == before["data"]
  run(
    "with",
    "continue_run=True",
    place,
    "stop_after_steps=4",
    "model.kl_weight=2.0",
  )
  assert "unlike the run so far: model.kl_weight" in capsys.readouterr().out


def test_ctrl_c_saves_and_leaves_with_130(options, tmp_path):
  place = f"checkpoint_dir={tmp_path}/run"
  process = start(*options, place, "stop_after_steps=100000")
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
  step = int(
    checkpoints.open_checkpoint(f"{tmp_path}/run_1").prefix.rsplit("-", 1)[1]
  )
  assert f"at step {step};" in out
  # One line, ready to paste, and nothing after it.
  assert out.endswith(f"checkpoint_dir={tmp_path}/run_1`\n")


def test_what_tensorflow_makes_of_a_signal_is_an_interruption(
  monkeypatch, capsys
):
  def trace(*_, **__):
    try:
      os.kill(os.getpid(), signal.SIGTERM)
    finally:
      raise SystemError("returned a result with an exception set")

  monkeypatch.setattr(make_data, "run", trace)
  with pytest.raises(SystemExit) as info:
    main.ex.run_commandline(["main.py", "make_data", "with", "tetrominoes"])
  assert info.value.code == 128 + signal.SIGTERM
  assert capsys.readouterr().err.endswith("interrupted\n")


# ----------------------------------------------------------- the real scenes


@helpers.needs_real_scenes
def test_training_on_real_scenes(tmp_path):
  words = [f"data.path={helpers.REAL_SCENES}", "batch_size=4", "num_iters=1"]
  words += ["stop_after_steps=1", "data.shuffle_buffer=10"]
  run("with", "tetrominoes", *words, f"checkpoint_dir={tmp_path}/real")
  assert checkpoints.open_checkpoint(f"{tmp_path}/real_1").prefix.endswith(
    "ckpt-1"
  )
