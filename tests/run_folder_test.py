"""What a run's folder keeps, whatever becomes of its files, and for whom."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

import helpers
import numpy as np
import pytest

import main
from iodine import building, checkpoints, errors
from iodine.checkpoints import locking
from iodine.commands import make_data, train


@pytest.fixture(scope="module")
def objects():
  """A tiny model and its optimizer."""
  config = helpers.tiny_config()
  model = building.build(config["model"])
  model.initialize((8, 8, 3))
  optimizer = building.build(config["optimizer"])
  optimizer.initialize(model.trainable_variables)
  return model, optimizer


@pytest.fixture
def make_store(objects):
  def make(folder, **options):
    return checkpoints.CheckpointStore(str(folder), *objects, **options)

  return make


@pytest.fixture(scope="module")
def save(objects):
  """Saves a run's checkpoints of some steps, each with other weights."""

  def save_steps(folder, steps, losses=None, **options):
    model, optimizer = objects
    store = checkpoints.CheckpointStore(str(folder), *objects, **options)
    for step in steps:
      optimizer.global_step.assign(step)
      helpers.perturb(model, seed=step)
      store.save(losses and losses[step])
    return store

  return save_steps


@pytest.fixture(scope="module")
def saved(tmp_path_factory, save):
  """The folder of a run that saved at steps 8 to 12, the last two the best."""
  folder = tmp_path_factory.mktemp("saved")
  save(folder, range(8, 13), {8: 1, 9: 1, 10: 1, 11: 0, 12: -1})
  return folder


@pytest.fixture
def folder(tmp_path, saved):
  """A copy of it."""
  return shutil.copytree(saved, tmp_path / "run")


def snapshot(folder):
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(pathlib.Path(folder).rglob("*"))
    if path.is_file()
  }


def data_file(prefix):
  return f"{prefix}.data-00000-of-00001"


def value_of(prefix):
  """A weight, which no two checkpoints of `save` have in common."""
  opened = checkpoints.open_checkpoint(prefix)
  (name,) = (n for n in opened.shapes if n.startswith("model/initial_sample"))
  return opened.read(name)


# ------------------------------------------------ names that look like patterns


@pytest.mark.parametrize(
  "name, neighbour",
  [
    ("lr[0.1]_1", "lr0_1"),
    ("run?_1", "run1_1"),
    ("all*_1", "all_of_it_1"),
    (r"back\slash_1", "backslash_1"),
  ],
)
def test_a_name_that_is_a_pattern_means_itself(
  tmp_path, objects, make_store, save, name, neighbour
):
  losses = {step: -step for step in range(1, 4)}
  save(tmp_path / neighbour, [1], losses)
  before = snapshot(tmp_path / neighbour)
  folder = tmp_path / name
  save(folder, [1, 2, 3], losses, max_to_keep=2)
  assert snapshot(tmp_path / neighbour) == before
  assert sorted(path.name for path in folder.glob("*.*")) == [
    *(f"ckpt-2{end}" for end in (".data-00000-of-00001", ".index")),
    *(f"ckpt-3{end}" for end in (".data-00000-of-00001", ".index")),
  ]
  assert [p.name for p in (folder / "best").glob("*.index")] == ["ckpt-3.index"]
  # They can be read, too, all of them.
  model, optimizer = objects
  expected = np.array(model.initial_sample_distribution)
  helpers.perturb(model, seed=99)
  assert make_store(folder).restore() == f"{folder}/ckpt-3"
  np.testing.assert_array_equal(model.initial_sample_distribution, expected)
  assert int(optimizer.global_step) == 3
  assert checkpoints.find(folder / "best") == f"{folder}/best/ckpt-3"
  prefix = checkpoints.tf1.export(f"{folder}/tf1/model[1].ckpt", model)
  assert checkpoints.restore(prefix, model=model).report is not None


def test_what_is_not_this_run_s_is_not_pruned(tmp_path, save):
  save(tmp_path, [1, 2])
  for end in (".index", ".data-00000-of-00001"):
    shutil.copy(f"{tmp_path}/ckpt-1{end}", f"{tmp_path}/ckpt-1-kept{end}")
    shutil.copy(f"{tmp_path}/ckpt-1{end}", f"{tmp_path}/ckpt-10{end}x")
  (tmp_path / "ckpt-1.txt").write_text("a note")
  others = {n for n in os.listdir(tmp_path) if not n.startswith("ckpt-1.")}
  save(tmp_path, [3], max_to_keep=1)
  left = {n for n in os.listdir(tmp_path) if not n.startswith("ckpt-3")}
  assert left == {"ckpt-1.txt", *(n for n in others if n[:7] != "ckpt-2.")}


# --------------------------------------------------- lost and damaged files


@pytest.mark.parametrize(
  "content",
  [
    None,
    b"",
    b"\xff\xfe\x00",
    b'model_checkpoint_path: "/elsewhere/run/ckpt-77"\n',
    b"not a state at all {",
  ],
)
def test_without_a_state_file_the_newest_is_used(folder, save, capsys, content):
  state = folder / "checkpoint"
  os.remove(state) if content is None else state.write_bytes(content)
  for _ in range(2):
    assert checkpoints.find(folder) == f"{folder}/ckpt-12"
  out = capsys.readouterr().out
  assert out.count(f"can be read is used, `{folder}/ckpt-12`") == 1
  assert f"`{state}`" in out
  place = train.place_in(str(folder))  # what a quickstart goes on from
  assert place.start.prefix == f"{folder}/ckpt-12" and place.goes_on
  # All are known again, and pruned.
  save(folder, [13])
  assert len(list(folder.glob("ckpt-*.index"))) == 5
  assert not list(folder.glob("ckpt-8*"))


def test_a_state_file_of_another_place_means_the_files_here(
  folder, saved, capsys
):
  (folder / "checkpoint").write_text(
    f'model_checkpoint_path: "{saved}/ckpt-11"\n'
  )
  assert checkpoints.find(folder) == f"{folder}/ckpt-11"
  assert not capsys.readouterr().out


def _truncate(path):
  os.truncate(path, os.path.getsize(path) // 2)


def _flip(path):
  content = bytearray(pathlib.Path(path).read_bytes())
  content[len(content) // 3] ^= 4
  pathlib.Path(path).write_bytes(content)


@pytest.mark.parametrize("harm", [_truncate, _flip, os.remove])
@pytest.mark.parametrize("end", [".index", ".data-00000-of-00001"])
def test_the_newest_that_can_be_read_is_used(
  folder, objects, capsys, harm, end
):
  harm(f"{folder}/ckpt-12{end}")
  assert checkpoints.find(folder) == f"{folder}/ckpt-11"
  assert f"is used, `{folder}/ckpt-11`" in capsys.readouterr().out
  assert train.place_in(str(folder)).start.prefix == f"{folder}/ckpt-11"
  # Who names it means that one.
  with pytest.raises(errors.UserError, match="broken|no checkpoint at"):
    checkpoints.restore(f"{folder}/ckpt-12", model=objects[0])
  assert not capsys.readouterr().out
  # With none left nobody starts from zero over them.
  for step in range(8, 12):
    _flip(data_file(f"{folder}/ckpt-{step}"))
  with pytest.raises(errors.UserError, match="move the folder away") as info:
    train.place_in(str(folder))
  assert "use an older one" not in str(info.value)
  assert f"give `checkpoint_dir={folder}/best`" in str(info.value)
  for path in folder.glob("ckpt-*"):
    path.unlink()
  assert train.place_in(str(folder)).named == f"{folder}/best/ckpt-12"


def test_what_may_not_be_read_is_called_that(folder, monkeypatch):
  denied = data_file(f"{folder}/ckpt-12")
  access = os.access
  monkeypatch.setattr(  # as root may read everything
    os,
    "access",
    lambda path, *args, **kw: path != denied and access(path, *args, **kw),
  )
  for path in (folder, f"{folder}/ckpt-12"):
    with pytest.raises(errors.UserError, match=f"{denied}` may not be read"):
      checkpoints.open_checkpoint(path)


# ---------------------------------------------------------------- going back


def go_on(store, prefix, leaves_best=True):
  start = checkpoints.open_checkpoint(prefix)
  store.restore(start)
  return store.go_on(start.prefix, leaves_best)


def test_newer_checkpoints_are_left_behind_whole(folder, make_store, save):
  values = {step: value_of(f"{folder}/ckpt-{step}") for step in (10, 11, 12)}
  store = make_store(folder)
  moved = go_on(store, f"{folder}/ckpt-10")
  assert moved == [
    f"{folder}/newer_than_10/ckpt-11",
    f"{folder}/newer_than_10/ckpt-12",
    f"{folder}/best/newer_than_10/ckpt-12",
  ]
  for prefix in moved:
    np.testing.assert_array_equal(value_of(prefix), values[int(prefix[-2:])])
  assert checkpoints.find(folder / "newer_than_10") == moved[1]
  # They are of this run, but not what it goes on from, state file or not.
  (folder / "config.json").write_text("{}")
  assert {checkpoints.run_folder(prefix) for prefix in moved} == {str(folder)}
  assert store.latest == checkpoints.find(folder) == f"{folder}/ckpt-10"
  os.remove(folder / "checkpoint")
  assert checkpoints.find(folder) == f"{folder}/ckpt-10"
  # A second time nothing of the first is overwritten.
  before = snapshot(folder / "newer_than_10")
  save(folder, [11])
  assert go_on(make_store(folder), f"{folder}/ckpt-10") == [
    f"{folder}/newer_than_10_2/ckpt-11"
  ]
  assert snapshot(folder / "newer_than_10") == before
  # And one of them can be gone on from: it becomes the newest again.
  store = make_store(folder)
  assert go_on(store, f"{folder}/newer_than_10/ckpt-12") == []
  assert store.latest == f"{folder}/ckpt-12"
  np.testing.assert_array_equal(value_of(store.latest), values[12])


def test_a_resumed_run_keeps_the_best_that_it_is_about_to_find(
  folder, make_store
):
  os.remove(data_file(f"{folder}/ckpt-12"))
  store = make_store(folder)
  moved = go_on(store, folder, leaves_best=False)
  assert moved == [f"{folder}/newer_than_11/ckpt-12"]
  assert store.best == checkpoints.find(folder / "best")
  assert store.best == f"{folder}/best/ckpt-12"


def test_left_overs_of_a_killed_save_are_cleared(folder, make_store):
  before = snapshot(folder)
  users = ["my_ckpt-3_temp/x", "checkpoint.tmp", "ckpt-3.data", "notes.tmp"]
  own = [
    "ckpt-3_temp/part-00000-of-00001.index",
    "best/ckpt-3_temp/part-00000-of-00001.index",
    f"checkpoint.tmp{'0a' * 16}",
    "ckpt-13.data-00000-of-00001",
    ".unfinished/ckpt-13.index",
  ]
  for name in [*users, *own]:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("half")
  go_on(make_store(folder), folder, leaves_best=False)
  assert snapshot(folder) == {**before, **dict.fromkeys(users, b"half")}
  assert not {"ckpt-3_temp", ".unfinished"} & {*os.listdir(folder)}
  assert not (folder / "best/ckpt-3_temp").exists()


def test_a_save_that_is_killed_leaves_the_older_ones(
  folder, make_store, save, monkeypatch
):
  """At every renaming and removal of a save there is a newest one."""
  original = shutil.copytree(folder, folder.parent / "original")
  moments = 0
  for name in ("replace", "remove"):
    real = getattr(os, name)

    def killed(*args, real=real):
      nonlocal moments
      moments -= 1
      if not moments:
        raise KeyboardInterrupt
      return real(*args)

    monkeypatch.setattr(os, name, killed)
  for moment in range(1, 20):
    shutil.rmtree(folder)
    shutil.copytree(original, folder)
    moments = moment
    try:
      save(folder, [13])
    except KeyboardInterrupt:
      assert checkpoints.find(folder)[-2:] in ("12", "13")
    if moments > 0:
      break  # There are no more.
    go_on(make_store(folder), folder, leaves_best=False)
    save(folder, [13])
    there = {path.name.split(".")[0] for path in folder.glob("ckpt-*")}
    assert there == {f"ckpt-{step}" for step in range(9, 14)}, moment
  assert moment > 6


# ----------------------------------------------------------------------- lock

_TAKE = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
try:
  fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
  sys.exit("taken")
print("locked", flush=True)
sys.stdin.read()
"""


def other_process(folder):
  """A process that locks a folder until its input ends."""
  return subprocess.Popen(
    [sys.executable, "-S", "-c", _TAKE, f"{folder}/{locking.LOCK_FILE}"],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def is_free(folder):
  out, _ = other_process(folder).communicate("")
  return out == "locked\n"


def test_one_training_in_a_folder(tmp_path):
  with checkpoints.locked(str(tmp_path)):
    assert not is_free(tmp_path)
    with checkpoints.locked(f"{tmp_path}/"):  # a quickstart's training
      pass
    assert not is_free(tmp_path)
    (tmp_path / "other").mkdir()
    assert is_free(tmp_path / "other")
    # Children have no part in it, whatever becomes of them.
    child = os.fork()
    if not child:
      signal.pause()
  try:
    assert is_free(tmp_path)
  finally:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_second_training_ends_in_a_sentence(tmp_path):
  first = other_process(tmp_path)
  assert first.stdout.readline() == "locked\n"
  lock = checkpoints.locked(str(tmp_path))
  with pytest.raises(errors.UserError, match="another training writes"), lock:
    pass
  first.kill()  # its lock dies with it
  first.communicate()
  with checkpoints.locked(str(tmp_path)):
    owner = (tmp_path / locking.LOCK_FILE).read_text()
  assert owner.startswith(f"process {os.getpid()} on ")


def test_a_file_system_without_locks(tmp_path, monkeypatch, capsys):
  def lockf(*_):
    raise OSError(37, "No locks available")

  monkeypatch.setattr(locking.fcntl, "lockf", lockf)
  with checkpoints.locked(str(tmp_path)):
    assert "has no locks" in capsys.readouterr().out


# --------------------------------------------------------- as users run it


def test_a_run_goes_on_from_an_older_checkpoint(tmp_path, capsys):
  scenes = make_data.make_data(
    {**main.get_config(("tetrominoes",))["data"]}, f"{tmp_path}/[1]", 4, seed=0
  )
  options = [
    *("with", "tetrominoes", f"data.path={scenes}", "data.image_dim=[8,8]"),
    *(f"{key}={value}" for key, value in helpers.TINY.items()),
    *("batch_size=2", "data.shuffle_buffer=4", "save_checkpoint_steps=1"),
    *("seed=3", "save_images_steps=100", "num_iters=1"),
  ]
  helpers.run_main(
    *options, f"checkpoint_dir={tmp_path}/r", "stop_after_steps=3"
  )
  folder = tmp_path / "r_1"
  _flip(data_file(f"{folder}/ckpt-3"))
  (folder / "checkpoint").write_bytes(b"")
  before = snapshot(folder)
  options += ["continue_run=True", "stop_after_steps=2"]
  other = other_process(folder)
  assert other.stdout.readline() == "locked\n"
  sentence = helpers.fails_with_sentence(
    capsys, *options, f"checkpoint_dir={folder}"
  )
  assert "another training" in sentence
  other.communicate("")
  assert snapshot(folder) == before
  helpers.run_main(*options, f"checkpoint_dir={folder}/ckpt-1")
  out = capsys.readouterr().out
  assert f"continuing from {folder}/ckpt-1\n" in out
  place = folder / "newer_than_1"
  assert f"left behind, as `{place}/ckpt-2`; `{place}/ckpt-3`" in out
  assert {
    name: value for name, value in before.items() if "ckpt-3" in name
  } == {
    name: value for name, value in snapshot(place).items() if "ckpt-3" in name
  }
  # What comes is what was there, to the bit.
  left = checkpoints.open_checkpoint(f"{place}/ckpt-2")
  again = checkpoints.open_checkpoint(folder)
  assert again.prefix == f"{folder}/ckpt-2"
  names = [n for n in left.shapes if n.startswith(("model/", "optimizer/"))]
  assert len(names) > 20
  for name in names:
    np.testing.assert_array_equal(left.read(name), again.read(name))
