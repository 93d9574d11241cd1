"""What commands write: what is replaced, what stays, what a kill leaves."""

import contextlib
import itertools
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading

import helpers
import numpy as np
import PIL.Image
import pytest

from iodine import (
  checkpoints,
  comparison,
  errors,
  files,
  synthetic,
)
from iodine.commands import common, make_data
from iodine.readers import arrays, films, image_files, image_sets
from iodine.synthetic import own_formats, records

NOBODY = 65534


def listing(folder):
  return sorted(os.listdir(folder))


def content(folder):
  """Returns {path in a folder: bytes} of all files in it."""
  return {
    os.path.relpath(os.path.join(place, name), folder): open(
      os.path.join(place, name), "rb"
    ).read()
    for place, _, names in os.walk(folder)
    for name in names
  }


# ------------------------------------------------------------- every moment

_watched = {}


def _copy(event, arguments):
  """Copies the watched folder before every operation on files."""
  is_change = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
  is_change = is_change or event in ("os.chmod", "os.chown", "shutil.rmtree")
  if event == "open":
    is_change = arguments[1] is None or set(str(arguments[1])) & set("wax+")
  folder = _watched.pop("folder", None) if is_change else None
  if folder is not None:
    copies = _watched["copies"]
    shutil.copytree(folder, os.path.join(copies, f"{len(listing(copies)):03}"))
    _watched["folder"] = folder


@contextlib.contextmanager
def copied_at_every_moment(folder, copies):
  """What a folder is like whenever a process may be killed there.

  Args:
    folder: what is watched.
    copies: a new folder, which has the copies at the end, in order.
  """
  if "hook" not in _watched:
    _watched["hook"] = sys.addaudithook(_copy)
  os.mkdir(copies)
  _watched.update(folder=str(folder), copies=str(copies))
  try:
    yield
  finally:
    _watched.pop("folder", None)


def moments(copies):
  return [os.path.join(copies, name) for name in listing(copies)]


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_is_the_old_or_the_new_at_every_moment(
  can_exchange, tmp_path, monkeypatch
):
  if not can_exchange:
    monkeypatch.setattr(files, "_exchange", lambda *_: False)

  def write(letter):
    with files.replaced_folder(str(tmp_path / "place/folder")) as folder:
      for name in ("one", f"only_{letter}"):
        files.write(f"{folder}/{name}", letter)

  write("a")
  old = content(tmp_path / "place/folder")
  with copied_at_every_moment(tmp_path / "place", tmp_path / "copies"):
    write("b")
  new = content(tmp_path / "place/folder")
  assert listing(tmp_path / "place") == ["folder"]
  found = []
  for place in moments(tmp_path / "copies"):
    if not can_exchange:  # the next one to write there puts it back
      files.clear_left_overs(place)
      assert listing(place) == ["folder"]
    found.append(content(f"{place}/folder"))
  assert len(found) > 10 and found[0] == old != new
  assert all(each in (old, new) for each in found)
  # And the rest is cleared at the next occasion, which changes nothing else.
  for place, before in zip(moments(tmp_path / "copies"), found, strict=True):
    files.clear_left_overs(place)
    assert listing(place) == ["folder"]
    assert content(f"{place}/folder") == before


def test_a_file_is_the_old_or_the_new_at_every_moment(tmp_path):
  os.mkdir(tmp_path / "place")
  files.write(tmp_path / "place/file", "old")
  with copied_at_every_moment(tmp_path / "place", tmp_path / "copies"):
    files.write(tmp_path / "place/file", "new")
  found = [content(place)["file"] for place in moments(tmp_path / "copies")]
  assert len(found) > 5
  assert set(found) == {b"old", b"new"}


def test_an_export_is_the_old_or_the_new_at_every_moment(tmp_path):
  model = helpers.tiny_model()
  model.initialize((8, 8, 3))
  names = sorted(checkpoints.model_variables(model))
  place = tmp_path / "place"
  copies = [tmp_path / f"copies_{i}" for i in range(4)]
  tensors = []
  for each in copies:
    os.makedirs(place, exist_ok=True)
    with copied_at_every_moment(place, each):
      checkpoints.export(f"{place}/model.ckpt", model)
    opened = checkpoints.open_checkpoint(place)
    tensors.append({name: opened.read(name) for name in names})
    assert len(listing(place)) == 2 + len(
      [name for name in listing(place) if ".data-" in name]
    )
    helpers.perturb(model)
  assert not any(".data-" in name for name in listing(moments(copies[0])[0]))
  pairs = zip(itertools.pairwise(tensors), copies[1:], strict=True)
  for (old, new), each in pairs:
    for moment in moments(each):
      opened = checkpoints.open_checkpoint(moment)
      found = {name: opened.read(name) for name in names}
      assert any(
        all(np.array_equal(found[name], other[name]) for name in names)
        for other in (old, new)
      )
    # What a kill in the middle left is no obstacle to the next one.
    killed = moments(each)[len(moments(each)) * 3 // 4]
    checkpoints.export(f"{killed}/model.ckpt", model)
    opened = checkpoints.open_checkpoint(killed)
    for name, variable in checkpoints.model_variables(model).items():
      np.testing.assert_array_equal(opened.read(name), variable)


# ----------------------------------------------------------------- left-overs

_WRITER = """
import sys, time
from iodine import files
with files.replaced_folder(sys.argv[1]) as folder:
  open(folder + "/half", "w").close()
  print("there", flush=True)
  time.sleep(60)
"""


def start_writer(folder):
  writer = subprocess.Popen(
    [sys.executable, "-c", _WRITER, folder],
    stdout=subprocess.PIPE,
    cwd=os.path.dirname(os.path.dirname(files.__file__)),
  )
  assert writer.stdout.readline() == b"there\n"
  return writer


def test_what_a_kill_leaves_is_cleared(tmp_path):
  writer = start_writer(str(tmp_path / "folder"))
  try:
    (workspace,) = listing(tmp_path)
    files.clear_left_overs(str(tmp_path))
    assert listing(tmp_path) == [workspace]  # it is needed
  finally:
    writer.kill()
    writer.wait()
    writer.stdout.close()
  assert listing(tmp_path) == [workspace]
  files.write(tmp_path / "other", "")
  assert listing(tmp_path) == ["other"]


def test_what_others_left_is_not_cleared_too_soon(tmp_path):
  other = tmp_path / ".iodine-elsewhere-abc.tmp"
  link = tmp_path / ".iodine-link.tmp"
  (other / "new").mkdir(parents=True)
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine/precious").touch()
  os.symlink("mine", link)
  files.clear_left_overs(str(tmp_path))
  assert listing(tmp_path) == sorted([other.name, link.name, "mine"])
  os.utime(other, (0, 0))
  files.clear_left_overs(str(tmp_path))
  assert listing(tmp_path) == [link.name, "mine"]
  assert listing(tmp_path / "mine") == ["precious"]


def test_writers_at_once_do_not_disturb_each_other(tmp_path):
  problems = []

  def write(number):
    try:
      for _ in range(20):
        files.clear_left_overs(str(tmp_path))
        with files.replaced_folder(str(tmp_path / f"{number % 2}")) as folder:
          files.write(f"{folder}/file", str(number))
        files.write(tmp_path / "file", str(number))
    except BaseException as error:
      problems.append(error)

  threads = [threading.Thread(target=write, args=[i]) for i in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not problems
  assert listing(tmp_path) == ["0", "1", "file"]


# ---------------------------------------------------------- paths of all kinds


def test_what_is_no_file_is_written_to(tmp_path, capfd):
  files.check_writable("/dev/null")
  files.write("/dev/null", "nothing")
  assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
  os.mkfifo(tmp_path / "pipe")
  files.check_writable(tmp_path / "pipe")
  found = []
  reader = threading.Thread(
    target=lambda: found.append((tmp_path / "pipe").read_bytes())
  )
  reader.start()
  files.write(tmp_path / "pipe", "through")
  reader.join()
  assert found == [b"through"]
  assert listing(tmp_path) == ["pipe"]
  print("before", flush=True)
  files.write("/dev/stdout", "printed\n")
  assert capfd.readouterr().out == "before\nprinted\n"


def test_links_are_followed(tmp_path):
  (tmp_path / "place").mkdir()
  (tmp_path / "link").symlink_to("place/file")
  (tmp_path / "folder_link").symlink_to("place/folder")
  for text in ("one", "two"):  # there is nothing at its end, then a file
    files.check_writable(tmp_path / "link")
    files.write(tmp_path / "link", text)
    with files.replaced_folder(str(tmp_path / "folder_link")) as folder:
      files.write(f"{folder}/{text}", text)
    assert (tmp_path / "place/file").read_text() == text
    assert listing(tmp_path / "place/folder") == [files.MARK, text]
  assert (tmp_path / "link").is_symlink()
  assert (tmp_path / "folder_link").is_symlink()
  assert listing(tmp_path) == ["folder_link", "link", "place"]
  assert listing(tmp_path / "place") == ["file", "folder"]


def test_names_like_those_of_temporary_files_are_the_users(tmp_path):
  for name in ("r.json.tmp", f"r.json.{os.getpid()}.tmp", ".r.json.tmp"):
    (tmp_path / name).write_text("mine")
  before = content(tmp_path)
  files.check_writable(tmp_path / "r.json")
  files.write_json(tmp_path / "r.json", {})
  assert content(tmp_path) == {**before, "r.json": b"{}\n"}


def test_rights_of_what_is_replaced_stay(tmp_path):
  for mode in (0o600, 0o664, 0o640):
    files.write(tmp_path / "file", "old")
    os.chmod(tmp_path / "file", mode)
    is_root = os.geteuid() == 0
    if is_root:
      os.chown(tmp_path / "file", NOBODY, NOBODY)
    with files.replaced_folder(str(tmp_path / "folder")):
      pass
    os.chmod(tmp_path / "folder", mode | 0o100)
    for _ in range(2):
      files.write(tmp_path / "file", "new")
      with files.replaced_folder(str(tmp_path / "folder")):
        pass
    found = os.stat(tmp_path / "file")
    assert stat.S_IMODE(found.st_mode) == mode
    if is_root:
      assert (found.st_uid, found.st_gid) == (NOBODY, NOBODY)
    folder_mode = stat.S_IMODE(os.stat(tmp_path / "folder").st_mode)
    assert folder_mode == mode | 0o100


def test_new_ones_have_the_rights_that_others_have(tmp_path):
  mask = os.umask(0o027)
  try:
    files.write(tmp_path / "file", "")
    with files.replaced_folder(str(tmp_path / "folder")):
      pass
  finally:
    os.umask(mask)
  assert stat.S_IMODE(os.stat(tmp_path / "file").st_mode) == 0o640
  assert stat.S_IMODE(os.stat(tmp_path / "folder").st_mode) == 0o750


# ---------------------------------------------------------- somebody's folders


@pytest.mark.parametrize("name", ["mask.png", "scene_00000.png"])
def test_a_folder_without_a_mark_is_not_replaced(name, tmp_path):
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine" / name).write_text("precious")
  with (
    pytest.raises(errors.UserError, match="there already, and no mark"),
    files.replaced_folder(str(tmp_path / "mine")),
  ):
    pytest.fail("it began to write")
  with pytest.raises(errors.UserError, match="is there already"):
    own_formats.check_png_folder(tmp_path / "mine")
  # Nor one that somebody filled meanwhile.
  with (
    pytest.raises(errors.UserError, match="there already, and no mark"),
    files.replaced_folder(str(tmp_path / "new")),
  ):
    shutil.copytree(tmp_path / "mine", tmp_path / "new")
  assert content(tmp_path) == {
    f"{x}/{name}": b"precious" for x in ("mine", "new")
  }


@pytest.mark.parametrize(
  "name, content, begin",
  [
    ("scene.png", b"\x89PNG", "{"),
    ("config.json", b'{\n  "model": 1}', "{"),
    ("ckpt-4.index", b"\0", "<!DOCTYPE html>"),
    ("evaluation.json", b"{}", "num_components,metric,iteration"),
  ],
)
def test_other_files_are_not_replaced(name, content, begin, tmp_path):
  path = tmp_path / name
  path.write_bytes(content)
  with pytest.raises(errors.UserError, match="not what would replace it"):
    files.check_writable(str(path), begin)
  assert path.read_bytes() == content


def test_results_replace_earlier_ones(tmp_path):
  json_path, empty = str(tmp_path / "a.json"), tmp_path / "empty"
  files.write_json(json_path, {"b": 1})
  files.check_json(json_path)
  empty.touch()
  files.check_json(str(empty))
  files.check_json("/dev/null")


def test_large_files_are_downloaded_ones(tmp_path, monkeypatch):
  path = str(tmp_path / "scenes.tfrecords")
  for _ in range(2):
    synthetic.write_dataset("tetrominoes", path, 1, 0)
  monkeypatch.setattr(records, "_MOST_REPLACED", os.path.getsize(path) - 1)
  before = content(tmp_path)
  with pytest.raises(errors.UserError, match="as the public files have"):
    synthetic.write_dataset("tetrominoes", path, 1, 1)
  assert content(tmp_path) == before


# ---------------------------------------------------------------- permissions


@pytest.fixture
def place():
  """A folder of a user who has no rights but their own."""
  is_root = os.geteuid() == 0
  with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o755)
    if is_root:
      os.chown(folder, NOBODY, NOBODY)
      os.seteuid(NOBODY)
    try:
      yield folder
    finally:
      if is_root:
        os.seteuid(0)
      for name in os.listdir(folder):
        os.chmod(os.path.join(folder, name), 0o700)


READERS = {
  "an image": lambda path: image_files.read(path),
  "images": lambda path: image_files.find(path),
  "films": lambda path: films.read_film(path),
  "a GIF": lambda path: films.read_film(f"{path}.gif"),
  "arrays": lambda path: arrays.open_file(path),
  "a data set": lambda path: image_sets.find_scenes(path, None),
  "labels": lambda path: image_sets.find_scenes(os.path.dirname(path), path),
  "a reference": lambda path: comparison.read_reference(path),
  "a config": lambda path: checkpoints.config_beside(f"{path}/ckpt-1"),
}


@pytest.mark.parametrize("kind", READERS)
def test_no_permission_is_called_so(kind, place):
  """Of a file, of a folder, and of one that it is in."""
  image = PIL.Image.fromarray(np.zeros([4, 4], np.uint8))
  image.save(f"{place}/seen.png")
  path = f"{place}/locked"
  for name in ("", ".gif"):
    with open(path + name, "wb") as file:
      image.save(file, "GIF" if name else "PNG")
    os.chmod(path + name, 0)
  is_of_folders = kind in ("labels", "a config")
  if not is_of_folders:
    with pytest.raises(errors.UserError, match=r"`.*locked.*no permission"):
      READERS[kind](path)
  for name in ("", ".gif"):
    os.remove(path + name)
    os.mkdir(path + name)
    image.save(f"{path}{name}/in.png")
    os.chmod(path + name, 0)
  for inside in ("", "/in.png"):
    if inside and is_of_folders:
      continue
    with pytest.raises(errors.UserError, match=r"`.*locked.*no permission"):
      READERS[kind](path + inside)
  with pytest.raises(errors.UserError, match=r"`.*locked`.*no permission"):
    image_files.expand(place)
  with pytest.raises(errors.UserError, match=r"`.*locked`.*no permission"):
    image_files.find(f"{path}/*.png")


def test_what_cannot_be_written_is_known_before(place):
  os.makedirs(f"{place}/mine/deep")
  files.write(f"{place}/file", "")
  os.chmod(f"{place}/file", 0o444)
  with files.replaced_folder(f"{place}/mine/marked"):
    pass
  os.chmod(f"{place}/mine", 0o555)
  for check, path, part in (
    (files.check_writable, "mine/new", "cannot write `.*mine/new`"),
    (files.check_writable, "mine/a/b/new", "cannot create the folder"),
    (files.check_writable, "file", "cannot write"),  # itself is protected
    (files.check_writable, "file/below", "cannot create the folder"),
    (files.check_writable, "n" * 300, "name too long"),
    (files.check_replaceable, "mine", "cannot write the folder"),
    (files.check_folder, "mine", "cannot write to the folder"),
    (files.check_folder, "mine/a/b", "cannot create the folder"),
    (files.check_folder, "file", "cannot create the folder"),
  ):
    with pytest.raises(errors.UserError, match=f"(?i){part}"):
      check(f"{place}/{path}")
  files.check_writable(f"{place}/mine/deep/a/b/new")
  files.check_folder(f"{place}/mine/deep/a/b/new")
  assert listing(place) == ["file", "mine"]
  assert listing(f"{place}/mine/deep") == []


@pytest.mark.parametrize(
  "command, options",
  [
    ("train", ["tetrominoes", "minutes", "checkpoint_dir={0}/run"]),
    ("evaluate", ["pictures_dir={0}/pictures"]),
    ("evaluate", ["csv_path={0}/table.csv"]),
    ("evaluate", ["evaluation.scenes_csv={0}/table.csv"]),
    ("plot", ["pictures_dir={0}/pictures"]),
    ("report", ["output={0}/report.html"]),
    ("export_tf1", ["output={0}/model.ckpt"]),
    ("export_savedmodel", ["output={0}/model"]),
    ("segment", ["images=scene.png", "output={0}/segments"]),
    ("segment", ["images=scene.png", "json_path={0}/found.json"]),
    ("make_data", ["tetrominoes", "data_dir={0}/data"]),
    ("benchmark", ["tetrominoes", "json_path={0}/found.json"]),
    (
      "compare",
      ["checkpoint_dir={1}", "reference=a.npz", "pictures_dir={0}/a"],
    ),
  ],
)
def test_commands_do_nothing_that_they_cannot_write(
  command, options, tmp_path, monkeypatch, capsys
):
  def fail(*_, **__):
    pytest.fail("the work began")

  monkeypatch.chdir(tmp_path)
  PIL.Image.new("RGB", (8, 8)).save("scene.png")
  (tmp_path / "file").write_text("mine")
  for module, name in (
    (common, "restore"),
    (common, "build_model"),
    (comparison, "read_reference"),
    (make_data, "ensure_dataset"),
  ):
    monkeypatch.setattr(module, name, fail)
  before = content(tmp_path)
  pretrained = os.path.join(os.path.dirname(files.__file__), "pretrained")
  options = [
    option.format("file", f"{pretrained}/tetrominoes") for option in options
  ]
  message = helpers.fails_with_sentence(capsys, command, "with", *options)
  assert "cannot create the folder `file" in message
  assert content(tmp_path) == before


# -------------------------------------------------------------------- messages


def test_what_the_system_says_is_said_alone():
  class OpError(Exception):
    pass

  for error, expected in (
    (OSError(28, "No space left on device", "x"), "No space left on device"),
    (
      OpError(
        "{{function_node __wrapped__SaveV2_device_/job:localhost/replica:0}} "
        "a/b; No space left on device [Op:SaveV2] name: \nmore"
      ),
      "a/b; No space left on device",
    ),
  ):
    assert errors.reason(error) == expected


def test_messages_do_not_list_thousands(tmp_path):
  paths = [str(tmp_path / f"{i}.png") for i in range(2999)]
  scenes = [image_sets.Scene(path, (path,)) for path in paths]
  source = image_sets.FileSource(paths, scenes, None, None, False)
  problem = source.find_problem(np.arange(3))
  assert "and 2,996 more" in problem and len(problem) < 1000
  for path in paths:
    open(path, "wb").close()
  for given in (5, 1.5, None):
    with pytest.raises(errors.UserError, match="`path` is .*list") as caught:
      image_sets.find_scenes([*paths, given], None)
    assert len(str(caught.value)) < 1000
