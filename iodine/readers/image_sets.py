"""Scenes from files of images: photos in folders, films of frames.

Dimensions:
  T: frames of a scene, 1 for photos.
  L: entities of a scene, the background among them (entity 0).
  H', W': rows and columns of a stored image.
"""

from __future__ import annotations

import collections
import fnmatch
import functools
import glob
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tqdm

from iodine import errors
from iodine.readers import films, image_files, paths, streams

_MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
# Of a label image for one object: `photo_1` or, in a folder, `photo/1`.
_OF_AN_OBJECT = re.compile(r"(.+)[_/\\-]\d+")
# What many data sets have in label images for what is not to count.
_VOID = 255
# Images whose headers are read before a training.
_MOST_LOOKED_AT = 200
# Before a bar shows how far it is.
_PATIENCE_SECONDS = 10

# {name: files of the mask of each frame}, () without masks.
_Matched = dict[str, tuple[tuple[str, ...], ...]]


class Clip(NamedTuple):
  """Where a scene is.

  Attributes:
    film: has the frames; a photo is a film of one frame.
    numbers: which of its frames these are, ascending.
  """

  film: films.Film
  numbers: tuple[int, ...]


def find_photos(
  path: object, masks: Any = None, exclude: Any = None
) -> list[Clip]:
  """Returns the photos of a data set, with their masks if there are any.

  Args:
    path: see `paths.expand`. Photos are in the order of their names.
    masks: see `_find_masks`. A photo is what is none of them.
    exclude: globs of names that do not count.
  """
  found = paths.expand("data.path", path, image_files.SUFFIXES)
  photos, matched = _find_masks(path, _without(exclude, found), masks)
  return [
    Clip(films.Film(name, file, (file,), matched[name][:1]), (0,))
    for name, file in photos.items()
  ]


def find_clips(
  path: object,
  num_frames: int | None,
  stride: int,
  masks: Any = None,
  exclude: Any = None,
) -> list[Clip]:
  """Returns the clips of films, one after the other, without an overlap.

  Args:
    path: see `films.find`.
    num_frames: T, of a clip; None for as many as the shortest film gives.
    stride: every so many frames of a film one is taken.
    masks: see `_find_masks`.
    exclude: globs of names of frames that do not count.
  """
  found = films.find("data.path", path)
  found.sort(key=lambda film: paths.by_number(film.name))
  # A GIF or a video is an image without a label image.
  images = {p: p for film in found for p in film.frames or (film.path,)}
  images |= {p: p for film in found for p in film.masks}
  frames, matched = _find_masks(path, _without(exclude, images), masks)
  found = [
    film._replace(
      frames=(own := tuple(p for p in film.frames if p in frames)),
      masks=tuple(mask for p in own for mask in matched[p]),
    )
    for film in found
    if not film.frames or frames.keys() & {*film.frames}
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


def _without(exclude: Any, found: Mapping[str, str]) -> dict[str, str]:
  """Returns {name: path} without those whose name or path a glob matches."""
  globs = paths.entries(exclude)

  def is_excluded(name: str) -> bool:
    both = (name, os.path.basename(name))
    return any(fnmatch.fnmatch(x, glob) for x in both for glob in globs)

  return {name: path for name, path in found.items() if not is_excluded(name)}


def _find_masks(
  path: object, found: Mapping[str, str], masks: Any
) -> tuple[dict[str, str], _Matched]:
  """Returns which images are photos, sorted, and their masks.

  Args:
    path: what the user calls them.
    found: {name: path} of all images.
    masks: None for label images beside the photos, `photo.mask.png` for
      `photo.png`, or `photo_1.mask.png` and so on, one for each object; a path
      with the fields of `_fields`; or paths of label images, see
      `paths.expand`, that are named as the photos are, with the folders these
      are in as far as the label images have some.

  Returns:
    {name: path} of photos, and {name: files of its mask}, () without masks.
  """
  photos = {name: found[name] for name in sorted(found, key=paths.by_number)}
  if isinstance(masks, str) and "{" in masks:
    return _find_by_pattern(photos, masks)
  if masks is None:
    labels = {n: p for n, p in found.items() if image_files.is_mask(p)}
  else:
    files = list(paths.expand("data.masks", masks, _MASK_SUFFIXES).values())
    root = os.path.commonpath([os.path.dirname(file) for file in files])
    if [root] != [os.path.normpath(place) for place in paths.entries(masks)]:
      # In a folder for one photo there are those of its objects.
      is_photo = all(_stem(os.path.basename(x)).isdigit() for x in files)
      root = os.path.dirname(root) if is_photo else root
    labels = {os.path.relpath(file, root): file for file in files}
  own = {os.path.realpath(file) for file in labels.values()}
  photos = {
    name: file
    for name, file in photos.items()
    if os.path.realpath(file) not in own and not image_files.is_mask(file)
  }
  if not photos:
    raise errors.UserError(
      f"`data.path` is {paths.title(path)}, where there are label images only:"
      " give the folder of the photos, too"
    )
  return photos, _match(photos, labels)


def _find_by_pattern(
  photos: Mapping[str, str], pattern: str
) -> tuple[dict[str, str], _Matched]:
  """Returns the same, by a glob with the fields of `_fields`."""
  matched = {}
  try:
    for name, file in photos.items():
      place = os.path.expanduser(pattern.format(**_fields(name, file)))
      matched[name] = tuple(sorted(glob.glob(place), key=paths.by_number))
  except (KeyError, ValueError, IndexError) as error:
    raise errors.UserError(
      f"`data.masks` is `{pattern}` ({error}): in braces give one of"
      f" {', '.join(_fields('', ''))}"
    ) from error
  own = {os.path.realpath(p) for files in matched.values() for p in files}
  left = {n: p for n, p in photos.items() if os.path.realpath(p) not in own}
  lacking = [file for name, file in left.items() if not matched[name]]
  if lacking or not left:
    raise errors.UserError(
      f"`data.masks` is `{pattern}`, and {len(lacking)} of {len(left)} images"
      f" have no such file, such as {paths.title(lacking[:1]) or 'none'}:"
      " correct it, or leave other images out by `data.exclude`"
    )
  return left, {name: (matched[name],) for name in left}


def _fields(name: str, path: str) -> dict[str, str]:
  """Returns what `data.masks` may have in braces.

  They are the name without its suffix, its folder and last part, and the number
  at the end of that.
  """
  stem = _stem(name)
  last = os.path.basename(stem)
  fields = {"name": stem, "folder": os.path.dirname(path), "stem": last}
  number = re.search(r"\d*$", last)
  fields["number"] = number[0] if number else ""
  return {key: glob.escape(value) for key, value in fields.items()}


def _match(photos: Mapping[str, str], labels: Mapping[str, str]) -> _Matched:
  """Returns {name: files of its mask}, of each photo some, or of each none.

  Args:
    photos: {name: path}.
    labels: {name: path}.
  """
  if not labels:
    return dict.fromkeys(photos, ())
  ends = {end for name in photos for end in _ends(_stem(name))}
  groups: dict[str, tuple[list[str], list[str]]]
  groups = collections.defaultdict(lambda: ([], []))
  numbered = set()
  for name in sorted(labels, key=paths.by_number):
    stem = _stem(name).removesuffix(image_files.MASK)
    if stem not in ends and (of_object := _OF_AN_OBJECT.fullmatch(stem)):
      stem = of_object[1]
      numbered.add(stem)
    groups[stem][1].append(labels[name])
  stems = frozenset(groups)
  for name in photos:
    end = next((x for x in _ends(_stem(name)) if x in stems), _stem(name))
    groups[end][0].append(name)
  wrong = [
    (images, masks)
    for stem, (images, masks) in groups.items()
    if len(images) != 1 or not masks or (len(masks) > 1 > (stem in numbered))
  ]
  if wrong:
    images, masks = wrong[0]
    raise errors.UserError(
      f"images and masks do not match in {len(wrong)} of {len(groups)} names,"
      f" such as {paths.title(images) or 'no image'} with"
      f" {paths.title(masks) or 'no mask'}: give every image a label image of"
      " its own under the same name, or remove all masks to train without"
    )
  return {images[0]: (tuple(masks),) for images, masks in groups.values()}


def _stem(name: str) -> str:
  return os.path.splitext(name)[0]


def _ends(stem: str) -> list[str]:
  """Returns what a label image may be called by: ends of a path, long first."""
  parts = stem.split(os.sep)
  return [os.sep.join(parts[i:]) for i in range(len(parts))]


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
    mask_form: str | None = None,
    ignore_label: int | None = None,
  ):
    """Takes what is known of the scenes, without reading them.

    Args:
      path: what the user calls them.
      clips: where each is; all have as many frames.
      framing: what is wanted of their images; without a size, all have that of
        the first.
      mask_form: "labels", "colors" or "files"; None: as they look.
      ignore_label: of pixels that are not to count; None: all count.
    """
    self.title = paths.title(path)
    self.files = [
      file
      for film, _ in clips
      for file in (*(film.frames or [film.path]), *sum(film.masks, ()))
    ]
    self.clips = clips
    self.num_scenes = len(clips)
    self.num_frames = len(clips[0].numbers)
    self.has_masks = bool(clips[0].film.masks)
    self._framing = framing
    self._mask_form, self._ignore_label = mask_form, ignore_label

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
    counts = [len(self._labels(self._read_masks(clip))) for clip in bar]
    most = max(counts)
    if most > streams.MOST_ENTITIES:
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
    masks = self._read_masks(clip)
    size, _ = image_files.read_header(film.frames[numbers[0]])
    if masks.shape[1:] != size:
      raise errors.UserError(
        f"the mask of `{film.path}` has {_size(masks.shape[1:])} pixels, but"
        f" its image {_size(size)}: give masks of the size of their images"
      )
    labels = self._labels(masks)
    cut = self._framing.cut(masks[..., np.newaxis], reduce=image_files.middles)
    entities = np.searchsorted(labels, cut).astype(np.uint8)
    if self._ignore_label is not None:
      entities[cut == self._ignore_label] = streams.IGNORED
    visibility = np.arange(self.num_entities) < len(labels)
    scene["mask"] = entities[np.newaxis, :, np.newaxis]
    scene["visibility"] = visibility[np.newaxis].astype(np.float32)
    return scene

  def kinds(self) -> list[str]:
    """Returns sizes and modes of the images, of each the first one's name."""
    # Of many every so many are looked at.
    step = 1 + self.num_scenes // _MOST_LOOKED_AT
    firsts = [clip.film.frames[:1] for clip in self.clips[::step]]
    found: dict[str, str] = {}
    for path in sum(firsts, ()):
      size, mode = image_files.read_header(path)
      found.setdefault(f"{_size(size)} {mode}", path)
    return [f"`{path}` ({kind})" for kind, path in found.items()]

  def are_in(self, folder: str) -> np.ndarray:
    """Returns [N] whether scenes are in a folder within the data set's."""
    start = os.path.join(os.path.normpath(folder), "")
    names = [f"{clip.film.name}/" for clip in self.clips]
    return np.array([name.startswith(start) for name in names])

  def _read_masks(self, clip: Clip) -> np.ndarray:
    """Returns whole label images [T, H', W'], of any integers."""
    masks = clip.film.masks
    return np.stack([self._read_mask(masks[i]) for i in clip.numbers])

  def _read_mask(self, files: Sequence[str]) -> np.ndarray:
    """Returns a whole label image [H', W'] from its files."""
    if self._mask_form != "files" and len(files) == 1:
      return image_files.read_labels(files[0], self._mask_form != "labels")
    objects = np.stack([image_files.read_labels(file) > 0 for file in files])
    if objects.sum(axis=0).max() > 1:
      streams.tell(f"{self.title} has masks that overlap: the later one wins")
    numbers = np.arange(1, len(files) + 1).reshape(-1, 1, 1)
    return (objects * numbers).max(axis=0)

  def _labels(self, masks: np.ndarray) -> np.ndarray:
    """Returns the labels that count, ascending; 0 always does."""
    labels = np.union1d([0], masks)
    if self._ignore_label is not None:
      return labels[labels != self._ignore_label]
    if labels[-1] == _VOID and _VOID - 1 not in labels:
      streams.tell(
        f"label images of {self.title} have {_VOID} and no label next to it,"
        " which is taken for an object: where it marks pixels that are not to"
        f" count give `data.ignore_label={_VOID}`"
      )
    return labels


def _size(size: Sequence[int]) -> str:
  """Returns (H', W') as text."""
  return "{} x {}".format(*size)
