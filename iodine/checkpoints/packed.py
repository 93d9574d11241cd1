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
import shutil
import stat
import zipfile
import zlib
from typing import IO

import filelock

from iodine import building, errors, files

# The environment variable that says where packed models are unpacked.
_PLACE = "IODINE_CACHE"
_MOST_BYTES = 2**30
_MOST_FILES = 100
_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
# What zipfile and json raise for files that are broken in one way or another.
_READ_ERRORS = (
  zipfile.BadZipFile,
  zlib.error,
  EOFError,
  KeyError,
  OSError,
  RuntimeError,
  ValueError,
)


def _place() -> str:
  """Returns where packed models are unpacked."""
  place = os.environ.get(_PLACE) or os.path.join("~", ".cache", "iodine-tf2")
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
    folder = os.path.join(_place(), _hash(file))
    if os.path.exists(folder):
      return folder
    files.make_folder(_place())
    with (
      # Of several processes one unpacks, and the others wait.
      filelock.FileLock(f"{folder}.lock"),
      errors.as_user_error(
        _READ_ERRORS,
        lambda error: (
          f"the packed model `{path}` cannot be read ({errors.reason(error)}): "
          "fetch it again"
        ),
      ),
      zipfile.ZipFile(file) as archive,
    ):
      if not os.path.exists(folder):
        _check(archive, path)
        _extract(archive, folder)
  return folder


def _hash(file: IO[bytes]) -> str:
  digest = hashlib.sha256()
  while block := file.read(2**20):
    digest.update(block)
  return digest.hexdigest()[:40]


def _check(archive: zipfile.ZipFile, path: str) -> None:
  """Checks what is in a file before it is unpacked."""
  members = archive.infolist()
  size = sum(member.file_size for member in members)
  if size > _MOST_BYTES or len(members) > _MOST_FILES:
    raise errors.UserError(
      f"the packed model `{path}` unpacks to {len(members):,} files of "
      f"{size / 1e6:,.0f} MB, more than the {_MOST_FILES} of "
      f"{_MOST_BYTES / 1e6:,.0f} MB that are taken: if you know who made it, "
      "unpack it yourself and give the folder"
    )
  names = [member.filename.lower() for member in members]
  for member in members:
    is_file = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG)
    is_known = member.compress_type in (
      zipfile.ZIP_STORED,
      zipfile.ZIP_DEFLATED,
    )
    is_alone = names.count(member.filename.lower()) == 1
    is_plain = is_file and is_known and is_alone
    if not is_plain or not _NAME.fullmatch(member.filename):
      raise errors.UserError(
        f"the packed model `{path}` holds "
        f"{errors.shorten(member.filename, 80)}, which is not a plain file in "
        "no folder, as `pack` writes them: do not trust it"
      )
  # No more is read than the stored sizes, whose checksums have to be right.
  broken = archive.testzip()
  if broken is not None:
    raise zipfile.BadZipFile(f"its {broken} is broken")
  # The name of the file says more than that of the folder to come.
  config = json.loads(archive.read(files.RUN_CONFIG))
  building.check_trusted(config, f"`{files.RUN_CONFIG}` in `{path}`")


def _extract(archive: zipfile.ZipFile, folder: str) -> None:
  """Unpacks a file that was checked, all of it or nothing."""
  with files.replaced_folder(folder) as new:
    for member in archive.infolist():
      target = os.path.join(new, member.filename)
      with archive.open(member) as source, open(target, "xb") as file:
        shutil.copyfileobj(source, file)


def pack(path: str, folder: str) -> None:
  """Writes the files of a folder; the same ones make the same bytes."""
  with zipfile.ZipFile(path, "w") as archive:
    for name in sorted(os.listdir(folder)):
      member = zipfile.ZipInfo(name)  # of 1980, whenever that is
      member.compress_type = zipfile.ZIP_DEFLATED
      member.create_system, member.external_attr = 3, 0o644 << 16
      with open(os.path.join(folder, name), "rb") as file:
        archive.writestr(member, file.read())
