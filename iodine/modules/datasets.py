"""What all data sets share: options, batches, crops and sizes, caches.

A data set object keeps options only; it opens its files when it is called, or
asked for what they decide (sizes, numbers of entities).

  scenes of a subset, in their order -> batches as they are stored
    -> bytes and numbers of entities, in their final size, as far as the device
       can go on from there to the same bits (`_compact`)
    -> floats, as the model wants them (`expand`)

The stored form of a batch is what `readers.streams` give: {
  image: [B, T, H', W', C] uint8, or float32 in [0, 1], cropped,
  mask: [B, T, L, H', W', 1] uint8, 0 or 255, or [B, T, 1, H', W', 1] uint8, the
    number of the entity that a pixel belongs to; not there without masks,
  visibility, factors: as they are in the end}.

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
import functools
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import shapeguard
import tensorflow as tf

from iodine import errors, kinds
from iodine.ops import resizing
from iodine.readers import cache, opening, streams, validity

# In the message of TensorFlow's error.
_INVALID = "a scene is not as it must be"

# What reading scenes may raise.
_ERRORS = (*opening.RECORD_ERRORS, tf.errors.UnknownError)

# Options on which scenes do not depend, but for those of their subset.
_OTHER = (
  *("batch_size", "shuffle_buffer", "seed", "cache"),
  *("path", "train", "test", "num_test_scenes"),
)

Paths = kinds.Path | Sequence[kinds.Path]
ImageSize = Annotated[Sequence[kinds.Size], kinds.Length(2, 2)]
_Pair = Annotated[Sequence[kinds.Count], kinds.Length(2, 2)]
Region = Annotated[Sequence[_Pair], kinds.Length(2, 2)]
Range = Annotated[Sequence[kinds.Count | None], kinds.Length(2, 2)]
_Factor = Annotated[list[str | kinds.Positive], kinds.Length(3, 3)]

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
  region = (..., slice(top, bottom), slice(left, right), slice(None))
  return image[region], mask[region]


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
  method = tf.compat.v1.image.ResizeMethod.NEAREST_NEIGHBOR
  # Entities are folded into the batch, as resizing wants four axes.
  return folded(
    lambda x: tf.compat.v1.image.resize(x, list(size), method), masks
  )


def folded(
  function: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor
) -> tf.Tensor:
  """Maps [B, T, ...] -> [B, T, ...] by a function of [B * T, ...]."""
  mapped = function(tf.reshape(images, [-1, *images.shape[2:]]))
  return tf.reshape(mapped, [-1, images.shape[1], *mapped.shape[1:]])


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
    shuffle_buffer: number of records to shuffle among; all other scenes are
      shuffled as a whole; None: no shuffling.
    grayscale: average the colour channels.
    train: [start, stop) scene indices to train on, stop may be None; None: all.
    test: the same for the subset "test".
    num_test_scenes: the subset "test" ends after so many scenes that pass the
      filter; None: it does not.
    seed: decides the order of the training scenes.
    cache: a folder to keep decoded scenes in, made at the first use, see
      docs/data.md; None: decode them whenever they come.
    background: numbers of the stored entities that are the background, which
      become entity 0; none: the background is what belongs to no entity.

  Raises:
    UserError: an argument has a value that makes no sense.
  """

  path: Paths
  batch_size: kinds.Size
  image_dim: ImageSize | None = None
  crop_region: Region | None = None
  shuffle_buffer: kinds.Positive | None = 1000
  grayscale: bool = False
  train: Any = None
  test: Any = None
  num_test_scenes: kinds.Positive | None = None
  seed: kinds.Count = 0
  cache: kinds.Path | None = None
  background: Sequence[kinds.Count] = (0,)

  # Of which a config may ask `make_data`.
  generator_name: ClassVar[str | None] = None

  def __post_init__(self):
    self._regressed: validity.Factors = ()
    self._streams: dict[str | None, streams.Stream] = {}

  @property
  @abc.abstractmethod
  def num_stored_entities(self) -> int:
    """Returns how many entities the scenes have as stored; 0 without masks."""

  @property
  def num_true_objects(self) -> int:
    """Returns L, the background included; 0 without masks."""
    number = self.num_stored_entities
    if number and not {*self.background} <= {*range(number)}:
      raise errors.UserError(
        f"`data.background` is {list(self.background)}, but there are {number} "
        "entities: give numbers of some, which count from 0"
      )
    return number and number - len({*self.background}) + 1

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
    entries = mapping if kinds.fits(mapping, list[_Factor]) else ()
    self._regressed = tuple((name, size, kind) for name, size, kind in entries)

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
        run has consumed them before it was resumed. Records that are shuffled
        are decoded even so, except those of whole epochs; nothing else is.
      rows: (start, stop), the rows of every batch that are wanted; no others
        are decoded. None: all. Of "test", batches without any are left out.
      compact: gives what `expand` takes, a fraction of the bytes.

    Raises:
      UserError: the subset is unknown, a file is missing or of the wrong kind,
        or no scene passes the filter. Records other than the first of a file
        are read in the iteration only, see `batches`.
    """
    stream = self._stream(subset)
    with self._explained(stream):
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
        file, if a scene cannot be read, or if the subset "test" turns out to be
        empty.
    """
    stream = self._stream(subset)
    options = tf.data.Options()
    options.experimental_warm_start = True

    def iterate(
      read: Iterator[dict[str, Any]],
    ) -> Iterator[dict[str, Any]]:
      num_batches = 0
      try:
        with self._explained(stream):
          for batch in read:
            num_batches += 1
            yield batch
          if not num_batches:
            stream.require_scenes()
      finally:
        # Its threads end here, not where an error's traceback is collected.
        del read

    # Not a generator itself, so that the checks run at once.
    with self._explained(stream):
      # The test range can begin after many scenes, which take minutes to pass:
      # as this subset ends, it can be checked afterwards.
      if subset != "test":
        stream.require_scenes()
      batched = self._batch(stream, subset, skip_batches)
      return iterate(iter(batched.with_options(options)))

  def explained_errors(
    self, subset: str | None = "train"
  ) -> contextlib.AbstractContextManager[None]:
    """Turns errors of who iterates over `__call__`'s batches into sentences.

    Raises:
      UserError: names the file that cannot be read, as `batches` does.
    """
    return self._explained(self._stream(subset))

  def _explained(
    self, stream: streams.Stream
  ) -> contextlib.AbstractContextManager[None]:
    """Turns errors in reading, and of scenes that are not valid, into one."""

    def explain(error: Exception) -> str | None:
      if _INVALID in str(error):
        return self._find_invalid(stream)
      return stream.find_problem()

    return errors.as_user_error(_ERRORS, explain)

  def _find_invalid(self, stream: streams.Stream) -> str | None:
    """Reads scenes to find the file of one that is not valid, a sentence."""
    for part in stream.parts():
      for batch in part.batches(streams.Order(self.batch_size, once=True)):
        sentence = validity.explain(part.title, batch, self._regressed)
        if sentence is not None:
          return sentence
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
    expanded = dict(batch)
    image, mask = batch["image"], batch.get("mask")
    if image.dtype == tf.uint8:
      scaled = resizing.scale_bytes(image)
      size = self.image_size
      expanded["image"] = folded(
        lambda x: resizing.resize_bilinear(x, size), scaled
      )
    if mask is not None and mask.dtype == tf.uint8:
      if mask.shape[2] == 1:
        labels = mask[:, :, 0, ..., 0]
        one_hot = tf.one_hot(labels, self.num_true_objects, axis=2)
        expanded["mask"] = one_hot[..., tf.newaxis]
      else:
        expanded["mask"] = resizing.scale_bytes(mask)
    return expanded

  def _with_background(self, batch: dict[str, Any]) -> dict[str, Any]:
    """Returns a batch as it is stored whose entity 0 is the background."""
    ours = [*self.background]
    if ours == [0] or "mask" not in batch:
      return batch
    numbers = range(self.num_stored_entities)
    others = np.array([k for k in numbers if k not in ours], np.int32)
    mask, visibility = batch["mask"], batch["visibility"]
    if mask.shape[2] == 1:
      table = np.full(256, streams.IGNORED, np.uint8)
      table[ours or [streams.NOBODY]] = 0
      table[others] = np.arange(len(others)) + 1
      mask = tf.gather(table, tf.cast(mask, tf.int32))
    else:
      own = tf.gather(mask, ours or numbers, axis=2)
      own = tf.reduce_max(own, 2, keepdims=True)
      own = own if ours else 255 - own
      mask = tf.concat([own, tf.gather(mask, others, axis=2)], 2)

    def with_first(values: tf.Tensor, otherwise: float) -> tf.Tensor:
      if ours:  # of several, the first one's
        return tf.gather(values, [ours[0], *others], axis=1)
      first = tf.fill(tf.shape(values[:, :1]), tf.cast(otherwise, values.dtype))
      return tf.concat([first, values], 1)

    factors = {k: with_first(x, 0.0) for k, x in batch["factors"].items()}
    visibility = with_first(visibility, 1.0)
    return {**batch, "mask": mask, "visibility": visibility, "factors": factors}

  def _compact(self, batch: dict[str, Any]) -> dict[str, Any]:
    """Returns what `expand` takes of a batch as it is stored."""
    image = batch["image"]
    # Grey is a mean, which XLA rounds in another way.
    is_exact = image.dtype == tf.uint8 and not self.grayscale
    if not (is_exact and resizing.is_exact(image.shape[2:4], self.image_size)):
      image = self._resize_image(image)
    return {**self._resize_mask(batch), "image": image}

  def _resize_image(self, image: tf.Tensor) -> tf.Tensor:
    """Maps an image as it is stored -> [B, T, H, W, C] float32 in [0, 1]."""
    size, grayscale = self.image_size, self.grayscale
    return folded(lambda x: preprocess_image(x, size, grayscale), image)

  def _resize_mask(self, batch: dict[str, Any]) -> dict[str, Any]:
    """Returns a batch as it is stored with masks of their final size."""
    if "mask" not in batch:
      return batch
    size = self.image_size
    masks = folded(lambda x: resize_masks(x, size), batch["mask"])
    return {**batch, "mask": masks}

  def _stream(self, subset: str | None) -> streams.Stream:
    """Returns the scenes of a subset, from the cache where there is one."""
    kind = Literal["train", "summary", "test"] | None
    kinds.check("subset", subset, kind)
    if subset not in self._streams:
      stream = self._open(subset)
      if self.cache is not None:
        stream = self._cached(subset, self.cache)
      self._streams[subset] = stream
    return self._streams[subset]

  @abc.abstractmethod
  def _open(self, subset: str | None) -> streams.Stream:
    """Opens the files and returns the scenes of a subset."""

  def _limit(self, subset: str | None) -> int | None:
    """Returns after how many scenes an epoch of a subset ends."""
    limits = {"summary": self.batch_size, "test": self.num_test_scenes}
    return limits.get(subset or "")

  @_untransformed
  def _cached(self, subset: str | None, folder: str) -> streams.Stream:
    """Returns the scenes of a subset by way of a cache in a folder."""
    # The first scenes of the training range are not kept a second time.
    stream = self._open("test" if subset == "test" else None)
    options = dataclasses.asdict(self)
    for option in _OTHER:
      del options[option]
    options.update(
      constructor=type(self).__qualname__,
      scenes=self._range(subset),
      num_scenes=stream.limit,
    )
    content = json.dumps(options, default=str, indent=2)
    name = cache.name_of(content, stream.files)
    place = os.path.join(os.path.expanduser(folder), name)
    with self._explained(stream):
      stream.require_scenes()
      batches = stream.batches(streams.Order(self.batch_size, once=True))
      batches = batches.map(self._resize_mask, tf.data.AUTOTUNE)
      arrays = cache.open_or_make(place, batches, content)
    return streams.PlaceStream(
      title=f"`{place}`",
      limit=self._limit(subset),
      places=np.arange(len(arrays["image"])),
      read=functools.partial(cache.take, arrays),
    )

  def ranges(self) -> tuple[Any, Any]:
    """Returns which scenes are trained on and held out, as `train`, `test`."""
    return self.train, self.test

  def _range(self, subset: str | None) -> Any:
    """Returns which scenes a subset has."""
    train, test = self.ranges()
    return test if subset == "test" else train

  def files(self, subset: str | None = "train") -> Sequence[str]:
    """Returns the files that the scenes of a subset are in."""
    return self._open(subset).files

  def names(self, subset: str | None = "train") -> Sequence[str] | None:
    """Returns a name for each scene of a subset; None where there is none."""
    return None

  def about(self) -> str | None:
    """Returns what there is, a line; None where that takes long to know."""
    return None

  def _batch(
    self,
    stream: streams.Stream,
    subset: str | None,
    skip_batches: int,
    rows: tuple[int, int] | None = None,
    compact: bool = False,
  ) -> tf.data.Dataset:
    """Returns the batches of a stream."""
    is_test = subset == "test"
    order = streams.Order(
      self.batch_size,
      rows,
      skip_batches,
      self.shuffle_buffer if subset == "train" else None,
      self.seed,
      once=is_test,
    )

    def finish(batch: dict[str, Any]) -> dict[str, Any]:
      batch = self._compact(self._with_background(batch))
      if not compact:
        batch = self.expand(batch)
      # In the background of a training. An `Assert` would be stateful.
      is_valid = validity.all_valid(batch, self._regressed)
      flag = tf.where(is_valid, 0.0, math.nan)
      check = tf.debugging.check_numerics(flag, _INVALID)
      with tf.control_dependencies([check]):
        return tf.nest.map_structure(tf.identity, batch)

    batches = stream.batches(order)
    batches = batches.map(finish, tf.data.AUTOTUNE, deterministic=True)
    if not is_test:
      batches = batches.apply(
        tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
      )
    return batches.prefetch(tf.data.AUTOTUNE)


def ranges_of(dataset: Any) -> Sequence[Any]:
  """Returns `ranges` of a data set.

  Of one that tells neither `train` nor `test`, the names of the subsets, which
  are different ones.
  """
  if isinstance(dataset, SceneDataset):
    return dataset.ranges()
  return [getattr(dataset, name, name) for name in ("train", "test")]
