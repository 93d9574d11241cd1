"""Images from outside: files, PIL images and arrays; no TensorFlow here.

Dimensions: H' W' size of an image as it comes, H W size that a model wants.
"""

from __future__ import annotations

import functools
import glob
import os
import re
import struct
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps

# `PIL.Image.open` would import them, in whatever thread reads first: a garbage
# collection there that ends an iterator waits for the iterator's threads, and
# these for the import.
from PIL import (  # noqa: F401
  BmpImagePlugin,
  JpegImagePlugin,
  PngImagePlugin,
  TiffImagePlugin,
  WebPImagePlugin,
)

from iodine import errors, files
from iodine.readers import globs

# What counts in a folder or a glob.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

# A label image beside `photo.png` is `photo.mask.png`.
MASK = ".mask"

# Pillow's names of these formats, and ours.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
KINDS = "PNG, JPEG, WebP, BMP or TIFF"

# TIFF's numbers of these tags.
_TILE_WIDTH, _TILE_HEIGHT = 322, 323

# What Pillow raises for files that are broken in one way or another.
READ_ERRORS = (
  EOFError,
  OSError,
  SyntaxError,
  ValueError,
  struct.error,
  PIL.Image.DecompressionBombError,
)

# The largest number of pixels of an image, in the place of Pillow's.
_LIMIT = "IODINE_MAX_IMAGE_PIXELS"
if os.environ.get(_LIMIT, "").isdigit():
  PIL.Image.MAX_IMAGE_PIXELS = int(os.environ[_LIMIT])
# It is an error here.
warnings.filterwarnings("ignore", category=PIL.Image.DecompressionBombWarning)


def find(images: Any) -> list[str]:
  """Returns the files that `images` means, none of them twice.

  Args:
    images: a file, a folder, whose subfolders count, too, a glob, or a list of
      those. What one folder or glob gives is sorted, and has no label images.

  Raises:
    errors.UserError: if `images` or one of its entries gives nothing.
  """
  entries = images if isinstance(images, (list, tuple)) else [images]
  if images is None or not entries:
    raise errors.UserError(
      "`images` is not set: give the path of an image, a folder, a glob, or a "
      "list of those, such as `images=photos/`"
    )
  found: dict[str, str] = {}
  for entry in entries:
    for path in _expand(files.as_written(entry)):
      found.setdefault(os.path.realpath(path), path)
  return list(found.values())


def _expand(entry: Any) -> list[str]:
  """Returns the files of one entry of `images`."""
  if not isinstance(entry, str):
    raise errors.UserError(
      f"`images` has {entry!r}, which is not a path: give paths of images, of "
      "folders, or globs" + errors.quote_hint(entry, "images")
    )
  found = expand(entry)
  if os.path.isdir(entry):
    kind = "folder"
  elif os.path.exists(entry):
    return [entry]
  elif glob.has_magic(entry):
    kind = "glob"
  else:
    raise errors.UserError(
      f"there is nothing at `{entry}`: give `images` the path of an image or "
      "of a folder with some"
    )
  paths = [path for path in found.values() if not is_mask(path)]
  if not paths:
    raise errors.UserError(
      f"the {kind} `{entry}` gives no image: files count whose names end in "
      f"{', '.join(SUFFIXES)}"
    )
  return sorted(paths, key=by_number)


def expand(entry: str, suffixes: Sequence[str] = SUFFIXES) -> dict[str, str]:
  """Returns the files that a path means: itself, or those of a folder or glob.

  Args:
    entry: the path.
    suffixes: as for `counts`, by which a file that is named itself is not
      chosen.

  Returns:
    {name: path}; the name of a file in a folder is its path within that, of
    any other its path. Nothing where there is nothing.
  """
  files.check_readable(entry)
  if os.path.isdir(entry):
    return dict(walk(entry, suffixes))
  if os.path.exists(entry):
    return {entry: entry}
  found = globs.matches(entry)
  return {path: path for path in found if counts(path, suffixes)}


def walk(
  folder: str, suffixes: Sequence[str] = SUFFIXES
) -> Iterator[tuple[str, str]]:
  """Yields the files of a folder and of those in it, see `counts`.

  Args:
    folder: its path.
    suffixes: as for `counts`.

  Yields:
    The path within the folder, and the path.

  Raises:
    errors.UserError: if a folder may not be listed.
  """

  def tell(error: OSError) -> None:
    files.check_readable(error.filename)

  for place, folders, names in os.walk(folder, onerror=tell, followlinks=True):
    folders[:] = [name for name in folders if not name.startswith(".")]
    for name in names:
      path = os.path.join(place, name)
      if counts(path, suffixes):
        yield os.path.relpath(path, folder), path


def counts(path: str, suffixes: Sequence[str] = SUFFIXES) -> bool:
  """Returns whether a file counts: by what its name ends in, and no dot."""
  name = os.path.basename(path)
  return not name.startswith(".") and name.lower().endswith(tuple(suffixes))


def is_mask(path: str) -> bool:
  """Returns whether a file has the name of a label image beside a photo."""
  return os.path.splitext(path)[0].endswith(MASK)


def by_number(name: str) -> list[Any]:
  """Returns a key for sorting by which `frame_9` is before `frame_10`."""
  parts = re.split(r"(\d+)", name)
  # What is even is text, what is odd a number.
  return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def read(image: Any) -> np.ndarray:
  """Reads an image as numbers; transparent parts lie on black.

  Args:
    image: the path of a file, PNG, JPEG, WebP, BMP or TIFF, which is turned
      upright as its EXIF entry says; a PIL image; or an array [H', W'] or [H',
      W', 1, 3 or 4 (with opacity)], uint8 or floating-point in [0, 1].

  Returns:
    [H', W', 1 or 3] float32 in [0, 1].

  Raises:
    errors.UserError: if the file is not there, is broken or of no such kind, or
      the array is.
  """
  if isinstance(image, (str, os.PathLike)):
    path = os.fspath(image)
    image = _open(path)
    if isinstance(image, str):
      raise errors.UserError(image)
    explain = functools.partial("in `{}`: {}".format, path)
    with errors.as_user_error((errors.UserError,), explain):
      return _from_pil(image)
  if isinstance(image, PIL.Image.Image):
    return _from_pil(image)
  return _from_array(np.asarray(image))


def read_labels(path: str) -> np.ndarray:
  """Reads a label image: a number for each pixel, 0 for the background.

  Args:
    path: a PNG, BMP or TIFF file of one channel, of up to 16 bits, or with a
      palette, whose indices count.

  Returns:
    [H', W'] integers.

  Raises:
    errors.UserError: if it is none.
  """
  image = _open(path)
  if isinstance(image, str):
    raise errors.UserError(image)
  if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
    raise errors.UserError(
      f"`{path}` is no label image, as its pixels have more than one number"
      f" (mode {image.mode}): give a PNG of one channel, 0 for the background"
    )
  labels = np.asarray(image)
  if labels.min() < 0:
    raise errors.UserError(
      f"`{path}` is no label image, as it has the number {labels.min()}: give"
      " numbers from 0, 0 for the background"
    )
  return labels.astype(np.uint8) if image.mode == "1" else labels


def find_problem(path: str) -> str | None:
  """Returns what is wrong with a file, as `read` would say; None if nothing."""
  image = _open(path)
  if isinstance(image, str):
    return image
  # Of all others any number will do.
  has_any_numbers = image.mode in ("F", "I")
  return errors.message_of(lambda: read(path)) if has_any_numbers else None


def _open(path: str) -> PIL.Image.Image | str:
  """Returns an image, upright; or a sentence where it cannot be read."""
  problem = errors.message_of(lambda: files.check_readable(path))
  if problem is not None:
    return problem
  if not os.path.isfile(path):
    return f"there is no image at `{path}`: give the path of one"
  try:
    with PIL.Image.open(path, formats=_FORMATS) as image:
      check_size(path, *image.size)
      # TIFF's tiles may be larger than the image.
      tags = getattr(image, "tag_v2", {})
      check_size(path, tags.get(_TILE_WIDTH, 0), tags.get(_TILE_HEIGHT, 0))
      image.load()
      return PIL.ImageOps.exif_transpose(image)
  except READ_ERRORS as error:
    if isinstance(error, errors.UserError):
      return str(error)
    if isinstance(error, PIL.Image.DecompressionBombError):
      return too_large(path)
    return (
      f"`{path}` is not an image ({KINDS}), or a broken one: replace it, or "
      "leave it out"
    )


def check_size(path: str, width: int, height: int) -> None:
  """Checks the size of an image before it is decoded.

  A file of some kilobytes may unpack to gigabytes.

  Raises:
    errors.UserError: if it has more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
  """
  limit = PIL.Image.MAX_IMAGE_PIXELS
  if limit is not None and width * height > limit:
    raise errors.UserError(too_large(path))


def too_large(path: str) -> str:
  """Returns the sentence for an image that has too many pixels."""
  return (
    f"`{path}` has more than {PIL.Image.MAX_IMAGE_PIXELS:,} pixels: make it "
    f"smaller, or raise the limit by the environment variable `{_LIMIT}`, in "
    "Python by `PIL.Image.MAX_IMAGE_PIXELS`"
  )


def _from_pil(image: PIL.Image.Image) -> np.ndarray:
  """Returns [H', W', 1 or 3] float32 in [0, 1]."""
  if image.mode.startswith("I"):
    # 16 bits of grey; Pillow would cut what is above 255.
    pixels = np.asarray(image)
    if pixels.min() < 0 or pixels.max() > 65535:
      raise errors.UserError(
        f"pixels from {pixels.min()} to {pixels.max()} are not an image: give"
        " 8 or 16 bits, or floating-point numbers from 0 to 1"
      )
    return _from_array(pixels.astype(np.float32) / 65535.0)
  if image.mode == "F":
    return _from_array(np.asarray(image))
  if image.has_transparency_data:
    return _from_array(np.asarray(image.convert("RGBA")))
  is_gray = image.mode in ("1", "L")
  return _from_array(np.asarray(image.convert("L" if is_gray else "RGB")))


def _from_array(array: np.ndarray) -> np.ndarray:
  """Checks and scales an array; [H', W', 1 or 3] float32."""
  shape = array.shape
  if array.ndim == 2:
    array = array[..., None]
  if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or not array.size:
    raise errors.UserError(
      f"an array of shape {list(shape)} is not an image: give [height, width], "
      "or [height, width, channels] with 1, 3 or 4 channels"
    )
  if array.dtype == np.uint8:
    array = array.astype(np.float32)
    array /= np.float32(255.0)
  elif not np.issubdtype(array.dtype, np.floating):
    raise errors.UserError(
      f"an array of {array.dtype} is not an image: give uint8, or "
      "floating-point numbers from 0 to 1"
    )
  else:
    array = array.astype(np.float32)
  low, high = array.min(), array.max()
  if not (low >= 0.0 and high <= 1.0):  # the other way round NaN would pass
    raise errors.UserError(
      f"an array of numbers from {low:g} to {high:g} is not an image: give "
      "uint8, or floating-point numbers from 0 to 1"
    )
  if array.shape[-1] == 4:
    array = array[..., :3] * array[..., 3:]
  return array


def center_region(
  image_size: Sequence[int], target_size: Sequence[int]
) -> tuple[tuple[int, int], tuple[int, int]]:
  """Returns the largest region in the middle with another's proportions.

  Args:
    image_size: (H', W').
    target_size: (H, W), of which the proportions count.

  Returns:
    ((top, bottom), (left, right)), the ends excluded, as `crop_region` of the
    data sets.
  """
  height, width = image_size
  scale = min(height / target_size[0], width / target_size[1])
  # At least a pixel of a very long image, and rounding adds none.
  new_height = min(height, max(1, round(scale * target_size[0])))
  new_width = min(width, max(1, round(scale * target_size[1])))
  top, left = (height - new_height) // 2, (width - new_width) // 2
  return (top, top + new_height), (left, left + new_width)


def wanted_region(
  image_size: Sequence[int],
  crop_region: Sequence[Sequence[int]] | None,
  target_size: Sequence[int] | None,
) -> tuple[tuple[int, int], tuple[int, int]]:
  """Returns the region of an image that a data set wants.

  Args:
    image_size: (H', W').
    crop_region: ((top, bottom), (left, right)), ends excluded; None for all.
    target_size: (H, W), in whose proportions the middle of that is kept; None
      for all of it.

  Returns:
    ((top, bottom), (left, right)).

  Raises:
    errors.UserError: if crop_region is not within the image.
  """
  height, width = image_size
  region = crop_region or ((0, height), (0, width))
  (top, bottom), (left, right) = region
  if bottom > height or right > width:
    raise errors.UserError(
      f"`crop_region` is {crop_region}, but an image has {height} x {width} "
      "pixels: give a region within all images"
    )
  if target_size is not None:
    rows, columns = center_region((bottom - top, right - left), target_size)
    top, bottom = top + rows[0], top + rows[1]
    left, right = left + columns[0], left + columns[1]
  return (top, bottom), (left, right)


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
  """Maps [..., 1 or 3] -> [..., channels]; grey is the mean."""
  if image.shape[-1] == channels:
    return image
  if channels == 1:
    return image.mean(axis=-1, keepdims=True)
  return np.repeat(image, channels, axis=-1)
