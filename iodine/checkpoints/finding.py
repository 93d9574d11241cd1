"""Finding checkpoints and opening them, once.

A run's folder holds `ckpt-<step>.*` with TensorFlow's state file, `checkpoint`,
and the same for the best one in `best/`. The original's (TF1) are name-based
and look alike from outside. What counts are the files that are there: a state
file that is lost, or was written elsewhere, only says less about their order.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine import errors, files

BEST_FOLDER = "best"
STATE_FILE = "checkpoint"
# Where a run that went on from an older checkpoint has put the newer ones.
NEWER_FOLDER = "newer_than_"
_INDEX = ".index"
_PART = re.compile(rf"{BEST_FOLDER}|{NEWER_FOLDER}\d+(_\d+)?")
# What TensorFlow raises for files that are broken in one way or another.
READ_ERRORS = (
  tf.errors.OpError,
  AssertionError,
  IndexError,
  RuntimeError,
  UnicodeDecodeError,
)
_DATA = re.compile(r"\.data-[0-9]{5}-of-[0-9]{5}")
_NUMBERED = re.compile(r"(?P<stem>.*)-(?P<number>[0-9]+)", re.DOTALL)
_STATE_LINE = re.compile(
  r'^(?:all_)?model_checkpoint_paths?: "(?P<path>.+)"\s*$', re.MULTILINE
)
# What TensorFlow puts around what the file system says.
_OPERATION = re.compile(r"\{\{.*?\}\}\s*|\s*\[Op:\w+\].*", re.DOTALL)


class Opened(NamedTuple):
  """A checkpoint whose files are open.

  Attributes:
    prefix: of its files.
    reader: TensorFlow's.
    shapes: of all that is saved, by the names in the file.
  """

  prefix: str
  reader: Any
  shapes: dict[str, tuple[int, ...]]

  @property
  def is_tf1(self) -> bool:
    """Returns whether it is name-based, as the original's are."""
    return "_CHECKPOINTABLE_OBJECT_GRAPH" not in self.shapes

  def read(self, name: str) -> np.ndarray:
    """Reads one tensor.

    Raises:
      errors.UserError: if the files are broken.
    """
    with reading(self.prefix):
      return self.reader.get_tensor(name)


def open_checkpoint(path: str | os.PathLike[str] | Opened) -> Opened:
  """Opens a checkpoint, unless that was done already.

  Args:
    path: a prefix or a folder, see `find`; or what this function returned.

  Raises:
    errors.UserError: if there is none, or its files are broken.
  """
  if isinstance(path, Opened):
    return path
  prefix = find(path)
  _check_permission(prefix)
  with reading(prefix):
    return _open(prefix)


def _open(prefix: str) -> Opened:
  """Opens a checkpoint and reads all of it, by which its sums are checked."""
  reader = tf.train.load_checkpoint(literal(prefix))
  shapes = reader.get_variable_to_shape_map()
  for name in shapes:
    reader.get_tensor(name)
  return Opened(prefix, reader, {k: tuple(s) for k, s in shapes.items()})


@contextlib.contextmanager
def reading(prefix: str) -> Iterator[None]:
  """Makes what TensorFlow raises for broken files a sentence.

  Raises:
    errors.UserError: if reading fails.
  """
  try:
    yield
  except READ_ERRORS as error:
    raise errors.UserError(
      f"the checkpoint `{prefix}` cannot be read, its files are broken or "
      f"incomplete: use an older one ({first_line(error)})"
    ) from error


def is_pattern(path: str) -> bool:
  """Returns whether TensorFlow takes a path for one of several."""
  return re.search(r"[][?*\\]", path) is not None


def literal(prefix: str) -> str:
  """Returns a prefix of the same files that TensorFlow takes for no pattern.

  It looks for the files that it reads by patterns, in which `[` and others have
  a meaning. Links to them have names without.
  """
  if not is_pattern(prefix):
    return prefix
  place = tempfile.mkdtemp(dir=_links().name)
  start = os.path.basename(prefix)
  for path in parts(prefix):
    name = "ckpt" + os.path.basename(path).removeprefix(start)
    os.symlink(os.path.abspath(path), os.path.join(place, name))
  return os.path.join(place, "ckpt")


@functools.cache
def _links() -> tempfile.TemporaryDirectory[str]:
  """Makes a folder for links, which is removed when the process ends."""
  return tempfile.TemporaryDirectory()


def parts(prefix: str) -> list[str]:
  """Returns the files of a checkpoint that are there, the index as the last."""
  folder, start = os.path.split(prefix)
  names = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
  data = sorted(
    name
    for name in names
    if name.startswith(start) and _DATA.fullmatch(name[len(start) :])
  )
  index = [name for name in names if name == start + _INDEX]
  return [os.path.join(folder, name) for name in [*data, *index]]


def _check_permission(prefix: str) -> None:
  """Raises a UserError where files are there that may not be read."""
  files.check_readable(os.path.dirname(prefix) or ".")
  for path in parts(prefix):
    files.check_readable(path)


def run_folder(prefix: str) -> str:
  """Returns the folder of the run that a checkpoint is of."""
  own = os.path.dirname(prefix) or "."
  folder = own
  while _PART.fullmatch(os.path.basename(os.path.abspath(folder))):
    folder = os.path.normpath(os.path.join(folder, os.pardir))
  # A folder of that name may be a run's own, or have been copied.
  own_config, config = (
    os.path.join(f, files.RUN_CONFIG) for f in (own, folder)
  )
  return (
    own if os.path.exists(own_config) or not os.path.exists(config) else folder
  )


def as_path(path: Any) -> str:
  """Returns a path as a string.

  Raises:
    errors.UserError: if it is something else.
  """
  if not isinstance(path, (str, os.PathLike)):
    raise errors.UserError(
      f"{path!r} is not a path: give a checkpoint's prefix or a folder"
      + errors.quote_hint(path)
    )
  return os.fspath(path)


def state(folder: str) -> list[str]:
  """Returns the names that a folder's state file lists, newest first.

  Paths of another machine count by their last part, and a file that cannot be
  read lists none.
  """
  content = b""
  path = os.path.join(folder, STATE_FILE)
  with contextlib.suppress(OSError):
    if os.path.isfile(path):  # no pipe, which would be waited for
      with open(path, "rb") as file:
        content = file.read()
  newest, *others = [
    os.path.basename(match["path"])
    for match in _STATE_LINE.finditer(content.decode(errors="replace"))
  ] or [""]
  return list(dict.fromkeys([newest, *reversed(others)])) if newest else []


def candidates(folder: str) -> list[str]:
  """Returns the prefixes of a folder's checkpoints, newest first.

  Those that the state file lists come in its order, then all others by number.

  Raises:
    errors.UserError: if the folder may not be read; or if it holds several, and
      neither a state file nor numbers tell which one is the newest.
  """
  names = _names(folder)
  listed = [name for name in state(folder) if name in names]
  stems = {_numbered(name)[0] for name in listed[:1] or names}
  if len(stems) > 1:
    raise errors.UserError(
      f"the folder `{folder}` holds {len(names)} checkpoints and no state file "
      f"that names one: give a prefix, such as "
      f"`{os.path.join(folder, max(names))}`"
    )
  others = sorted(
    (n for n in names if n not in listed and _numbered(n)[0] in stems),
    key=_numbered,
    reverse=True,
  )
  return [os.path.join(folder, name) for name in [*listed, *others]]


def holds_run(folder: str) -> bool:
  """Returns whether a folder has a checkpoint of this project."""
  prefixes = [os.path.join(folder, name) for name in _names(folder)]
  return any(not _open(p).is_tf1 for p in prefixes if _damage(p) is None)


def _names(folder: str) -> set[str]:
  """Returns the names of the checkpoints in a folder; none where it is none."""
  if not os.path.isdir(folder):
    return set()
  files.check_readable(folder)
  return {
    name.removesuffix(_INDEX)
    for name in os.listdir(folder)
    # Others are what an export has left that was killed.
    if name.endswith(_INDEX) and not name.endswith(f".tmp{_INDEX}")
  }


def _numbered(name: str) -> tuple[str, int]:
  """Returns a name without its number, and the number, -1 for none."""
  match = _NUMBERED.fullmatch(name)
  return (match["stem"], int(match["number"])) if match else (name, -1)


def latest(folder: str) -> str | None:
  """Returns the prefix of the newest checkpoint in a folder, None for none.

  Raises:
    errors.UserError: if there are some, and none can be read, see `find`.
  """
  return find(folder) if candidates(folder) else None


def find(path: Any) -> str:
  """Returns the prefix of the checkpoint that `path` means.

  Args:
    path: a checkpoint prefix, or a folder, of which the newest that can be read
      counts. Where that is another than the state file names, it is printed.

  Raises:
    errors.UserError: if there is none.
  """
  if isinstance(path, Opened):
    return path.prefix
  path = as_path(path)
  if os.path.isdir(path):
    return _newest(path)
  files.check_readable(os.path.dirname(path) or ".")
  if not tf.io.gfile.exists(path + _INDEX):
    raise errors.UserError(
      f"there is no checkpoint at `{path}`: give `checkpoint_dir` the folder "
      "that a training printed, or a checkpoint's prefix such as "
      "`folder/ckpt-1000`"
    )
  return path


def _newest(folder: str) -> str:
  """Returns the newest checkpoint of a folder that can be read.

  Raises:
    errors.UserError: if there is none.
  """
  found = candidates(folder)
  if not found:
    raise errors.UserError(
      f"the folder `{folder}` holds no checkpoint: give `checkpoint_dir` the "
      "folder that a training printed, or a checkpoint's prefix"
    )
  named = state(folder)[:1]
  problems = []
  if named != [os.path.basename(found[0])] and len(found) > 1:
    lost = (
      f"names `{named[0]}`, which is not there"
      if named
      else "is lost or cannot be read"
    )
    problems.append(f"`{os.path.join(folder, STATE_FILE)}` {lost}")
  for prefix in found:
    damage = _damage(prefix)
    if damage is None:
      if problems:
        _tell(
          f"{errors.join_some(problems)}: the newest checkpoint that can be "
          f"read is used, `{prefix}`"
        )
      return prefix
    problems.append(f"`{prefix}` cannot be read ({damage})")
  best = os.path.join(folder, BEST_FOLDER)
  has_best = any(_damage(prefix) is None for prefix in candidates(best))
  raise errors.UserError(
    f"the folder `{folder}` holds no checkpoint that can be read, their files "
    "are broken or incomplete: "
    + (f"give `checkpoint_dir={best}`, or " if has_best else "")
    + "put copies of them back, or move the folder away and start afresh "
    f"({errors.join_some(problems)})"
  )


def _damage(prefix: str) -> str | None:
  """Returns why a checkpoint cannot be read, None where all of it can.

  Raises:
    errors.UserError: if it may not be read.
  """
  _check_permission(prefix)

  def read() -> None:
    with errors.as_user_error(READ_ERRORS, first_line):
      _open(prefix)

  return errors.message_of(read)


@functools.cache
def _tell(sentence: str) -> None:
  """Prints a sentence, once, as a command may look into a folder repeatedly."""
  print(sentence, flush=True)


def first_line(error: Exception) -> str:
  """Returns what an error of TensorFlow says, without the details."""
  return _OPERATION.sub("", str(error)).strip().split("\n")[0]
