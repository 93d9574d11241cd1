"""The only writers of files and makers of folders; no TensorFlow here.

What is written comes into being at once, when it is complete: until then, and
where something goes wrong, what was there before stays, and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from iodine import errors


def as_written(path: Any) -> Any:
  """Returns the path that was read as a whole number, where it leads somewhere.

  Sacred reads the folder in `images=2024` as a number. All else is returned as
  it is.
  """
  is_number = isinstance(path, int) and not isinstance(path, bool)
  return str(path) if is_number and os.path.exists(str(path)) else path


def make_folder(folder: Any) -> None:
  """Creates a folder, with its parents.

  Raises:
    errors.UserError: if that fails.
  """
  if not isinstance(folder, (str, os.PathLike)):
    raise errors.UserError(
      f"{folder!r} is not a path: give that of a folder"
      + errors.quoting(folder)
    )
  with _explained(folder, "cannot create the folder"):
    os.makedirs(folder, exist_ok=True)


def make_new_folder(folder: str) -> bool:
  """Creates a folder, with its parents, unless something has its name.

  Returns:
    Whether it was created: then nobody else did, not even at this moment.

  Raises:
    errors.UserError: if it cannot be created.
  """
  make_folder(os.path.dirname(folder) or ".")
  with _explained(folder, "cannot create the folder"):
    try:
      os.mkdir(folder)
    except FileExistsError:
      return False
  return True


def check_writable(path: Any) -> None:
  """Checks early that a file can be written, and makes its folder.

  Raises:
    errors.UserError: if not.
  """
  if not isinstance(path, (str, os.PathLike)) or (
    not os.fspath(path) or os.path.isdir(path)
  ):
    raise errors.UserError(
      f"`{path}` is not the path of a file: give one to write"
      + errors.quoting(path)
    )
  # Nothing else knows for sure, not even the permissions.
  with replaced(path) as temporary:
    with open(temporary, "wb"):
      pass
    os.remove(temporary)


def write(path: str | os.PathLike[str], content: str | bytes) -> None:
  """Writes a file; its folder is made.

  Raises:
    errors.UserError: if it cannot be written.
  """
  data = content.encode() if isinstance(content, str) else content
  with replaced(path) as temporary, open(temporary, "wb") as file:
    file.write(data)


def write_json(path: str | os.PathLike[str], content: Any) -> None:
  """Writes a JSON file, see `write`; numbers that are not finite are null."""
  text = json.dumps(finite(content), indent=2, allow_nan=False)
  write(path, text + "\n")


def finite(content: Any) -> Any:
  """Returns nested dicts and lists with None for what is not finite in them."""
  if isinstance(content, Mapping):
    return {key: finite(value) for key, value in content.items()}
  if isinstance(content, (list, tuple)):
    return [finite(value) for value in content]
  is_bad = isinstance(content, float) and not math.isfinite(content)
  return None if is_bad else content


@contextlib.contextmanager
def replaced(
  path: str | os.PathLike[str],
  suffixes: Sequence[str] = ("",),
  failures: tuple[type[Exception], ...] = (OSError,),
) -> Iterator[str]:
  """Gives a temporary path; what is written there goes to `path` at the end.

  Args:
    path: the file to write; its folder is made.
    suffixes: of the files, where several share `path` as a prefix. While they
      are replaced the last one is missing, so that nobody takes old and new
      ones for a pair.
    failures: what the writer raises where the disk refuses; all else that is
      raised meanwhile is a bug.

  Raises:
    errors.UserError: if something cannot be written.
  """
  path = os.fspath(path)
  make_folder(os.path.dirname(path) or ".")
  temporary = f"{path}.{os.getpid()}.tmp"
  try:
    with _explained(path, "cannot write", failures):
      yield temporary
    with _explained(path, "cannot write"):
      written = [s for s in suffixes if os.path.exists(temporary + s)]
      if len(written) > 1:
        _remove(path + written[-1])
      for suffix in written:
        os.replace(temporary + suffix, path + suffix)
  finally:
    for suffix in suffixes:
      _remove(temporary + suffix)


@contextlib.contextmanager
def replaced_folder(
  folder: str, failures: tuple[type[Exception], ...] = (OSError,)
) -> Iterator[str]:
  """Gives an empty temporary folder, which becomes `folder` at the end.

  An older `folder` is replaced; whether it may be is the caller's business.

  Args:
    folder: its parents are made.
    failures: as for `replaced`.

  Raises:
    errors.UserError: if something cannot be written.
  """
  folder = os.path.normpath(folder)
  with _folder_beside(folder, failures) as temporary:
    yield temporary
    if os.path.isdir(folder):
      shutil.rmtree(folder)
    os.rename(temporary, folder)


@contextlib.contextmanager
def new_folder(folder: str) -> Iterator[str]:
  """Gives an empty temporary folder, which becomes `folder` at the end.

  Unlike with `replaced_folder`, a `folder` that somebody else has made in the
  meantime stays, and what was written is thrown away.

  Args:
    folder: its parents are made.

  Raises:
    errors.UserError: if something cannot be written.
  """
  folder = os.path.normpath(folder)
  with _folder_beside(folder) as temporary:
    yield temporary
    with contextlib.suppress(OSError):
      os.rename(temporary, folder)
    if not os.path.isdir(folder):
      os.rename(temporary, folder)  # Says what is wrong.


@contextlib.contextmanager
def _folder_beside(
  folder: str, failures: tuple[type[Exception], ...] = (OSError,)
) -> Iterator[str]:
  """Gives an empty folder beside one, and removes it if it is there then."""
  parent = os.path.dirname(folder) or "."
  make_folder(parent)
  with _explained(folder, "cannot write the folder"):
    # Not named by the process alone: another machine may have the same one.
    temporary = tempfile.mkdtemp(".tmp", f"{os.path.basename(folder)}.", parent)
  try:
    with _explained(folder, "cannot write the folder", (OSError, *failures)):
      # As the folder would have been made by itself.
      os.chmod(temporary, 0o777 & ~_umask())
      yield temporary
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
  """Returns the bits of permissions that this process does not give."""
  mask = os.umask(0)
  os.umask(mask)
  return mask


def _explained(
  path: Any, failure: str, failures: tuple[type[Exception], ...] = (OSError,)
) -> contextlib.AbstractContextManager[None]:
  """Makes what the file system refuses a UserError about `path`."""

  def explain(error: Exception) -> str:
    # The place that was refused, a file or one of the folders above it.
    reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
    return (
      f"{failure} `{os.fspath(path)}` ({reason}): choose a place with room "
      "that you may write to"
    )

  return errors.explained(failures, explain)


def _remove(path: str) -> None:
  with contextlib.suppress(FileNotFoundError):
    os.remove(path)
