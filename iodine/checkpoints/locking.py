"""One training at a time in a folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import filelock

from iodine import errors, files

LOCK_FILE = ".lock"


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
  """Keeps the trainings of other processes out of a folder.

  This process may lock it several times; the lock ends with the process.

  Args:
    folder: it is created if missing.

  Raises:
    errors.UserError: if another process trains there.
  """
  files.make_folder(folder)
  path = os.path.join(os.path.realpath(folder), LOCK_FILE)
  lock = filelock.FileLock(path, timeout=0, is_singleton=True)
  with errors.as_user_error(
    (filelock.Timeout,),
    lambda _: (
      f"another training writes into `{folder}`: wait until it has ended, end "
      "it, or choose another `checkpoint_dir`"
    ),
  ):
    held = lock.acquire()
  with held:
    yield
