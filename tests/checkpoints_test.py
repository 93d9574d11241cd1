"""Checkpoints: found, read once, restored whole or not at all."""

import os
import pathlib
import shutil

import helpers
import numpy as np
import pytest
import tensorflow as tf

from iodine import checkpoints, errors
from iodine.commands import load_checkpoint

DATA = ".data-00000-of-00001"


def make_model(**updates):
  return helpers.tiny_model(updates, image_shape=(8, 8, 3))


def make_objects():
  model, optimizer = helpers.build_both(helpers.tiny_config())
  helpers.perturb(model)
  return model, optimizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """The folder of a run that saved at steps 8 to 12, the last two the best."""
  folder = tmp_path_factory.mktemp("saved")
  model, optimizer = make_objects()
  store = checkpoints.CheckpointStore(str(folder), model, optimizer)
  for step, loss in zip(range(8, 13), (1, 1, 1, 0, -1), strict=True):
    optimizer.global_step.assign(step)
    helpers.perturb(model, seed=step)
    store.save(loss)
  (folder / "config.json").write_text("{}")
  return folder


@pytest.fixture
def folder(tmp_path, saved):
  """A copy of it."""
  return shutil.copytree(saved, tmp_path / "run")


def values(model):
  return [np.array(v) for v in model.variables]


# ------------------------------------------------------------------- restoring


def test_restore_brings_back_every_variable(tmp_path):
  model, optimizer = make_objects()
  store = checkpoints.CheckpointStore(str(tmp_path), model, optimizer)
  prefix = store.save()
  expected = values(model)
  optimizer.global_step.assign(5)
  helpers.perturb(model, seed=1)
  store.save()
  for path in (prefix, checkpoints.open_checkpoint(prefix)):
    other = make_model()
    report = checkpoints.restore(path, model=other)
    assert set(report.status.values()) == {"restored"}
    assert len(report.status) == len(other.variables)
    helpers.assert_same_bits(values(other), expected)
  checkpoints.restore(tmp_path, model=other)
  helpers.assert_same_bits(values(other), values(model))


def test_variables_have_the_names_of_the_checkpoint(saved):
  model = make_model()
  names = checkpoints.variables_by_path(model)
  assert len(names) == len(model.variables)
  first = model.initial_sample_distribution
  assert names["initial_sample_distribution"] is first
  opened = checkpoints.open_checkpoint(saved)
  for name, variable in names.items():
    key = f"model/{name}/.ATTRIBUTES/VARIABLE_VALUE"
    assert opened.shapes[key] == tuple(variable.shape)


@pytest.mark.parametrize(
  "updates, part",
  [
    ({"n_z": 4}, "initial_sample_distribution is [6] there and [8] here"),
    (
      {"model.refinement_core.recurrent_net.hidden_sizes": [5]},
      "recurrent_net/layers/0/b_gates [20] is only here",
    ),
    (
      {"model.factor_evaluator": None},
      "factor_evaluator/predict_latents/b [25] is only there",
    ),
  ],
)
def test_another_config_is_a_sentence_and_changes_nothing(saved, updates, part):
  other = make_model(**updates)
  before = values(other)
  with pytest.raises(errors.UserError) as info:
    checkpoints.restore(str(saved), model=other)
  assert part in str(info.value) and "\n" not in str(info.value)
  helpers.assert_same_bits(before, values(other))


def test_the_loss_scale_of_older_runs_is_ignored(saved):
  opened = checkpoints.open_checkpoint(saved)
  older = {"optimizer/loss_scale/scale/.ATTRIBUTES/VARIABLE_VALUE": 8.0}
  opened = opened._replace(tensors={**opened.tensors, **older})
  model, optimizer = make_objects()
  checkpoints.restore(opened, model=model, optimizer=optimizer)
  assert int(optimizer.global_step) == 12


def test_a_command_reads_a_checkpoint_once(folder, monkeypatch, capsys):
  reads, load = [], tf.train.load_checkpoint
  monkeypatch.setattr(
    tf.train, "load_checkpoint", lambda path: reads.append(path) or load(path)
  )
  config = helpers.tiny_config({"data.image_dim": [8, 8]})
  load_checkpoint.run(config, checkpoints.open_checkpoint(folder))
  assert reads == [f"{folder}/ckpt-12"]
  out = capsys.readouterr().out
  assert "global step: 12\n" in out
  assert f"restored: {folder}/ckpt-12\n" in out


# --------------------------------------------------------------------- finding


@pytest.mark.parametrize("name", ["lr[0.1]_1", "run?_1", "all*_1"])
def test_a_name_that_tensorflow_takes_for_several_is_refused(tmp_path, name):
  path = str(tmp_path / name)
  for call in (
    lambda: checkpoints.open_checkpoint(path),
    lambda: checkpoints.CheckpointStore(path, *make_objects()),
    lambda: checkpoints.tf1.check_export(f"{path}/model.ckpt"),
  ):
    with pytest.raises(errors.UserError, match="for a pattern: rename it"):
      call()
  assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
  "content, newest",
  [
    (None, 12),
    (b"", 12),
    (b"\xff\xfe\x00", 12),
    (b'model_checkpoint_path: "/elsewhere/run/ckpt-77"\n', 12),
    (b'model_checkpoint_path: "/elsewhere/run/ckpt-11"\n', 11),
  ],
)
def test_the_files_that_are_there_count(folder, content, newest):
  """The state file is lost, damaged, or of another place."""
  state = folder / "checkpoint"
  os.remove(state) if content is None else state.write_bytes(content)
  assert checkpoints.open_checkpoint(folder).prefix == f"{folder}/ckpt-{newest}"
  model, optimizer = make_objects()
  store = checkpoints.CheckpointStore(str(folder), model, optimizer)
  assert store.restore() == store.latest == f"{folder}/ckpt-{newest}"
  optimizer.global_step.assign(13)
  store.save()
  assert checkpoints.open_checkpoint(folder).prefix == f"{folder}/ckpt-13"
  if newest == 12:  # all are known again, and pruned
    assert not list(folder.glob("ckpt-8*"))


def truncate(path):
  os.truncate(path, os.path.getsize(path) // 2)


def flip(path):
  content = bytearray(pathlib.Path(path).read_bytes())
  content[len(content) // 3] ^= 4
  pathlib.Path(path).write_bytes(content)


def pipe(path):
  os.remove(path)
  os.mkfifo(path)


@pytest.mark.parametrize(
  "harm, end",
  [
    *((truncate, DATA), (flip, DATA), (os.remove, DATA), (pipe, DATA)),
    *((truncate, ".index"), (pipe, ".index")),
  ],
)
def test_the_newest_that_can_be_read_is_used(folder, capsys, harm, end):
  harm(f"{folder}/ckpt-12{end}")
  assert checkpoints.open_checkpoint(folder).prefix == f"{folder}/ckpt-11"
  assert f"is used, `{folder}/ckpt-11`" in capsys.readouterr().out
  # Who names it means that one.
  with pytest.raises(errors.UserError, match="broken or incomplete"):
    checkpoints.restore(f"{folder}/ckpt-12", model=make_model())
  for step in range(8, 12):
    flip(f"{folder}/ckpt-{step}{DATA}")
  with pytest.raises(errors.UserError, match="such as one in `best`"):
    checkpoints.open_checkpoint(folder)
  assert not capsys.readouterr().out


def test_the_folder_of_a_run(folder):
  assert checkpoints.run_folder(f"{folder}/ckpt-12") == str(folder)
  assert checkpoints.run_folder(f"{folder}/best/ckpt-12") == str(folder)
  # One of that name may have been copied.
  (folder / "config.json").rename(folder / "best/config.json")
  assert checkpoints.run_folder(f"{folder}/best/ckpt-12") == f"{folder}/best"


def test_other_files_of_the_user_stay(folder):
  for name in ("ckpt-8-kept.index", "ckpt-8.txt", "notes.tmp"):
    (folder / name).write_text("mine")
  model, optimizer = make_objects()
  optimizer.global_step.assign(13)
  checkpoints.CheckpointStore(str(folder), model, optimizer).save()
  left = {path.name for path in folder.glob("*") if "ckpt-8" in path.name}
  assert left == {"ckpt-8-kept.index", "ckpt-8.txt"}
  assert len(list(folder.glob("ckpt-*.index"))) == 6
