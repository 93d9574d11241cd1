"""Scenes for training and evaluation, as a tf.data pipeline.

The four data sets of the paper's code: CLEVR, Multi-dSprites, Tetrominoes and
the Objects Room. A data set object keeps options only; it reads nothing until
it is called.

  raw records -> range -> filter -> parse, crop -> shuffle -> repeat -> batch
    -> scale, resize

The range and the filter handle serialised scenes, so that no image is decoded
that is not wanted. What is shuffled are bytes, cropped: a sixth of the record
in the case of CLEVR.

Dimensions:
  B: batch size.
  T: frames, always 1.
  L: entities of a scene, the background among them (entity 0).
  H, W: rows and columns of the image.
  C: colour channels.
"""

import contextlib
import dataclasses
import numbers
import os
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import shapeguard
import tensorflow as tf

from iodine import validation
from iodine.ops import resizing
from iodine.readers import cache, examples, layouts, opening, streams

# No Python control flow here depends on tensors, and AutoGraph takes longer to
# find that out than it takes to build the graph.
_untransformed = tf.autograph.experimental.do_not_convert


def crop(
  image: tf.Tensor, mask: tf.Tensor, crop_region: Sequence[Sequence[int]] | None
) -> tuple[tf.Tensor, tf.Tensor]:
  """Cuts a region out of images and masks.

  Args:
    image: [..., H', W', C].
    mask: [..., H', W', 1].
    crop_region: ((top, bottom), (left, right)), the rows and columns that are
      kept, the ends excluded; None keeps all.

  Returns:
    image: [..., H, W, C], H rows from top to bottom, W from left to right.
    mask: [..., H, W, 1].
  """
  if crop_region is None:
    return image, mask
  (top, bottom), (left, right) = crop_region
  return (
    image[..., top:bottom, left:right, :],
    mask[..., top:bottom, left:right, :],
  )


def resize(images: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
  """Maps [B, H', W', C] -> [B, *size, C], by bilinear interpolation."""
  # FIDELITY: TF1's sampling rule (corner-aligned, no antialiasing), which the
  # published results rest on. tf.image.resize of TF2 gives other numbers.
  return tf.compat.v1.image.resize(
    images, list(size), tf.compat.v1.image.ResizeMethod.BILINEAR
  )


def preprocess(
  image: tf.Tensor,
  mask: tf.Tensor,
  image_dim: Sequence[int],
  crop_region: Sequence[Sequence[int]] | None = None,
  grayscale: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
  """Crops, scales and resizes stored images and masks.

  Source: `IODINEDataset.preprocess` of the original.

  Args:
    image: [B, H', W', C] uint8, 0 to 255.
    mask: [B, L, H', W', 1] uint8, 0 or 255.
    image_dim: (H, W) of the result, in pixels.
    crop_region: as for `crop`.
    grayscale: average the channels.

  Returns:
    image: [B, 1, H, W, C] float32 in [0, 1]; C is 1 if `grayscale`.
    mask: [B, 1, L, H, W, 1] float32, 0 or 1.
  """
  sg = shapeguard.ShapeGuard()
  sg.guard(image, "B?, H, W, C")
  sg.guard(mask, "B?, L, H, W, 1")
  image, mask = crop(image, mask, crop_region)
  image = _preprocess_image(image, image_dim, grayscale)
  mask = tf.cast(resize_masks(mask, image_dim), tf.float32) / 255.0
  return image[:, tf.newaxis], mask[:, tf.newaxis]


def _preprocess_image(
  image: tf.Tensor, image_dim: Sequence[int], grayscale: bool
) -> tf.Tensor:
  """Maps cropped [B, H', W', C] uint8 -> [B, H, W, C or 1] float32."""
  image = resize(tf.cast(image, tf.float32) / 255.0, image_dim)
  if grayscale:
    image = tf.reduce_mean(image, axis=-1, keepdims=True)
  return image


def resize_masks(masks: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
  """Maps [B, L, H', W', 1] -> [B, L, *size, 1], by the nearest neighbour."""
  # Entities are folded into the batch, as resizing wants four axes.
  resized = tf.compat.v1.image.resize(
    tf.reshape(masks, [-1, *masks.shape[2:]]),
    list(size),
    tf.compat.v1.image.ResizeMethod.NEAREST_NEIGHBOR,
  )
  return tf.reshape(resized, [-1, masks.shape[1], *size, 1])


def _check_bounds(low: Any, high: Any) -> None:
  """Checks `min_num_objects` and `max_num_objects`, each may be None."""
  for name, value in (("min_num_objects", low), ("max_num_objects", high)):
    fits = value is None or isinstance(value, numbers.Real)
    validation.require(fits, name, value, "a number, or None for no bound")
  if low is not None and high is not None:
    need = f"at most `max_num_objects`, {high}"
    validation.require(low <= high, "min_num_objects", low, need)


def _check_range(name: str, value: Any) -> None:
  """Checks a range of scenes, [start, stop) or None."""
  if value is None:
    return
  need = "[start, stop] with 0 <= start < stop (stop may be None), or None"
  fits = _is_pair(value) and validation.is_whole(value[0], 0)
  validation.require(fits, name, value, need)
  start, stop = value
  fits = stop is None or validation.is_whole(stop, start + 1)
  validation.require(fits, name, value, need)


def _check_image_dim(value: Any) -> None:
  """Checks the size of an image, (H, W) in pixels."""
  fits = _is_pair(value) and all(validation.is_whole(n, 1) for n in value)
  need = "[height, width], whole numbers from 1"
  validation.require(fits, "image_dim", value, need)


def _check_crop_region(value: Any, height: int, width: int) -> None:
  """Checks ((top, bottom), (left, right)) against an image, None is fine."""
  if value is None:
    return
  need = (
    f"[[top, bottom], [left, right]] within {height} rows and {width} columns,"
    " or None"
  )
  fits = _is_pair(value) and all(_is_pair(pair) for pair in value)
  validation.require(fits, "crop_region", value, need)
  for (start, stop), size in zip(value, (height, width), strict=True):
    whole = validation.is_whole(start, 0) and validation.is_whole(stop, 0)
    fits = whole and start < stop <= size
    validation.require(fits, "crop_region", value, need)


def _check_rows(value: Any, batch_size: int) -> tuple[int, int]:
  """Checks (start, stop), rows of a batch; returns them, all for None."""
  if value is None:
    return 0, batch_size
  need = f"(start, stop) with 0 <= start < stop <= {batch_size}, or None"
  fits = _is_pair(value) and validation.is_whole(value[0], 0)
  fits = fits and validation.is_whole(value[1], value[0] + 1)
  validation.require(fits and value[1] <= batch_size, "rows", value, need)
  return value[0], value[1]


def _is_pair(value: Any) -> bool:
  return validation.is_list(value) and len(value) == 2


@dataclasses.dataclass(kw_only=True, eq=False)
class IODINEDataset:
  """Base class of the data sets.

  Calling an instance gives a `tf.data.Dataset` of dicts:
    image: [B, 1, H, W, C] float32 in [0, 1].
    mask: [B, 1, L, H, W, 1] float32, 0 or 1.
    visibility: [B, L] float32, 1 for the entities of a scene, 0 for padding.
    factors: {name: [B, L, n]} float32, or uint8 where the file holds bytes.

  Scene indices count the scenes of all files one after another, before the
  filter. The shuffle buffer holds cropped scenes, which take one byte for each
  element of image and masks: 0.5 MB for a CLEVR scene, so 0.5 GB of memory for
  the default `shuffle_buffer`.

  Source: `iodine.modules.data.IODINEDataset` of the original.

  Attributes:
    path: a file, a glob, or a list of those. What one glob matches is sorted.
    batch_size: B.
    image_dim: (H, W) to resize to, in pixels.
    crop_region: ((top, bottom), (left, right)) to keep before resizing, in
      pixels of the stored image, ends excluded; None keeps all.
    shuffle_buffer: number of scenes to shuffle among; None: no shuffling.
    min_num_objects: smallest sum of visibilities that passes the filter. The
      background counts as one; None: no bound.
    max_num_objects: largest sum that passes; None: no bound.
    grayscale: average the colour channels.
    train: [start, stop) scene indices to train on, stop may be None; None: all.
    test: the same for the subset "test".
    num_test_scenes: the subset "test" ends after so many scenes that pass the
      filter; None: it does not.
    seed: decides the order of the training scenes.
    cache: a folder to keep decoded scenes in, made at the first use, see
      docs/data.md; None: decode them whenever they come.

  Raises:
    UserError: an argument has a value that makes no sense.
  """

  path: str | Sequence[str]
  batch_size: int
  image_dim: Sequence[int]
  crop_region: Sequence[Sequence[int]] | None = None
  shuffle_buffer: int | None = 1000
  min_num_objects: int | None = None
  max_num_objects: int | None = None
  grayscale: bool = False
  train: Sequence[int | None] | None = None
  test: Sequence[int | None] | None = None
  num_test_scenes: int | None = None
  seed: int = 0
  cache: str | None = None

  # The features that make up a factor, side by side in its last axis.
  factor_features: ClassVar[dict[str, tuple[str, ...]]] = {}

  def __post_init__(self):
    self._layout = self._find_layout()
    self._streams: dict[str | None, streams.SceneStream] = {}
    validation.check_whole("batch_size", self.batch_size, 1)
    validation.check_whole(
      "shuffle_buffer", self.shuffle_buffer, 1, "None for no shuffling"
    )
    validation.check_whole(
      "num_test_scenes", self.num_test_scenes, 1, "None for all"
    )
    validation.check_whole("seed", self.seed, 0)
    if self.cache is not None:
      need = "the path of a folder, or None"
      validation.check_path("cache", self.cache, need)
    _check_bounds(self.min_num_objects, self.max_num_objects)
    _check_range("train", self.train)
    _check_range("test", self.test)
    _check_image_dim(self.image_dim)
    _check_crop_region(self.crop_region, *self._layout.image_shape[:2])

  def _find_layout(self) -> layouts.Layout:
    raise NotImplementedError

  @property
  def layout(self) -> layouts.Layout:
    """Returns what the records of the files hold."""
    return self._layout

  @property
  def generator_name(self) -> str | None:
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
    return (self.image_dim[0], self.image_dim[1], channels)

  def __call__(
    self,
    subset: str | None = "train",
    skip_batches: int = 0,
    rows: tuple[int, int] | None = None,
    compact: bool = False,
  ) -> tf.data.Dataset:
    """Returns batches of scenes.

    The order of the scenes is a function of `seed` and epoch alone, not of
    TensorFlow's global seed.

    Args:
      subset: "train": the range `train`, shuffled and repeated. "summary": the
        first `batch_size` scenes of that range, repeated. None: that range in
        order, repeated. "test": the range `test` in order, once; its last
        batch may be smaller.
      skip_batches: how many batches to leave out at the beginning, because a
        run has consumed them before it was resumed. Scenes that are shuffled
        are decoded even so, except those of whole epochs, and unless there is
        a cache.
      rows: (start, stop), the rows of every batch that are wanted; no others
        are decoded. None: all. Of "test", batches without any are left out.
      compact: gives what `expand` takes, a fraction of the bytes.

    Raises:
      UserError: the subset is unknown, a file is missing or of the wrong kind,
        or no scene passes the filter. Records other than the first of a file
        are read in the iteration only, see `batches`. The cache cannot be
        made, or is of other files or options.
    """
    stream = self._stream(subset)
    stream.require_scenes()
    return self._batch(stream, subset, skip_batches, rows, compact)

  def batches(
    self, subset: str | None = "train", skip_batches: int = 0
  ) -> Iterator[dict[str, Any]]:
    """Yields what calling the instance gives, with errors that say where.

    Reading begins at once, in the background.

    Args:
      subset: as for `__call__`.
      skip_batches: as for `__call__`.

    Raises:
      UserError: as for `__call__`; and in the iteration, with the name of the
        file and the index of the record, if a record cannot be read, or if the
        subset "test" turns out to be empty.
    """
    stream = self._stream(subset)
    # The test range can begin after many scenes, which take minutes to pass:
    # as this subset ends, it can be checked afterwards.
    if subset != "test":
      stream.require_scenes()
    options = tf.data.Options()
    options.experimental_warm_start = True
    with stream.explained_errors():
      iterator = iter(
        self._batch(stream, subset, skip_batches).with_options(options)
      )

    def iterate() -> Iterator[dict[str, Any]]:
      num_batches = 0
      with stream.explained_errors():
        for batch in iterator:
          num_batches += 1
          yield batch
      if not num_batches:
        stream.require_scenes()

    # Not a generator itself, so that the checks run at once.
    return iterate()

  def explained_errors(
    self, subset: str | None = "train"
  ) -> contextlib.AbstractContextManager[None]:
    """Turns errors of who iterates over `__call__`'s batches into sentences.

    Raises:
      UserError: names the file and the record that cannot be read, as `batches`
        does.
    """
    return self._raw_stream(subset).explained_errors()

  def expand(self, batch: dict[str, Any]) -> dict[str, Any]:
    """Returns a batch as the model wants it; runs on any device.

    The values are those that `__call__` gives, to the bit on the CPU, compiled
    by XLA or not.

    Args:
      batch: what `__call__` gives, compact or not, of B scenes or some rows:
        image: [B, 1, H', W', C] uint8, cropped, or float32 as it is in the end.
        mask: [B, 1, 1, H, W, 1] uint8, the number of the entity that a pixel
          belongs to; [B, 1, L, H, W, 1] uint8, 0 or 255; or float32 as it is in
          the end.
        visibility, factors: as they are in the end.
    """
    image, mask = batch["image"], batch["mask"]
    if image.dtype == tf.uint8:
      scaled = resizing.scale_bytes(image[:, 0])
      image = resizing.resize_bilinear(scaled, self.image_dim)[:, tf.newaxis]
    return {**batch, "image": image, "mask": self._expand_mask(mask)}

  def _expand_mask(self, mask: tf.Tensor) -> tf.Tensor:
    """Returns a mask [B, 1, L, H, W, 1] as float32, see `expand`."""
    if mask.dtype != tf.uint8:
      return mask
    if mask.shape[2] != 1:
      return resizing.scale_bytes(mask)
    one_hot = tf.one_hot(mask[:, :, 0, ..., 0], self.num_true_objects, axis=2)
    return one_hot[..., tf.newaxis]

  def _stream(self, subset: str | None) -> streams.SceneStream:
    """Returns the scenes of a subset, from the cache where there is one."""
    stream = self._raw_stream(subset)
    return stream if self.cache is None else self._cached(stream, self.cache)

  def _raw_stream(self, subset: str | None) -> streams.SceneStream:
    """Opens the files and returns the records of a subset."""
    subsets = ("train", "summary", "test", None)
    validation.check_choice("subset", subset, subsets)
    files = opening.open_files(self.path, self._layout)
    range_name = "test" if subset == "test" else "train"
    start, stop = getattr(self, range_name) or (0, None)
    limits: dict[str | None, int | None] = {
      "summary": self.batch_size,
      "test": self.num_test_scenes,
    }
    stream = streams.SceneStream(
      files=files,
      layout=self._layout,
      range_name=range_name,
      scene_range=(start, stop),
      min_num_objects=self.min_num_objects,
      max_num_objects=self.max_num_objects,
      limit=limits.get(subset),
    )
    # An equal stream from before may know the size of an epoch already.
    known = self._streams.get(subset)
    self._streams[subset] = known if known == stream else stream
    return self._streams[subset]

  def _cached(
    self, stream: streams.SceneStream, folder: str
  ) -> streams.SceneStream:
    """Returns a stream by way of the cache in a folder."""
    # The first scenes of the training range are not kept a second time.
    is_test = stream.range_name == "test"
    limit = stream.limit if is_test else None
    kept = dataclasses.replace(stream, limit=limit)
    cached = cache.open_or_make(
      os.path.join(folder, stream.range_name),
      kept,
      streams.read(kept.epoch(), self._read_resized),
      {
        "crop_region": self.crop_region,
        "image_dim": self.image_dim,
        **({"num_test_scenes": limit} if is_test else {}),
      },
    )
    return dataclasses.replace(cached, limit=stream.limit)

  def _batch(
    self,
    stream: streams.SceneStream,
    subset: str | None,
    skip_batches: int,
    rows: tuple[int, int] | None = None,
    compact: bool = False,
  ) -> tf.data.Dataset:
    """Returns the batches of a stream."""
    validation.check_whole("skip_batches", skip_batches, 0)
    start, stop = _check_rows(rows, self.batch_size)
    is_test = subset == "test"
    skip = skip_batches * self.batch_size
    is_cached = isinstance(stream, cache.CachedStream)
    # Only what is wanted is read; without shuffling, that is so anyway.
    is_partial = stop - start < self.batch_size
    read_late = None if is_cached else self._read
    buffer_size = self.shuffle_buffer if subset == "train" else None
    if not is_cached and not is_partial and buffer_size is not None:
      scenes = stream.repeated(self._read, skip, buffer_size, self.seed)
    else:
      if is_test:
        records = stream.epoch().skip(skip)
      else:
        records = stream.repeated(None, skip, buffer_size, self.seed)
      chosen = streams.choose_rows(records, (start, stop), self.batch_size)
      scenes = streams.read(chosen, read_late)
    batches = scenes.batch(stop - start, drop_remainder=not is_test)
    finish = self._compact if compact else self._preprocess
    if isinstance(stream, cache.CachedStream):
      gather, finish_cached = stream.gather, self._finish_cached

      def finish(places: tf.Tensor) -> dict[str, Any]:
        return finish_cached(gather(places), compact)

    batches = batches.map(
      _untransformed(finish), tf.data.AUTOTUNE, deterministic=True
    )
    if not is_test:
      batches = batches.apply(
        tf.data.experimental.assert_cardinality(
          tf.data.experimental.INFINITE_CARDINALITY
        )
      )
    return batches.prefetch(tf.data.AUTOTUNE)

  @_untransformed
  def _read(self, record: tf.Tensor) -> dict[str, Any]:
    """Returns one scene: image and mask cropped, all else as stored."""
    scene = examples.parse(record, self._layout)
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

  @_untransformed
  def _read_resized(self, record: tf.Tensor) -> dict[str, Any]:
    """Returns one scene as a cache keeps it: with masks of the final size."""
    scene = self._read(record)
    mask = resize_masks(scene["mask"][tf.newaxis], self.image_dim)[0]
    return {**scene, "mask": mask}

  @_untransformed
  def _compact(self, batch: dict[str, Any]) -> dict[str, Any]:
    """Returns the batch as `expand` takes it."""
    mask = resize_masks(batch["mask"], self.image_dim)
    return self._finish_cached({**batch, "mask": mask}, compact=True)

  def _finish_cached(
    self, batch: dict[str, Any], compact: bool
  ) -> dict[str, Any]:
    """Returns the batch as `expand` takes it, or as it gives it.

    Args:
      batch: image [B, H', W', C] uint8, cropped; mask uint8 of the final size,
        [B, L, H, W, 1] or [B, H, W, 1]; all else as it is in the end.
      compact: as for `__call__`.
    """
    image, mask = batch["image"], batch["mask"]
    stored = image.shape[1:3]
    # Grey is a mean, which XLA rounds in another way.
    is_exact = resizing.is_exact(stored, self.image_dim) and not self.grayscale
    if not (compact and is_exact):
      image = _preprocess_image(image, self.image_dim, self.grayscale)
    mask = mask[:, tf.newaxis]
    if len(mask.shape) == 5:
      mask = mask[:, tf.newaxis]
    if not compact:
      mask = self._expand_mask(mask)
    return {**batch, "image": image[:, tf.newaxis], "mask": mask}

  @_untransformed
  def _preprocess(self, batch: dict[str, Any]) -> dict[str, Any]:
    """Returns the batch with image and mask as the model wants them."""
    image, mask = preprocess(
      batch["image"],
      batch["mask"],
      self.image_dim,
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
