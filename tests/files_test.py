"""Results are written whole or not at all, and replace only results."""

import json
import math
import os
import stat
import tempfile

import helpers
import PIL.Image
import pytest

from iodine import comparison, errors, files
from iodine.commands import common, make_data

NOBODY = 65534


def listing(folder):
  return sorted(os.listdir(folder))


def test_a_file_comes_with_its_folder(tmp_path):
  files.write(tmp_path / "a/b/text", "grün")
  files.write(str(tmp_path / "a/b/bytes"), b"\x00\xff")
  assert (tmp_path / "a/b/text").read_text(encoding="utf-8") == "grün"
  assert (tmp_path / "a/b/bytes").read_bytes() == b"\x00\xff"
  assert listing(tmp_path) == ["a"]
  # JSON has null for what it does not hold.
  path = tmp_path / "a.json"
  files.write_json(path, {"a": [math.nan, 1.5, (math.inf,)], "b": {"c": 2}})
  found = json.loads(path.read_text())
  assert found == {"a": [None, 1.5, [None]], "b": {"c": 2}}


def test_what_cannot_be_written_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / "file.png"
  files.write(path, b"old")

  def fail(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(files.os, "replace", fail)
  with pytest.raises(errors.UserError, match=r"file.png` \(No space left on"):
    files.write(path, b"new")
  assert path.read_bytes() == b"old"
  assert listing(tmp_path) == ["file.png"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interruption_leaves_the_old(tmp_path, error):
  path, folder = tmp_path / "file", tmp_path / "above/folder"
  files.write(path, "old")
  for name in ("one", "two"):
    with files.replaced_folder(folder) as temporary:
      files.write(f"{temporary}/{name}", name)
  with pytest.raises(error), files.replaced(path) as temporary:
    files.write(temporary, "half")
    raise error
  with pytest.raises(error), files.replaced_folder(folder) as temporary:
    files.write(f"{temporary}/three", "3")
    raise error
  assert path.read_text() == "old"
  assert listing(tmp_path) == ["above", "file"]
  assert listing(folder.parent) == ["folder"]
  assert listing(folder) == [files.MARK, "two"]


def test_errors_of_other_writers_count_where_they_are_named(tmp_path):
  with (
    pytest.raises(errors.UserError, match="cannot write .*disk full"),
    files.replaced(tmp_path / "x", failures=(LookupError,)),
  ):
    raise LookupError("disk full\nand details")
  with pytest.raises(LookupError), files.replaced(tmp_path / "x"):
    raise LookupError("a bug")
  assert listing(tmp_path) == []


def test_links_and_permissions_stay(tmp_path):
  files.write(tmp_path / "a/file", "old")
  os.chmod(tmp_path / "a/file", 0o640)
  (tmp_path / "link").symlink_to("a/file")
  files.write(tmp_path / "link", "new")
  assert (tmp_path / "link").is_symlink()
  assert (tmp_path / "a/file").read_text() == "new"
  assert stat.S_IMODE(os.stat(tmp_path / "a/file").st_mode) == 0o640


def test_a_folder_without_a_mark_is_not_replaced(tmp_path):
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine/mask.png").write_text("precious")
  with (
    pytest.raises(errors.UserError, match="there already, and no mark"),
    files.replaced_folder(tmp_path / "mine"),
  ):
    pytest.fail("it began to write")
  assert (tmp_path / "mine/mask.png").read_text() == "precious"


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
    files.check_writable(path, begin)
  assert path.read_bytes() == content
  files.write(tmp_path / "earlier", begin)
  (tmp_path / "empty").touch()
  for name in ("earlier", "empty", "new", "a/b/new"):
    files.check_writable(tmp_path / name, begin)


@pytest.fixture
def place():
  """A folder of a user who has no rights but their own."""
  is_root = os.geteuid() == 0
  with tempfile.TemporaryDirectory() as folder:
    if is_root:
      os.chown(folder, NOBODY, NOBODY)
      os.seteuid(NOBODY)
    try:
      yield folder
    finally:
      if is_root:
        os.seteuid(0)


def test_what_cannot_be_written_is_known_before(place):
  os.makedirs(f"{place}/mine/deep")
  files.write(f"{place}/file", "")
  os.chmod(f"{place}/file", 0o444)
  os.chmod(f"{place}/mine", 0o555)
  for check, path in (
    (files.check_writable, "mine/new"),
    (files.check_writable, "mine/a/b/new"),
    (files.check_writable, "mine"),  # a folder
    (files.check_writable, "file"),  # itself is protected
    (files.check_writable, "file/below"),
    (files.check_folder, "x" * 300),
    (files.check_folder, "mine"),
    (files.check_folder, "mine/a/b"),
    (files.check_folder, "file"),
  ):
    with pytest.raises(errors.UserError, match=f"`{place}/"):
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
  pretrained = os.path.join(os.path.dirname(files.__file__), "pretrained")
  options = [
    option.format("file", f"{pretrained}/tetrominoes") for option in options
  ]
  message = helpers.fails_with_sentence(capsys, command, "with", *options)
  assert "cannot write `" in message and "file" in message
  assert listing(tmp_path) == ["file", "scene.png"]
  assert (tmp_path / "file").read_text() == "mine"


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
