"""Scenes from arrays in NPZ and HDF5 files, which are not loaded as a whole.

What is understood, with N scenes and, of films, T frames:

  image: [N, H, W, C] or [N, T, H, W, C], C 1 or 3, uint8, or floating-point
    from 0 to 1; [N, H, W] is grey.
  mask: numbers of entities [N, (T,) H, W] or [N, (T,) H, W, 1], 0 for the
    background; or one mask for each, [N, (T,) L, H, W], also with a last axis
    of 1, or [N, (T,) H, W, L].
  visibility: [N, L] or [N, L, 1], 1 for the entities of a scene.
  factors/<name>: [N, L] or [N, L, n], for each entity.

The last two are of use only beside masks. That is also the layout of
object-centric-library, whose factors lie beside `image`; and, in the HDF5 group
`train`, `val` or `test` and with `imgs` and `masks`, that of EfficientMORL.

Dimensions:
  N: scenes.
  B: scenes of a batch.
  T: frames.
  L: entities of a scene, the background among them (entity 0).
  H, W: rows and columns of a stored image.
  C: colour channels.
"""

from __future__ import annotations

import functools
import math
import os
import shutil
import tempfile
import tokenize
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import h5py
import numpy as np

from iodine import errors, files, memory, validation
from iodine.readers import image_files, opening

# Other names of ours.
_ALIASES = {"imgs": "image", "images": "image", "masks": "mask"}
_FACTORS = "factors/"

# Of an HDF5 file, for chunks that were read and may be needed soon.
_CHUNK_CACHE = 128 * 1024**2
# A larger chunk is unpacked as a whole to read one scene.
_LARGEST_CHUNK = 2**30
_CHUNK_SLACK = 2**16
# Scenes that are looked at together.
_BLOCK = 256

_MOST_ENTITIES = 255


# A NumPy array or an HDF5 data set, of which parts are NumPy arrays.
Array = Any


def open_file(path: str, group: str | None = None) -> dict[str, Array]:
  """Opens the arrays of a file.

  Args:
    path: an NPZ or HDF5 file.
    group: of an HDF5 file, to which names are relative; None for the whole.

  Returns:
    The arrays by name, such as `image` or `factors/color`.

  Raises:
    errors.UserError: if there is no such file or group, or it is broken or of
      another kind.
  """
  files.check_readable(path)
  if not os.path.isfile(path):
    raise errors.UserError(
      f"`path` is `{path}`, but there is no such file: give an NPZ or HDF5 file"
    )
  kinds = (
    *(OSError, ValueError, KeyError, OverflowError),
    *(zipfile.BadZipFile, tokenize.TokenError),
    RuntimeError,  # encrypted, or compressed in a way that zipfile cannot read
  )
  with errors.as_user_error(
    kinds,
    lambda error: (
      None
      if isinstance(error, errors.UserError)
      else f"`{path}` cannot be read ({error}): write it again"
    ),
  ):
    if h5py.is_hdf5(path):
      return _open_hdf5(path, group)
    if zipfile.is_zipfile(path):
      return _open_npz(path, group)
  raise errors.UserError(
    f"`{path}` is neither an NPZ nor an HDF5 file, or a broken one: write it"
    " again, by `numpy.savez` or h5py"
  )


def _open_hdf5(path: str, group: str | None) -> dict[str, Array]:
  file = h5py.File(path, "r", rdcc_nbytes=_CHUNK_CACHE)
  if group is not None and not isinstance(file.get(group), h5py.Group):
    raise errors.UserError(
      f"`{path}` has no group `{group}`, but"
      f" {errors.join_some(list(file), separator=', ')}: name one of"
      " them, or give a range of scenes"
    )
  found: dict[str, Array] = {}

  def visit(name: str, item: Any) -> None:
    if isinstance(item, h5py.Dataset) and item.shape:
      found[name] = _mapped(path, item)

  file[group or "/"].visititems(visit)
  return found


def _mapped(path: str, array: h5py.Dataset) -> Array:
  """Returns an array mapped into memory, where it lies in one piece."""
  # Which may be any, of a file that a stranger made.
  if array.external or array.is_virtual or array.file.filename != path:
    raise errors.UserError(
      f"`{array.name}` of `{path}` has its values in other files: write them "
      "into this one"
    )
  offset = array.id.get_offset()
  if offset is None:
    _check_chunks(path, array)
    return array
  return np.memmap(path, array.dtype, "r", offset, array.shape)


def _check_chunks(path: str, array: h5py.Dataset) -> None:
  """Raises a UserError where a chunk takes too much memory to unpack."""
  size = math.prod(array.chunks or ()) * array.dtype.itemsize
  if size > _LARGEST_CHUNK:
    raise errors.UserError(
      f"`{array.name}` of `{path}` is stored in chunks of {size:,} bytes: "
      "write it again in chunks of a scene each"
    )
  # What is compressed to more than it was is no chunk, and HDF5 unpacks all of
  # it. Older versions do not tell.
  if array.chunks and hasattr(array.id, "chunk_iter"):
    stored: list[int] = []
    array.id.chunk_iter(lambda chunk: stored.append(chunk.size))
    if max(stored, default=0) > 2 * size + _CHUNK_SLACK:
      raise errors.UserError(
        f"`{array.name}` of `{path}` has a chunk of {max(stored):,} bytes for "
        f"{size:,}, so it is broken: write it again"
      )


def _open_npz(path: str, group: str | None) -> dict[str, Array]:
  if group is not None:
    raise errors.UserError(
      f"`{path}` is an NPZ file, which has no group `{group}`: give a range of"
      " scenes, such as [0, 1000]"
    )
  with zipfile.ZipFile(path) as archive:
    return {
      info.filename.removesuffix(".npy"): _map_member(path, archive, info)
      for info in archive.infolist()
      if info.filename.endswith(".npy")
    }


def _map_member(
  path: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo
) -> Array:
  """Maps an array of an NPZ file; what is compressed is unpacked to disk."""
  with archive.open(info) as content:
    version = np.lib.format.read_magic(content)
    header = {
      (1, 0): np.lib.format.read_array_header_1_0,
      (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, is_fortran, dtype = header(content)
    if not all(validation.is_whole(size, 0) for size in shape):
      raise ValueError(f"`{info.filename}` has the shape {shape}")
    start = content.tell()
    if dtype.hasobject or not shape:
      return np.zeros(shape, np.uint8)  # nothing of ours
    order: Literal["F", "C"] = "F" if is_fortran else "C"
    if info.compress_type == zipfile.ZIP_STORED:
      # After a header of its own, in which only names have no fixed length.
      with open(path, "rb") as file:
        file.seek(info.header_offset + 26)
        lengths = np.frombuffer(file.read(4), "<u2")
      start += info.header_offset + 30 + int(lengths.sum())
      return np.memmap(path, dtype, "r", start, shape, order)
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if info.file_size > free:
      raise errors.UserError(
        f"`{info.filename}` of `{path}` unpacks to {info.file_size:,} bytes, "
        f"and `{tempfile.gettempdir()}` has room for {free:,}: write the file "
        "by `numpy.savez`, which does not compress, or let the environment "
        "variable `TMPDIR` name a larger disk"
      )
    # Gone when nothing maps it any longer.
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115
    shutil.copyfileobj(content, unpacked)
    return np.memmap(unpacked, dtype, "r", 0, shape, order)


class ArraySource:
  """The scenes of arrays, a `streams.Source`.

  Attributes:
    title: what the user calls it.
    num_scenes: N.
    stored_size: (H, W) of the region that is wanted.
    num_frames: T of the clips.
    has_masks: whether there are masks.
    num_entities: L; 0 without masks.
    factors: their names; none without masks.
    dtypes: types of what `read` gives.
    shapes: their shapes, without B.
  """

  def __init__(
    self,
    path: str,
    group: str | None,
    size: Sequence[int] | None,
    crop_region: Sequence[Sequence[int]] | None,
    grayscale: bool,
    num_frames: int | None,
    stride: int,
  ):
    """Opens and checks the arrays.

    Args:
      path: see `open_file`, as is group.
      group: as there.
      size: see `image_files.wanted_region`, as is crop_region.
      crop_region: as there.
      grayscale: whether images of one channel stay so.
      num_frames: of a clip, which begins with the film; None for all.
      stride: every so many frames of a film one is taken.

    Raises:
      errors.UserError: if there is no image, or an array is of another kind.
    """
    self.title = f"`{path}`"
    self._path = path
    found = open_file(path, group)
    arrays = {_ALIASES.get(name, name): array for name, array in found.items()}
    if "image" not in arrays:
      raise errors.UserError(
        f"{self.title} has no array `image`, but"
        f" {errors.join_some(list(arrays), separator=', ') or 'none'}:"
        " name it so, or choose an HDF5 group by `train` and `test`"
      )
    self._image = arrays["image"]
    self._check_image(arrays)
    shape = tuple(self._image.shape)
    if len(shape) == 3:  # grey
      shape = (*shape, 1)
    self.num_scenes = shape[0]
    self._whole_size = (shape[-3], shape[-2])
    self._region = image_files.wanted_region(
      self._whole_size, crop_region, size
    )
    self.stored_size = tuple(stop - start for start, stop in self._region)
    self._repeats = 1 if grayscale else 3 // shape[-1]
    self._is_film = len(shape) == 5
    self._frames = self._find_frames(shape, num_frames, stride)
    self.num_frames = len(self._frames)
    self._mask = arrays.get("mask")
    self.has_masks = self._mask is not None
    self._stack_axis = self._find_stack_axis()
    self._visibility = arrays.get("visibility")
    self._factors = self._find_factors(arrays) if self.has_masks else {}
    self.num_entities = self._count_entities()
    self.factors = tuple(self._factors)
    sample = self.read(np.zeros(1, np.int64))
    self.dtypes = [array.dtype for array in sample]
    self.shapes = [array.shape[1:] for array in sample]

  def _check_image(self, arrays: Mapping[str, Array]) -> None:
    shape, dtype = tuple(self._image.shape), self._image.dtype
    fits = len(shape) == 3 or (len(shape) in (4, 5) and shape[-1] in (1, 3))
    if not fits or 0 in shape:
      raise errors.UserError(
        f"`image` of {self.title} has the shape {list(shape)}: give [scenes,"
        " height, width, channels] with 1 or 3 channels, and frames behind the"
        " scenes for films"
      )
    if dtype != np.uint8 and not np.issubdtype(dtype, np.floating):
      raise errors.UserError(
        f"`image` of {self.title} is {dtype}: give uint8, or floating-point"
        " numbers from 0 to 1"
      )
    is_film = len(shape) == 5
    height, width = shape[2:4] if is_film else shape[1:3]
    image_files.check_size(self._path, width, height)
    # What nobody has written into an HDF5 file takes no bytes there.
    for name, array in arrays.items():
      per_scene = math.prod(array.shape[1:])
      # The order of the scenes takes some numbers for each.
      whole = shape[0] * (per_scene if name == "visibility" else 8)
      memory.require(
        4 * max(per_scene, whole),
        f"`{name}` of {self.title}",
        "write the file again with smaller or fewer scenes",
      )
    self._scale(self._image[:1])

  def _find_frames(
    self, shape: Sequence[int], num_frames: int | None, stride: int
  ) -> range:
    """Returns which frames are taken of every film."""
    there = len(range(0, shape[1], stride)) if self._is_film else 1
    wanted = there if num_frames is None else num_frames
    if wanted > there:
      films = f"films of {shape[1]} frames" if self._is_film else "stills"
      raise errors.UserError(
        f"{self.title} has {films}, too few for `frames` {wanted} at a `stride`"
        f" of {stride}: lower these"
      )
    return range(0, wanted * stride, stride)

  def _find_stack_axis(self) -> int | None:
    """Returns the axis of a mask's entities, from the end; None for labels."""
    if self._mask is None:
      return None
    shape = tuple(self._mask.shape)
    lead = tuple(self._image.shape[: 2 if self._is_film else 1])
    if shape in ((*lead, *self._whole_size), (*lead, *self._whole_size, 1)):
      return None
    rest = shape[len(lead) :]
    if shape[: len(lead)] == lead:
      if rest[1:] == self._whole_size:
        return -3
      if len(rest) == 4 and rest[1:] == (*self._whole_size, 1):
        return -4
      if rest[:-1] == self._whole_size:
        return -1
    raise errors.UserError(
      f"`mask` of {self.title} has the shape {list(shape)}, which does not fit"
      f" `image` of {list(self._image.shape)}: give numbers of objects"
      f" {[*lead, *self._whole_size]}, or a mask for each"
    )

  def _find_factors(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Returns what is known of entities: below `factors`, or beside `image`."""
    found = {
      name.removeprefix(_FACTORS): array
      for name, array in arrays.items()
      if name.startswith(_FACTORS)
    }
    if not found and self._visibility is not None:
      lead = tuple(self._visibility.shape[:2])
      found = {
        name: array
        for name, array in arrays.items()
        if name not in ("image", "mask", "visibility")
        and tuple(array.shape[:2]) == lead
      }
    # Texts are no factors.
    found = {
      k: array for k, array in found.items() if array.dtype.kind in "biuf"
    }
    for name, array in found.items():
      if len(array.shape) not in (2, 3) or array.shape[0] != self.num_scenes:
        raise errors.UserError(
          f"the factor `{name}` of {self.title} has the shape"
          f" {list(array.shape)}: give [scenes, entities] or [scenes, entities,"
          " numbers]"
        )
    return found

  def _count_entities(self) -> int:
    """Returns L, and checks that all arrays agree."""
    if self._mask is None:
      return 0
    told = {name: array.shape[1] for name, array in self._factors.items()}
    if self._visibility is not None:
      shape = tuple(self._visibility.shape)
      if len(shape) not in (2, 3) or shape[0] != self.num_scenes:
        raise errors.UserError(
          f"`visibility` of {self.title} has the shape {list(shape)}: give"
          " [scenes, entities]"
        )
      told["visibility"] = shape[1]
    if self._stack_axis is not None:
      told["mask"] = self._mask.shape[self._stack_axis]
    if not told:
      most = max(
        float(np.max(self._mask[start : start + _BLOCK]))
        for start in range(0, self.num_scenes, _BLOCK)
      )
      if not 0 <= most < math.inf:
        raise errors.UserError(
          f"`mask` of {self.title} has the number {most}: give numbers of"
          " objects, with 0 for the background"
        )
      told["mask"] = int(most) + 1
    if len(set(told.values())) > 1:
      counts = ", ".join(f"{n} in `{name}`" for name, n in told.items())
      raise errors.UserError(
        f"the arrays of {self.title} have different numbers of entities,"
        f" {counts}: give all as many, the background among them"
      )
    (num,) = set(told.values())
    if num > _MOST_ENTITIES:
      raise errors.UserError(
        f"`mask` of {self.title} has numbers up to {num - 1}: number the"
        " objects of every scene from 1, with 0 for the background"
      )
    return num

  def passing(
    self, places: np.ndarray, low: float | None, high: float | None
  ) -> np.ndarray:
    """Returns those scenes whose sum of visibilities is within bounds."""
    if low is None and high is None:
      return places
    if self._visibility is None:
      raise errors.UserError(
        f"{self.title} has no array `visibility`, which `min_num_objects` and"
        " `max_num_objects` go by: add it, or set both to None"
      )
    visibility = np.asarray(self._visibility[:], np.float64)
    sums = visibility.reshape(self.num_scenes, -1).sum(axis=1)[places]
    fits = np.ones(len(places), bool)
    if low is not None:
      fits &= sums >= low - 1e-5
    if high is not None:
      fits &= sums <= high + 1e-5
    return places[fits]

  def read(self, places: np.ndarray) -> list[np.ndarray]:
    """Reads a batch of scenes.

    Args:
      places: [B] their numbers.

    Returns:
      image [B, T, H, W, C], uint8 or float32 in [0, 1]; and, where there are
      masks, mask [B, T, L or 1, H, W, 1] uint8, 0 or 255 or numbers of
      entities; visibility [B, L] float32; and the factors [B, L, n] in
      their order, float32 or uint8.

    Raises:
      errors.UserError: if numbers are out of range.
    """
    image = self._scale(self._take(self._image, places, self._is_film))
    shape = (len(places), self.num_frames, *self._whole_size, -1)
    image = self._crop(image.reshape(shape))
    if self._repeats > 1:
      image = np.repeat(image, self._repeats, axis=-1)
    result = [image]
    if self._mask is None:
      return result
    mask = self._read_mask(places)
    is_there = self._read_visibility(places, mask)
    factors = [
      self._take(array, places).reshape(len(places), self.num_entities, -1)
      for array in self._factors.values()
    ]
    return [*result, self._crop(mask), is_there, *map(_as_number, factors)]

  def _crop(self, pixels: np.ndarray) -> np.ndarray:
    """Returns the region that is wanted of [..., H, W, C]."""
    (top, bottom), (left, right) = self._region
    return pixels[..., top:bottom, left:right, :]

  def _take(
    self, array: Array, places: np.ndarray, is_film: bool = False
  ) -> np.ndarray:
    """Returns the scenes of an array, of films the frames that are taken."""
    if isinstance(array, np.ndarray):
      scenes = np.take(array, places, axis=0)
    else:
      # One by one, as those of a batch lie apart as a rule.
      scenes = np.stack([array[int(place)] for place in places])
    return scenes[:, list(self._frames)] if is_film else scenes

  def _scale(self, image: Any) -> np.ndarray:
    """Returns uint8 as it is, and all else as float32 in [0, 1]."""
    image = np.asarray(image)
    if image.dtype == np.uint8:
      return image
    low, high = image.min(), image.max()
    if not (low >= 0.0 and high <= 1.0):  # the other way round NaN would pass
      raise errors.UserError(
        f"`image` of {self.title} is {image.dtype} with numbers from {low:g} to"
        f" {high:g}: give uint8, or floating-point numbers from 0 to 1"
      )
    return image.astype(np.float32)

  def _read_mask(self, places: np.ndarray) -> np.ndarray:
    assert self._mask is not None
    mask = self._take(self._mask, places, self._is_film)
    lead = (len(places), self.num_frames)
    if self._stack_axis is None:
      labels = mask.reshape(*lead, 1, *self._whole_size, 1)
      low, high = labels.min(), labels.max()
      is_whole = labels.dtype.kind in "bui" or not np.any(labels % 1)
      if low < 0 or high >= self.num_entities or not is_whole:
        raise errors.UserError(
          f"`mask` of {self.title} has numbers from {low} to {high}, where"
          f" there are {self.num_entities} entities: give whole numbers from 0"
          f" to {self.num_entities - 1}"
        )
      return labels.astype(np.uint8)
    # Integers are 0 and 1, or 0 and 255.
    is_float = np.issubdtype(mask.dtype, np.floating)
    is_on = mask > 0.5 if is_float else mask > 0
    if self._stack_axis == -1:
      is_on = np.moveaxis(is_on, -1, -3)
    shape = (*lead, self.num_entities, *self._whole_size, 1)
    return 255 * is_on.reshape(shape).astype(np.uint8)

  def _read_visibility(
    self, places: np.ndarray, mask: np.ndarray
  ) -> np.ndarray:
    """Returns the visibility, or else which entities have pixels."""
    if self._visibility is not None:
      visibility = self._take(self._visibility, places).astype(np.float32)
      return visibility.reshape(len(places), self.num_entities)
    if self._stack_axis is not None:
      has_pixels = np.asarray(mask.any(axis=(1, 3, 4, 5)))
    else:
      flat = mask.reshape(len(places), -1)
      has_pixels = np.stack(
        [np.bincount(row, minlength=self.num_entities) > 0 for row in flat]
      )
    has_pixels[:, 0] = True  # the background
    return has_pixels.astype(np.float32)

  def find_problem(self, places: np.ndarray) -> str | None:
    """Returns a sentence about scenes that cannot be read; None if all can."""
    for start in range(0, len(places), _BLOCK):
      chosen = places[start : start + _BLOCK]
      problem = errors.message_of(functools.partial(self.read, chosen))
      if problem is None:
        continue
      for place in chosen:
        if errors.message_of(functools.partial(self.read, np.array([place]))):
          return f"in scene {place}, {problem}"
      return problem
    return None

  def fingerprint(self) -> list[Any]:
    """Returns what differs for another file."""
    return opening.fingerprint(self._path)


def _as_number(array: Any) -> Any:
  return array if array.dtype == np.uint8 else array.astype(np.float32)
