"""Packed models: a checkpoint, its config and what shows it, in a zip file.

A stranger may have written one. So it holds plain files and no folders, which
is checked before anything is unpacked, and nothing of it is run. It is unpacked
once, into a folder that is named by the hash of the file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import re
import zipfile

from iodine import building, errors, files

_MOST_BYTES = 2**30
_NAME = re.compile(r"\w[\w.-]*", re.ASCII)


def _place() -> str:
  """Returns where packed models are unpacked; the user may say it."""
  place = os.environ.get("IODINE_CACHE") or "~/.cache/iodine-tf2"
  return os.path.realpath(os.path.expanduser(place))


def is_unpacked(prefix: str) -> bool:
  """Returns whether a checkpoint is one that was unpacked here."""
  return os.path.realpath(prefix).startswith(os.path.join(_place(), ""))


def unpack(path: str) -> str:
  """Returns the folder of a packed model, which is unpacked if it is new.

  Args:
    path: of the file; that of anything else is returned as it is.

  Raises:
    errors.UserError: if it is broken, or not as `pack` writes it; nothing of it
      is left then.
  """
  if not files.is_packed(path):
    return path
  packed = pathlib.Path(path).read_bytes()
  folder = os.path.join(_place(), hashlib.sha256(packed).hexdigest()[:40])
  if not os.path.exists(os.path.join(folder, files.RUN_CONFIG)):
    broken = f"the packed model `{path}` is broken, fetch it again: "
    # What zipfile raises depends on what is broken.
    with errors.as_user_error(
      (Exception,), lambda error: broken + errors.reason(error)
    ):
      contents = _read(packed, path)
    # Each appears as a whole, whichever process writes it, the config last.
    for name in sorted(contents, key=files.RUN_CONFIG.__eq__):
      files.write(os.path.join(folder, name), contents[name])
  return folder


def _read(packed: bytes, path: str) -> dict[str, bytes]:
  """Returns what is in the files, all of which are checked."""
  archive = zipfile.ZipFile(io.BytesIO(packed))
  sizes = {member.filename: member.file_size for member in archive.infolist()}
  size = sum(sizes.values())
  if size > _MOST_BYTES or not all(map(_NAME.fullmatch, sizes)):
    raise errors.UserError(
      f"the packed model `{path}` has {size / 1e6:,.0f} MB in "
      f"{errors.shorten([*sizes])}, but `pack` writes plain files of "
      f"{_MOST_BYTES / 1e6:,.0f} MB at most: do not trust it"
    )
  # No more is read than the stored sizes, whose checksums have to be right.
  contents = {name: archive.read(name) for name in sizes}
  # The name of the file says more than that of the folder to come.
  config = json.loads(contents[files.RUN_CONFIG])
  building.check_trusted(config, f"`{files.RUN_CONFIG}` in `{path}`")
  return contents
