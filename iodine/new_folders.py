"""Folders that come into being at once, with all of their files."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

from iodine import checkpoints, errors


@contextlib.contextmanager
def written_at_once(folder: str) -> Iterator[str]:
  """Gives a temporary folder, which becomes `folder` where all went well.

  Where not, nothing is left of it, and an older `folder` stays as it is;
  otherwise it is replaced. Whether it may be is the caller's business.

  Args:
    folder: its parents are made.

  Raises:
    errors.UserError: if something cannot be written.
  """
  folder = os.path.normpath(folder)
  temporary = f"{folder}.tmp-{os.getpid()}"
  checkpoints.make_folder(os.path.dirname(folder) or ".")
  try:
    os.mkdir(temporary)
    yield temporary
    if os.path.isdir(folder):
      shutil.rmtree(folder)
    os.rename(temporary, folder)
  except OSError as error:
    raise errors.UserError(
      f"cannot write the folder `{folder}` ({error.strerror or error}): choose "
      "a place with room that you may write to"
    ) from error
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
