"""Files and folders that appear when they are complete; no TensorFlow here.

They are written beside their place under a name of their own, and renamed.
Until then, and where something goes wrong, what was there before stays.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from iodine import errors

# In folders that this project made as a whole, and may replace as a whole.
MARK = ".iodine"
_MARK_TEXT = (
  "This folder was written by iodine, which replaces all of it when it is "
  "written again.\n"
)

# What a checkpoint is read with; no result replaces it.
RUN_CONFIG = "config.json"

# How the name of a packed model ends.
PACKED = ".zip"

_PREFIX = ".iodine-"

Path = str | os.PathLike[str]


def _as_user_error(
  path: Path, failures: tuple[type[Exception], ...] = (OSError,)
) -> contextlib.AbstractContextManager[None]:
  """Raises a UserError about `path` where the file system refuses."""
  return errors.as_user_error(
    failures,
    lambda error: (
      f"cannot write `{os.fspath(path)}` ({errors.reason(error)}): choose a "
      "place with room that you may write to"
    ),
  )


def is_packed(path: Path) -> bool:
  """Returns whether a path is that of a packed model, a zip file."""
  return os.fspath(path).lower().endswith(PACKED) and os.path.isfile(path)


def make_folder(folder: Path) -> None:
  """Creates a folder, with its parents."""
  with _as_user_error(folder):
    os.makedirs(folder, exist_ok=True)


def make_new_folder(folder: Path) -> bool:
  """Creates a folder, with its parents, unless something has its name.

  Returns:
    Whether it was created: then nobody else did, not even at this moment.
  """
  make_folder(os.path.dirname(folder) or os.curdir)
  with _as_user_error(folder):
    try:
      os.mkdir(folder)
    except FileExistsError:
      return False
  return True


def check_folder(folder: Path) -> None:
  """Checks early that files can be written to a folder, and leaves nothing.

  Args:
    folder: it may have yet to be made.
  """
  place = os.path.realpath(folder)
  with _as_user_error(folder), contextlib.suppress(FileNotFoundError):
    os.stat(place)  # which knows a name that is too long
  while not os.path.lexists(place):
    place = os.path.dirname(place)
  # Nothing else knows for sure, not even the permissions.
  with _as_user_error(folder), tempfile.TemporaryFile(dir=place):
    pass


def check_writable(path: Path, begin: str = "") -> None:
  """Checks early that a file can be written, and leaves nothing.

  Args:
    path: of the file.
    begin: how its text begins. A file that begins otherwise, or is the config
      of a run, is not replaced: somebody mistook its name.
  """
  path = os.fspath(path)
  if os.path.lexists(path) and not os.path.isfile(path):
    raise errors.UserError(
      f"`{path}` is not a file: give the path of one to write"
    )
  check_folder(os.path.dirname(os.path.realpath(path)))
  if not os.path.isfile(path):
    return
  with _as_user_error(path), open(path, "rb+") as file:
    is_ours = file.read(len(begin)) in (begin.encode(), b"")
  if begin and (not is_ours or os.path.basename(path) == RUN_CONFIG):
    raise errors.UserError(
      f"`{path}` is there already, and is not what would replace it: choose "
      "another name, or remove it"
    )


def check_replaceable(folder: Path) -> None:
  """Checks that a folder is new, empty, or was made by `replaced_folder`."""
  if not os.path.lexists(folder):
    return
  with _as_user_error(folder):
    names = os.listdir(folder) if os.path.isdir(folder) else [folder]
  if names and MARK not in names:
    raise errors.UserError(
      f"`{folder}` is there already, and no mark in it says that this project "
      "made it: choose another place, or remove it"
    )


@contextlib.contextmanager
def _workspace(
  path: str, failures: tuple[type[Exception], ...]
) -> Iterator[str]:
  """Gives a temporary folder beside `path`, whose own folder is made."""
  folder = os.path.dirname(path)
  make_folder(folder)
  with (
    _as_user_error(path, (OSError, *failures)),
    tempfile.TemporaryDirectory(prefix=_PREFIX, dir=folder) as workspace,
  ):
    yield workspace


@contextlib.contextmanager
def replaced(
  path: Path, failures: tuple[type[Exception], ...] = ()
) -> Iterator[str]:
  """Gives a temporary path; what is written there becomes `path` at the end.

  Links are followed; a file that is replaced keeps its permissions.

  Args:
    path: the file to write; its folder is made.
    failures: what the writer raises where the disk refuses, beside OSError.
  """
  path = os.path.realpath(path)
  with _workspace(path, failures) as workspace:
    temporary = os.path.join(workspace, os.path.basename(path))
    yield temporary
    if os.path.exists(path):
      shutil.copymode(path, temporary)
    os.replace(temporary, path)


@contextlib.contextmanager
def replaced_folder(
  folder: Path, failures: tuple[type[Exception], ...] = ()
) -> Iterator[str]:
  """Gives an empty temporary folder, which becomes `folder` at the end.

  It carries a mark then, by which it is known the next time.

  Args:
    folder: see `check_replaceable`; its parents are made.
    failures: as for `replaced`.
  """
  check_replaceable(folder)
  folder = os.path.realpath(folder)
  with _workspace(folder, failures) as workspace:
    new = os.path.join(workspace, "new")
    os.mkdir(new)
    yield new
    with open(os.path.join(new, MARK), "w", encoding="utf-8") as file:
      file.write(_MARK_TEXT)
    if os.path.exists(folder):
      shutil.copymode(folder, new)
      os.rename(folder, os.path.join(workspace, "old"))
    os.rename(new, folder)


@contextlib.contextmanager
def unfinished(path: Path, made_from: str) -> Iterator[str]:
  """Gives a folder beside `path`, which outlives what interrupts the making.

  It is gone at the end, and where nothing was made.

  Args:
    path: what is being made.
    made_from: what the content follows from. A folder of something else is
      begun anew.
  """
  folder = f"{os.path.realpath(path)}.partial"
  note = os.path.join(folder, MARK)
  with _as_user_error(path):
    check_replaceable(folder)
    if os.path.exists(note):
      with open(note, encoding="utf-8") as file:
        if file.read() != made_from:
          shutil.rmtree(folder)
    write(note, made_from)
  try:
    yield folder
    shutil.rmtree(folder)
  finally:
    made = os.listdir(folder) if os.path.isdir(folder) else []
    if len(made) > 1:
      print(f"what is made so far is in `{folder}`: the same command goes on")
    elif made:
      shutil.rmtree(folder)


def write(path: Path, content: str | bytes) -> None:
  """Writes a file; its folder is made."""
  data = content.encode() if isinstance(content, str) else content
  with replaced(path) as temporary, open(temporary, "wb") as file:
    file.write(data)


def write_json(path: Path, content: Any) -> None:
  """Writes a JSON file; numbers that are not finite are null."""
  write(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def read_json(
  path: Path, remedy: str = "remove it, so that it is made anew"
) -> Any:
  """Reads a JSON file; a UserError says what to do where it is broken."""
  with (
    errors.as_user_error(
      (ValueError, RecursionError),  # no JSON, or nested too deeply
      lambda error: f"`{path}` cannot be read ({error}): {remedy}",
    ),
    open(path, encoding="utf-8") as file,
  ):
    return json.load(file)


def _finite(content: Any) -> Any:
  """Returns nested dicts and lists with None for what is not finite."""
  if isinstance(content, Mapping):
    return {key: _finite(value) for key, value in content.items()}
  if isinstance(content, (list, tuple)):
    return [_finite(value) for value in content]
  is_bad = isinstance(content, float) and not math.isfinite(content)
  return None if is_bad else content
