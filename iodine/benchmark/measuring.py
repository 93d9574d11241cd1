"""Measures how fast a model is, and what it costs; prints nothing.

All times are in seconds, of a wall clock. A machine that others use as well
is slower at one moment than at the next. So a large matrix product is timed
after every step: the share of its rate that a step reaches says more than the
step's time alone.

Dimensions: B batch, T frames, L true entities, H W C image.
"""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine.benchmark import operations
from iodine.modules import data as data_lib
from iodine.modules import distributions, iodine
from iodine.readers import examples, opening, paths

Data = dict[str, Any]


class Spread(NamedTuple):
  """How values that were measured several times are distributed."""

  median: float
  lower_quartile: float
  upper_quartile: float
  min: float
  max: float

  @classmethod
  def of(cls, values: Sequence[float]) -> Spread:
    """Sums up at least one value."""
    return cls(*(float(x) for x in np.percentile(values, [50, 25, 75, 0, 100])))


# ----------------------------------------------------------------- graphs


class FirstCall(NamedTuple):
  """What the first call of a graph costs.

  Attributes:
    graph: the concrete function.
    trace_seconds: for making the graph.
    first_seconds: for the first call after that, in which TensorFlow
      optimises the graph.
  """

  graph: Any
  trace_seconds: float
  first_seconds: float


class Measurements(NamedTuple):
  """What the calls of a graph cost.

  Attributes:
    first: of the first call.
    seconds: of a call.
    matmul_gflops: rate of the matrix products between the calls.
    flops_by_op: operations of a call, see `operations.count`.
    batch_size: B.
  """

  first: FirstCall
  seconds: Spread
  matmul_gflops: Spread
  flops_by_op: dict[str, int]
  batch_size: int

  @property
  def flops(self) -> int:
    """Counts the floating-point operations of a call."""
    return sum(self.flops_by_op.values())

  @property
  def images_per_second(self) -> float:
    """Images that go through, at the median time of a call."""
    return self.batch_size / self.seconds.median

  @property
  def gflops(self) -> float:
    """Returns its rate in 1e9 operations a second, at the median time."""
    return self.flops / self.seconds.median / 1e9

  @property
  def share_of_matmul(self) -> float:
    """Returns that rate as a share of the matrix products'."""
    return self.gflops / self.matmul_gflops.median

  @property
  def share_of_matmul_fastest(self) -> float:
    """Returns it for the fastest call and product, disturbed the least."""
    gflops = self.flops / self.seconds.min / 1e9
    return gflops / self.matmul_gflops.max

  def as_json(self) -> dict[str, Any]:
    """Returns what the json module can write; "step" stands for a call."""
    return {
      "trace_seconds": self.first.trace_seconds,
      "first_step_seconds": self.first.first_seconds,
      "step_seconds_median": self.seconds.median,
      "step_seconds": self.seconds._asdict(),
      "images_per_second": self.images_per_second,
      "flops_per_step": self.flops,
      "flops_by_op": self.flops_by_op,
      "gflops": self.gflops,
      "matmul_gflops": self.matmul_gflops.median,
      "matmul_gflops_spread": self.matmul_gflops._asdict(),
      "share_of_matmul": self.share_of_matmul,
      "share_of_matmul_fastest": self.share_of_matmul_fastest,
    }


def first_call(trace: Callable[[], Any], call: Callable[[], Any]) -> FirstCall:
  """Traces a function and calls it for the first time.

  Args:
    trace: makes the graph and returns the concrete function.
    call: runs it.
  """
  graph, trace_seconds = _timed(trace)
  _, first_seconds = _timed(call)
  return FirstCall(graph, trace_seconds, first_seconds)


def measure(
  first: FirstCall,
  call: Callable[[], Any],
  batch_size: int,
  steps: int,
  warmup: int,
  matmul: MatmulRate,
  on_progress: Callable[[int], None] = lambda done: None,
  steps_per_call: int = 1,
) -> Measurements:
  """Times calls, each followed by a matrix product.

  Args:
    first: of the first call, which is over.
    call: runs the graph.
    batch_size: how many images a call takes.
    steps: how many calls are timed, at least 1.
    warmup: how many calls come before them.
    matmul: times a matrix product.
    on_progress: called with the number of timed calls.
    steps_per_call: how many steps a call makes, whose times are then those of
      one; the graph and the images are those of a step, too.
  """
  for _ in range(warmup):
    call()
  seconds, rates = [], [matmul()]
  for done in range(1, steps + 1):
    seconds.append(_timed(call)[1] / steps_per_call)
    rates.append(matmul())
    on_progress(done)
  return Measurements(
    first,
    Spread.of(seconds),
    Spread.of(rates),
    operations.count(first.graph),
    batch_size,
  )


class MatmulRate:
  """The rate of a product of square float32 matrices.

  The three matrices take 48 MiB.
  """

  def __init__(self, size: int = 2048):
    """Makes the matrices [size, size] and runs the product once."""
    # Operands are arguments, as a product of constants would be folded.
    self._matrices = [
      tf.random.stateless_uniform([size, size], [0, i]) for i in range(2)
    ]
    self._operations = 2 * size**3
    self._product = tf.function(tf.matmul, autograph=False)
    self._product(*self._matrices)

  def __call__(self) -> float:
    """Runs it once; 1e9 operations a second."""
    _, seconds = _timed(lambda: self._product(*self._matrices))
    return self._operations / seconds / 1e9


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
  """Returns a function's result and the time until all devices are done."""
  start = time.perf_counter()
  result = function()
  tf.test.experimental.sync_devices()
  return result, time.perf_counter() - start


# --------------------------------------------------------- what is measured


def segment(
  model: iodine.IODINE, images: tf.Tensor, seed: tf.Tensor
) -> dict[str, tf.Tensor]:
  """Returns the least that a user of a trained model wants.

  Args:
    model: the model.
    images: [B, T, H, W, C].
    seed: [2] integers to draw samples from.

  Returns:
    mask [B, K, H, W, 1] and reconstruction [B, 1, H, W, C] of the final
    estimate.
  """
  last = model.last_estimate(images, seed)
  rendering = distributions.render(last.x_dist)
  return {"mask": rendering.masks, "recons": rendering.reconstruction}


class Noise:
  """Stands in for the batches of a data set."""

  def __init__(self, batch: Data):
    """Gives this batch again and again."""
    self._batch = batch
    self.batch_size = batch["image"].shape[0]

  def __call__(self, *_: Any) -> tf.data.Dataset:
    """Returns the batches, whatever is asked for."""
    return tf.data.Dataset.from_tensors(self._batch).repeat()


def synthetic_batch(
  dataset: data_lib.IODINEDataset,
  mapping: Sequence[tuple[str, int, str]] = (),
  seed: int = 0,
  num_frames: int = 1,
) -> Data:
  """Returns noise in the shape of a data set's batches; no file is read.

  Where the scenes have no masks there are neither masks nor factors.

  Args:
    dataset: gives B, H, W, C and L.
    mapping: the factors, see `FactorRegressor`.
    seed: the noise follows from it.
    num_frames: T.
  """
  rng = np.random.default_rng(seed)
  batch_size, num_entities = dataset.batch_size, dataset.num_true_objects
  lead = (batch_size, num_frames)
  image = rng.uniform(size=(*lead, *dataset.image_shape))
  if not num_entities:
    return {"image": tf.constant(image, tf.float32), "factors": {}}
  owner = rng.integers(num_entities, size=(*lead, *dataset.image_shape[:2]))
  mask = owner[:, :, None] == np.arange(num_entities)[:, None, None]
  factors = {}
  for name, size, kind in mapping:
    if kind == "categorical":
      classes = rng.integers(size, size=(batch_size, num_entities, 1))
      factors[name] = tf.constant(classes, tf.uint8)
    else:
      num_values = 1 if kind == "angle" else size
      values = rng.uniform(size=(batch_size, num_entities, num_values))
      factors[name] = tf.constant(values, tf.float32)
  return {
    "image": tf.constant(image, tf.float32),
    "mask": tf.constant(mask[..., None], tf.float32),
    "visibility": tf.ones([batch_size, num_entities]),
    "factors": factors,
  }


class Decoding(NamedTuple):
  """How long it takes to decode a scene that has been read and inflated.

  Attributes:
    seconds: with the parser in use.
    plain_seconds: with TensorFlow's, of the same scene in the same run.
    speedup: median of their ratios.
  """

  seconds: float
  plain_seconds: float
  speedup: float


def measure_decoding(
  dataset: data_lib.IODINEDataset, num_scenes: int = 100, rounds: int = 5
) -> Decoding:
  """Decodes the first scene of a data set again and again, both ways.

  Args:
    dataset: whose files are there.
    num_scenes: how often in a round. To begin a round takes as long as to
      decode a few scenes, so there should be many.
    rounds: how often both parsers take turns.
  """
  layout = dataset.layout
  (file, *_) = opening.open_files(dataset.path, layout)
  (record,) = file.records().take(1)
  raw = tf.data.Dataset.from_tensors(record).repeat(num_scenes)

  def decoding(names: list[str] | None) -> Callable[[], Any]:
    scenes = raw.map(lambda record: examples.parse(record, layout, names))
    return lambda: scenes.reduce(0, lambda total, _: total + 1)

  plain, fast = map(decoding, (list(layout.features), None))
  seconds = [(_timed(plain)[1], _timed(fast)[1]) for _ in range(rounds + 1)]
  times = np.array(seconds[1:]) / num_scenes  # without the first calls
  return Decoding(
    float(np.median(times[:, 1])),
    float(np.median(times[:, 0])),
    float(np.median(times[:, 0] / times[:, 1])),
  )


class Pipeline(NamedTuple):
  """How fast scenes are read.

  Attributes:
    first_batch_seconds: until the first batch, with all files to be opened.
    scenes_per_second: after that, if nothing else runs.
    num_scenes: how many that rate was measured with.
  """

  first_batch_seconds: float
  scenes_per_second: float
  num_scenes: int


def measure_pipeline(
  dataset: data_lib.IODINEDataset, num_batches: int, min_seconds: float = 2.0
) -> Pipeline:
  """Reads training batches, in their compact form, and does nothing with them.

  Args:
    dataset: where they come from.
    num_batches: how many are read after the first one, at least.
    min_seconds: how long they are read, at least.
  """
  with dataset.explained_errors("train"):
    batches, opening = _timed(lambda: iter(dataset("train", compact=True)))
    _, waiting = _timed(lambda: next(batches))
    done, start = 0, time.perf_counter()
    while done < num_batches or time.perf_counter() - start < min_seconds:
      next(batches)
      done += 1
    seconds = time.perf_counter() - start
  num_scenes = done * dataset.batch_size
  return Pipeline(opening + waiting, num_scenes / seconds, num_scenes)


def has_files(path: str | Sequence[str]) -> bool:
  """Returns whether the `path` of a data set leads to something.

  Raises:
    errors.UserError: if it is not a path.
  """
  patterns = paths.entries(path)
  return any(glob.glob(pattern) for pattern in patterns)


# -------------------------------------------------------------------- lines


class Line(NamedTuple):
  """A straight line through measured points."""

  intercept: float
  slope: float


def fit_line(x: Sequence[float], y: Sequence[float]) -> Line:
  """Fits a line by least squares to points of at least two different x."""
  slope, intercept = np.polyfit(x, y, 1)
  return Line(float(intercept), float(slope))
