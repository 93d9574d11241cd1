"""Scenes from files of images: photos in folders, films of frames.

Dimensions:
  T: frames of a scene, 1 for photos.
  L: entities of a scene, the background among them (entity 0).
  H', W': rows and columns of a stored image.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from iodine import errors, files
from iodine.readers import films, globs, image_files, opening

_ARRAYS = (".npz", ".h5", ".hdf5")

_MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")

_MOST_ENTITIES = 255

# Seconds between two reports of what takes long.
_REPORT_SECONDS = 10.0


class Scene(NamedTuple):
  """Where a scene is.

  Attributes:
    name: of the file or folder, relative to the data set's folder.
    images: files of the frames; a single one, of a film, if `numbers` are set.
    masks: label images of the frames, or none.
    numbers: which frames of the film these are.
  """

  name: str
  images: tuple[str, ...]
  masks: tuple[str, ...] = ()
  numbers: tuple[int, ...] = ()


def find_images(
  path: object, suffixes: Sequence[str], option: str = "path"
) -> dict[str, str]:
  """Returns the files that a data set's `path` means, by their names.

  Args:
    path: a folder, whose subfolders count, too, a glob, or a list of files and
      of those. Files and folders whose names begin with a dot do not count.
    suffixes: what the names of files in folders and globs end in.
    option: what the user calls `path`.

  Returns:
    {name: path}, sorted by name, `photo_9` before `photo_10`. The name of a
    file in a folder is its path relative to that, of any other its path.

  Raises:
    errors.UserError: if there is nothing at one of the places.
  """
  found: dict[str, str] = {}
  entries = opening.as_list(path)
  if not entries:
    raise errors.UserError("`path` is an empty list: give a folder, or files")
  for entry in entries:
    place = os.path.expanduser(os.fspath(entry))
    if place.lower().endswith(_ARRAYS):
      raise errors.UserError(
        f"`{option}` is `{place}`, a file of arrays: they are read with"
        " `data.constructor=iodine.modules.data.Arrays`"
      )
    names = image_files.expand(place, suffixes)
    if len(entries) > 1:  # files of several folders may be called alike
      names = {each: each for each in names.values()}
    if not (os.path.exists(place) or glob.has_magic(place)):
      raise errors.UserError(
        f"`{option}` is `{place}`, but there is nothing: give a folder of"
        " images, a glob, or a list of files"
      )
    if not names:
      raise errors.UserError(
        f"`{option}` is `{place}`, where there is no file that counts: names"
        f" have to end in {', '.join(suffixes)}"
      )
    if place in names.values():  # in folders, such things are told later
      opening.require_file(place)
    found.update(names)
  return {
    name: found[name] for name in sorted(found, key=image_files.by_number)
  }


def find_scenes(path: object, masks: str | None) -> list[Scene]:
  """Returns the photos of a data set, with their masks if there are any.

  Args:
    path: see `find_images`.
    masks: folder of label images that are named as the photos are, with the
      folders these are in as far as the label images have some; None for those
      beside the photos, `photo.mask.png` for `photo.png`. A photo is what is
      not in it.

  Raises:
    errors.UserError: if there is no image, or masks and images do not match.
  """
  found = find_images(path, image_files.SUFFIXES)
  if masks is not None:
    masks = _as_folder(masks)
    inside = os.path.join(os.path.realpath(masks), "")
    found = {
      name: place
      for name, place in found.items()
      if not os.path.realpath(place).startswith(inside)
    }
  images = {n: p for n, p in found.items() if not image_files.is_mask(n)}
  stems = {name: _stem(name) for name in images}
  if not images:
    raise errors.UserError(
      f"`path` is {opening.title(path)}, where there are label images only:"
      " give the folder of the photos, too"
    )
  if masks is None:
    labels = _labels({n: p for n, p in found.items() if n not in images})
  else:
    labels = _labels(find_images(masks, _MASK_SUFFIXES, "masks"))
    stems = {name: _shared_end(stem, labels) for name, stem in stems.items()}
  return [
    Scene(name, (images[name],), tuple(found))
    for name, found in _match(images, stems, labels).items()
  ]


def find_clips(
  path: object, num_frames: int | None, stride: int
) -> list[Scene]:
  """Returns the clips of films, one after the other, without an overlap.

  Args:
    path: a folder, in which every folder of images is a film, as is every GIF
      or video; a glob; or a list of films.
    num_frames: T, of a clip; None for as many as the shortest film gives.
    stride: every so many frames of a film one is taken.

  Raises:
    errors.UserError: if there is no film, one cannot be read or is too short,
      or some frames have masks and others none.
  """
  suffixes = (*image_files.SUFFIXES, *films.SUFFIXES)
  found = find_images(_entries(path), suffixes)
  folders: dict[str, list[str]] = {}
  whole: list[Scene] = []
  for name, file in found.items():
    if films.is_film(file):
      numbers = tuple(range(films.count(file)))
      whole.append(Scene(name, (file,), (), numbers))
    else:
      folders.setdefault(os.path.dirname(name), []).append(file)
  whole += [_of_folder(folder, names) for folder, names in folders.items()]
  lengths = [len(range(0, len(s.numbers or s.images), stride)) for s in whole]
  if num_frames is None:
    num_frames = min(lengths)
  short = [s for s, n in zip(whole, lengths, strict=True) if n < num_frames]
  if short:
    raise errors.UserError(
      f"{_count(short, 'film')} of {len(whole)} with fewer than {num_frames}"
      f" frames at a stride of {stride}, such as `{short[0].name}`: lower"
      " `frames` or `stride`, or leave such films out"
    )
  clips = [clip for s in whole for clip in _cut(s, num_frames, stride)]
  if len({bool(clip.masks) for clip in clips}) > 1:
    raise errors.UserError(
      f"some films of {opening.title(path)} have masks and others none: add"
      " label images for all frames, or remove all to train without"
    )
  return clips


def _entries(path: object) -> Sequence[str]:
  """Returns what `path` names, where a glob may stand for folders."""
  entries: list[str] = []
  for entry in opening.as_list(path):
    place = os.path.expanduser(os.fspath(entry))
    found = [] if os.path.exists(place) else globs.matches(place)
    entries += [match for match in found if os.path.isdir(match)] or [place]
  return entries


def _of_folder(folder: str, names: Sequence[str]) -> Scene:
  """Returns the film that the images of a folder are."""
  images = {name: name for name in names if not image_files.is_mask(name)}
  labels = _labels({name: name for name in names if name not in images})
  stems = {name: _stem(name) for name in images}
  masks = _match(images, stems, labels)
  frames = tuple(mask for each in masks.values() for mask in each)
  return Scene(folder or ".", tuple(images), frames)


def _cut(film: Scene, num_frames: int, stride: int) -> Iterable[Scene]:
  """Yields the clips of a film, in order."""
  whole = film.numbers or film.images
  span = num_frames * stride
  last = len(whole) - (num_frames - 1) * stride
  for start in range(0, last, span):
    part = slice(start, start + span, stride)
    images = film.images if film.numbers else film.images[part]
    yield Scene(
      film.name,
      images,
      film.masks[part],
      film.numbers[part],
    )


def _stem(name: str) -> str:
  return os.path.splitext(name)[0]


def _as_folder(masks: object) -> str:
  """Returns the option `masks` as a path."""
  folder = os.path.expanduser(masks) if isinstance(masks, str) else ""
  if folder:
    files.check_readable(folder)
  if not os.path.isdir(folder):
    raise errors.UserError(
      f"`masks` is {masks!r}: give the folder of the label images"
      + errors.quote_hint(masks, "data.masks")
    )
  return folder


def _labels(found: Mapping[str, str]) -> dict[str, str]:
  """Returns label images by what their photos are called.

  Args:
    found: their paths by name.

  Raises:
    errors.UserError: if two are called alike.
  """
  labels: dict[str, str] = {}
  for name, path in found.items():
    first = labels.setdefault(_stem(name).removesuffix(image_files.MASK), path)
    if first != path:
      raise errors.UserError(
        f"`{first}` and `{path}` are masks of the same image: remove one"
      )
  return labels


def _shared_end(stem: str, labels: Mapping[str, str]) -> str:
  """Returns as much of the end of a path as a label image is called by."""
  parts = stem.split(os.sep)
  ends = (os.sep.join(parts[i:]) for i in range(len(parts)))
  return next((end for end in ends if end in labels), stem)


def _match(
  images: Mapping[str, str], stems: Mapping[str, str], labels: dict[str, str]
) -> dict[str, list[str]]:
  """Returns the label images of photos by the photos' names.

  Args:
    images: photos by name.
    stems: what their label images are called.
    labels: the label images by that.

  Raises:
    errors.UserError: if there are some, but one has no photo or several, or a
      photo none.
  """
  if not labels:
    return {name: [] for name in images}
  orphans = sorted(labels.keys() - {stems[name] for name in images})
  if orphans:
    raise errors.UserError(
      f"{_count(orphans, 'mask')} without an image, such as"
      f" `{labels[orphans[0]]}`: add the image under the same name, or remove"
      " the mask"
    )
  bare = [name for name in images if stems[name] not in labels]
  if bare:
    raise errors.UserError(
      f"{_count(bare, 'image')} of {len(images)} without a mask, such as"
      f" `{images[bare[0]]}`: add a label image for each, or remove all masks"
      " to train without"
    )
  owners: dict[str, str] = {}
  for name, path in images.items():
    first = owners.setdefault(stems[name], path)
    if first != path:
      raise errors.UserError(
        f"`{labels[stems[name]]}` is the mask of two images, `{first}` and"
        f" `{path}`: give each one of its own, in the same folders, under the"
        " same name"
      )
  return {name: [labels[stems[name]]] for name in images}


def _count(things: Sequence[object], name: str) -> str:
  num = len(things)
  return f"there is 1 {name}" if num == 1 else f"there are {num} {name}s"


class FileSource:
  """Scenes of files of images, a `streams.Source`.

  Attributes:
    title: what the user calls it.
    scenes: where each scene is.
    num_scenes: how many.
    num_frames: T.
    has_masks: whether there are label images.
  """

  def __init__(
    self,
    path: object,
    scenes: Sequence[Scene],
    size: Sequence[int] | None,
    crop_region: Sequence[Sequence[int]] | None,
    grayscale: bool,
  ):
    """Takes what is known of the scenes, without reading them.

    Args:
      path: what the user calls them.
      scenes: where each is; all have as many frames.
      size: (H, W) whose proportions are wanted; None: all images have the size
        of the first.
      crop_region: see `image_files.wanted_region`.
      grayscale: whether images of one channel may stay so.
    """
    self.title = opening.title(path)
    self.scenes = scenes
    self.num_scenes = len(scenes)
    self.num_frames = len(scenes[0].numbers or scenes[0].images)
    self.has_masks = bool(scenes[0].masks)
    self._size = size
    self._crop_region = crop_region
    self._grayscale = grayscale

  @functools.cached_property
  def stored_size(self) -> tuple[int, int]:
    """Returns (H', W') of the first image, cropped by `crop_region`."""
    first = self._crop(self._read_frames(self.scenes[0])[:1])
    return first.shape[1], first.shape[2]

  @functools.cached_property
  def num_entities(self) -> int:
    """Returns L, for which all masks are looked at; 0 without masks."""
    if not self.has_masks:
      return 0
    start = reported = time.monotonic()
    most = 0
    for done, scene in enumerate(self.scenes, 1):
      most = max(most, int(_present(self._read_labels(scene)).sum()))
      if most > _MOST_ENTITIES:
        raise errors.UserError(
          f"`{scene.masks[0]}` has {most} different labels: give a label image,"
          " with one number for all pixels of an object"
        )
      if time.monotonic() - reported > _REPORT_SECONDS:
        reported = time.monotonic()
        rate = done / (reported - start)
        print(
          f"counting objects: {done:,} of {self.num_scenes:,} masks,"
          f" {rate:.0f} a second",
          flush=True,
        )
    return most

  def read(self, place: np.ndarray) -> tuple[np.ndarray, ...]:
    """Reads one scene.

    Args:
      place: its number.

    Returns:
      [T, H', W', 1 or 3] float32 in [0, 1], what is wanted of the image; and,
      where there are masks, [T, H', W', 1] uint8, the numbers of the entities
      in the order of their labels, and [L] float32, 1 for those that are there.

    Raises:
      errors.UserError: if it cannot be read, or is of another size.
    """
    scene = self.scenes[int(place)]
    frames = self._read_frames(scene)
    whole = frames.shape[1:3]
    frames = self._crop(frames)
    if self._size is None and frames.shape[1:3] != self.stored_size:
      raise errors.UserError(
        f"`{scene.images[0]}` has {_size(frames[0])} pixels, but"
        f" `{self.scenes[0].images[0]}` {_size(self.stored_size)}: give all"
        " images one size by `image_dim`, such as `data.image_dim=[64,64]`"
      )
    if not self.has_masks:
      return (frames,)
    labels = self._read_labels(scene)
    if labels.shape[1:3] != whole:
      raise errors.UserError(
        f"the mask `{scene.masks[0]}` has {_size(labels[0])} pixels, but its"
        f" image {_size(whole)}: give masks of the size of their images"
      )
    is_there = _present(labels)
    order = np.cumsum(is_there) - 1
    numbers = order.astype(np.uint8)[labels]
    visibility = np.arange(self.num_entities) < is_there.sum()
    return (
      frames,
      self._crop(numbers[..., np.newaxis]),
      visibility.astype(np.float32),
    )

  def _read_frames(self, scene: Scene) -> np.ndarray:
    """Returns whole frames [T, H', W', 1 or 3]."""
    if scene.numbers:
      frames = films.read(scene.images[0], scene.numbers)
    else:
      frames = [image_files.read(path) for path in scene.images]
    channels = max(frame.shape[-1] for frame in frames)
    channels = channels if self._grayscale else 3
    frames = [image_files.to_channels(frame, channels) for frame in frames]
    shapes = {frame.shape for frame in frames}
    if len(shapes) > 1:
      sizes = " and ".join(sorted({_size(frame) for frame in frames}))
      raise errors.UserError(
        f"the frames of `{scene.name}` have several sizes, {sizes}: give all"
        " frames of a film one size"
      )
    return np.stack(frames)

  def _read_labels(self, scene: Scene) -> np.ndarray:
    """Returns whole label images [T, H', W'], of any integers."""
    return np.stack([image_files.read_labels(path) for path in scene.masks])

  def _crop(self, frames: np.ndarray) -> np.ndarray:
    """Returns what is wanted of [T, H', W', ...]: a part, in proportion."""
    (top, bottom), (left, right) = image_files.wanted_region(
      frames.shape[1:3], self._crop_region, self._size
    )
    return frames[:, top:bottom, left:right]

  def are_in(self, folder: str) -> np.ndarray:
    """Returns [N] whether scenes are in a folder within the data set's.

    Raises:
      errors.UserError: if none is.
    """
    start = os.path.join(os.path.normpath(folder), "")
    found = np.array([f"{s.name}/".startswith(start) for s in self.scenes])
    if not found.any():
      raise errors.UserError(
        f"{self.title} has no images in a folder `{folder}`: give the name of"
        " a folder in it, or a range of scenes"
      )
    return found

  def find_problem(self, places: np.ndarray) -> str | None:
    """Returns a sentence about scenes that cannot be read; None if all can."""
    problems = [
      errors.message_of(functools.partial(self.read, i)) for i in places
    ]
    found = [problem for problem in problems if problem is not None]
    if len(found) < 2:
      return found[0] if found else None
    return (
      f"{len(found)} of {len(places)} scenes of {self.title} cannot be read,"
      f" the first: {found[0]}"
    )

  def fingerprint(self) -> list[str]:
    """Returns what differs where files were added, removed or changed."""
    digest = hashlib.sha256()
    for scene in self.scenes:
      for path in (*scene.images, *scene.masks):
        status = os.stat(path)
        entry = (scene.name, scene.numbers, status.st_size, status.st_mtime_ns)
        digest.update(repr(entry).encode())
    return [digest.hexdigest()]


def _present(labels: np.ndarray) -> np.ndarray:
  """Returns [largest label + 1] whether a label is there; 0 always counts."""
  is_there = np.bincount(labels.ravel()) > 0
  is_there[0] = True
  return is_there


def _size(shape: np.ndarray | Sequence[int]) -> str:
  """Returns the size of [H', W', ...] or (H', W') as text."""
  height, width, *_ = getattr(shape, "shape", shape)
  return f"{height} x {width}"
