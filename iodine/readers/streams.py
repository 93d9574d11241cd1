"""Which scenes come, and in which order.

The range and the filter handle records, or places in a source of scenes, and at
most look at their visibility, so that they decode no image. Shuffling, too,
would work on records, but what one is read to can be several times smaller.

Dimensions:
  L: entities of a scene, the background among them (entity 0).
"""

import abc
import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from iodine import errors
from iodine.readers import examples, layouts, opening

# Blanks of so many scenes take no memory to speak of.
_SMALL_BUFFER = 10_000
# By how much the public files, which hold more masks than anything, are
# compressed, and twice that.
_MOST_INFLATION = 64

# Slack for a sum of visibilities, which are floats.
_EPSILON = 1e-5
# Scenes that are looked at together.
_BLOCK = 32


@dataclasses.dataclass(kw_only=True)
class Stream(abc.ABC):
  """The scenes of one subset of a data set, in their order.

  What stands for a scene until it is read is its record, or its place.

  Attributes:
    range_name: the argument that sets the range of scenes, for messages.
    limit: number of passing scenes after which an epoch ends; None: all.
    gather: reads a batch of scenes of what stands for them [B]; None where they
      are read one by one.
  """

  range_name: str
  limit: int | None = None
  gather: Callable[[tf.Tensor], dict[str, Any]] | None = None

  def __post_init__(self):
    # Known once a whole epoch was counted.
    self._epoch_size: int | None = None

  @abc.abstractmethod
  def epoch(self) -> tf.data.Dataset:
    """Returns what stands for the scenes that pass, once and in order."""

  @abc.abstractmethod
  def most_scenes(self) -> int:
    """Returns about how many scenes there may be, rather too many."""

  @abc.abstractmethod
  def require_scenes(self) -> None:
    """Checks that there is a scene, as repeating none would never end.

    Raises:
      UserError: if there is none, with the reason.
    """

  @abc.abstractmethod
  def explained_errors(self) -> contextlib.AbstractContextManager[None]:
    """Turns errors in reading scenes into a UserError that says where."""

  @abc.abstractmethod
  def identify(self) -> dict[str, Any]:
    """Returns what decides which scenes there are, by option."""

  @abc.abstractmethod
  def scan(
    self, read_scene: Callable[[tf.Tensor], Any]
  ) -> Iterator[tuple[Sequence[str], dict[str, Any]]]:
    """Yields all scenes of the range by batches, and what to call each.

    Args:
      read_scene: see `repeated`; of use where there is no `gather`.
    """

  def repeated(
    self,
    read_scene: Callable[[tf.Tensor], Any] | None,
    skip: int = 0,
    shuffle_buffer: int | None = None,
    seed: int = 0,
  ) -> tf.data.Dataset:
    """Returns epoch after epoch of scenes, without a gap between them.

    The order is a function of `seed` and the number of the epoch alone, not of
    TensorFlow's global seed. So a run that is resumed after n scenes goes on
    with `skip=n` as if it had not been interrupted.

    Scenes are read before they are shuffled. So the scenes of an epoch that
    are skipped are read too, in parallel to inflating the files, which takes
    longer. Without shuffling, and for whole epochs, they are not.

    Args:
      read_scene: turns a record into a scene, whatever that is; None leaves
        that to the caller.
      skip: number of scenes to leave out at the beginning.
      shuffle_buffer: number of scenes to shuffle among; None: in order.
      seed: decides the order.

    Raises:
      UserError: a file turned out to be corrupt in counting its scenes.
    """
    scenes = _not_empty(self.epoch())
    first_epoch, offset = self._position(skip)
    epochs = tf.data.Dataset.range(first_epoch, tf.int64.max)
    if shuffle_buffer is None:
      in_order = epochs.flat_map(lambda _: scenes).skip(offset)
      return read(in_order, read_scene)
    # Blanks take memory, too. Small buffers stay as they are: they decide the
    # order.
    buffer_size = min(shuffle_buffer, max(self.most_scenes(), _SMALL_BUFFER))

    def shuffled(number: tf.Tensor) -> tf.data.Dataset:
      # A shuffle is seeded by the pair (seed of the graph it is built in, own
      # seed). Setting the former here, in the graph of this function, leaves
      # the global seed as it is and makes the order independent of it. It must
      # not be 0: TensorFlow would ask if the other seed, a tensor, is 0 too.
      if not tf.executing_eagerly():
        tf.random.set_seed(seed % (2**31 - 2) + 1)
      # Later epochs are shuffled as in the original.
      num_blanks = tf.where(number == 0, tf.cast(buffer_size, tf.int64), 0)
      return shuffle(read(scenes, read_scene), buffer_size, number, num_blanks)

    return epochs.flat_map(shuffled).skip(offset)

  def _position(self, skip: int) -> tuple[int, int]:
    """Returns the epoch, and the scenes to skip in it, to skip `skip` scenes.

    Counting a large data set takes minutes. It ends early where `skip` lies
    within the first epoch.
    """
    if not skip:
      return 0, 0
    if self._epoch_size is None:
      with self.explained_errors():
        size = count(self.epoch().take(skip + 1))
      if size > skip:
        return 0, skip
      self._epoch_size = size
    return divmod(skip, self._epoch_size)


@dataclasses.dataclass(kw_only=True)
class RecordStream(Stream):
  """The raw records of one subset of a data set.

  Attributes:
    files: the files, one after another.
    layout: what their records hold.
    scene_range: (start, stop) as scene indices over all files, before the
      filter; a stop of None means the end.
    min_num_objects: smallest sum of visibilities that passes; None: no bound.
    max_num_objects: largest sum that passes; None: no bound.
  """

  files: Sequence[opening.File]
  layout: layouts.Layout
  scene_range: tuple[int, int | None]
  min_num_objects: float | None = None
  max_num_objects: float | None = None

  def __post_init__(self):
    super().__post_init__()
    self._has_scenes = False

  def epoch(self) -> tf.data.Dataset:
    """Returns the records (scalar strings) that pass, once and in order."""
    scenes = opening.read_files(self.files)
    start, stop = self.scene_range
    scenes = scenes.skip(start)
    if stop is not None:
      scenes = scenes.take(stop - start)
    if self.min_num_objects is not None or self.max_num_objects is not None:
      scenes = scenes.filter(self._passes)
    return scenes if self.limit is None else scenes.take(self.limit)

  def most_scenes(self) -> int:
    """Returns about how many scenes the files may have, rather too many."""
    inflated = sum(
      os.path.getsize(file.path) * (_MOST_INFLATION if file.compression else 1)
      for file in self.files
    )
    return 1 + inflated // self.layout.num_bytes

  def require_scenes(self) -> None:
    """Checks that there is a scene, as repeating none would never end.

    Raises:
      UserError: no scene of the range passes the filter, the range begins
        after the last scene, or a file is corrupt before the first that does.
    """
    if self._has_scenes:
      return
    with self.explained_errors():
      if count(self.epoch().take(1)):
        self._has_scenes = True
        return
      total = sum(count(file.records()) for file in self.files)
    names = errors.join_some(
      [file.path for file in self.files], most=3, separator=", "
    )
    start, stop = self.scene_range
    if start >= total:
      raise errors.UserError(
        f"`{self.range_name}` begins at scene {start}, but {names} holds only"
        f" {total} scenes: choose a range within them"
      )
    low, high = self.min_num_objects, self.max_num_objects
    raise errors.UserError(
      f"no scene of {names} in the range from {start} to {stop or total} has a"
      f" sum of visibilities (the background counts) from {low or 0} to"
      f" {'any number' if high is None else high}: change `min_num_objects`,"
      f" `max_num_objects` or `{self.range_name}`"
    )

  def explained_errors(self) -> contextlib.AbstractContextManager[None]:
    """Turns tf.data's errors about a record into a UserError.

    Raises:
      UserError: names the file and the record. To find them, all files are
        read until the first bad record.
    """
    return errors.as_user_error(
      opening.RECORD_ERRORS,
      lambda _: opening.find_bad_record(self.files, self.layout),
    )

  def identify(self) -> dict[str, Any]:
    """Returns what decides which scenes there are, by option."""
    return {
      "data set": self.layout.title,
      self.range_name: list(self.scene_range),
      "min_num_objects": self.min_num_objects,
      "max_num_objects": self.max_num_objects,
      "path": [file.fingerprint() for file in self.files],
    }

  def scan(
    self, read_scene: Callable[[tf.Tensor], Any]
  ) -> Iterator[tuple[Sequence[str], dict[str, Any]]]:
    """Yields scenes and what to call each, see `Stream.scan`."""
    start, stop = self.scene_range
    number = 0  # over all files
    for file in self.files:
      scenes = read(file.records(), read_scene).enumerate()
      for index, batch in scenes.batch(_BLOCK).prefetch(2):
        chosen = [
          row
          for row in range(len(index))
          if start
          <= number + row
          < (number + row + 1 if stop is None else stop)
        ]
        number += len(index)
        if chosen:
          names = [f"record {index[row]} of `{file.path}`" for row in chosen]
          part = slice(chosen[0], chosen[-1] + 1)
          yield (
            names,
            tf.nest.map_structure(lambda x, part=part: x[part], batch),
          )

  def _passes(self, record: tf.Tensor) -> tf.Tensor:
    """Returns whether a record passes the filter, a scalar bool."""
    # The original compares the lower bound with `max_num_objects` too. Here
    # each bound is compared with its own argument.
    num_objects = tf.reduce_sum(self._visibility(record))
    passes = tf.constant(True)
    if self.min_num_objects is not None:
      passes &= num_objects >= self.min_num_objects - _EPSILON
    if self.max_num_objects is not None:
      passes &= num_objects <= self.max_num_objects + _EPSILON
    return passes

  def _visibility(self, record: tf.Tensor) -> tf.Tensor:
    """Returns the visibility [L] of a record; ones if files have none."""
    if "visibility" not in self.layout.features:
      return tf.ones([self.layout.num_entities])
    return examples.parse(record, self.layout, ["visibility"])["visibility"]


class Source(Protocol):
  """Scenes that are at hand in any order, by their numbers.

  Attributes:
    title: what the user calls it, for messages.
    num_scenes: N.
  """

  title: str
  num_scenes: int

  def find_problem(self, places: np.ndarray) -> str | None:
    """Returns a sentence about scenes that cannot be read; None if all can."""

  def fingerprint(self) -> list[Any]:
    """Returns what is other, with great probability, for other scenes."""


@dataclasses.dataclass(kw_only=True)
class PlaceStream(Stream):
  """The scenes of one subset, by their places in a source.

  Attributes:
    source: has the scenes.
    places: [n] numbers of those of the subset, in order.
    options: all else that decides which these are, by name.
  """

  source: Source
  places: np.ndarray
  options: dict[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    super().__post_init__()
    self._without_limit = self.places
    if self.limit is not None:
      self.places = self.places[: self.limit]
    self._epoch_size = len(self.places)

  def epoch(self) -> tf.data.Dataset:
    """Returns the places of the scenes, once and in order."""
    return tf.data.Dataset.from_tensor_slices(self.places)

  def most_scenes(self) -> int:
    """Returns how many scenes there are."""
    return len(self.places)

  def require_scenes(self) -> None:
    """Checks that there is a scene, as repeating none would never end.

    Raises:
      UserError: if there is none.
    """
    if not len(self.places):
      chosen = ", ".join(f"`{k}` {v}" for k, v in self.options.items())
      num = self.source.num_scenes
      raise errors.UserError(
        f"{self.source.title} has {num} scene{'s' if num > 1 else ''}, and none"
        f" is chosen by {chosen}: change these entries of `data`"
      )

  def explained_errors(self) -> contextlib.AbstractContextManager[None]:
    """Turns errors in reading scenes into a UserError.

    Raises:
      UserError: says which scenes cannot be read; all are tried to find them.
    """
    return errors.as_user_error(
      (tf.errors.InvalidArgumentError, tf.errors.UnknownError),
      lambda _: self.source.find_problem(self._without_limit),
    )

  def scan(
    self, read_scene: Callable[[tf.Tensor], Any]
  ) -> Iterator[tuple[Sequence[str], dict[str, Any]]]:
    """Yields scenes and what to call each, see `Stream.scan`."""
    del read_scene
    assert self.gather is not None
    for start in range(0, len(self.places), _BLOCK):
      places = self.places[start : start + _BLOCK]
      names = [f"scene {place} of {self.source.title}" for place in places]
      yield names, self.gather(tf.constant(places))

  def identify(self) -> dict[str, Any]:
    """Returns what decides which scenes there are, by option."""
    return {**self.options, "path": self.source.fingerprint()}


def call(
  reader: Callable[[np.ndarray], Sequence[np.ndarray]],
  places: tf.Tensor,
  types: Sequence[Any],
) -> list[tf.Tensor]:
  """Calls a reader of a source in a graph.

  Args:
    reader: reads scenes at some places; may raise a UserError.
    places: its argument.
    types: of the arrays that it returns.

  Returns:
    What it returns; where it raises, arrays of no elements, whose shape is to
    be checked: TensorFlow would log Python's traceback.
  """
  nothing = [np.zeros([0], tf.as_dtype(kind).as_numpy_dtype) for kind in types]

  def read_or_nothing(chosen: np.ndarray) -> list[np.ndarray]:
    arrays: list[np.ndarray] = []
    errors.message_of(lambda: arrays.extend(reader(chosen)))
    return arrays or nothing

  return tf.numpy_function(read_or_nothing, [places], types, stateful=False)


def read(
  scenes: tf.data.Dataset, read_scene: Callable[[tf.Tensor], Any] | None
) -> tf.data.Dataset:
  """Returns the scenes that records are turned into, in the same order."""
  if read_scene is None:
    return scenes
  return scenes.map(read_scene, tf.data.AUTOTUNE, deterministic=True)


def choose_rows(
  scenes: tf.data.Dataset, rows: tuple[int, int], batch_size: int
) -> tf.data.Dataset:
  """Returns those that are rows [start, stop) of batches of `batch_size`."""
  start, stop = rows
  if stop - start == batch_size:
    return scenes

  def is_chosen(number: tf.Tensor, _: Any) -> tf.Tensor:
    row = number % batch_size
    return (row >= start) & (row < stop)

  return scenes.enumerate().filter(is_chosen).map(lambda _, scene: scene)


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


def _not_empty(scenes: tf.data.Dataset) -> tf.data.Dataset:
  """Returns the same scenes; reading fails where there is none.

  Files may be emptied while a run reads them. To repeat none would never end,
  and TensorFlow hears no signal meanwhile.
  """
  spec = scenes.element_spec
  end = tf.data.Dataset.from_tensors((False, tf.zeros(spec.shape, spec.dtype)))

  def note(seen: tf.Tensor, marked: Any) -> tuple[tf.Tensor, Any]:
    is_scene, scene = marked
    check = tf.debugging.Assert(seen | is_scene, ["there is no scene left"])
    with tf.control_dependencies([check]):
      return seen | is_scene, (is_scene, tf.identity(scene))

  return (
    scenes.map(lambda scene: (True, scene))
    .concatenate(end)
    .scan(tf.constant(False), note)
    .filter(lambda is_scene, _: is_scene)
    .map(lambda _, scene: scene)
  )


def count(dataset: tf.data.Dataset) -> int:
  """Returns the number of elements of a finite dataset, by reading it."""
  start = tf.constant(0, tf.int64)
  return int(dataset.reduce(start, lambda total, _: total + 1))
