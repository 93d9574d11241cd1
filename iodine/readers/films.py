"""Films: folders of images, GIFs, and videos where PyAV is installed.

Dimensions: H' W' size of a frame, T frames.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import imageio.v3 as imageio
import numpy as np
from imageio.core import request

from iodine import errors
from iodine.readers import image_files, paths

# What the names of films end in; PyAV reads all but the first.
_GIF = ".gif"
_SUFFIXES = (_GIF, ".mp4", ".mov", ".avi", ".mkv", ".webm")
SUFFIXES = (*image_files.SUFFIXES, *_SUFFIXES)

# What imageio and PyAV raise for broken files, beside what Pillow does.
_BROKEN = (AttributeError, ImportError, IndexError, request.InitializationError)


class Film(NamedTuple):
  """Where a film is.

  Attributes:
    name: of the file or folder, within the folder that was searched.
    path: of a GIF or a video, or of the folder of its frames.
    frames: files of the frames, in order; none of a GIF or a video.
    masks: files of the label images of each frame; where films are found, the
      label images among the frames.
  """

  name: str
  path: str
  frames: tuple[str, ...] = ()
  masks: tuple[Any, ...] = ()


def find(entry: str, value: Any) -> list[Film]:
  """Returns the films that paths mean.

  Args:
    entry: of the config, for errors.
    value: a GIF, a video, a folder, in which every folder with images is a
      film, as is every GIF or video; a glob; or a list of those.
  """
  found = paths.expand(entry, value, SUFFIXES)
  films = {}
  for name, path in found.items():
    if path.lower().endswith(_SUFFIXES):
      films[path] = Film(name, path)
      continue
    folder = os.path.dirname(path)
    film = films.get(folder, Film(os.path.dirname(name) or ".", folder))
    if image_files.is_mask(path):
      films[folder] = film._replace(masks=(*film.masks, path))
    else:
      films[folder] = film._replace(frames=(*film.frames, path))
  return list(films.values())


def count(film: Film) -> int:
  """Returns how many frames a film has."""
  if film.frames:
    return len(film.frames)
  if film.path.lower().endswith(_GIF):
    with _explained(film.path):
      return imageio.improps(film.path, plugin="pillow").n_images or 1
  return sum(1 for _ in _decode(film.path))


def read(
  film: Film,
  numbers: Sequence[int] | None = None,
  framing: image_files.Framing | None = None,
) -> np.ndarray:
  """Reads frames of a film.

  Args:
    film: where it is.
    numbers: which, from 0, ascending; None for all.
    framing: what is wanted of them, see `image_files.read`; None for all.

  Returns:
    [T, H', W', 3], or 1 in the place of 3 where all are grey; float32 in
    [0, 1].
  """
  decoded: Iterable[Any] = film.frames or _decode(film.path)
  if numbers is not None:
    # None after the last is decoded.
    wanted = set(numbers)
    firsts = enumerate(itertools.islice(decoded, numbers[-1] + 1))
    decoded = (frame for i, frame in firsts if i in wanted)
  frames = [image_files.read(frame, framing) for frame in decoded]
  channels = max((frame.shape[-1] for frame in frames), default=0)
  frames = [image_files.to_channels(frame, channels) for frame in frames]
  sizes = sorted({"{} x {}".format(*frame.shape) for frame in frames})
  if len(sizes) != 1 or len(frames) != len(numbers or frames):
    raise errors.UserError(
      f"`{film.path}` is no film, as it has {len(frames)} of the frames that"
      f" are wanted, of the sizes {', '.join(sizes) or 'none'}: give frames of"
      " one size, or leave it out"
    )
  return np.stack(frames)


def _decode(path: str) -> Iterator[np.ndarray]:
  """Yields the frames of a GIF [H', W', 4] or a video [H', W', 3], uint8."""
  is_gif = path.lower().endswith(_GIF)
  plugin, kind = ("pillow", "mode") if is_gif else ("pyav", "format")
  options = {kind: "RGBA" if is_gif else "rgb24"}
  with _explained(path):
    yield from imageio.imiter(path, plugin=plugin, **options)


def _explained(path: str) -> Any:
  """Raises a UserError where a film cannot be decoded."""
  kind = "a film that can be read"
  if not path.lower().endswith(_GIF):
    kind += " (videos need PyAV, `pip install av`)"
  return image_files.explained(path, kind, *_BROKEN)
