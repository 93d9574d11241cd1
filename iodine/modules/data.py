"""Scenes for training and evaluation, as a tf.data pipeline.

The four data sets of the paper's code, CLEVR, Multi-dSprites, Tetrominoes and
the Objects Room, from files of records; and scenes of one's own: `Images`,
`Films` and `Arrays`. CATER, and what TensorFlow Datasets has.

Dimensions: see `iodine.modules.datasets`.
"""

import abc
import dataclasses
import functools
import math
import os
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import tensorflow as tf
import tree

from iodine import errors, kinds
from iodine.modules import datasets
from iodine.readers import (
  arrays,
  examples,
  films,
  image_files,
  image_sets,
  layouts,
  opening,
  paths,
  streams,
  tfds,
)

# Where the original has them.
crop = datasets.crop
resize = datasets.resize
preprocess = datasets.preprocess

Features = dict[str, tuple[str, ...]]


def _called_alike(*names: str) -> Features:
  """Returns the features of factors that are called as they are."""
  return {name: (name,) for name in names}


@dataclasses.dataclass(kw_only=True, eq=False)
class IODINEDataset(datasets.SceneDataset):
  """Base class of the data sets that are files of records; T is 1.

  The shuffle buffer holds cropped scenes, which take one byte for each
  element of image and masks: 0.5 MB for a CLEVR scene, so 0.5 GB of memory for
  the default `shuffle_buffer`.

  Source: `iodine.modules.data.IODINEDataset` of the original.

  Attributes:
    path: a file, a folder, a glob, or a list of those. What one folder or glob
      gives is in alphabetical order.
    image_dim: (H, W) to resize to, in pixels.
    min_num_objects: smallest sum of visibilities that passes the filter. The
      background counts as one; None: no bound.
    max_num_objects: largest sum that passes; None: no bound.
    stored_dim: (H, W) of the images in the files; None: as in the public ones.

  Others, and errors: see `datasets.SceneDataset`.
  """

  image_dim: datasets.ImageSize
  train: datasets.Range | None = None
  test: datasets.Range | None = None
  stored_dim: datasets.ImageSize | None = None
  min_num_objects: float | None = None
  max_num_objects: float | None = None

  # The name of the layout in `readers.layouts`.
  layout_name: ClassVar[str]
  # The features that make up a factor, side by side in its last axis.
  factor_features: ClassVar[Features] = {}

  def __post_init__(self):
    super().__post_init__()
    framing = image_files.Framing(None, self.crop_region, self.grayscale)
    framing.region(self.layout.image_shape[:2])  # which it checks

  @functools.cached_property
  def layout(self) -> layouts.Layout:
    """Returns what the records of the files hold."""
    variant = getattr(self, "dataset_variant", None)
    layout = layouts.find_layout(self.layout_name, variant)
    if self.stored_dim is None:
      return layout
    return layouts.resized(layout, self.stored_dim)

  @property
  def generator_name(self) -> str | None:  # type: ignore[override]
    """Returns the name of the generator in `iodine.synthetic`, or None."""
    return self.layout.generator_name

  @property
  def num_stored_entities(self) -> int:
    """Returns the entities per scene in the files, background included."""
    # Unlike the original, which says 6 for Tetrominoes: its files hold 4.
    return self.layout.num_entities

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """Returns (H, W, C) of the images that come out."""
    channels = 1 if self.grayscale else self.layout.image_shape[-1]
    return (*self.image_size, channels)

  def _open(self, subset: str | None) -> streams.RecordStream:
    """Opens the files and returns the scenes of a subset."""
    start, stop = self._range(subset) or (0, None)
    return streams.RecordStream(
      title=paths.title(self.path),
      limit=self._limit(subset),
      opened=opening.open_files(self.path, self.layout),
      layout=self.layout,
      read=self._read,
      range_name="test" if subset == "test" else "train",
      scene_range=(start or 0, stop),
      bounds=(self.min_num_objects, self.max_num_objects),
    )

  def _read(self, raw: tf.Tensor) -> streams.Scene:
    """Returns one scene of one frame as it is stored, cropped."""
    scene = examples.parse(raw, self.layout)
    image, mask = crop(scene["image"], scene["mask"], self.crop_region)
    entities = self.layout.num_entities
    factors = {}
    for factor, names in self.factor_features.items():
      columns = [tf.reshape(scene[name], [entities, -1]) for name in names]
      factors[factor] = tf.concat(columns, axis=-1)
    return {
      "image": image[tf.newaxis],
      "mask": mask[tf.newaxis],
      "visibility": scene.get("visibility", tf.ones([entities])),
      "factors": factors,
    }


@dataclasses.dataclass(kw_only=True, eq=False)
class CLEVR(IODINEDataset):
  """CLEVR with masks: 240x320, cropped to the middle and resized to 128x128.

  Factors: color, shape, size [B, L, 1] uint8; position [B, L, 3] (pixel
  coordinates and depth) and rotation [B, L, 1] float32.

  Source: paper section 4, `iodine.modules.data.CLEVR` of the original.
  Attributes and errors: see `IODINEDataset`.
  """

  image_dim: datasets.ImageSize = (128, 128)
  crop_region: datasets.Region | None = ((29, 221), (64, 256))

  layout_name: ClassVar[str] = "clevr_with_masks"
  factor_features: ClassVar[Features] = {
    # Unlike the original, which reads color as the size, by mistake.
    **_called_alike("color", "shape", "size", "rotation"),
    "position": ("pixel_coords",),
  }


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

  image_dim: datasets.ImageSize = (64, 64)
  dataset_variant: Literal[
    "colored_on_grayscale", "colored_on_colored", "binarized"
  ] = "colored_on_grayscale"

  layout_name: ClassVar[str] = "multi_dsprites"
  factor_features: ClassVar[Features] = _called_alike(
    "color", "shape", "scale", "x", "y", "orientation"
  )


@dataclasses.dataclass(kw_only=True, eq=False)
class Tetrominoes(IODINEDataset):
  """Tetrominoes: 35x35, three pieces on black.

  Factors, float32: color [B, L, 3], shape [B, L, 1] (1 to 19, 0 for the
  background), position [B, L, 2] (x, y).

  Source: paper section 4, `iodine.modules.data.Tetrominoes` of the original.
  Attributes and errors: see `IODINEDataset`.
  """

  image_dim: datasets.ImageSize = (35, 35)

  layout_name: ClassVar[str] = "tetrominoes"
  factor_features: ClassVar[Features] = {
    **_called_alike("color", "shape"),
    "position": ("x", "y"),
  }


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

  image_dim: datasets.ImageSize = (64, 64)
  dataset_variant: Literal[
    "train", "six_objects", "empty_room", "identical_color"
  ] = "train"

  layout_name: ClassVar[str] = "objects_room"


@dataclasses.dataclass(kw_only=True, eq=False)
class CATER(IODINEDataset):
  """CATER with masks: films of 33 frames, 64x64.

  A scene is a clip of `frames` frames; a film gives several, one after the
  other, which are what `train` and `test` count. An entity is visible if it has
  a pixel in one of them. A filter by number of objects lets through every scene
  or none.

  Factors, float32: position [B, L, 3], in the first frame.

  Others, and errors: see `IODINEDataset`.

  Attributes:
    frames: T; None: all.
    stride: every so many frames of a film one is taken.
    stills: whether each of those is a scene of its own.
  """

  image_dim: datasets.ImageSize = (64, 64)
  frames: kinds.Positive | None = None
  stride: kinds.Positive = 1
  stills: bool = False

  layout_name: ClassVar[str] = "cater_with_masks"

  def __post_init__(self):
    super().__post_init__()
    self._clips = streams.cut_films(
      self.layout.num_frames, self.frames, self.stride, self.stills
    )

  @property
  def num_frames(self) -> int:
    """Returns T, 1 for stills."""
    return self._clips.num_frames

  def _open(self, subset: str | None) -> streams.RecordStream:
    """Opens the files and returns the scenes of a subset."""
    count = self._clips.count(self.layout.num_frames)
    stream = super()._open(subset)
    return dataclasses.replace(stream, num_clips=lambda _: count)

  def _read(self, raw: dict[str, tf.Tensor]) -> streams.Scene:
    """Returns one scene as it is stored, cropped."""
    scene = examples.parse(raw["record"], self.layout)
    frames = self._clips.frames(raw["clip"])
    image, mask = (tf.gather(scene[name], frames) for name in ("image", "mask"))
    image, mask = crop(image, mask, self.crop_region)
    has_pixel = tf.reduce_any(mask > 0, axis=[0, 2, 3, 4])
    return {
      "image": image,
      # Whether ones are stored or 255.
      "mask": tf.cast(mask > 0, tf.uint8) * 255,
      "visibility": tf.cast(has_pixel, tf.float32),
      "factors": {"position": scene["object_positions"][:, frames[0]]},
    }


@dataclasses.dataclass(kw_only=True, eq=False)
class _PlacedScenes(datasets.SceneDataset):
  """Base class of data sets whose scenes are at hand in any order.

  `train` and `test` may also name what is below `path`.

  Attributes:
    held_out: of a tenth of the scenes at most so many, the first, are the
      subset "test", where neither `train` nor `test` says which; None: none.
    ignore_label: the number in label images of pixels that are not to count,
      such as 255; None: all count.
    antialias: average images that become half as large or smaller. Photographs
      (512 rows and columns or more) always are. Off in older configs.
  """

  train: datasets.Range | kinds.Path | None = None
  test: datasets.Range | kinds.Path | None = None
  held_out: kinds.Count | None = None
  ignore_label: kinds.Count | None = None
  antialias: bool = False

  def __post_init__(self):
    super().__post_init__()
    self._found: dict[str | None, tuple[Any, np.ndarray]] = {}
    self._framing = image_files.Framing(
      self.image_dim, self.crop_region, self.grayscale, self.antialias
    )

  @abc.abstractmethod
  def _find(self, split: str | None) -> tuple[Any, np.ndarray]:
    """Returns a source, and the places in it that a split means."""

  @abc.abstractmethod
  def _read(self, source: Any, places: np.ndarray) -> streams.Scene:
    """Returns the scenes at some places, as stored or in their final size."""

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
  def num_stored_entities(self) -> int:
    """Returns how many entities the scenes have as stored; 0 without masks."""
    return self._training_source().num_entities

  @property
  def num_frames(self) -> int:
    """Returns T, 1 for stills."""
    return self._training_source().num_frames

  def _training_source(self) -> Any:
    return self._choose(self.train)[0]

  def ranges(self) -> tuple[Any, Any]:
    """Returns which scenes are trained on and held out, as `train`, `test`."""
    if self.held_out is None or self.train is not None or self.test is not None:
      return super().ranges()
    tenth = len(self._choose(None)[1]) // 10
    number = min(tenth, self.held_out)
    return ([number, None], [0, number]) if number else (None, None)

  def about(self) -> str:
    """Returns how many scenes there are, and what was skipped."""
    split = self.train if isinstance(self.train, str) else None
    source, places = self._choose(split)
    size = "{} x {}".format(*self.image_size)
    count = f"{len(places):,} scene{'' if len(places) == 1 else 's'}"
    line = f"{count} in {source.title}, read as {size}"
    test = self.ranges()[1]
    if self.held_out is not None and test is not None and test != self.test:
      line += f", {test[1]} of them held out"
    return line

  def _choose(self, chosen: Any) -> tuple[Any, np.ndarray]:
    """Returns a source, and the places in it that `train` or `test` chooses."""
    split = chosen if isinstance(chosen, str) else None
    if split not in self._found:
      self._found[split] = self._find(split)
    source, places = self._found[split]
    if split is None and chosen is not None:
      places = places[slice(*chosen)]
    return source, places

  def _open(self, subset: str | None) -> streams.PlaceStream:
    """Returns the scenes of a subset."""
    source, places = self._choose(self._range(subset))
    name = "test" if subset == "test" else "train"
    return streams.PlaceStream(
      title=source.title,
      files=source.files,
      limit=self._limit(subset),
      places=places,
      read=functools.partial(self._read, source),
      chosen_by=f"`{name}` {self._range(subset)}",
    )


@dataclasses.dataclass(kw_only=True, eq=False)
class _FileScenes(_PlacedScenes):
  """Base class of data sets of files of images; there are no factors.

  Attributes:
    masks: label images: a number or a colour for each object, 0 or black for
      the background; or a file for each object. None: those beside the images,
      `photo.mask.png` for `photo.png`, or `photo_1.mask.png` and so on, if
      there are any; paths of images with the names of the photos; or a glob
      with `{name}` (without a suffix, within `path`), `{folder}`, `{stem}` or
      `{number}` of an image in it, such as "labels/{name}_flat.png".
    mask_form: "labels", "colors" or "files" says which; None: as they look.
    exclude: globs of names that are left out.
  """

  masks: datasets.Paths | None = None
  mask_form: Literal[None, "labels", "colors", "files"] = None
  exclude: datasets.Paths | None = None

  # What counts in folders.
  suffixes: ClassVar[Sequence[str]] = image_files.SUFFIXES

  def about(self) -> str:
    """Returns how many there are, of what kinds, and what else is there."""
    line, skipped = super().about(), paths.skipped(self.path, self.suffixes)
    if skipped:
      line += f"; skipped: {skipped}"
    found = self._training_source().kinds()
    if len(found) > 1:
      line += f"; they are of several kinds: {errors.join_some(found, 3, ', ')}"
    return line

  def names(self, subset: str | None = "train") -> list[str]:
    """Returns the photo or film of each scene of a subset."""
    source, places = self._choose(self._range(subset))
    chosen = places[: self._limit(subset)]
    return [source.clips[place].film.path for place in chosen]

  @abc.abstractmethod
  def _find_clips(self) -> list[image_sets.Clip]:
    """Returns where all scenes are."""

  def _find(
    self, split: str | None
  ) -> tuple[image_sets.FileSource, np.ndarray]:
    if split is None:
      clips = self._find_clips()
      source = image_sets.FileSource(
        self.path, clips, self._framing, self.mask_form, self.ignore_label
      )
      return source, np.arange(source.num_scenes)
    source, places = self._choose(None)
    return source, places[source.are_in(split)]

  def _read(
    self, source: image_sets.FileSource, places: np.ndarray
  ) -> streams.Scene:
    """Returns scenes in their final size: what is stored may have several."""
    scenes = []
    for place in places:
      scene = source.read(place)
      if scene["image"].shape[2:] != self.image_shape:
        image = self._resize_image(scene["image"])
        scene = {**self._resize_mask(scene), "image": image}
      scenes.append(scene)
    batch: streams.Scene = tree.map_structure(
      lambda *parts: np.concatenate(parts), *scenes
    )
    return batch


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
    train: [start, stop), or the name of a folder in `path`; None: all.
    test: the same for the subset "test".

  Others, and errors: see `datasets.SceneDataset`.
  """

  def _find_clips(self) -> list[image_sets.Clip]:
    return image_sets.find_photos(self.path, self.masks, self.exclude)


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

  frames: kinds.Positive | None = None
  stride: kinds.Positive = 1

  suffixes: ClassVar[Sequence[str]] = films.SUFFIXES

  def _find_clips(self) -> list[image_sets.Clip]:
    return image_sets.find_clips(
      self.path, self.frames, self.stride, self.masks, self.exclude
    )


@dataclasses.dataclass(kw_only=True, eq=False)
class Arrays(_PlacedScenes):
  """Scenes in an NPZ or HDF5 file, see `iodine.readers.arrays`; films, too.

  Of every image the largest region in the middle with the proportions of
  `image_dim` is kept, after `crop_region`, and resized.

  Attributes:
    path: the file, NPZ, HDF5 or NPY; or a folder of files that `train` and
      `test` name; or, from Python, the arrays by name.
    masks: another file, with the masks; None: in the same one, if any.
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

  path: kinds.Path
  masks: kinds.Path | None = None
  frames: kinds.Positive | None = None
  stride: kinds.Positive = 1
  min_num_objects: float | None = None
  max_num_objects: float | None = None

  def _find(self, split: str | None) -> tuple[arrays.ArraySource, np.ndarray]:
    path, group = self.path, split
    if isinstance(path, str):
      path = os.path.expanduser(path)
      if os.path.isdir(path) and split is not None:
        path, group = os.path.join(path, split), None
    masks = arrays.Masks(self.masks, self.ignore_label, self.background)
    source = arrays.ArraySource(
      path, group, self._framing, self.frames, self.stride, masks
    )
    return source, np.arange(source.num_scenes)

  def _choose(self, chosen: Any) -> tuple[arrays.ArraySource, np.ndarray]:
    source, places = super()._choose(chosen)
    bounds = self.min_num_objects, self.max_num_objects
    return source, source.passing(places, *bounds)

  def _read(
    self, source: arrays.ArraySource, places: np.ndarray
  ) -> streams.Scene:
    return source.read(places)


@dataclasses.dataclass(kw_only=True, eq=False)
class TFDS(datasets.SceneDataset):
  """What TensorFlow Datasets has, stills and films, such as CLEVR and MOVi.

  Images are resized after `crop_region`, which keeps no proportions. A film
  gives several scenes, see `Films`.

  Attributes:
    name: such as "clevr:3.1.0" or "movi_a/128x128"; or the folder of a version
      that is prepared.
    data_dir: where prepared ones are; None: where TFDS keeps them.
    download: whether to fetch and prepare what is missing.
    image: the key of the images or films; None: "image" or "video".
    masks: that of label images, a number for each pixel, 0 for the background;
      None: "segmentations", if there are any.
    num_entities: L, above all numbers in label images.
    frames: T; None: as many as a film gives.
    stride: every so many frames of a film one is taken.
    stills: whether each of those is a scene of its own.
    train: a split or a slice, such as "train[:90%]"; None: "train".
    test: the same for the subset "test"; None: "test" or "validation", if there
      is one.
    path: of no use here.

  Others, and errors: see `datasets.SceneDataset`.
  """

  name: str
  path: Any = None
  image_dim: datasets.ImageSize
  data_dir: kinds.Path | None = None
  download: bool = False
  image: str | None = None
  masks: str | None = None
  num_entities: Annotated[int, kinds.AtLeast(1), kinds.Below(255)] = 24
  frames: kinds.Positive | None = None
  stride: kinds.Positive = 1
  stills: bool = False
  train: str | None = None
  test: str | None = None

  @functools.cached_property
  def _prepared(self) -> tfds.Prepared:
    return tfds.prepare(
      self.name, self.data_dir, self.download, self.image, self.masks
    )

  @functools.cached_property
  def _clips(self) -> streams.Clips:
    length, *_ = self._prepared.shape
    return streams.cut_films(length, self.frames, self.stride, self.stills)

  @property
  def num_frames(self) -> int:
    """Returns T, 1 for stills."""
    return self._clips.num_frames

  @property
  def num_stored_entities(self) -> int:
    """Returns how many entities the scenes have as stored; 0 without masks."""
    return self.num_entities if self._prepared.masks else 0

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """Returns (H, W, C) of the images that come out."""
    channels = 1 if self.grayscale else self._prepared.shape[-1]
    return (*self.image_size, channels or 3)

  def ranges(self) -> tuple[Any, Any]:
    """Returns which scenes are trained on and held out, as `train`, `test`."""
    splits = self._prepared.builder.info.splits
    usual = [name for name in ("test", "validation") if name in splits]
    return self.train or "train", self.test or next(iter(usual), None)

  def about(self) -> str:
    """Returns what is read."""
    title, image, masks = self._prepared.title, *self._prepared[1:]
    read = f"masks of `{masks}`" if masks else "without masks and their scores"
    return f"{title}, images of `{image}`, {read}"

  def _open(self, subset: str | None) -> streams.ElementStream:
    """Opens the data set and returns the scenes of a subset."""
    prepared = self._prepared
    return streams.ElementStream(
      title=prepared.title,
      limit=self._limit(subset),
      opened=[opening.File(path, "") for path in prepared.files],
      layout=layouts.Layout(prepared.title, None, self.image_shape, 0, {}),
      elements=prepared.elements(self._range(subset) or "train"),
      read=self._read,
      range_name="test" if subset == "test" else "train",
      num_clips=self._count_clips,
    )

  def _count_clips(self, stored: dict[str, tf.Tensor]) -> Any:
    """Returns how many scenes an element gives."""
    return self._clips.count(tf.shape(stored["image"])[0])

  def _read(self, raw: dict[str, Any]) -> streams.Scene:
    """Returns one scene in its final size, in bytes if it had that before."""
    frames = self._clips.frames(raw["clip"])
    stored = {k: tf.gather(part, frames) for k, part in raw["record"].items()}
    image = stored["image"]
    image, labels = crop(image, stored.get("mask", image), self.crop_region)
    if tuple(image.shape[1:3]) != self.image_size:
      image = datasets.preprocess_image(image, self.image_size, self.grayscale)
    scene: streams.Scene = {"image": image, "factors": {}}
    if "mask" in stored:
      scene.update(self._entities(tf.cast(labels, tf.int32)))
    return scene

  def _entities(self, labels: tf.Tensor) -> streams.Scene:
    """Returns mask and visibility of labels [T, H', W', 1]."""
    number = self.num_entities
    is_known = tf.reduce_all((labels >= 0) & (labels < number))
    # An `Assert` would be stateful.
    check = tf.debugging.check_numerics(
      tf.where(is_known, 0.0, math.nan),
      f"a label beyond {number - 1}, the last of `data.num_entities`={number}",
    )
    method = tf.compat.v1.image.ResizeMethod.NEAREST_NEIGHBOR
    with tf.control_dependencies([check]):
      labels = tf.compat.v1.image.resize(labels, self.image_size, method)
    numbers = tf.range(number)
    # The background is there even where nothing shows it.
    is_there = tf.reduce_any(labels == numbers, axis=[0, 1, 2]) | (numbers == 0)
    return {
      "mask": tf.cast(labels, tf.uint8)[:, tf.newaxis],
      "visibility": tf.cast(is_there, tf.float32),
    }
