"""What a path means: a file, the files of a folder or of a glob, or a list.

One rule for `data.path`, `data.masks`, `images` and `films`.
"""

from __future__ import annotations

import collections
import glob
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from iodine import errors

# In the folder that `segment` writes of an image.
_RESULT = "segmentation.npz"


def by_number(name: str) -> list[Any]:
  """Returns a key for sorting by which `frame_9` is before `frame_10`."""
  parts = re.split(r"(\d+)", name)
  # What is even is text, what is odd a number.
  return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def entries(value: Any) -> list[str]:
  """Returns the paths and globs that are named, one or a list of them."""
  places = [value] if isinstance(value, (str, os.PathLike)) else value
  return [os.path.expanduser(os.fspath(place)) for place in places or ()]


def title(value: Any) -> str:
  """Returns what paths are called in a message."""
  names = [f"`{place}`" for place in entries(value)]
  return errors.join_some(names, most=3, separator=", ")


def expand(
  entry: str,
  value: Any,
  suffixes: Sequence[str] = (),
  remedy: str = "",
  key: Callable[[str], Any] = by_number,
) -> dict[str, str]:
  """Returns the files that paths mean, each real file once.

  A folder means the files in it and below, a glob the files that it matches,
  or what is in the folders, if it matches folders only. Names that begin with a
  dot do not count there.

  Args:
    entry: of the config, for errors.
    value: a path, a glob, or a list of those.
    suffixes: what names of files in folders and globs end in; () for any. A
      file that is named itself may be called anything.
    remedy: what to do where there is nothing; "": name something else.
    key: of a path, by which what a folder or a glob gives is sorted.

  Returns:
    {name: path} in the order of the list, sorted within an entry of it. The
    name of a file in a single folder is its path within that, of any other its
    path.
  """
  remedy = remedy or (
    f"give a file, a folder, a glob, or a list of those by `{entry}=`"
  )
  places = entries(value)
  if not places:
    raise errors.UserError(f"`{entry}` is {value!r}: {remedy}")
  found: dict[str, tuple[str, str]] = {}
  for place in places:
    files = sorted(_files_of(entry, place, suffixes), key=key)
    if not files:
      kinds = f" whose name ends in {', '.join(suffixes)}" if suffixes else ""
      raise errors.UserError(
        f"`{entry}` is `{place}`, where there is no file{kinds}: {remedy}"
      )
    is_folder = len(places) == 1 and os.path.isdir(place)
    for path in files:
      name = os.path.relpath(path, place) if is_folder else path
      found.setdefault(os.path.realpath(path), (name, path))
  return dict(found.values())


def skipped(value: Any, suffixes: Sequence[str]) -> str:
  """Returns how many files of folders do not count, such as "4 .txt".

  Args:
    value: see `expand`.
    suffixes: as there.
  """
  others = collections.Counter(
    os.path.splitext(path)[1] or "without a suffix"
    for place in filter(os.path.isdir, entries(value))
    for path in _walk(place)
    if not _counts(path, suffixes) and os.path.basename(path)[0] != "."
  )
  shown = [f"{number} {kind}" for kind, number in sorted(others.items())]
  return errors.join_some(shown, separator=", ")


def _files_of(entry: str, place: str, suffixes: Sequence[str]) -> list[str]:
  """Returns the files that one path or glob means."""
  if os.path.isfile(place):
    return [place]
  if os.path.isdir(place):
    found = list(_walk(place))
  else:
    folder = os.path.dirname(place)
    if glob.has_magic(folder) and os.path.isdir(folder):
      raise errors.UserError(
        f"`{entry}` is `{place}`, but `{folder}` is a folder, whose name reads"
        " as a pattern: rename it"
      )
    # In what `**` means links may lead around.
    start, is_deep, end = f"{os.sep}{place}".partition(f"{os.sep}**")
    start = start[1:] or (os.curdir if is_deep else start)
    matches = glob.glob(start)
    found = [path for path in matches if os.path.isfile(path)]
    if not found:
      found = [path for match in matches for path in _walk(match)]
    if is_deep:
      names = [name for name in end.split(os.sep) if name not in ("", "**")]
      last = os.path.join(*names) if names else "*"
      found = [path for path in found if pathlib.PurePath(path).match(last)]
  return [path for path in found if _counts(path, suffixes)]


def _walk(folder: str) -> Iterator[str]:
  """Yields the files of a folder and below; no real folder twice."""

  def fail(error: OSError) -> NoReturn:
    raise error

  seen = {os.path.realpath(folder)}
  for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
    # What was made of an image is none to read, but where it is asked for.
    if place == folder or _RESULT not in names:
      yield from (os.path.join(place, name) for name in sorted(names))
    for name in sorted(folders):
      real = os.path.realpath(os.path.join(place, name))
      if name.startswith(".") or real in seen:
        folders.remove(name)
      else:
        seen.add(real)


def _counts(path: str, suffixes: Sequence[str]) -> bool:
  """Returns whether a file counts that was not named itself."""
  name = os.path.basename(path).lower()
  has_suffix = not suffixes or name.endswith(tuple(suffixes))
  # Of a pipe one would wait for the other end.
  is_other = os.path.exists(path) and not os.path.isfile(path)
  return has_suffix and not name.startswith(".") and not is_other
