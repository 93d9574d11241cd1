import pytest

from iodine import errors, files


def listing(folder):
  return sorted(p.name for p in folder.iterdir())


def test_a_file_comes_with_its_folder(tmp_path):
  files.write(tmp_path / "a/b/text", "grün")
  files.write(str(tmp_path / "a/b/bytes"), b"\x00\xff")
  assert (tmp_path / "a/b/text").read_text(encoding="utf-8") == "grün"
  assert (tmp_path / "a/b/bytes").read_bytes() == b"\x00\xff"
  files.write_json(tmp_path / "n.json", {"n": [1, None]})
  assert (tmp_path / "n.json").read_text() == (
    '{\n  "n": [\n    1,\n    null\n  ]\n}\n'
  )
  assert listing(tmp_path) == ["a", "n.json"]


def test_what_cannot_be_written_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / "file.png"
  files.write(path, b"old")

  def fail(*_):
    raise OSError("no space left")

  monkeypatch.setattr(files.os, "replace", fail)
  with pytest.raises(errors.UserError, match="no space left"):
    files.write(path, b"new")
  assert path.read_bytes() == b"old"
  assert listing(tmp_path) == ["file.png"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interruption_leaves_the_old_file(tmp_path, error):
  path = tmp_path / "file"
  files.write(path, "old")
  with pytest.raises(error), files.replaced(path) as temporary:
    with open(temporary, "w") as file:
      file.write("half")
    raise error
  assert path.read_text() == "old"
  assert listing(tmp_path) == ["file"]


def test_what_is_written_beside_goes_as_it_is_moved(tmp_path):
  names = ("x.data", "x.index")
  for content in ("old", "new"):
    with files.beside(str(tmp_path / "x")) as folder:
      for name in (*names, "scrap"):
        files.write(f"{folder}/{name}", content)
      for name in names:
        files.move(f"{folder}/{name}", str(tmp_path / name))
    assert [(tmp_path / name).read_text() for name in names] == [content] * 2
  assert listing(tmp_path) == ["x.data", "x.index"]


def test_errors_of_other_writers_count_where_they_are_named(tmp_path):
  with (
    pytest.raises(errors.UserError, match="cannot write .*disk full"),
    files.replaced(tmp_path / "x", failures=(LookupError,)),
  ):
    raise LookupError("disk full\nand details")
  with pytest.raises(LookupError), files.replaced(tmp_path / "x"):
    raise LookupError("a bug")
  with (
    pytest.raises(OSError, match="of something else"),
    files.replaced(tmp_path / "x", failures=(LookupError,)),
  ):
    raise OSError("of something else")
  assert listing(tmp_path) == []


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
  folder = tmp_path / "above/folder"
  with files.replaced_folder(str(folder)) as temporary:
    files.write(f"{temporary}/one", "1")
    assert not folder.exists()
  with files.replaced_folder(f"{folder}/") as temporary:
    files.write(f"{temporary}/two", "2")
  assert listing(folder) == [files.MARK, "two"]
  with (
    pytest.raises(ZeroDivisionError),
    files.replaced_folder(str(folder)) as temporary,
  ):
    files.write(f"{temporary}/three", "3")
    raise ZeroDivisionError
  assert listing(folder) == [files.MARK, "two"]
  assert listing(folder.parent) == ["folder"]


def test_a_new_folder_is_nobody_elses(tmp_path):
  assert files.make_new_folder(str(tmp_path / "a/b"))
  assert not files.make_new_folder(str(tmp_path / "a/b"))
  (tmp_path / "file").write_text("")
  assert not files.make_new_folder(str(tmp_path / "file"))
  with pytest.raises(errors.UserError, match="cannot create the folder"):
    files.make_new_folder(str(tmp_path / "file/b"))


@pytest.mark.parametrize("path", [5, None, "/proc/no/such", "/tmp"])
def test_paths_that_cannot_be_written(path):
  with pytest.raises(errors.UserError):
    files.check_writable(path)


def test_a_check_leaves_an_old_file_and_nothing_new(tmp_path):
  files.write(tmp_path / "old", "old")
  files.check_writable(tmp_path / "old")
  files.check_writable(tmp_path / "new")
  assert listing(tmp_path) == ["old"]
  assert (tmp_path / "old").read_text() == "old"


def test_numbers_are_paths_where_something_has_that_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "1").mkdir()
  (tmp_path / "7.5").touch()
  assert files.as_written(1) == "1"
  for other in (2, True, 7.5, None, "1", [1]):
    assert files.as_written(other) is other
