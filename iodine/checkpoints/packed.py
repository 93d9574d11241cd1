"""Packed models: a checkpoint, its config and what shows it, in a zip file.

A stranger may have written one. So it holds plain files and no folders, which
is checked before anything is unpacked, and nothing of it is run. It is unpacked
once, into a folder that is named by the hash of the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import zipfile
import zlib

import filelock

from iodine import building, errors, files

_MOST_BYTES = 2**30
_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
# What zipfile and json raise for files that are broken in one way or another.
_READ_ERRORS = (
  *(zipfile.BadZipFile, zlib.error, EOFError, KeyError),
  *(OSError, RuntimeError, ValueError),
)


def _place() -> str:
  """Returns where packed models are unpacked; the user may say it."""
  default = os.path.join("~", ".cache", "iodine-tf2")
  place = os.environ.get("IODINE_CACHE") or default
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
  with open(path, "rb") as file:
    digest = hashlib.sha256()
    while block := file.read(2**20):
      digest.update(block)
    folder = os.path.join(_place(), digest.hexdigest()[:40])
    if os.path.exists(folder):
      return folder
    files.make_folder(_place())
    broken = f"the packed model `{path}` is broken, fetch it again: "
    with (
      # Of several processes one unpacks, and the others wait.
      filelock.FileLock(f"{folder}.lock"),
      errors.as_user_error(_READ_ERRORS, lambda e: broken + errors.reason(e)),
      zipfile.ZipFile(file) as archive,
    ):
      if not os.path.exists(folder):
        _check(archive, path)
        with files.replaced_folder(folder) as new:
          archive.extractall(new)
  return folder


def _check(archive: zipfile.ZipFile, path: str) -> None:
  """Checks all that is in a file before it is unpacked."""
  members = archive.infolist()
  wrong = [errors.shorten(x.filename, 80) for x in members if not _is_plain(x)]
  size = sum(member.file_size for member in members)
  if wrong or size > _MOST_BYTES:
    raise errors.UserError(
      f"the packed model `{path}` has {size / 1e6:,.0f} MB"
      f"{', and ' * bool(wrong)}{errors.join_some(wrong)}, but `pack` writes "
      f"plain files of {_MOST_BYTES / 1e6:,.0f} MB at most: do not trust it"
    )
  # No more is read than the stored sizes, whose checksums have to be right.
  if broken := archive.testzip():
    raise zipfile.BadZipFile(f"its {broken} is not what it was")
  # The name of the file says more than that of the folder to come.
  config = json.loads(archive.read(files.RUN_CONFIG))
  building.check_trusted(config, f"`{files.RUN_CONFIG}` in `{path}`")


def _is_plain(member: zipfile.ZipInfo) -> bool:
  """Returns whether it is a file in no folder, no link and no folder itself."""
  is_file = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG)
  # Of these zipfile reads a piece at a time.
  is_known = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
  return bool(is_file and is_known and _NAME.fullmatch(member.filename))


def pack(path: str, folder: str) -> None:
  """Writes the files of a folder; the same ones make the same bytes."""
  with zipfile.ZipFile(path, "w") as archive:
    for name in sorted(os.listdir(folder)):
      member = zipfile.ZipInfo(name)  # of 1980, whenever that is
      member.compress_type = zipfile.ZIP_DEFLATED
      member.create_system, member.external_attr = 3, 0o644 << 16
      with open(os.path.join(folder, name), "rb") as file:
        archive.writestr(member, file.read())
