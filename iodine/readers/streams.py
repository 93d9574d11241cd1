"""Which scenes come, and in which order.

Records come one after another, and are shuffled among those that were read
last. Scenes that are at hand in any order are shuffled by their places, all of
an epoch, and none is read but those that come.

Dimensions:
  B: scenes of a batch.
  T: frames of a scene.
  L: entities of a scene, the background among them (entity 0).
"""

import atexit
import contextlib
import dataclasses
import functools
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine import errors
from iodine.readers import examples, layouts, opening

Scene = dict[str, Any]

# In the place of an entity's number: pixels that belong to none, and those that
# are not to count.
NOBODY, IGNORED = 254, 255
# So many have numbers.
MOST_ENTITIES = 254

# Blanks of so many scenes take no memory to speak of.
_SMALL_BUFFER = 10_000
# By how much the public files, which hold more masks than anything, are
# compressed, and twice that.
_MOST_INFLATION = 64

# So long nobody asks for scenes any more.
_QUIET_SECONDS = 0.05

# Slack for a sum of visibilities, which are floats.
_EPSILON = 1e-5


def are_within(sums: Any, low: float | None, high: float | None) -> Any:
  """Returns whether sums of visibilities are within bounds, None is none."""
  # The original compares the lower bound with `max_num_objects` too. Here each
  # bound is compared with its own argument.
  least = -math.inf if low is None else low - _EPSILON
  most = math.inf if high is None else high + _EPSILON
  return (sums >= least) & (sums <= most)


@dataclasses.dataclass(frozen=True)
class Order:
  """Which batches come.

  Attributes:
    batch_size: B.
    rows: (start, stop), the rows of every batch that are wanted; None: all.
    skip_batches: how many to leave out at the beginning.
    shuffle_buffer: number of records to shuffle among; None for no shuffling.
    seed: decides the order.
    once: whether they end with the epoch; else epoch follows on epoch, without
      a gap between them.
  """

  batch_size: int
  rows: tuple[int, int] | None = None
  skip_batches: int = 0
  shuffle_buffer: int | None = None
  seed: int = 0
  once: bool = False

  @property
  def num_rows(self) -> int:
    """Returns how many rows of a batch are wanted."""
    start, stop = self.rows or (0, self.batch_size)
    return stop - start

  def scenes(
    self,
    epoch: Callable[[tf.Tensor], tf.data.Dataset],
    position: Callable[[int], tuple[int, int]],
  ) -> tf.data.Dataset:
    """Returns the scenes of those rows that are wanted, one after another.

    Args:
      epoch: gives all scenes of an epoch, by its number.
      position: gives the number of the epoch, and how many scenes of it are
        left out, if so many of all are.
    """
    skip = self.skip_batches * self.batch_size
    first, offset = (0, skip) if self.once else position(skip)
    epochs = tf.data.Dataset.range(first, 1 if self.once else tf.int64.max)
    scenes = epochs.flat_map(epoch).skip(offset)
    if self.rows is None:
      return scenes
    start, stop = self.rows

    def is_chosen(number: tf.Tensor, _: Any) -> tf.Tensor:
      row = number % self.batch_size
      return (row >= start) & (row < stop)

    return scenes.enumerate().filter(is_chosen).map(lambda _, scene: scene)


@functools.cache
def tell(line: str) -> None:
  """Says once what was found in scenes."""
  print(line, flush=True)


class Clips(NamedTuple):
  """How a film gives scenes, one after the other, without an overlap.

  Attributes:
    num_frames: T.
    stride: every so many frames of the film one is taken.
  """

  num_frames: int
  stride: int

  def count(self, length: Any) -> Any:
    """Returns how many scenes a film of so many frames gives."""
    span = (self.num_frames - 1) * self.stride + 1
    return (length - span) // (self.num_frames * self.stride) + 1

  def frames(self, number: tf.Tensor) -> tf.Tensor:
    """Returns the numbers of the frames of a scene [T], by its number."""
    first = number * self.num_frames
    return (first + tf.range(self.num_frames, dtype=first.dtype)) * self.stride


def cut_films(
  length: int | None, frames: int | None, stride: int, stills: bool
) -> Clips:
  """Returns the scenes that films of a length give.

  Args:
    length: in frames; None: they differ.
    frames: T; None: as many as a film gives.
    stride: every so many frames of a film one is taken.
    stills: whether T is 1.
  """
  number = 1 if stills else frames or len(range(0, length or 0, stride))
  clips = Clips(number, stride)
  if not number or (length is not None and clips.count(length) < 1):
    raise errors.UserError(
      f"the films have {length or 'several numbers of'} frames, where `frames`"
      f" is {frames} and `stride` {stride}: give fewer"
    )
  return clips


@dataclasses.dataclass(kw_only=True)
class RecordStream:
  """The scenes of records, one after another.

  The range and the filter handle raw records, and at most look at their
  visibility, so that they decode no image.

  Attributes:
    title: what the user calls them.
    opened: the files, one after another.
    layout: what their records hold.
    read: turns a record into a scene.
    range_name: the option that sets the range of scenes, for messages.
    scene_range: (start, stop) as scene indices over all files, before the
      filter; a stop of None means the end.
    bounds: smallest and largest sum of visibilities that passes the filter;
      None: no bound.
    limit: number of passing scenes after which an epoch ends; None: all.
    num_clips: returns how many scenes a record gives, which `read` then takes
      as {"record": it, "clip": the number of the scene in it}; None: it is one.
  """

  title: str
  opened: Sequence[opening.File]
  layout: layouts.Layout
  read: Callable[[Any], Scene]
  range_name: str
  scene_range: tuple[int, int | None] = (0, None)
  bounds: tuple[float | None, float | None] = (None, None)
  limit: int | None = None
  num_clips: Callable[[Any], Any] | None = None

  def __post_init__(self):
    # Known once a whole epoch was counted.
    self._epoch_size: int | None = None
    self._has_scenes = False

  def batches(self, order: Order) -> tf.data.Dataset:
    """Returns batches of scenes.

    What a record is read to is smaller than the record, so that it is read
    before it is shuffled, unless only some rows of the batches are wanted.

    The order is a function of the seed and the number of the epoch alone, not
    of TensorFlow's global seed. Scenes that are skipped are read, in parallel
    to inflating the files, which takes longer; those of whole epochs are not.
    """
    is_shuffled = order.shuffle_buffer is not None
    is_read = is_shuffled and order.num_rows == order.batch_size
    scenes = self.epoch()
    if is_read:
      scenes = scenes.map(self.read, tf.data.AUTOTUNE, deterministic=True)
    # Blanks take memory, too. Small buffers stay as they are: they decide the
    # order.
    most = max(self._most_scenes(), _SMALL_BUFFER)
    buffer_size = min(order.shuffle_buffer or 0, most)

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
      if not is_shuffled:
        return scenes
      # A shuffle is seeded by the pair (seed of the graph it is built in, own
      # seed). Setting the former here, in the graph of this function, leaves
      # the global seed as it is and makes the order independent of it. It must
      # not be 0: TensorFlow would ask if the other seed, a tensor, is 0 too.
      if not tf.executing_eagerly():
        tf.random.set_seed(order.seed % (2**31 - 2) + 1)
      # Later epochs are shuffled as in the original.
      num_blanks = tf.where(number == 0, tf.cast(buffer_size, tf.int64), 0)
      return shuffle(scenes, buffer_size, number, num_blanks)

    chosen = order.scenes(epoch, self._position)
    if not is_read:
      chosen = chosen.map(self.read, tf.data.AUTOTUNE, deterministic=True)
    return chosen.batch(order.num_rows, drop_remainder=not order.once)

  def epoch(self) -> tf.data.Dataset:
    """Returns what `read` takes of the scenes that pass, once and in order."""
    scenes = self._records()
    if self.num_clips is not None:
      scenes = scenes.flat_map(self._clips)
    start, stop = self.scene_range
    scenes = scenes.skip(start)
    if stop is not None:
      scenes = scenes.take(max(stop - start, 0))
    if self.bounds != (None, None):
      scenes = scenes.filter(self._passes)
    return scenes if self.limit is None else scenes.take(self.limit)

  def _records(self) -> tf.data.Dataset:
    """Returns all records (scalar strings), once and in order."""
    return opening.read_files(self.opened)

  def _clips(self, record: Any) -> tf.data.Dataset:
    """Returns the scenes of a record, see `num_clips`."""
    assert self.num_clips is not None
    numbers = tf.data.Dataset.range(tf.cast(self.num_clips(record), tf.int64))
    return numbers.map(lambda number: {"record": record, "clip": number})

  def _position(self, skip: int) -> tuple[int, int]:
    """Returns the epoch, and the scenes to skip in it, to skip `skip` scenes.

    Counting a large data set takes minutes. It ends early where `skip` lies
    within the first epoch.
    """
    if not skip:
      return 0, 0
    if self._epoch_size is None:
      size = _count(self.epoch().take(skip + 1))
      if size > skip:
        return 0, skip
      self._epoch_size = size
    return divmod(skip, self._epoch_size)

  def _most_scenes(self) -> int:
    """Returns about how many scenes the files may have, rather too many."""
    inflated = sum(
      os.path.getsize(file.path) * (_MOST_INFLATION if file.compression else 1)
      for file in self.opened
    )
    # Masks have three bytes a pixel, of films one.
    num_bytes = 3 if self.layout.num_frames is None else 1
    num_pixels = math.prod(self.layout.image_shape[:2])
    return 1 + inflated // (num_bytes * self.layout.num_entities * num_pixels)

  def require_scenes(self) -> None:
    """Checks that there is a scene, as repeating none would never end."""
    self._has_scenes = self._has_scenes or _count(self.epoch().take(1)) > 0
    if self._has_scenes:
      return
    start, stop = self.scene_range
    low, high = self.bounds
    raise errors.UserError(
      f"no scene of {self.title} in the range from {start} to"
      f" {'the end' if stop is None else stop} has a sum of visibilities (the"
      f" background counts) from {low or 0} to {high or 'any number'}: change"
      f" `min_num_objects`, `max_num_objects` or `{self.range_name}`"
    )

  @property
  def files(self) -> list[str]:
    """Returns the files that the scenes are in."""
    return [file.path for file in self.opened]

  def find_problem(self) -> str | None:
    """Returns what could not be read; all files are read until then."""
    return opening.find_bad_record(self.opened, self.layout)

  def parts(self) -> Iterator["RecordStream"]:
    """Yields all scenes of each file, those that are not chosen, too."""
    every = dataclasses.replace(
      self, scene_range=(0, None), bounds=(None, None), limit=None
    )
    for file in self.opened:
      title = f"`{file.path}`"
      yield dataclasses.replace(every, title=title, opened=[file])

  def _passes(self, record: tf.Tensor) -> tf.Tensor:
    """Returns whether a record passes the filter, a scalar bool."""
    visibility = tf.ones([self.layout.num_entities])
    if "visibility" in self.layout.features:
      scene = examples.parse(record, self.layout, ["visibility"])
      visibility = scene["visibility"]
    return are_within(tf.reduce_sum(visibility), *self.bounds)


@dataclasses.dataclass(kw_only=True)
class ElementStream(RecordStream):
  """The scenes of a tf.data.Dataset, whose elements are the records.

  Attributes:
    elements: in an order that is always the same; `opened` are their files, as
      far as these are known.
  """

  elements: tf.data.Dataset

  def _records(self) -> tf.data.Dataset:
    return self.elements

  def _most_scenes(self) -> int:
    return sys.maxsize

  def find_problem(self) -> str | None:
    """Returns what could not be read; all is read until then."""
    scenes = self.epoch().map(self.read)
    problem = errors.message_of(lambda: _count(scenes), (tf.errors.OpError,))
    return problem and (
      f"{self.title} has a scene that cannot be read"
      f" ({errors.reason(ValueError(problem))}): mend it, or change"
      f" `{self.range_name}` or what else `data` says of it"
    )

  def parts(self) -> Iterator["ElementStream"]:
    """Yields the stream itself."""
    yield self


@dataclasses.dataclass(kw_only=True)
class PlaceStream:
  """Scenes that are at hand in any order, by their places in a source.

  Attributes:
    title: what the user calls them.
    places: [n] those of the subset, in order.
    read: reads the scenes at some places [B], as NumPy arrays.
    files: that they are in.
    chosen_by: what has chosen the places, for messages.
    limit: number of scenes after which an epoch ends; None: all.
  """

  title: str
  places: np.ndarray
  read: Callable[[np.ndarray], Scene]
  files: Sequence[str] = ()
  chosen_by: str = ""
  limit: int | None = None

  def __post_init__(self):
    self.places = self.places[: self.limit]
    self._problem: str | None = None

  def batches(self, order: Order) -> tf.data.Dataset:
    """Returns batches of scenes."""
    self.require_scenes()
    places = tf.constant(self.places)

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
      chosen = places
      if order.shuffle_buffer is not None:
        seed = tf.stack([tf.constant(order.seed, tf.int64), number])
        chosen = tf.random.experimental.stateless_shuffle(places, seed)
      return tf.data.Dataset.from_tensor_slices(chosen)

    # What is skipped are places, and no more than one epoch of them.
    chosen = order.scenes(epoch, lambda skip: divmod(skip, len(self.places)))
    batches = chosen.batch(order.num_rows, drop_remainder=not order.once)
    return batches.map(self._gather(), tf.data.AUTOTUNE, deterministic=True)

  def _gather(self) -> Callable[[tf.Tensor], Scene]:
    """Returns `read` as an operation of a graph."""
    sample = self.read(self.places[:1])
    flat = tf.nest.flatten(sample)
    # TensorFlow would log the traceback of a Python error: shapes are checked
    # instead.
    nothing = [np.zeros([0], part.dtype) for part in flat]

    calls = _calls()

    def read_or_nothing(places: np.ndarray) -> list[np.ndarray]:
      found: list[np.ndarray] = []
      with calls.one() as is_wanted:
        if is_wanted:
          problem = errors.message_of(
            lambda: found.extend(tf.nest.flatten(self.read(places))),
            (errors.UserError, OSError),
          )
          self._problem = problem or self._problem
      return found or nothing

    def gather(places: tf.Tensor) -> Scene:
      parts = tf.numpy_function(
        read_or_nothing, [places], [part.dtype for part in flat], stateful=False
      )
      shaped = [
        tf.ensure_shape(part, [places.shape[0], *like.shape[1:]])
        for part, like in zip(parts, flat, strict=True)
      ]
      scene: Scene = tf.nest.pack_sequence_as(sample, shaped)
      return scene

    return gather

  def require_scenes(self) -> None:
    """Checks that there is a scene, see `RecordStream.require_scenes`."""
    if not len(self.places):
      raise errors.UserError(
        f"{self.title} has scenes, but none is chosen by {self.chosen_by}:"
        " change these entries of `data`"
      )

  def find_problem(self) -> str | None:
    """Returns what could not be read, a sentence; None if nothing is known."""
    return self._problem

  def parts(self) -> Iterator["PlaceStream"]:
    """Yields the stream itself."""
    yield self


class _Calls:
  """Calls of Python from TensorFlow's threads, over when Python ends.

  Python stops threads that want to run it after its end, and an iterator that
  somebody still holds waits for its threads, for ever then. So nothing is read
  from the beginning of the end on, until all buffers are full.
  """

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._begun = self._ended = 0
    self._is_end = False

  @contextlib.contextmanager
  def one(self) -> Iterator[bool]:
    """Counts a call, and says whether anything is to be read."""
    with self._lock:
      self._begun += 1
    try:
      yield not self._is_end
    finally:
      with self._lock:
        self._ended += 1

  def end(self) -> None:
    """Waits until there are no more."""
    self._is_end, before = True, -1
    while self._begun != before or self._ended != before:
      before = self._begun
      time.sleep(_QUIET_SECONDS)


@functools.cache
def _calls() -> _Calls:
  """Returns those of this process."""
  calls = _Calls()
  atexit.register(calls.end)
  return calls


Stream = RecordStream | PlaceStream


def shuffle(
  scenes: tf.data.Dataset,
  buffer_size: int,
  seed: int | tf.Tensor,
  num_blanks: int | tf.Tensor = 0,
) -> tf.data.Dataset:
  """Returns the scenes shuffled, without waiting for the buffer to fill.

  A thousand scenes that pass a filter can take minutes to read. So the buffer
  can be filled with blanks in front of the scenes, which cost nothing and are
  thrown away as they come out, one for each scene that goes in: the first
  scene comes out after about 1.25 * sqrt(buffer_size) have gone in. The first
  few thousand scenes are then less well mixed, early ones among early ones.

  Args:
    scenes: of one epoch.
    buffer_size: number of scenes to shuffle among.
    seed: decides the order, together with the seed of the graph.
    num_blanks: 0, or buffer_size to begin at once.
  """
  blank = tf.nest.map_structure(
    lambda spec: tf.zeros(spec.shape, spec.dtype), scenes.element_spec
  )
  # Repeated, a blank is in memory only once.
  blanks = tf.data.Dataset.from_tensors((False, blank)).repeat(num_blanks)
  marked = blanks.concatenate(scenes.map(lambda scene: (True, scene)))
  return (
    marked.shuffle(buffer_size, seed=seed, reshuffle_each_iteration=False)
    .filter(lambda is_scene, _: is_scene)
    .map(lambda _, scene: scene)
  )


def _count(dataset: tf.data.Dataset) -> int:
  """Returns the number of elements of a finite dataset, by reading it."""
  return int(dataset.reduce(np.int64(0), lambda total, _: total + 1))
