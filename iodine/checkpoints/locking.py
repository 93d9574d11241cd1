"""One training at a time in a folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator

from iodine import errors, files

LOCK_FILE = ".lock"
_held: set[str] = set()


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
  """Keeps the trainings of other processes out of a folder.

  The lock is the file system's and this process's alone: it ends with it,
  however that ends, and children do not keep it.

  Args:
    folder: it is created if missing.

  Raises:
    errors.UserError: if another process trains there, or the folder cannot be
      written to.
  """
  path = os.path.join(os.path.realpath(folder), LOCK_FILE)
  if path in _held:  # by whoever called
    yield
    return
  files.make_folder(folder)
  with errors.as_user_error((OSError,), lambda error: _refused(folder, error)):
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
  try:
    _take(file, folder)
    _held.add(path)
    yield
  finally:
    _held.discard(path)
    os.close(file)  # which gives the lock back


def _take(file: int, folder: str) -> None:
  """Locks an open file, where its file system can."""
  is_locked = False
  busy = errors.as_user_error(
    (BlockingIOError, PermissionError), lambda _: _busy(file, folder)
  )
  with contextlib.suppress(OSError), busy:
    # Unlike `flock`, children have no part in it.
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    is_locked = True
    os.ftruncate(file, 0)
    owner = f"process {os.getpid()} on {socket.gethostname()}"
    os.pwrite(file, owner.encode(), 0)
  if not is_locked:
    print(
      f"the file system of `{folder}` has no locks: see to it that no other "
      "training writes there",
      flush=True,
    )


def _busy(file: int, folder: str) -> str:
  owner = os.pread(file, 200, 0).decode(errors="replace")
  return (
    f"another training writes into `{folder}` ({owner or 'its process'}): wait "
    "until it has ended, end it, or choose another `checkpoint_dir`"
  )


def _refused(folder: str, error: Exception) -> str:
  return (
    f"cannot write to the folder `{folder}` "
    f"({getattr(error, 'strerror', error)}): choose a place with room that you "
    "may write to"
  )
