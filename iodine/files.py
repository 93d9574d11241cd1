"""The only writers of files and makers of folders; no TensorFlow here.

What is written comes into being at once, when it is complete: until then, and
where something goes wrong, what was there before stays, and nothing else. It is
written in a folder of its own beside the place where it goes. A process that is
killed leaves that; the next one that writes there clears it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import glob
import json
import math
import os
import re
import shutil
import stat
import tempfile
import time
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

# Beside what is written. Locks may not reach beyond one machine, so that the
# name says which one it is.
_PREFIX = ".iodine-"
_OWN_PREFIX = f"{_PREFIX}{os.uname().nodename}-"
_SUFFIX = ".tmp"
_LOCK = "lock"
_NEW = "new"
_OLD = "old"
_OLD_SECONDS = 24 * 3600.0

# Of Linux's renameat2.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def as_written(path: Any) -> Any:
  """Returns the path that was read as a whole number, where it leads somewhere.

  Sacred reads the folder in `images=2024` as a number. All else is returned as
  it is.
  """
  is_number = isinstance(path, int) and not isinstance(path, bool)
  return str(path) if is_number and os.path.exists(str(path)) else path


# ------------------------------------------------- before a file or folder is


def make_folder(folder: Any) -> None:
  """Creates a folder, with its parents.

  Raises:
    errors.UserError: if that fails.
  """
  _require_path(folder)
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


def check_writable(path: Any, begin: str = "") -> None:
  """Checks early that a file can be written, and leaves nothing.

  Args:
    path: of the file.
    begin: how its text begins. A file that begins otherwise, or is the config
      of a run, is not replaced: somebody mistook its name.

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
  with _explained(path, "cannot write"):
    _require_rights(path)
  if _is_stream(path):
    return
  if begin and os.path.isfile(path):
    check_readable(path)
    with open(path, "rb") as file:
      is_ours = file.read(len(begin)) in (begin.encode(), b"")
    if not is_ours or os.path.basename(path) == RUN_CONFIG:
      raise errors.UserError(
        f"`{path}` is there already, and is not what would replace it: choose "
        "another name, or remove it"
      )
  target = os.path.realpath(path) if os.path.islink(path) else path
  folder = os.path.dirname(target) or os.curdir
  if not os.path.isdir(folder):
    check_folder(folder)
    return
  # Nothing else knows for sure, not even the permissions.
  with _explained(path, "cannot write"), _workspace(folder):
    pass


def check_json(path: Any) -> None:
  """Checks early that `write_json` can write there, see `check_writable`."""
  check_writable(path, "{")


def check_folder(folder: Any) -> None:
  """Checks early that files can be written to a folder, and leaves nothing.

  Args:
    folder: it may have yet to be made.

  Raises:
    errors.UserError: if not.
  """
  _require_path(folder)
  is_there = os.path.isdir(folder)
  failure = f"cannot {'write to' if is_there else 'create'} the folder"
  with _explained(folder, failure):
    place = os.path.realpath(folder)
    while not os.path.lexists(place):
      place = os.path.dirname(place)
    with _workspace(place):
      pass


def check_replaceable(folder: str) -> None:
  """Checks that a folder is new, empty, or was made by `replaced_folder`.

  Raises:
    errors.UserError: if it has things in it that would be lost, or is
      protected.
  """
  if not os.path.lexists(os.path.realpath(folder)):
    return
  with _explained(folder, "cannot write the folder"):
    names = os.listdir(folder) if os.path.isdir(folder) else [folder]
    _require_access(folder, os.W_OK)
  if names and MARK not in names:
    raise errors.UserError(
      f"`{folder}` is there already, and no mark in it says that this project "
      "made it, which older versions left out: choose another place, or remove "
      "it"
    )


def check_readable(path: str | os.PathLike[str]) -> None:
  """Checks that permissions do not keep a file or folder from being read.

  Whatever else is wrong with it, also that it is not there, is left to those
  that read it.

  Args:
    path: of a glob the folder that it begins with counts.

  Raises:
    errors.UserError: if it may not be read or, a folder, not be listed.
  """
  path = os.fspath(path)
  while glob.has_magic(path) and not os.path.lexists(path):
    path = os.path.dirname(path) or os.curdir
  with errors.explained(
    (PermissionError,),
    lambda _: (
      f"`{path}` may not be read (no permission): change its permissions, or "
      "those of the folders that it is in"
    ),
  ):
    found = None
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
      found = os.stat(path)
    if found is not None:
      is_folder = stat.S_ISDIR(found.st_mode)
      _require_access(path, os.R_OK | (os.X_OK if is_folder else 0))


def holds_only(folder: str, names: re.Pattern[str]) -> bool:
  """Returns whether a folder has no more than such files, and the mark."""
  with os.scandir(folder) as entries:
    return all(
      entry.is_file() and (entry.name == MARK or names.fullmatch(entry.name))
      for entry in entries
    )


def _require_path(folder: Any) -> None:
  if not isinstance(folder, (str, os.PathLike)):
    raise errors.UserError(
      f"{folder!r} is not a path: give that of a folder"
      + errors.quoting(folder)
    )


def _require_rights(path: str | os.PathLike[str]) -> None:
  """Raises an OSError where there is something that may not be replaced.

  A file may be there that is protected, although its folder is not.
  """
  found = None
  with contextlib.suppress(FileNotFoundError, NotADirectoryError):
    found = os.stat(path)
  if found is None:
    return
  if not stat.S_ISREG(found.st_mode) and not _is_stream(path):
    raise OSError(errno.EINVAL, "it is not a file")
  _require_access(path, os.W_OK)


def _require_access(path: str | os.PathLike[str], mode: int) -> None:
  """Raises a PermissionError unless there is access."""
  effective = os.access in os.supports_effective_ids
  if not os.access(path, mode, effective_ids=effective):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


# -------------------------------------------------------------------- writing


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
  failures: tuple[type[Exception], ...] = (OSError,),
) -> Iterator[str]:
  """Gives a temporary path; what is written there goes to `path` at the end.

  It is the only thing in its folder, which goes with all else that is written
  there. Links are followed; a pipe or a device is written to. A file that is
  replaced keeps its permissions, and its owner where that is permitted.

  Args:
    path: the file to write; its folder is made.
    failures: what the writer raises where the disk refuses; all else that is
      raised meanwhile is a bug.

  Raises:
    errors.UserError: if something cannot be written.
  """
  path = os.fspath(path)
  with beside(path, failures) as folder:
    temporary = os.path.join(folder, os.path.basename(path))
    yield temporary
    move(temporary, path)


@contextlib.contextmanager
def beside(
  path: str, failures: tuple[type[Exception], ...] = (OSError,)
) -> Iterator[str]:
  """Gives an empty folder to write in what `move` brings to `path`.

  Args:
    path: its folder is made.
    failures: as for `replaced`.

  Raises:
    errors.UserError: if something cannot be written.
  """
  with _explained(path, "cannot write"):
    _require_rights(path)
  folder = os.path.dirname(os.path.realpath(path))
  if _is_stream(path):
    folder = tempfile.gettempdir()
  make_folder(folder)
  with contextlib.ExitStack() as stack:
    with _explained(path, "cannot write"):
      workspace = stack.enter_context(_workspace(folder))
      new = os.path.join(workspace, _NEW)
      os.mkdir(new)
    stack.enter_context(_explained(path, "cannot write", failures))
    yield new


def move(temporary: str, path: str) -> None:
  """Puts a file that is complete in its place, see `replaced`.

  Raises:
    errors.UserError: if that fails.
  """
  with _explained(path, "cannot write"):
    if _is_stream(path):
      with open(temporary, "rb") as source, open(path, "ab") as target:
        shutil.copyfileobj(source, target)
    else:
      path = os.path.realpath(path)
      _keep_rights(path, temporary)
      os.replace(temporary, path)


def remove(path: str) -> None:
  """Removes a file that is needed no longer, where that is permitted."""
  with contextlib.suppress(OSError):
    os.remove(path)


@contextlib.contextmanager
def replaced_folder(
  folder: str, failures: tuple[type[Exception], ...] = (OSError,)
) -> Iterator[str]:
  """Gives an empty temporary folder, which becomes `folder` at the end.

  It carries a mark then, by which it is known the next time.

  Args:
    folder: see `check_replaceable`; its parents are made.
    failures: as for `replaced`.

  Raises:
    errors.UserError: if something cannot be written, or would be lost.
  """
  check_replaceable(folder)
  with _folder_beside(folder, failures) as new:
    yield new
    with open(os.path.join(new, MARK), "w") as file:
      file.write(_MARK_TEXT)
    check_replaceable(folder)  # Somebody may have written there meanwhile.
    _swap(new, os.path.realpath(folder))


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
  with _folder_beside(folder) as new:
    yield new
    place = os.path.realpath(folder)
    with contextlib.suppress(OSError):
      os.rename(new, place)
    if not os.path.isdir(place):
      os.rename(new, place)  # Says what is wrong.


@contextlib.contextmanager
def _folder_beside(
  folder: str, failures: tuple[type[Exception], ...] = (OSError,)
) -> Iterator[str]:
  """Gives an empty folder beside one, and removes it if it is there then."""
  parent = os.path.dirname(os.path.realpath(folder))
  make_folder(parent)
  kinds: tuple[type[Exception], ...] = (OSError, *failures)
  with (
    _explained(folder, "cannot write the folder", kinds),
    _workspace(parent) as workspace,
  ):
    new = os.path.join(workspace, _NEW)
    os.mkdir(new)
    yield new


def _swap(new: str, folder: str) -> None:
  """Puts a folder in the place of another, which may be there.

  Where file systems can, they exchange the two at once. Where they cannot,
  such as over NFS, there is none for a moment: whoever is killed then leaves
  both beside it, and the old one is put back when something is written there.
  """
  _keep_rights(folder, new)
  with contextlib.suppress(OSError):
    os.rename(new, folder)  # There is none, or an empty one.
    return
  if not _exchange(new, folder):
    if os.path.isdir(folder):
      old = os.path.join(os.path.dirname(new), _OLD)
      os.mkdir(old)
      os.rename(folder, os.path.join(old, os.path.basename(folder)))
    os.rename(new, folder)


def _exchange(one: str, other: str) -> bool:
  """Exchanges two files or folders at once; returns whether that was done."""
  rename = getattr(ctypes.CDLL(None), "renameat2", None)
  paths = [os.fsencode(path) for path in (one, other)]
  return rename is not None and not rename(
    _AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE
  )


def _is_stream(path: str | os.PathLike[str]) -> bool:
  """Returns whether something is written to where it is, not replaced.

  That is a pipe, a device such as /dev/null, and the file that this process
  prints to, as /dev/stdout may be.
  """
  with contextlib.suppress(OSError):
    found = os.stat(path)
    return (
      stat.S_ISFIFO(found.st_mode)
      or stat.S_ISCHR(found.st_mode)
      or any(os.path.samestat(found, os.fstat(number)) for number in (1, 2))
    )
  return False


def _keep_rights(old: str, new: str) -> None:
  """Gives a new file or folder what an old one has, if that is there."""
  with contextlib.suppress(OSError):
    found = os.stat(old)
    for owner in ((found.st_uid, -1), (-1, found.st_gid)):
      with contextlib.suppress(PermissionError):
        os.chown(new, *owner)
    os.chmod(new, stat.S_IMODE(found.st_mode))


# ----------------------------------------------------------------- workspaces


@contextlib.contextmanager
def _workspace(parent: str) -> Iterator[str]:
  """Gives a new folder in another one, and removes it.

  Its lock is held as long as this process needs it, and lives.
  """
  _clear_once(os.path.realpath(parent))
  with contextlib.ExitStack() as stack:
    lock = None
    while lock is None:
      workspace = tempfile.mkdtemp(_SUFFIX, _OWN_PREFIX, parent)
      stack.callback(shutil.rmtree, workspace, ignore_errors=True)
      path = os.path.join(workspace, _LOCK)
      # Whoever clears may take a new one for a left-over; then it is gone.
      with contextlib.suppress(FileNotFoundError):
        file = stack.enter_context(open(path, "ab"))
        _lock(file.fileno(), fcntl.LOCK_EX)
        if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
          lock = file
    yield workspace


def _lock(number: int, kind: int) -> bool:
  """Locks an open file; returns whether its file system can, and it did."""
  with contextlib.suppress(OSError):
    fcntl.flock(number, kind)
    return True
  return False


def clear_left_overs(parent: str) -> None:
  """Removes what killed processes left in a folder, of this user alone.

  What another machine left is cleared when it is a day old.
  """
  with contextlib.suppress(OSError):
    for name in os.listdir(parent):
      if name.startswith(_PREFIX) and name.endswith(_SUFFIX):
        _clear(os.path.join(parent, name))


_clear_once = functools.cache(clear_left_overs)


def _clear(workspace: str) -> None:
  """Removes a workspace, unless it is needed."""
  with contextlib.suppress(OSError):
    found = os.lstat(workspace)
    is_own = os.path.basename(workspace).startswith(_OWN_PREFIX)
    if (
      not stat.S_ISDIR(found.st_mode)
      or found.st_uid != os.geteuid()
      or (not is_own and time.time() - found.st_mtime < _OLD_SECONDS)
    ):
      return
    # Made where it is missing, so that one that is about to be taken is not.
    with open(os.path.join(workspace, _LOCK), "ab") as lock:
      if _lock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB):
        _put_back(workspace)
        shutil.rmtree(workspace, ignore_errors=True)


def _put_back(workspace: str) -> None:
  """Puts a folder back that was about to be replaced, see `_swap`."""
  with contextlib.suppress(FileNotFoundError):
    old = os.path.join(workspace, _OLD)
    for name in os.listdir(old):
      place = os.path.join(os.path.dirname(workspace), name)
      if not os.path.lexists(place):
        os.rename(os.path.join(old, name), place)


def _explained(
  path: Any, failure: str, failures: tuple[type[Exception], ...] = (OSError,)
) -> contextlib.AbstractContextManager[None]:
  """Makes what the file system refuses a UserError about `path`."""

  def explain(error: Exception) -> str:
    reason = errors.reason(error)
    if _PREFIX in reason:
      # TensorFlow names the temporary file, too.
      reason = reason.rpartition("; ")[2]
    # The place that was refused, a file or one of the folders above it.
    return (
      f"{failure} `{os.fspath(path)}` ({reason}): choose a place with room "
      "that you may write to"
    )

  return errors.explained(failures, explain)
