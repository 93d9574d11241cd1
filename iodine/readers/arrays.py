"""Scenes from arrays in NPZ and HDF5 files, which are not loaded as a whole.

What is understood, with N scenes and, of films, T frames:

  image: [N, H, W, C] or [N, T, H, W, C], C 1 or 3, uint8, or floating-point
    from 0 to 1; [N, H, W] is grey.
  mask: numbers of entities [N, (T,) H, W] or [N, (T,) H, W, 1], 0 for the
    background; or one mask for each, [N, (T,) L, H, W], also with a last axis
    of 1, or [N, (T,) H, W, L].
  visibility: [N, L] or, of films, [N, L, T], 1 for the entities of a scene.
  factors/<name>: [N, L] or [N, L, n], for each entity.

Arrays in memory are given as a dict of these names.

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

import contextlib
import os
import shutil
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import h5py
import numpy as np

from iodine import errors
from iodine.readers import image_files, streams

# Other names of ours.
_ALIASES = {"imgs": "image", "images": "image", "masks": "mask"}
_FACTORS = "factors/"
# What must be whole.
_OF_SCENES = ("image", "mask", "visibility")

# Of an HDF5 file, for chunks that were read and may be needed soon.
_CHUNK_CACHE = 128 * 1024**2
# Scenes that are looked at together.
_BLOCK = 256

_NUMBERS = "buif"  # NumPy's kinds of types

# What NumPy and h5py raise for files that are broken in one way or another.
_READ_ERRORS = (
  *(OSError, EOFError, ValueError, KeyError, OverflowError),
  *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
  RuntimeError,  # encrypted, or compressed in a way that zipfile cannot read
)

# A NumPy array or an HDF5 data set, of which parts are NumPy arrays.
Array = Any


def open_file(path: str, group: str | None = None) -> dict[str, Array]:
  """Opens the arrays of a file.

  Args:
    path: an NPZ or HDF5 file; or an NPY file, whose array is the image.
    group: of an HDF5 file, to which names are relative; None for the whole.

  Returns:
    The arrays by name, such as `image` or `factors/color`.
  """
  if not os.path.exists(path):
    raise errors.UserError(
      f"there is no file `{path}` here: say where it is by `data.path=`"
    )
  with _explained(path, group):
    if not os.path.isfile(path):
      raise OSError("it is no file")
    if path.endswith(".npy"):
      return {"image": np.load(path, mmap_mode="r")}
    if h5py.is_hdf5(path):
      return _open_hdf5(path, group)
    if group is not None:
      raise KeyError("no groups in an NPZ file")
    with zipfile.ZipFile(path) as archive:
      return {
        info.filename.removesuffix(".npy"): _map_member(path, archive, info)
        for info in archive.infolist()
        if info.filename.endswith(".npy")
      }


def _explained(
  path: str, group: str | None = None
) -> contextlib.AbstractContextManager[None]:
  """Raises a UserError where a file is broken, at its beginning or within."""

  def explain(error: Exception) -> str:
    if isinstance(error, BlockingIOError):
      return (
        f"another program has `{path}` open and may write to it: close it"
        " there, or read a copy"
      )
    return (
      f"`{path}` is neither an NPZ nor an HDF5 file"
      f"{f' with a group `{group}`' if group else ''}, or a broken one"
      f" ({errors.reason(error)}): write it again, by `numpy.savez` or h5py, or"
      " correct `train` and `test`"
    )

  return errors.as_user_error(_READ_ERRORS, explain)


def _open_hdf5(path: str, group: str | None) -> dict[str, Array]:
  file = h5py.File(path, "r", rdcc_nbytes=_CHUNK_CACHE)
  found: dict[str, Array] = {}

  def visit(name: str, item: Any) -> None:
    if isinstance(item, h5py.Dataset) and item.shape:
      # What lies in one piece is mapped into memory.
      offset = item.id.get_offset()
      found[name] = item
      if offset is not None:
        found[name] = np.memmap(path, item.dtype, "r", offset, item.shape)

  file[group or "/"].visititems(visit)
  return found


def _is_hole(array: Array) -> bool:
  """Returns whether HDF5 would give zeros for what nobody has written."""
  if not isinstance(array, h5py.Dataset):
    return False
  if not array.is_virtual:
    return array.id.get_space_status() != h5py.h5d.SPACE_STATUS_ALLOCATED
  folder = os.path.dirname(array.file.filename)
  parts = [part.file_name for part in array.virtual_sources()]
  return not all(
    part == "." or os.path.exists(os.path.join(folder, part)) for part in parts
  )


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
    start = content.tell()
    if dtype.hasobject or not shape:
      # Python objects are not read, as they may run code.
      return np.broadcast_to(np.zeros([], dtype), shape)
    if info.compress_type == zipfile.ZIP_STORED:
      # After a header of its own, in which only names have no fixed length.
      with open(path, "rb") as file:
        file.seek(info.header_offset + 26)
        lengths = np.frombuffer(file.read(4), "<u2")
      start += info.header_offset + 30 + int(lengths.sum())
      place: Any = path
    else:
      # Gone when nothing maps it any longer.
      place = tempfile.TemporaryFile()  # noqa: SIM115
      shutil.copyfileobj(content, place)
      start = 0
    order = "F" if is_fortran else "C"
    return np.memmap(place, dtype, "r", start, shape, order)  # type: ignore


class Masks(NamedTuple):
  """What there is to know of the masks of arrays.

  Attributes:
    path: of a file of their own, or None.
    ignore_label: the number of pixels that are not to count, or None.
    background: numbers of the entities that are the background.
  """

  path: str | None
  ignore_label: int | None
  background: Sequence[int]


class ArraySource:
  """The scenes of arrays.

  Attributes:
    title: what the user calls it.
    files: the one that they are in.
    num_scenes: N.
    stored_size: (H, W) of the region that is wanted.
    num_frames: T of the clips.
    num_entities: L; 0 without masks.
  """

  def __init__(
    self,
    path: str | Mapping[str, Array],
    group: str | None,
    framing: image_files.Framing,
    num_frames: int | None,
    stride: int,
    masks: Masks,
  ):
    """Opens and checks the arrays.

    Args:
      path: see `open_file`; or the arrays by name.
      group: as there.
      framing: what is wanted of the images.
      num_frames: of a clip, which begins with the film; None for all.
      stride: every so many frames of a film one is taken.
      masks: what there is to know of them.
    """
    name = path if isinstance(path, str) else "an array in memory"
    self.title, self.files = f"`{name}`", [name]
    found = open_file(path, group) if isinstance(path, str) else dict(path)
    folders = {name.partition("/")[0] for name in found}
    if len(folders) == 1 and not folders & found.keys():
      # All of the file is in one group.
      found = {name.partition("/")[2]: array for name, array in found.items()}
    arrays = {_ALIASES.get(name, name): array for name, array in found.items()}
    if masks.path is not None:
      others = open_file(os.path.expanduser(masks.path), group)
      # The array of an `.npy` file has no name.
      known = [others[x] for x in ("mask", "masks", "image") if x in others]
      if not known:
        raise errors.UserError(f"`{masks.path}` has no array `mask`: add it")
      arrays["mask"] = known[0]
      self.files.append(masks.path)
    self._masks = masks
    if "image" not in arrays:
      raise errors.UserError(
        f"{self.title} has no array `image`, but"
        f" {errors.join_some(list(arrays), separator=', ') or 'none'}:"
        " name it so, or choose an HDF5 group by `train` and `test`"
      )
    for name, array in arrays.items():
      if name in _OF_SCENES and _is_hole(array):
        raise errors.UserError(
          f"`{name}` of {self.title} was never written, or not all of it: write"
          " the file again"
        )
    self._image = arrays["image"]
    shape = self._image_shape()
    self.num_scenes = shape[0]
    self._is_film = len(shape) == 5
    self._whole_size = (shape[-3], shape[-2])
    self._framing, self._region = framing, framing.region(self._whole_size)
    self.stored_size = tuple(stop - start for start, stop in self._region)
    self._channels = shape[-1] if framing.grayscale else 3
    self._frames = range(shape[1] if self._is_film else 1)[::stride]
    self.num_frames = len(self._frames) if num_frames is None else num_frames
    if self.num_frames > len(self._frames):
      raise errors.UserError(
        f"{self.title} has {len(self._frames)} frames a scene at a stride of"
        f" {stride}, too few for {num_frames}: lower `frames` or `stride`"
      )
    self._frames = self._frames[: self.num_frames]
    self._mask = arrays.get("mask")
    self._visibility = arrays.get("visibility")
    self._factors: dict[str, Array] = {}
    self.num_entities = 0
    if self._mask is not None:
      self._entity_axis = self._find_masks()
      self._factors = self._find_factors(arrays)
      self.num_entities = self._count_entities()

  def _misfit(self, name: str, array: Array, need: str) -> errors.UserError:
    """Returns the error for an array of another type or shape."""
    return errors.UserError(
      f"`{name}` of {self.title} is {array.dtype} {list(array.shape)}: give"
      f" {need}"
    )

  def _image_shape(self) -> tuple[int, ...]:
    """Returns (N, H, W, C) or (N, T, H, W, C), which it checks."""
    shape, dtype = tuple(self._image.shape), self._image.dtype
    if len(shape) == 3:  # grey
      shape = (*shape, 1)
    is_number = dtype == np.uint8 or dtype.kind == "f"
    fits = len(shape) in (4, 5) and shape[-1] in (1, 3) and 0 not in shape
    if not is_number or not fits:
      need = "uint8, or floating-point numbers from 0 to 1, [scenes, height,"
      need += " width, 1 or 3 channels], with frames behind the scenes of films"
      raise self._misfit("image", self._image, need)
    return shape

  def _find_masks(self) -> int | None:
    """Returns the axis of the masks of entities; None of their numbers."""
    assert self._mask is not None
    lead = tuple(self._image.shape[: 2 if self._is_film else 1])
    shape, size = tuple(self._mask.shape), self._whole_size
    rest = shape[len(lead) :]
    if shape[: len(lead)] == lead and self._mask.dtype.kind in _NUMBERS:
      if rest in (size, (*size, 1)):
        return None
      if rest[1:] in (size, (*size, 1)):
        return len(lead)
      if rest[:-1] == size:
        return -1
    need = f"numbers of objects {[*lead, *size]}, or a mask for each"
    raise self._misfit("mask", self._mask, need)

  def _find_factors(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Returns what is known of entities: below `factors`, or beside `image`."""
    # Texts are no factors.
    numbers = {k: x for k, x in arrays.items() if x.dtype.kind in _NUMBERS}
    below = {
      name.removeprefix(_FACTORS): array
      for name, array in numbers.items()
      if name.startswith(_FACTORS)
    }
    if below or self._visibility is None:
      return below
    lead = self._visibility.shape[:2]
    return {
      name: array
      for name, array in numbers.items()
      if name not in _OF_SCENES and array.shape[:2] == lead
    }

  def _count_entities(self) -> int:
    """Returns L, and checks that all arrays agree."""
    assert self._mask is not None
    known = dict(self._factors)
    if self._visibility is not None:
      known["visibility"] = self._visibility
    for name, array in known.items():
      is_number = array.dtype.kind in _NUMBERS
      if len(array.shape) not in (2, 3) or not is_number:
        need = "numbers [scenes, entities], with numbers or frames behind"
        raise self._misfit(name, array, need)
    told = {name: tuple(array.shape[:2]) for name, array in known.items()}
    if self._entity_axis is not None:
      told["mask"] = (self.num_scenes, self._mask.shape[self._entity_axis])
    if not told:
      most = 0.0
      for start in range(0, self.num_scenes, _BLOCK):
        block = self._load(self._mask, slice(start, start + _BLOCK))
        if self._masks.ignore_label is not None:
          block = block[block != self._masks.ignore_label]
        # Of NaN, one.
        most = max(most, float(np.max(block, initial=0)))
      most = min(most, streams.MOST_ENTITIES)
      told["mask"] = (self.num_scenes, 1 + int(most))
    counts = set(told.values())
    num_scenes, num = max(counts)
    most = streams.MOST_ENTITIES
    if len(counts) > 1 or num_scenes != self.num_scenes or num > most:
      raise errors.UserError(
        f"{self.title} has {self.num_scenes} images, and entities {told}: give"
        " all arrays [scenes, entities] of one size, the background among them,"
        f" at most {most}; where the largest number marks pixels that are not"
        " to count, give it as `data.ignore_label`"
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
    visibility = self._of_any_frame(self._load(self._visibility, slice(None)))
    sums = visibility.sum(axis=1, dtype=float)
    return places[streams.are_within(sums[places], low, high)]

  def read(self, places: np.ndarray) -> streams.Scene:
    """Reads a batch of scenes.

    Args:
      places: [B] their numbers.

    Returns:
      image [B, T, H, W, C], uint8 or float32 in [0, 1]; and, where there are
      masks, mask [B, T, 1, H, W, 1] uint8, numbers of entities, NOBODY or
      IGNORED; visibility [B, L] float32; and the factors [B, L, n], float32 or
      uint8.
    """
    image = self._take(self._image, places, self._is_film)
    if image.dtype != np.uint8:
      image = image_files.to_unit(image, f"`image` of {self.title}")
    shape = (len(places), self.num_frames, *self._whole_size, -1)
    image = self._cut(image.reshape(shape), image_files.means)
    image = image_files.to_channels(image, self._channels)
    if self._mask is None:
      return {"image": image, "factors": {}}
    mask = self._read_mask(places)
    factors = {}
    for name, array in self._factors.items():
      values = self._take(array, places)
      dtype = np.uint8 if values.dtype == np.uint8 else np.float32
      values = values.reshape(len(places), self.num_entities, -1)
      factors[name] = values.astype(dtype, copy=False)
    return {
      "image": image,
      "mask": self._cut(mask, image_files.middles),
      "visibility": self._read_visibility(places, mask),
      "factors": factors,
    }

  def _cut(self, pixels: np.ndarray, reduce: Any) -> np.ndarray:
    """Returns the region that is wanted of [..., H, W, C], see `Framing`."""
    if self._framing.antialias:
      return self._framing.cut(pixels, reduce=reduce)
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
      scenes = np.stack([self._load(array, int(place)) for place in places])
    return scenes[:, list(self._frames)] if is_film else scenes

  def _load(self, array: Array, key: Any) -> np.ndarray:
    """Reads a part of an array; a file may be broken within."""
    with _explained(self.files[0]):
      return np.asarray(array[key])

  def _read_mask(self, places: np.ndarray) -> np.ndarray:
    assert self._mask is not None
    mask = self._take(self._mask, places, self._is_film)
    if self._entity_axis == -1:
      mask = np.moveaxis(mask, -1, -3)
    shape = (len(places), self.num_frames, -1, *self._whole_size, 1)
    mask = mask.reshape(shape)
    if self._entity_axis is not None:
      # Integers are 0 and 1, or 0 and 255.
      return self._label(mask > (0.5 if mask.dtype.kind == "f" else 0))
    ignored, is_ignored = self._masks.ignore_label, np.False_
    if ignored is not None:
      is_ignored = mask == ignored
      mask = np.where(is_ignored, 0, mask)
    low, high = mask.min(), mask.max()
    is_integer = mask.dtype.kind != "f" or not np.any(mask % 1)
    if not (low >= 0 and high < self.num_entities and is_integer):
      raise errors.UserError(
        f"`mask` of {self.title} has numbers from {low} to {high}, where there"
        f" are {self.num_entities} entities: give integers from 0 to"
        f" {self.num_entities - 1}, 0 for the background"
      )
    numbers = mask.astype(np.uint8)
    numbers[is_ignored] = streams.IGNORED
    return numbers

  def _label(self, is_on: np.ndarray) -> np.ndarray:
    """Maps masks of entities [B, T, L, H, W, 1] -> numbers, L = 1."""
    total = is_on.sum(axis=2, dtype=np.uint8)
    ours = np.arange(is_on.shape[2], dtype=np.uint8)
    if np.all(total == 1):
      numbers = np.einsum("btlhwc,l->bthwc", is_on.view(np.uint8), ours)
      return numbers[:, :, np.newaxis]
    numbers = np.full_like(is_on[:, :, :1], streams.NOBODY, np.uint8)
    for k in ours:
      np.copyto(numbers, k, where=is_on[:, :, k : k + 1])
    if total.max() > 1:
      streams.tell(f"{self.title} has masks that overlap: the later one wins")
    if total.min() == 0 and 0 in self._masks.background:
      streams.tell(
        f"{self.title} has pixels that belong to no mask, and mask 0 is taken"
        " for the background: where none is stored give `data.background=[]`"
      )
    return numbers

  def _of_any_frame(self, visibility: np.ndarray) -> np.ndarray:
    """Maps a visibility [B, L] or [B, L, T] -> [B, L]."""
    return visibility.reshape(*visibility.shape[:2], -1).max(axis=-1)

  def _read_visibility(
    self, places: np.ndarray, mask: np.ndarray
  ) -> np.ndarray:
    """Returns the visibility, or else which entities have pixels."""
    if self._visibility is not None:
      visibility = self._take(self._visibility, places)
      return self._of_any_frame(visibility).astype(np.float32)
    numbers = mask.reshape(len(places), -1)
    are_there = [
      np.any(numbers == k, axis=1) | (k in self._masks.background)
      for k in range(self.num_entities)
    ]
    return np.stack(are_there, axis=1).astype(np.float32)
