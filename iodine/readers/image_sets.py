"""Scenes from files of images: photos in folders, films of frames.

Dimensions:
  T: frames of a scene, 1 for photos.
  L: entities of a scene, the background among them (entity 0).
  H', W': rows and columns of a stored image.
"""

from __future__ import annotations

import collections
import functools
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tqdm

from iodine import errors
from iodine.readers import films, image_files, paths, streams

_MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
_MOST_ENTITIES = 255
# Before a bar shows how far it is.
_PATIENCE_SECONDS = 10


class Clip(NamedTuple):
  """Where a scene is.

  Attributes:
    film: has the frames; a photo is a film of one frame.
    numbers: which of its frames these are, ascending.
  """

  film: films.Film
  numbers: tuple[int, ...]


def find_photos(path: object, masks: object = None) -> list[Clip]:
  """Returns the photos of a data set, with their masks if there are any.

  Args:
    path: see `paths.expand`. Photos are in the order of their names.
    masks: label images that are named as the photos are, with the folders these
      are in as far as the label images have some, see `paths.expand`; None for
      those beside the photos, `photo.mask.png` for `photo.png`. A photo is what
      is none of them.
  """
  found = paths.expand("data.path", path, image_files.SUFFIXES)
  if masks is None:
    labels = {n: p for n, p in found.items() if image_files.is_mask(p)}
  else:
    files = paths.expand("data.masks", masks, _MASK_SUFFIXES).values()
    root = os.path.commonpath([os.path.dirname(file) for file in files])
    labels = {os.path.relpath(file, root): file for file in files}
  own = {os.path.realpath(file) for file in labels.values()}
  photos = {
    name: found[name]
    for name in sorted(found, key=paths.by_number)
    if os.path.realpath(found[name]) not in own
    and not image_files.is_mask(found[name])
  }
  if not photos:
    raise errors.UserError(
      f"`data.path` is {paths.title(path)}, where there are label images only:"
      " give the folder of the photos, too"
    )
  matched = _match(photos, labels)
  return [
    Clip(films.Film(name, file, (file,), matched[name]), (0,))
    for name, file in photos.items()
  ]


def find_clips(path: object, num_frames: int | None, stride: int) -> list[Clip]:
  """Returns the clips of films, one after the other, without an overlap.

  Args:
    path: see `films.find`.
    num_frames: T, of a clip; None for as many as the shortest film gives.
    stride: every so many frames of a film one is taken.
  """
  found = films.find("data.path", path)
  found.sort(key=lambda film: paths.by_number(film.name))
  # A GIF or a video is an image without a label image.
  frames = {p: p for film in found for p in film.frames or (film.path,)}
  matched = _match(frames, {p: p for film in found for p in film.masks})
  found = [
    film._replace(masks=tuple(m for p in film.frames for m in matched[p]))
    for film in found
  ]
  counts = [films.count(film) for film in found]
  if num_frames is None:
    num_frames = len(range(0, min(counts), stride))
  span = (num_frames - 1) * stride + 1
  if min(counts) < span:
    shortest = found[counts.index(min(counts))]
    raise errors.UserError(
      f"`{shortest.path}` has {min(counts)} frames, too few for {num_frames} at"
      f" a stride of {stride}: lower `frames` or `stride`, or leave out such"
      " films"
    )
  return [
    Clip(film, tuple(range(start, start + span, stride)))
    for film, count in zip(found, counts, strict=True)
    for start in range(0, count - span + 1, num_frames * stride)
  ]


def _match(
  photos: Mapping[str, str], labels: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
  """Returns {name: the label image}, of each photo one, or of each none.

  Args:
    photos: {name: path}.
    labels: {name: path}.
  """
  if not labels:
    return dict.fromkeys(photos, ())
  groups: dict[str, tuple[list[str], list[str]]]
  groups = collections.defaultdict(lambda: ([], []))
  for name, path in labels.items():
    groups[_stem(name).removesuffix(image_files.MASK)][1].append(path)
  stems = frozenset(groups)
  for name in photos:
    groups[_shared_end(_stem(name), stems)][0].append(name)
  wrong = [pair for pair in groups.values() if [*map(len, pair)] != [1, 1]]
  if wrong:
    images, masks = wrong[0]
    raise errors.UserError(
      f"images and masks do not match in {len(wrong)} of {len(groups)} names,"
      f" such as {paths.title(images) or 'no image'} with"
      f" {paths.title(masks) or 'no mask'}: give every image a label image of"
      " its own under the same name, or remove all masks to train without"
    )
  return {images[0]: tuple(masks) for images, masks in groups.values()}


def _stem(name: str) -> str:
  return os.path.splitext(name)[0]


def _shared_end(stem: str, stems: frozenset[str]) -> str:
  """Returns as much of the end of a path as a label image is called by."""
  parts = stem.split(os.sep)
  ends = (os.sep.join(parts[i:]) for i in range(len(parts)))
  return next((end for end in ends if end in stems), stem)


class FileSource:
  """Scenes of files of images.

  Attributes:
    title: what the user calls it.
    files: that they are in.
    clips: where each scene is.
    num_scenes: how many.
    num_frames: T.
    has_masks: whether there are label images.
  """

  def __init__(
    self,
    path: object,
    clips: Sequence[Clip],
    framing: image_files.Framing,
  ):
    """Takes what is known of the scenes, without reading them.

    Args:
      path: what the user calls them.
      clips: where each is; all have as many frames.
      framing: what is wanted of their images; without a size, all have that of
        the first.
    """
    self.title = paths.title(path)
    self.files = [
      file
      for film, _ in clips
      for file in (*(film.frames or [film.path]), *film.masks)
    ]
    self.clips = clips
    self.num_scenes = len(clips)
    self.num_frames = len(clips[0].numbers)
    self.has_masks = bool(clips[0].film.masks)
    self._framing = framing

  @functools.cached_property
  def stored_size(self) -> tuple[int, int]:
    """Returns (H', W') of the first image, cropped by `crop_region`."""
    film, numbers = self.clips[0]
    first = films.read(film, numbers[:1], self._framing)
    return first.shape[1], first.shape[2]

  @functools.cached_property
  def num_entities(self) -> int:
    """Returns L, for which all masks are looked at; 0 without masks."""
    if not self.has_masks:
      return 0
    bar = tqdm.tqdm(
      self.clips, "counting objects", unit="scenes", delay=_PATIENCE_SECONDS
    )
    counts = [len(_labels(_read_masks(clip))) for clip in bar]
    most = max(counts)
    if most > _MOST_ENTITIES:
      path = self.clips[counts.index(most)].film.path
      raise errors.UserError(
        f"a mask of `{path}` has {most} different labels: give a label image,"
        " with one number for all pixels of an object"
      )
    return most

  def read(self, place: int) -> streams.Scene:
    """Reads one scene, a batch of one.

    Args:
      place: its number.

    Returns:
      image [1, T, H', W', 1 or 3] float32 in [0, 1], what is wanted of it; and,
      where there are masks, mask [1, T, 1, H', W', 1] uint8, the numbers of the
      entities in the order of their labels, and visibility [1, L] float32, 1
      for those that are there. There are no factors.
    """
    film, numbers = clip = self.clips[place]
    frames = films.read(film, numbers, self._framing)
    if not self._framing.grayscale:
      frames = image_files.to_channels(frames, 3)
    if self._framing.size is None and frames.shape[1:3] != self.stored_size:
      raise errors.UserError(
        f"`{film.path}` has {_size(frames.shape[1:])} pixels, but"
        f" `{self.clips[0].film.path}` has other ones: give all images one size"
        " by `image_dim`, such as `data.image_dim=[64,64]`"
      )
    scene: streams.Scene = {"image": frames[np.newaxis], "factors": {}}
    if not self.has_masks:
      return scene
    masks = _read_masks(clip)
    size = image_files.read_size(film.frames[numbers[0]])
    if masks.shape[1:] != size:
      raise errors.UserError(
        f"the mask of `{film.path}` has {_size(masks.shape[1:])} pixels, but"
        f" its image {_size(size)}: give masks of the size of their images"
      )
    labels = _labels(masks)
    cut = self._framing.cut(masks[..., np.newaxis], reduce=image_files.middles)
    entities = np.searchsorted(labels, cut).astype(np.uint8)
    visibility = np.arange(self.num_entities) < len(labels)
    scene["mask"] = entities[np.newaxis, :, np.newaxis]
    scene["visibility"] = visibility[np.newaxis].astype(np.float32)
    return scene

  def are_in(self, folder: str) -> np.ndarray:
    """Returns [N] whether scenes are in a folder within the data set's."""
    start = os.path.join(os.path.normpath(folder), "")
    names = [f"{clip.film.name}/" for clip in self.clips]
    return np.array([name.startswith(start) for name in names])


def _read_masks(clip: Clip) -> np.ndarray:
  """Returns whole label images [T, H', W'], of any integers."""
  masks = clip.film.masks
  return np.stack([image_files.read_labels(masks[i]) for i in clip.numbers])


def _labels(masks: np.ndarray) -> np.ndarray:
  """Returns the labels that there are, ascending; 0 always counts."""
  return np.union1d([0], masks)


def _size(size: Sequence[int]) -> str:
  """Returns (H', W') as text."""
  return "{} x {}".format(*size)
