"""What all data sets share: options, batches, crops and sizes, caches.

A data set object keeps options only; it reads nothing until it is called.

  scenes of a subset -> read, crop -> shuffle -> repeat -> batch
    -> scale, resize

Dimensions:
  B: batch size.
  T: frames, 1 for stills.
  L: entities of a scene, the background among them (entity 0).
  H, W: rows and columns of the image.
  C: colour channels.
"""

import abc
import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import shapeguard
import tensorflow as tf

from iodine import errors, memory, validation
from iodine.ops import resizing
from iodine.readers import cache, soundness, streams

# In the message of TensorFlow's error.
_UNSOUND = "a scene is not as it must be"

# No Python control flow in a pipeline depends on tensors, and AutoGraph takes
# longer to find that out than it takes to build the graphs.
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
  image = preprocess_image(image, image_dim, grayscale)
  mask = tf.cast(resize_masks(mask, image_dim), tf.float32) / 255.0
  return image[:, tf.newaxis], mask[:, tf.newaxis]


def preprocess_image(
  image: tf.Tensor, image_dim: Sequence[int], grayscale: bool
) -> tf.Tensor:
  """Maps cropped [B, H', W', C] -> [B, H, W, C or 1] float32 in [0, 1].

  Args:
    image: uint8, or float32 in [0, 1].
    image_dim: (H, W).
    grayscale: average the channels.
  """
  if image.dtype == tf.uint8:
    image = tf.cast(image, tf.float32) / 255.0
  image = resize(image, image_dim)
  if grayscale:
    image = tf.reduce_mean(image, axis=-1, keepdims=True)
  return image


def resize_masks(masks: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
  """Maps [B, L, H', W', 1] -> [B, L, *size, 1], by the nearest neighbour."""
  # Entities are folded into the batch, as resizing wants four axes.
  return unfold_frames(resize_labels(fold_frames(masks), size), masks.shape[1])


def resize_labels(labels: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
  """Maps [N, H', W', 1] -> [N, *size, 1], by the nearest neighbour."""
  return tf.compat.v1.image.resize(
    labels, list(size), tf.compat.v1.image.ResizeMethod.NEAREST_NEIGHBOR
  )


def fold_frames(images: tf.Tensor) -> tf.Tensor:
  """Maps [B, T, ...] -> [B * T, ...]."""
  return tf.reshape(images, [-1, *images.shape[2:]])


def unfold_frames(images: tf.Tensor, num_frames: int) -> tf.Tensor:
  """Maps [B * T, ...] -> [B, T, ...]."""
  return tf.reshape(images, [-1, num_frames, *images.shape[1:]])


def check_range(name: str, value: Any) -> None:
  """Checks a range of scenes, [start, stop) or None.

  Raises:
    UserError: if it is something else.
  """
  if value is None:
    return
  need = "[start, stop] with 0 <= start < stop (stop may be None), or None"
  fits = _is_pair(value) and validation.is_whole(value[0], 0)
  validation.require(fits, name, value, need)
  start, stop = value
  fits = stop is None or validation.is_whole(stop, start + 1)
  validation.require(fits, name, value, need)


def check_image_dim(value: Any, name: str = "image_dim") -> None:
  """Checks the size of an image, (H, W) in pixels.

  Raises:
    UserError: if it is something else.
  """
  fits = _is_pair(value) and all(validation.is_whole(n, 1) for n in value)
  need = "[height, width], whole numbers from 1"
  validation.require(fits, name, value, need)


def check_crop_region(
  value: Any, height: int | None = None, width: int | None = None
) -> None:
  """Checks ((top, bottom), (left, right)) against an image, None is fine.

  Args:
    value: the option.
    height: of the image; None where it is not known.
    width: likewise.

  Raises:
    UserError: if it is something else, or not within the image.
  """
  if value is None:
    return
  need = "[[top, bottom], [left, right]], or None"
  if height is not None:
    need = (
      f"[[top, bottom], [left, right]] within {height} rows and {width}"
      " columns, or None"
    )
  fits = _is_pair(value) and all(_is_pair(pair) for pair in value)
  validation.require(fits, "crop_region", value, need)
  for (start, stop), size in zip(value, (height, width), strict=True):
    whole = validation.is_whole(start, 0) and validation.is_whole(stop, 0)
    fits = whole and start < stop and (size is None or stop <= size)
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
class SceneDataset(abc.ABC):
  """Base class of all data sets.

  Calling an instance gives a `tf.data.Dataset` of dicts:
    image: [B, T, H, W, C] float32 in [0, 1].
    mask: [B, T, L, H, W, 1] float32, 0 or 1. Not there without masks.
    visibility: [B, L] float32, 1 for the entities of a scene, 0 for padding.
      Not there without masks.
    factors: {name: [B, L, n]} float32, or uint8 where the file holds bytes.

  Scene indices count the scenes of all files one after another, before any
  filter.

  Attributes:
    path: where the scenes are.
    batch_size: B.
    image_dim: (H, W) to resize to, in pixels; None: as they are stored.
    crop_region: ((top, bottom), (left, right)) to keep before resizing, in
      pixels of the stored image, ends excluded; None keeps all.
    shuffle_buffer: number of scenes to shuffle among; None: no shuffling.
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
  image_dim: Sequence[int] | None = None
  crop_region: Sequence[Sequence[int]] | None = None
  shuffle_buffer: int | None = 1000
  grayscale: bool = False
  train: Any = None
  test: Any = None
  num_test_scenes: int | None = None
  seed: int = 0
  cache: str | None = None

  # Names of further options that what a cache keeps depends on.
  kept_options: ClassVar[tuple[str, ...]] = ()

  # Of which a config may ask `make_data`.
  generator_name: ClassVar[str | None] = None

  def __post_init__(self):
    self._regressed: soundness.Factors = ()
    validation.check_whole("batch_size", self.batch_size, 1)
    validation.check_whole(
      "shuffle_buffer", self.shuffle_buffer, 1, "None for no shuffling"
    )
    validation.check_flag("grayscale", self.grayscale)
    validation.check_whole(
      "num_test_scenes", self.num_test_scenes, 1, "None for all"
    )
    validation.check_whole("seed", self.seed, 0)
    if self.cache is not None:
      need = "the path of a folder, or None"
      validation.check_path("cache", self.cache, need)
    if self.image_dim is not None:
      check_image_dim(self.image_dim)
    height, width = self.image_dim or (1, 1)
    memory.require(
      4 * self.batch_size * height * width * (1 if self.grayscale else 3),
      f"`batch_size` {self.batch_size} of {height} x {width} pixels",
      "lower it, or `image_dim`",
    )

  @property
  @abc.abstractmethod
  def num_true_objects(self) -> int:
    """Returns L, the background included; 0 without masks."""

  @property
  def num_frames(self) -> int:
    """Returns T, 1 for stills."""
    return 1

  @property
  def image_size(self) -> tuple[int, int]:
    """Returns (H, W) of the images that come out."""
    assert self.image_dim is not None
    return self.image_dim[0], self.image_dim[1]

  @property
  @abc.abstractmethod
  def image_shape(self) -> tuple[int, int, int]:
    """Returns (H, W, C) of the images that come out."""

  def expect(self, mapping: Any) -> None:
    """Has scenes checked on their way for what a regressor cannot take.

    Args:
      mapping: of `factor_eval.FactorRegressor`; what is none is left to that.
    """
    entries = mapping if validation.is_list(mapping) else ()
    self._regressed = tuple(
      (entry[0], entry[1], entry[2])
      for entry in entries
      if validation.is_list(entry)
      and len(entry) == 3
      and isinstance(entry[0], str)
      and validation.is_whole(entry[1], 1)
    )

  @_untransformed
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

  @_untransformed
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

    def iterate(
      read: Iterator[dict[str, Any]],
    ) -> Iterator[dict[str, Any]]:
      num_batches = 0
      try:
        with self._explained(stream, subset):
          for batch in read:
            num_batches += 1
            yield batch
      finally:
        # Its threads end here, not where an error's traceback is collected.
        del read
      if not num_batches:
        stream.require_scenes()

    # Not a generator itself, so that the checks run at once.
    with self._explained(stream, subset):
      batched = self._batch(stream, subset, skip_batches)
      return iterate(iter(batched.with_options(options)))

  def explained_errors(
    self, subset: str | None = "train"
  ) -> contextlib.AbstractContextManager[None]:
    """Turns errors of who iterates over `__call__`'s batches into sentences.

    Raises:
      UserError: names the file and the record that cannot be read, as `batches`
        does.
    """
    return self._explained(self._raw_stream(subset), subset)

  @contextlib.contextmanager
  def _explained(
    self, stream: streams.Stream, subset: str | None
  ) -> Iterator[None]:
    """Turns errors in reading, and of unsound scenes, into a UserError."""

    def explain(error: Exception) -> str | None:
      return self._find_unsound(subset) if _UNSOUND in str(error) else None

    kinds = (tf.errors.InvalidArgumentError,)
    with stream.explained_errors(), errors.as_user_error(kinds, explain):
      yield

  def _find_unsound(self, subset: str | None) -> str | None:
    """Reads a subset to find the first scene that is not sound, see there.

    It takes as long as a pass over the data.

    Returns:
      A sentence with its place; None if all are.
    """
    # What was read is rather wrong than what a cache has kept of it.
    found = [self._raw_stream(subset), self._stream(subset)]
    for stream in found[: 1 if self.cache is None else 2]:
      for places, batch in stream.scan(self._read):
        rows = soundness.sound_rows(batch, self._regressed)
        for name, fits in rows.items():
          if not all(fits.numpy()):
            row = fits.numpy().tolist().index(False)
            what = soundness.explain(batch, row, name, self._regressed)
            return f"{places[row]} {what}"
    return None

  def expand(self, batch: dict[str, Any]) -> dict[str, Any]:
    """Returns a batch as the model wants it; runs on any device.

    The values are those that `__call__` gives, to the bit on the CPU, compiled
    by XLA or not.

    Args:
      batch: what `__call__` gives, compact or not, of B scenes or some rows:
        image: [B, T, H', W', C] uint8, cropped, or float32 as it is in the end.
        mask: [B, T, 1, H, W, 1] uint8, the number of the entity that a pixel
          belongs to; [B, T, L, H, W, 1] uint8, 0 or 255; or float32 as it is in
          the end.
        visibility, factors: as they are in the end.
    """
    image = batch["image"]
    expanded = dict(batch)
    if image.dtype == tf.uint8:
      scaled = resizing.scale_bytes(fold_frames(image))
      resized = resizing.resize_bilinear(scaled, self.image_size)
      expanded["image"] = unfold_frames(resized, image.shape[1])
    if "mask" in batch:
      expanded["mask"] = self._expand_mask(batch["mask"])
    return expanded

  def _expand_mask(self, mask: tf.Tensor) -> tf.Tensor:
    """Returns a mask [B, T, L, H, W, 1] as float32, see `expand`."""
    if mask.dtype != tf.uint8:
      return mask
    if mask.shape[2] != 1:
      return resizing.scale_bytes(mask)
    one_hot = tf.one_hot(mask[:, :, 0, ..., 0], self.num_true_objects, axis=2)
    return one_hot[..., tf.newaxis]

  def _finish(self, batch: dict[str, Any], compact: bool) -> dict[str, Any]:
    """Returns a batch as `expand` takes it, or as it gives it.

    Args:
      batch: image [B, T, H', W', C] uint8, or float32 in [0, 1], cropped; mask,
        if there are any, uint8 as `expand` takes it; all else as it is in the
        end.
      compact: as for `__call__`.
    """
    image = batch["image"]
    finished = dict(batch)
    # Grey is a mean, which XLA rounds in another way.
    is_exact = image.dtype == tf.uint8 and not self.grayscale
    if not (
      compact
      and is_exact
      and resizing.is_exact(image.shape[2:4], self.image_size)
    ):
      image = preprocess_image(
        fold_frames(image), self.image_size, self.grayscale
      )
      finished["image"] = unfold_frames(image, batch["image"].shape[1])
    if "mask" in batch and not compact:
      finished["mask"] = self._expand_mask(batch["mask"])
    return finished

  def _stream(self, subset: str | None) -> streams.Stream:
    """Returns the scenes of a subset, from the cache where there is one."""
    validation.check_choice(
      "subset", subset, ("train", "summary", "test", None)
    )
    stream = self._raw_stream(subset)
    return stream if self.cache is None else self._cached(stream, self.cache)

  @abc.abstractmethod
  def _raw_stream(self, subset: str | None) -> streams.Stream:
    """Opens the files and returns the scenes of a subset."""

  def _limit(self, subset: str | None) -> int | None:
    """Returns after how many scenes an epoch of a subset ends."""
    limits = {"summary": self.batch_size, "test": self.num_test_scenes}
    return limits.get(subset or "")

  def _cached(self, stream: streams.Stream, folder: str) -> streams.Stream:
    """Returns a stream by way of the cache in a folder."""
    # The first scenes of the training range are not kept a second time.
    is_test = stream.range_name == "test"
    limit = stream.limit if is_test else None
    kept = self._raw_stream("test" if is_test else None)
    if kept.gather is None:
      scenes = streams.read(kept.epoch(), self._read_kept)
    else:
      scenes = kept.epoch().batch(self.batch_size).map(kept.gather).unbatch()
    cached = cache.open_or_make(
      os.path.join(folder, stream.range_name),
      kept,
      scenes,
      {
        "crop_region": self.crop_region,
        "image_dim": self.image_dim,
        **{name: getattr(self, name) for name in self.kept_options},
        **({"num_test_scenes": limit} if is_test else {}),
      },
    )
    return dataclasses.replace(cached, limit=stream.limit)

  def _batch(
    self,
    stream: streams.Stream,
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
    is_partial = stop - start < self.batch_size
    reads_batches = stream.gather is not None
    buffer_size = self.shuffle_buffer if subset == "train" else None
    if buffer_size is not None and not reads_batches and not is_partial:
      # What a record is read to is smaller than the record.
      scenes = stream.repeated(self._read, skip, buffer_size, self.seed)
    else:
      # Only what is wanted is read; without shuffling, that is so anyway.
      if is_test:
        raw = stream.epoch().skip(skip)
      else:
        raw = stream.repeated(None, skip, buffer_size, self.seed)
      chosen = streams.choose_rows(raw, (start, stop), self.batch_size)
      scenes = streams.read(chosen, None if reads_batches else self._read)
    batches = scenes.batch(stop - start, drop_remainder=not is_test)

    def finish(batch: Any) -> dict[str, Any]:
      if stream.gather is not None:
        finished = self._finish_kept(stream.gather(batch), compact)
      else:
        finished = self._finish_read(batch, compact)
      # In the background of a training. An `Assert` would be stateful.
      is_sound = soundness.are_sound(finished, self._regressed)
      flag = tf.where(is_sound, 0.0, math.nan)
      with tf.control_dependencies(
        [tf.debugging.check_numerics(flag, _UNSOUND)]
      ):
        return tf.nest.map_structure(tf.identity, finished)

    batches = batches.map(finish, tf.data.AUTOTUNE, deterministic=True)
    if not is_test:
      batches = batches.apply(
        tf.data.experimental.assert_cardinality(
          tf.data.experimental.INFINITE_CARDINALITY
        )
      )
    return batches.prefetch(tf.data.AUTOTUNE)

  @abc.abstractmethod
  def _finish_kept(
    self, batch: dict[str, Any], compact: bool
  ) -> dict[str, Any]:
    """Returns a batch that a cache or `gather` gives in the form of `__call__`.

    Args:
      batch: such as `_read_kept` gives.
      compact: as for `__call__`.
    """

  # Of data sets whose streams do not gather:

  def _read(self, raw: tf.Tensor) -> dict[str, Any]:
    """Returns one scene, of what stands for it in the stream."""
    raise NotImplementedError

  def _read_kept(self, raw: tf.Tensor) -> dict[str, Any]:
    """Returns one scene as a cache keeps it: with masks of the final size."""
    raise NotImplementedError

  def _finish_read(
    self, batch: dict[str, Any], compact: bool
  ) -> dict[str, Any]:
    """Returns a batch that `_read` gives in the form of `__call__`."""
    raise NotImplementedError
