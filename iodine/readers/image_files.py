"""Images from outside: files, PIL images and arrays; no TensorFlow here.

Dimensions: H' W' size of an image as it comes, H W size that a model wants.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageOps
from PIL import AvifImagePlugin, TiffImagePlugin, WebPImagePlugin  # noqa: F401

from iodine import errors
from iodine.readers import paths

# `PIL.Image.open` would import these, and those above, in whatever thread
# reads first: a garbage collection there that ends an iterator waits for the
# iterator's threads, and these for the import.
PIL.Image.preinit()

# What counts in a folder or a glob.
SUFFIXES = (
  *(".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff"),
)

# A label image beside `photo.png` is `photo.mask.png`.
MASK = ".mask"

# Pillow's names of these formats, and ours.
_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF")
KINDS = "PNG, JPEG, WebP, AVIF, BMP or TIFF"
# Those that keep every number.
_EXACT_FORMATS = ("PNG", "BMP", "TIFF")

# Of EXIF, and those by which an image lies on its side.
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)

# Of TIFF, and JPEG in it.
_TIFF_COMPRESSION, _LOSSY = 259, (6, 7)

# Photographs have more rows and columns than this, scenes of the public data
# sets fewer.
_PHOTOGRAPH = 512
# So many are decoded at least, as they do not lie where parts begin.
_ROWS_OF_A_MEAN = 4

# What Pillow raises for files that are broken in one way or another.
_READ_ERRORS = (
  *(EOFError, OSError, SyntaxError, ValueError, struct.error),
  *(IndexError, KeyError, TypeError),  # where it looks for further pages
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
      those, see `paths.expand`. In folders and globs label images do not count.
  """
  found = paths.expand("images", images, SUFFIXES).values()
  named = paths.entries(images)
  photos = [path for path in found if path in named or not is_mask(path)]
  if not photos:
    raise errors.UserError(
      f"`images` is {paths.title(images)}, where there are label images only: "
      "give the photos that they belong to"
    )
  return photos


def is_mask(path: str) -> bool:
  """Returns whether a file has the name of a label image beside a photo."""
  return os.path.splitext(path)[0].endswith(MASK)


def read(image: Any, framing: Framing | None = None) -> np.ndarray:
  """Reads an image as numbers; transparent parts lie on black.

  Args:
    image: the path of a file, PNG, JPEG, WebP, BMP or TIFF, which is turned
      upright as its EXIF entry says; what is in one, as bytes; a PIL image; or
      an array [H', W'] or [H', W', 1, 3 or 4 (with opacity)], uint8 or
      floating-point in [0, 1].
    framing: what is wanted of it, see `Framing.cut`; None for all.

  Returns:
    [H', W', 1 or 3] float32 in [0, 1].
  """
  title, size = "an array", None
  if isinstance(image, (str, os.PathLike)):
    title = f"`{os.fspath(image)}`"
    image, size = _open(os.fspath(image), framing)
  elif isinstance(image, bytes):
    title = "`file`"
    image, size = _open("file", framing, content=image)
  if isinstance(image, PIL.Image.Image):
    image = _to_array(image)
  image = _with_channels(np.asarray(image), title)
  if image.shape[-1] == 4 or image.dtype != np.uint8:
    image = to_unit(image, title)
  if image.shape[-1] == 4:
    image = image[..., :3] * image[..., 3:]
  if framing is not None:
    image = framing.cut(image, size)
  return to_unit(image, title)


def read_header(path: str) -> tuple[tuple[int, int], str]:
  """Reads (H', W') of an upright image and Pillow's mode, not its pixels."""
  with explained(path), PIL.Image.open(path, formats=_FORMATS) as image:
    return _upright_size(image), image.mode


def read_labels(path: str, has_colors: bool = True) -> np.ndarray:
  """Reads a label image: a number for each pixel, 0 for the background.

  Args:
    path: a PNG, BMP or TIFF file of one channel, of up to 16 bits, or with a
      palette, whose indices count; or in colours, each of which stands for an
      object, black for the background.
    has_colors: whether it may be in colours.

  Returns:
    [H', W'] integers.
  """
  kind = "a label image (a PNG, BMP or TIFF: others change the numbers)"
  image, _ = _open(path, formats=_EXACT_FORMATS, kind=kind)
  labels = np.asarray(image)
  if has_colors and image.mode in ("RGB", "RGBA"):
    return labels[..., :3].astype(np.int32) @ np.array([65536, 256, 1])
  if labels.ndim != 2 or labels.dtype.kind not in "bui" or labels.min() < 0:
    raise errors.UserError(
      f"`{path}` is no label image (mode {image.mode}, numbers from"
      f" {labels.min()}): give a PNG of one channel with integers from 0, 0 for"
      " the background"
    )
  return labels.astype(np.uint8) if image.mode == "1" else labels


def _open(
  path: str,
  framing: Framing | None = None,
  formats: tuple[str, ...] = _FORMATS,
  kind: str = f"an image ({KINDS})",
  content: bytes | None = None,
) -> tuple[PIL.Image.Image, tuple[int, int]]:
  """Returns an image, upright, and its size (H', W').

  Of a JPEG that is wanted much smaller, a half, a quarter or an eighth of the
  rows and columns are decoded. Where there is content, `path` is but its name.
  """
  file: Any = path if content is None else io.BytesIO(content)
  with explained(path, kind), PIL.Image.open(file, formats=formats) as image:
    # In a JPEG further ones are previews, or a second eye's.
    num_images = getattr(image, "n_frames", 1)
    if num_images > 1 and image.format not in ("JPEG", "MPO"):
      raise errors.UserError(
        f"`{path}` has {num_images} images, of which one would be read: give"
        " each a file of its own"
      )
    compression = getattr(image, "tag_v2", {}).get(_TIFF_COMPRESSION)
    if formats is _EXACT_FORMATS and compression in _LOSSY:
      raise ValueError("compression changes the numbers")
    limit = PIL.Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
      raise PIL.Image.DecompressionBombError  # of which Pillow allows twice
    # What no part of a TIFF covers would be black.
    parts = [part[1] or (0, 0, *image.size) for part in image.tile]
    covered = sum((right - x) * (bottom - y) for x, y, right, bottom in parts)
    if parts and covered < image.width * image.height:
      raise ValueError("a part of it is missing")
    size = _upright_size(image)
    factor = 1 if framing is None else framing.reduction(size)
    part = factor // _ROWS_OF_A_MEAN
    if part > 1:
      image.draft(None, (image.width // part, image.height // part))
    image.load()
    upright = PIL.ImageOps.exif_transpose(image)
    if factor > 1 and upright.has_transparency_data:
      # Colours times opacity as bytes: floats would take four times as much.
      bands = upright.convert("RGBA").convert("RGBa").split()
      upright = PIL.Image.merge("RGB", bands[:3])
    return upright, size


def _upright_size(image: PIL.Image.Image) -> tuple[int, int]:
  is_turned = image.getexif().get(_ORIENTATION) in _TURNED
  return image.size if is_turned else (image.height, image.width)


def explained(
  path: str, kind: str = f"an image ({KINDS})", *others: type[Exception]
) -> contextlib.AbstractContextManager[None]:
  """Raises a UserError where a file is not what it is said to be.

  Args:
    path: the file.
    kind: what it is said to be.
    *others: further errors that a reader raises for broken files.
  """

  def explain(error: Exception) -> str | None:
    if isinstance(error, PIL.Image.DecompressionBombError):
      # A file of some kilobytes may unpack to gigabytes.
      return (
        f"`{path}` has more than {PIL.Image.MAX_IMAGE_PIXELS:,} pixels: make it"
        f" smaller, or raise the limit by the environment variable `{_LIMIT}`,"
        " in Python by `PIL.Image.MAX_IMAGE_PIXELS`"
      )
    if isinstance(error, OSError) and error.filename is not None:
      return None  # of the file system, which says it well
    return (
      f"`{path}` is not {kind}, or a broken one: replace it or leave it out"
    )

  return errors.as_user_error((*_READ_ERRORS, *others), explain)


def _to_array(image: PIL.Image.Image) -> np.ndarray:
  """Returns [H', W'] or [H', W', 3 or 4], uint8 or floats in [0, 1]."""
  if image.mode.startswith("I"):
    # 16 bits of grey; Pillow would cut what is above 255.
    return np.asarray(image).astype(np.float32) / np.float32(65535.0)
  if image.mode == "F":
    return np.asarray(image)
  if image.has_transparency_data:
    return np.asarray(image.convert("RGBA"))
  is_gray = image.mode in ("1", "L")
  return np.asarray(image.convert("L" if is_gray else "RGB"))


def _with_channels(array: np.ndarray, title: str) -> np.ndarray:
  """Returns [H', W', 1, 3 or 4], which it checks."""
  shape = array.shape
  if array.ndim == 2:
    array = array[..., None]
  if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or not array.size:
    raise errors.UserError(
      f"{title} of shape {list(shape)} is not an image: give [height, width], "
      "or [height, width, channels] with 1, 3 or 4 channels"
    )
  return array


def to_unit(array: np.ndarray, title: str) -> np.ndarray:
  """Maps bytes, or floating-point numbers in [0, 1] -> float32 in [0, 1].

  Args:
    array: of any shape, not empty.
    title: what it is called in the error.
  """
  if array.dtype == np.uint8:
    return array.astype(np.float32) / np.float32(255.0)
  found = str(array.dtype)
  if np.issubdtype(array.dtype, np.floating):
    low, high = array.min(), array.max()
    if low >= 0.0 and high <= 1.0:
      return array.astype(np.float32)
    found += f" from {low:g} to {high:g}"
  raise errors.UserError(
    f"{title} of {found} is not an image: give uint8, or floating-point "
    "numbers from 0 to 1"
  )


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


def means(pixels: np.ndarray, number: int, axis: int) -> np.ndarray:
  """Returns means of so many parts of an axis, float32 in [0, 1].

  Args:
    pixels: uint8 or floating-point in [0, 1].
    number: of the parts.
    axis: negative.
  """
  starts = np.arange(number) * pixels.shape[axis] // number
  sizes = np.diff(starts, append=pixels.shape[axis]).astype(np.float32)
  sizes *= 255.0 if pixels.dtype == np.uint8 else 1.0
  sums = np.add.reduceat(pixels, starts, axis, dtype=np.float32)
  return sums / sizes.reshape([-1] + [1] * (-1 - axis))


def middles(pixels: np.ndarray, number: int, axis: int) -> np.ndarray:
  """Returns those in the middle of so many parts of an axis."""
  middle = (2 * np.arange(number) + 1) * pixels.shape[axis] // (2 * number)
  return np.take(pixels, middle, axis)


class Framing(NamedTuple):
  """What a data set wants of its images.

  Attributes:
    size: (H, W), in whose proportions the middle of `crop_region` is kept; None
      for all of it.
    crop_region: ((top, bottom), (left, right)), ends excluded; None for all.
    grayscale: whether images of one channel may stay so.
    antialias: whether smaller ones than photographs are averaged, too.
  """

  size: Sequence[int] | None
  crop_region: Sequence[Sequence[int]] | None
  grayscale: bool
  antialias: bool = False

  def region(
    self, image_size: Sequence[int]
  ) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns ((top, bottom), (left, right)) of an image of size (H', W')."""
    height, width = image_size
    region = self.crop_region or ((0, height), (0, width))
    (top, bottom), (left, right) = region
    if not (top < bottom <= height and left < right <= width):
      raise errors.UserError(
        f"`crop_region` is {self.crop_region}, but an image has {height} x"
        f" {width} pixels: give [[top, bottom], [left, right]] within them"
      )
    if self.size is not None:
      rows, columns = center_region((bottom - top, right - left), self.size)
      top, bottom = top + rows[0], top + rows[1]
      left, right = left + columns[0], left + columns[1]
    return (top, bottom), (left, right)

  def reduction(self, image_size: Sequence[int]) -> int:
    """Returns how many rows and columns of an image are averaged to one.

    FIDELITY: more than one only of photographs, unless `antialias` is given.
    What is smaller is resized as the original does it, which looks at four
    pixels for each, however many there are.

    Args:
      image_size: (H', W').
    """
    (top, bottom), (left, right) = self.region(image_size)
    height, width = bottom - top, right - left
    is_large = self.antialias or min(height, width) >= _PHOTOGRAPH
    if self.size is None or not is_large:
      return 1
    return max(1, min(height // self.size[0], width // self.size[1]))

  def cut(
    self,
    pixels: np.ndarray,
    image_size: Sequence[int] | None = None,
    reduce: Callable[[np.ndarray, int, int], np.ndarray] = means,
  ) -> np.ndarray:
    """Cuts the region out of images, and reduces photographs.

    Args:
      pixels: [..., H', W', C].
      image_size: the size in which `region` is, if they are smaller.
      reduce: gives so many rows or columns of pixels, from an axis.

    Returns:
      The region; of photographs [..., H, W, C].
    """
    size = pixels.shape[-3:-1]
    whole = image_size or size
    rows, columns = (
      slice(*(round(end * now / before) for end in ends))
      for ends, now, before in zip(self.region(whole), size, whole, strict=True)
    )
    pixels = pixels[..., rows, columns, :]
    if self.size is None or self.reduction(whole) == 1:
      return pixels
    return reduce(reduce(pixels, self.size[0], -3), self.size[1], -2)


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
  """Maps [..., 1 or 3] -> [..., channels]; grey is the mean."""
  if image.shape[-1] == channels:
    return image
  if channels == 1:
    return image.mean(axis=-1, keepdims=True)
  return np.repeat(image, channels, axis=-1)
