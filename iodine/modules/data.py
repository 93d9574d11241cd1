"""Scenes for training and evaluation, as a tf.data pipeline.

The four data sets of the paper's code, CLEVR, Multi-dSprites, Tetrominoes and
the Objects Room, from files of records; and scenes of one's own: `Images`,
`Films` and `Arrays`.

Dimensions: see `iodine.modules.datasets`.
"""

import abc
import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import shapeguard
import tensorflow as tf

from iodine import errors, validation
from iodine.modules import datasets
from iodine.readers import (
  arrays,
  examples,
  image_sets,
  layouts,
  opening,
  streams,
)

# Where the original has them.
crop = datasets.crop
resize = datasets.resize
preprocess = datasets.preprocess


def _check_bounds(low: Any, high: Any) -> None:
  """Checks `min_num_objects` and `max_num_objects`, each may be None."""
  for name, value in (("min_num_objects", low), ("max_num_objects", high)):
    if value is not None:
      need = "None for no bound"
      validation.check_number(name, value, least=None, otherwise=need)
  if low is not None and high is not None:
    need = f"at most `max_num_objects`, {high}"
    validation.require(low <= high, "min_num_objects", low, need)


@dataclasses.dataclass(kw_only=True, eq=False)
class IODINEDataset(datasets.SceneDataset):
  """Base class of the data sets that are files of records; T is 1.

  The shuffle buffer holds cropped scenes, which take one byte for each
  element of image and masks: 0.5 MB for a CLEVR scene, so 0.5 GB of memory for
  the default `shuffle_buffer`.

  Source: `iodine.modules.data.IODINEDataset` of the original.

  Attributes:
    path: a file, a glob, or a list of those. What one glob matches is sorted.
    image_dim: (H, W) to resize to, in pixels.
    min_num_objects: smallest sum of visibilities that passes the filter. The
      background counts as one; None: no bound.
    max_num_objects: largest sum that passes; None: no bound.
    stored_dim: (H, W) of the images in the files; None: as in the public ones.

  Others, and errors: see `datasets.SceneDataset`.
  """

  image_dim: Sequence[int]
  stored_dim: Sequence[int] | None = None
  min_num_objects: float | None = None
  max_num_objects: float | None = None

  # The features that make up a factor, side by side in its last axis.
  factor_features: ClassVar[dict[str, tuple[str, ...]]] = {}

  def __post_init__(self):
    super().__post_init__()
    self._layout = self._find_layout()
    if self.stored_dim is not None:
      datasets.check_image_dim(self.stored_dim, "stored_dim")
      self._layout = layouts.resized(self._layout, self.stored_dim)
    self._streams: dict[str | None, streams.RecordStream] = {}
    _check_bounds(self.min_num_objects, self.max_num_objects)
    datasets.check_range("train", self.train)
    datasets.check_range("test", self.test)
    datasets.check_image_dim(self.image_dim)
    datasets.check_crop_region(self.crop_region, *self._layout.image_shape[:2])

  def _find_layout(self) -> layouts.Layout:
    raise NotImplementedError

  @property
  def layout(self) -> layouts.Layout:
    """Returns what the records of the files hold."""
    return self._layout

  @property
  def generator_name(self) -> str | None:  # type: ignore[override]
    """Returns the name of the generator in `iodine.synthetic`, or None."""
    return self._layout.generator_name

  @property
  def num_true_objects(self) -> int:
    """Returns L, the entities per scene in the files, background included."""
    # Unlike the original, which says 6 for Tetrominoes: its files hold 4.
    return self._layout.num_entities

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """Returns (H, W, C) of the images that come out."""
    channels = 1 if self.grayscale else self._layout.image_shape[-1]
    return (*self.image_size, channels)

  def _raw_stream(self, subset: str | None) -> streams.RecordStream:
    """Opens the files and returns the records of a subset."""
    files = opening.open_files(self.path, self._layout)
    range_name = "test" if subset == "test" else "train"
    start, stop = getattr(self, range_name) or (0, None)
    stream = streams.RecordStream(
      files=files,
      layout=self._layout,
      range_name=range_name,
      scene_range=(start, stop),
      min_num_objects=self.min_num_objects,
      max_num_objects=self.max_num_objects,
      limit=self._limit(subset),
    )
    # An equal stream from before may know the size of an epoch already.
    known = self._streams.get(subset)
    self._streams[subset] = known if known == stream else stream
    return self._streams[subset]

  def _read(self, raw: tf.Tensor) -> dict[str, Any]:
    """Returns one scene: image and mask cropped, all else as stored."""
    scene = examples.parse(raw, self._layout)
    image, mask = crop(scene["image"], scene["mask"], self.crop_region)
    entities = self._layout.num_entities
    factors = {}
    for factor, names in self.factor_features.items():
      columns = [tf.reshape(scene[name], [entities, -1]) for name in names]
      factors[factor] = tf.concat(columns, axis=-1)
    return {
      "image": image,
      "mask": mask,
      "visibility": scene.get("visibility", tf.ones([entities])),
      "factors": factors,
    }

  def _read_kept(self, raw: tf.Tensor) -> dict[str, Any]:
    """Returns one scene as a cache keeps it: with masks of the final size."""
    scene = self._read(raw)
    mask = datasets.resize_masks(scene["mask"][tf.newaxis], self.image_size)[0]
    return {**scene, "mask": mask}

  def _finish_read(
    self, batch: dict[str, Any], compact: bool
  ) -> dict[str, Any]:
    if not compact:
      return self._preprocess(batch)
    mask = datasets.resize_masks(batch["mask"], self.image_size)
    return self._finish_kept({**batch, "mask": mask}, compact)

  def _finish_kept(
    self, batch: dict[str, Any], compact: bool
  ) -> dict[str, Any]:
    """Finishes image [B, H', W', C], mask [B, L, H, W, 1] or [B, H, W, 1]."""
    mask = batch["mask"][:, tf.newaxis]
    if len(mask.shape) == 5:
      mask = mask[:, tf.newaxis]
    image = batch["image"][:, tf.newaxis]
    return self._finish({**batch, "image": image, "mask": mask}, compact)

  def _preprocess(self, batch: dict[str, Any]) -> dict[str, Any]:
    """Returns the batch with image and mask as the model wants them."""
    image, mask = preprocess(
      batch["image"],
      batch["mask"],
      self.image_size,
      crop_region=None,  # Cropped already, in `_read`.
      grayscale=self.grayscale,
    )
    sg = shapeguard.ShapeGuard()
    factors = batch["factors"]
    return {
      "image": sg.guard(image, "B?, 1, H, W, C"),
      "mask": sg.guard(mask, "B?, 1, L, H, W, 1"),
      "visibility": sg.guard(batch["visibility"], "B?, L"),
      "factors": {name: sg.guard(f, "B?, L, *") for name, f in factors.items()},
    }


@dataclasses.dataclass(kw_only=True, eq=False)
class CLEVR(IODINEDataset):
  """CLEVR with masks: 240x320, cropped to the middle and resized to 128x128.

  Factors: color, shape, size [B, L, 1] uint8; position [B, L, 3] (pixel
  coordinates and depth) and rotation [B, L, 1] float32.

  Source: paper section 4, `iodine.modules.data.CLEVR` of the original.
  Attributes and errors: see `IODINEDataset`.
  """

  image_dim: Sequence[int] = (128, 128)
  crop_region: Sequence[Sequence[int]] | None = ((29, 221), (64, 256))

  factor_features: ClassVar[dict[str, tuple[str, ...]]] = {
    "color": ("color",),
    "shape": ("shape",),
    # Unlike the original, which reads color here, by mistake.
    "size": ("size",),
    "position": ("pixel_coords",),
    "rotation": ("rotation",),
  }

  def _find_layout(self) -> layouts.Layout:
    return layouts.find_layout("clevr_with_masks")


@dataclasses.dataclass(kw_only=True, eq=False)
class MultiDSprites(IODINEDataset):
  """Multi-dSprites: 64x64.

  Factors, float32: color [B, L, C]; shape, scale, x, y, orientation [B, L, 1].

  Source: paper section 4, `iodine.modules.data.MultiDSprites` of the original.
  Errors: see `IODINEDataset`.

  Attributes:
    dataset_variant: "colored_on_grayscale" (L = 6), "colored_on_colored" (5)
      or "binarized" (4, one channel).
  """

  image_dim: Sequence[int] = (64, 64)
  dataset_variant: str = "colored_on_grayscale"

  factor_features: ClassVar[dict[str, tuple[str, ...]]] = {
    "color": ("color",),
    "shape": ("shape",),
    "scale": ("scale",),
    "x": ("x",),
    "y": ("y",),
    "orientation": ("orientation",),
  }

  def _find_layout(self) -> layouts.Layout:
    return layouts.find_layout("multi_dsprites", self.dataset_variant)


@dataclasses.dataclass(kw_only=True, eq=False)
class Tetrominoes(IODINEDataset):
  """Tetrominoes: 35x35, three pieces on black.

  Factors, float32: color [B, L, 3], shape [B, L, 1] (1 to 19, 0 for the
  background), position [B, L, 2] (x, y).

  Source: paper section 4, `iodine.modules.data.Tetrominoes` of the original.
  Attributes and errors: see `IODINEDataset`.
  """

  image_dim: Sequence[int] = (35, 35)

  factor_features: ClassVar[dict[str, tuple[str, ...]]] = {
    "color": ("color",),
    "shape": ("shape",),
    "position": ("x", "y"),
  }

  def _find_layout(self) -> layouts.Layout:
    return layouts.find_layout("tetrominoes")


@dataclasses.dataclass(kw_only=True, eq=False)
class ObjectsRoom(IODINEDataset):
  """The Objects Room: 64x64, without factors.

  Its files have no visibility, so all entities count as visible, and a filter
  by number of objects lets through every scene or none.

  Source: `iodine.modules.data.ObjectsRoom` of the original.
  Errors: see `IODINEDataset`.

  Attributes:
    dataset_variant: "train" (L = 7), "six_objects" (10), "empty_room" (4) or
      "identical_color" (10).
  """

  image_dim: Sequence[int] = (64, 64)
  dataset_variant: str = "train"

  def _find_layout(self) -> layouts.Layout:
    return layouts.find_layout("objects_room", self.dataset_variant)


@dataclasses.dataclass(kw_only=True, eq=False)
class _PlacedScenes(datasets.SceneDataset):
  """Base class of data sets whose scenes are at hand in any order.

  `train` and `test` may also name what is below `path`. In training, there have
  to be as many scenes as a batch has.
  """

  kept_options: ClassVar[tuple[str, ...]] = ("grayscale",)

  def __post_init__(self):
    super().__post_init__()
    self._opened: dict[str | None, tuple[Any, np.ndarray]] = {}
    for name in ("train", "test"):
      if not isinstance(getattr(self, name), str):
        datasets.check_range(name, getattr(self, name))
    datasets.check_crop_region(self.crop_region)

  @abc.abstractmethod
  def _open(self, split: str | None) -> tuple[Any, np.ndarray]:
    """Returns a source, and the places in it that a split means."""

  @property
  def image_size(self) -> tuple[int, int]:
    """Returns (H, W) of the images that come out."""
    if self.image_dim is None:
      return self._training_source().stored_size
    return super().image_size

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """Returns (H, W, C) of the images that come out."""
    return (*self.image_size, 1 if self.grayscale else 3)

  @property
  def num_true_objects(self) -> int:
    """Returns L, the background included; 0 without masks."""
    return self._training_source().num_entities

  @property
  def num_frames(self) -> int:
    """Returns T, 1 for stills."""
    return self._training_source().num_frames

  def _training_source(self) -> Any:
    return self._find(self.train)[0]

  def _find(self, chosen: Any) -> tuple[Any, np.ndarray]:
    """Returns a source, and the places in it that `train` or `test` chooses."""
    split = chosen if isinstance(chosen, str) else None
    if split not in self._opened:
      self._opened[split] = self._open(split)
    source, places = self._opened[split]
    if split is None and chosen is not None:
      places = places[slice(*chosen)]
    return source, places

  def _raw_stream(self, subset: str | None) -> streams.PlaceStream:
    """Returns the places of a subset."""
    range_name = "test" if subset == "test" else "train"
    chosen = getattr(self, range_name)
    source, places = self._find(chosen)
    stream = self._stream_of(
      source=source,
      range_name=range_name,
      places=places,
      limit=self._limit(subset),
      options={range_name: chosen},
    )
    if 0 < len(stream.places) < self.batch_size and subset != "test":
      raise errors.UserError(
        f"{source.title} has too few scenes to train on,"
        f" {len(stream.places)} for a batch of {self.batch_size}: add some, or"
        " lower `batch_size`"
      )
    return stream

  def _stream_of(self, **arguments: Any) -> streams.PlaceStream:
    gather = functools.partial(self._gather_from, arguments["source"])
    return streams.PlaceStream(**arguments, gather=gather)

  @abc.abstractmethod
  def _gather_from(self, source: Any, places: tf.Tensor) -> dict[str, Any]:
    """Returns the scenes at some places [B], masks of the final size."""


@dataclasses.dataclass(kw_only=True, eq=False)
class _FileScenes(_PlacedScenes):
  """Base class of data sets of files of images; there are no factors."""

  @abc.abstractmethod
  def _find_scenes(self) -> list[image_sets.Scene]:
    """Returns where all scenes are."""

  def _open(
    self, split: str | None
  ) -> tuple[image_sets.FileSource, np.ndarray]:
    if split is None:
      source = image_sets.FileSource(
        self.path,
        self._find_scenes(),
        self.image_dim,
        self.crop_region,
        self.grayscale,
      )
      return source, np.arange(source.num_scenes)
    source, places = self._find(None)
    return source, places[source.are_in(split)]

  def _gather_from(self, source: Any, places: tf.Tensor) -> dict[str, Any]:
    types = [tf.float32, tf.uint8, tf.float32][: 3 if source.has_masks else 1]
    lead = [places.shape[0], source.num_frames]
    image, *truth = streams.call(
      lambda chosen: self._read_all(source, chosen), places, types
    )
    scenes = {
      "image": tf.ensure_shape(image, [*lead, *self.image_shape]),
      "factors": {},
    }
    if truth:
      mask, visibility = truth
      shape = [*lead, 1, *self.image_size, 1]
      scenes["mask"] = tf.ensure_shape(mask, shape)
      shape = [places.shape[0], source.num_entities]
      scenes["visibility"] = tf.ensure_shape(visibility, shape)
    return scenes

  def _read_all(
    self, source: image_sets.FileSource, places: np.ndarray
  ) -> list[np.ndarray]:
    """Returns image [B, T, H, W, C], and mask and visibility if there are."""
    scenes = [source.read(place) for place in places]
    # At once what is of one size, as it mostly is.
    shapes = [scene[0].shape for scene in scenes]
    parts: list[list[np.ndarray]] = [[] for _ in scenes]
    for shape in dict.fromkeys(shapes):
      rows = [row for row, other in enumerate(shapes) if other == shape]
      resized = self._resize([scenes[row] for row in rows])
      for row, *final in zip(rows, *resized, strict=True):
        parts[row] = final
    return [np.stack(part) for part in zip(*parts, strict=True)]

  def _resize(
    self, scenes: Sequence[tuple[np.ndarray, ...]]
  ) -> list[np.ndarray]:
    """Returns scenes of one size in their final size, see `_read_all`."""
    images, *truth = (np.stack(parts) for parts in zip(*scenes, strict=True))
    size, num_frames = self.image_size, images.shape[1]
    is_final = images.shape[2:4] == size
    if not is_final or images.shape[-1] != self.image_shape[-1]:
      frames = datasets.preprocess_image(
        datasets.fold_frames(images), size, self.grayscale
      )
      images = datasets.unfold_frames(frames, num_frames).numpy()
    if not truth:
      return [images]
    masks, visibility = truth
    if not is_final:
      frames = datasets.resize_labels(datasets.fold_frames(masks), size)
      masks = datasets.unfold_frames(frames, num_frames).numpy()
    return [images, masks[:, :, np.newaxis], visibility]

  def _finish_kept(
    self, batch: dict[str, Any], compact: bool
  ) -> dict[str, Any]:
    return batch if compact else self.expand(batch)


@dataclasses.dataclass(kw_only=True, eq=False)
class Images(_FileScenes):
  """Photos: PNG, JPEG, WebP, BMP or TIFF files, with label images or without.

  Of every image the largest region in the middle with the proportions of
  `image_dim` is kept, after `crop_region`, and resized. Images are upright as
  their EXIF entry says, transparent parts black, and have three channels unless
  `grayscale`.

  Attributes:
    path: a folder, whose subfolders count, too, a glob, or a list of files and
      of those. Images are in the order of their names.
    masks: folder of label images called as the photos are: a number for each
      pixel, 0 for the background. None for those beside the photos,
      `photo.mask.png` for `photo.png`, if there are any.
    train: [start, stop), or the name of a folder in `path`; None: all.
    test: the same for the subset "test".

  Others, and errors: see `datasets.SceneDataset`.
  """

  masks: str | None = None

  def _find_scenes(self) -> list[image_sets.Scene]:
    return image_sets.find_scenes(self.path, self.masks)


@dataclasses.dataclass(kw_only=True, eq=False)
class Films(_FileScenes):
  """Films: folders of frames, GIFs, and videos where PyAV is installed.

  A scene is a clip of `frames` frames; a longer film gives several, one after
  the other. Masks of frames are label images beside them, see `Images`; objects
  have the same number in all frames.

  Attributes:
    path: a folder, in which every folder with images is a film, as is every GIF
      or video; a glob; or a list of films.
    frames: T; None: as many as the shortest film gives.
    stride: every so many frames of a film one is taken.

  Others, and errors: see `Images` and `datasets.SceneDataset`.
  """

  kept_options: ClassVar[tuple[str, ...]] = ("grayscale", "frames", "stride")

  frames: int | None = None
  stride: int = 1

  def __post_init__(self):
    super().__post_init__()
    _check_frames(self.frames, self.stride)

  def _find_scenes(self) -> list[image_sets.Scene]:
    return image_sets.find_clips(self.path, self.frames, self.stride)


@dataclasses.dataclass(kw_only=True, eq=False)
class Arrays(_PlacedScenes):
  """Scenes in an NPZ or HDF5 file, see `iodine.readers.arrays`; films, too.

  Of every image the largest region in the middle with the proportions of
  `image_dim` is kept, after `crop_region`, and resized.

  Attributes:
    path: the file; or a folder of files that `train` and `test` name.
    train: [start, stop), or the name of an HDF5 group or of a file in the
      folder; None: all.
    test: the same for the subset "test".
    frames: T, of the beginning of every film; None: all.
    stride: every so many frames of a film one is taken.
    min_num_objects: smallest sum of visibilities that passes the filter. The
      background counts as one; None: no bound.
    max_num_objects: largest sum that passes; None: no bound.

  Others, and errors: see `datasets.SceneDataset`.
  """

  kept_options: ClassVar[tuple[str, ...]] = ("grayscale", "frames", "stride")

  frames: int | None = None
  stride: int = 1
  min_num_objects: float | None = None
  max_num_objects: float | None = None

  def __post_init__(self):
    super().__post_init__()
    _check_frames(self.frames, self.stride)
    _check_bounds(self.min_num_objects, self.max_num_objects)

  def _open(self, split: str | None) -> tuple[arrays.ArraySource, np.ndarray]:
    need = "the path of an NPZ or HDF5 file, or of a folder of such"
    validation.check_path("path", self.path, need)
    path, group = str(self.path), split
    if os.path.isdir(path) and split is not None:
      path, group = os.path.join(path, split), None
    source = arrays.ArraySource(
      path,
      group,
      self.image_dim,
      self.crop_region,
      self.grayscale,
      self.frames,
      self.stride,
    )
    return source, np.arange(source.num_scenes)

  def _stream_of(self, **arguments: Any) -> streams.PlaceStream:
    source = arguments["source"]
    low, high = self.min_num_objects, self.max_num_objects
    arguments["places"] = source.passing(arguments["places"], low, high)
    arguments["options"].update(min_num_objects=low, max_num_objects=high)
    return super()._stream_of(**arguments)

  def _gather_from(self, source: Any, places: tf.Tensor) -> dict[str, Any]:
    image, *truth = (
      tf.ensure_shape(part, [places.shape[0], *shape])
      for part, shape in zip(
        streams.call(source.read, places, source.dtypes),
        source.shapes,
        strict=True,
      )
    )
    scenes = {"image": image, "factors": {}}
    if truth:
      mask, scenes["visibility"], *factors = truth
      mask = datasets.resize_masks(datasets.fold_frames(mask), self.image_size)
      scenes["mask"] = datasets.unfold_frames(mask, source.num_frames)
      scenes["factors"] = dict(zip(source.factors, factors, strict=True))
    return scenes

  def _finish_kept(
    self, batch: dict[str, Any], compact: bool
  ) -> dict[str, Any]:
    return self._finish(batch, compact)


def _check_frames(frames: Any, stride: Any) -> None:
  """Checks `frames` and `stride`."""
  validation.check_whole("frames", frames, 1, "None for all")
  validation.check_whole("stride", stride, 1)
