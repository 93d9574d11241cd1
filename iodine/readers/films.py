"""Frames of films: folders of images, GIFs, and videos where PyAV is installed.

Dimensions: H' W' size of a frame, T frames.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageSequence

from iodine import errors, files, memory
from iodine.readers import image_files

# What the names of films end in; PyAV reads all but the first.
SUFFIXES = (".gif", ".mp4", ".mov", ".avi", ".mkv", ".webm")


def is_film(path: str) -> bool:
  """Returns whether a path is that of a film rather than of an image."""
  return path.lower().endswith(SUFFIXES)


def read_film(path: str) -> np.ndarray:
  """Reads all frames of a film.

  Args:
    path: a GIF, a video, or a folder of images, which are its frames in the
      order of their names.

  Returns:
    [T, H', W', 3] float32 in [0, 1].

  Raises:
    errors.UserError: if it cannot be read, or frames have several sizes.
  """
  files.check_readable(path)
  if not os.path.exists(path):
    raise errors.UserError(
      f"there is no film at `{path}`: give the path of a GIF, a video or a"
      " folder of images"
    )
  if os.path.isdir(path):
    names = sorted(os.listdir(path), key=image_files.by_number)
    frames = [
      image_files.read(os.path.join(path, name))
      for name in names
      if image_files.counts(name) and not image_files.is_mask(name)
    ]
  else:
    frames = read(path)
  frames = [image_files.to_channels(frame, 3) for frame in frames]
  if len({frame.shape for frame in frames}) != 1:
    raise errors.UserError(
      f"`{path}` is no film, as it has no frames, or frames of several sizes:"
      " give a folder of images of one size, a GIF or a video"
    )
  return np.stack(frames)


def count(path: str) -> int:
  """Returns how many frames a GIF or a video has.

  Raises:
    errors.UserError: if it cannot be read.
  """
  files.check_readable(path)
  if _is_gif(path):
    with _open_gif(path) as film:
      return getattr(film, "n_frames", 1)
  with _open_video(path) as decode:
    return sum(1 for _ in decode())


def read(path: str, numbers: Sequence[int] | None = None) -> list[np.ndarray]:
  """Reads frames of a GIF or a video, in order.

  Args:
    path: the file.
    numbers: which, from 0, ascending; None for all.

  Returns:
    Of each, [H', W', 1 or 3] float32 in [0, 1].

  Raises:
    errors.UserError: if they cannot be read.
  """
  files.check_readable(path)
  frames = []
  if _is_gif(path):
    with _open_gif(path) as film:
      # A frame takes some bytes in the file, however large it is.
      num = len(numbers) if numbers else getattr(film, "n_frames", 1)
      _require_memory(path, num, film.size)
      for frame in _chosen(PIL.ImageSequence.Iterator(film), numbers):
        image_files.check_size(path, *frame.size)
        frames.append(image_files.read(frame.convert("RGBA")))
  else:
    with _open_video(path) as decode:
      for frame in _chosen(decode(), numbers):
        image_files.check_size(path, frame.width, frame.height)
        _require_memory(path, len(frames) + 1, (frame.width, frame.height))
        frames.append(image_files.read(frame.to_ndarray(format="rgb24")))
  if numbers is not None and len(frames) < len(numbers):
    raise errors.UserError(
      f"`{path}` ends before its frame {numbers[-1]}: replace it, or leave it"
      " out"
    )
  return frames


def _require_memory(path: str, num: int, size: tuple[int, int]) -> None:
  """Raises a UserError where there is no room for so many frames, twice."""
  memory.require(
    2 * num * size[0] * size[1] * 3 * 4,
    f"{num} frames of `{path}`",
    "cut it into shorter films, or make it smaller",
  )


def _chosen(
  frames: Iterable[Any], numbers: Sequence[int] | None
) -> Iterator[Any]:
  """Returns frames by their numbers; none after the last is decoded."""
  if numbers is None:
    return iter(frames)
  wanted = set(numbers)
  first_ones = itertools.islice(frames, numbers[-1] + 1)
  return (frame for i, frame in enumerate(first_ones) if i in wanted)


def _is_gif(path: str) -> bool:
  return path.lower().endswith(".gif")


@contextlib.contextmanager
def _open_gif(path: str) -> Iterator[PIL.Image.Image]:
  def explain(error: Exception) -> str | None:
    if isinstance(error, errors.UserError):
      return None
    is_large = isinstance(error, PIL.Image.DecompressionBombError)
    return image_files.too_large(path) if is_large else _broken(path)

  _check_file(path)
  with (
    errors.as_user_error(image_files.READ_ERRORS, explain),
    PIL.Image.open(path, formats=("GIF",)) as film,
  ):
    image_files.check_size(path, *film.size)
    yield film


@contextlib.contextmanager
def _open_video(path: str) -> Iterator[Callable[[], Iterator[Any]]]:
  """Gives a function that decodes the frames of a video."""
  _check_file(path)
  if importlib.util.find_spec("av") is None:
    raise errors.UserError(
      f"`{path}` is a video, which needs PyAV: install it with `pip install"
      " av`, or give a folder of its frames"
    )
  import av  # not among the requirements

  kinds = (av.error.FFmpegError, OSError, IndexError)
  with (
    errors.as_user_error(kinds, lambda _: _broken(path)),
    av.open(path) as container,
  ):
    yield lambda: container.decode(video=0)


def _check_file(path: str) -> None:
  """Raises a UserError where there is no file, but a pipe, say."""
  if not os.path.isfile(path):
    raise errors.UserError(_broken(path))


def _broken(path: str) -> str:
  return f"`{path}` is not a film, or a broken one: replace it, or leave it out"
