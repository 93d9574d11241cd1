"""Measures how fast a graph is, and how fast scenes are read.

All times are in seconds, of a wall clock. A machine that others use as well
is slower at one moment than at the next. So a large matrix product is timed
after every step: the share of its rate that a step reaches says more than the
step's time alone.

Dimensions: B batch, T frames, L true entities, H W C image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tqdm

from iodine import training
from iodine.benchmark import operations
from iodine.modules import datasets, distributions, iodine

Data = dict[str, Any]

# Of a side of the matrices that are multiplied, which take 48 MiB.
_MATRIX_SIZE = 2048

# How long scenes are read at least.
_MIN_SECONDS = 2.0


def measure(
  name: str,
  function: Any,
  arguments: Sequence[Any],
  batch_size: int,
  steps: int,
  warmup: int,
  steps_per_call: int = 1,
) -> dict[str, Any]:
  """Times calls of a graph, each followed by a matrix product.

  Args:
    name: what is shown.
    function: a `tf.function` that has not been called.
    arguments: of each call.
    batch_size: B.
    steps: how many calls are timed, at least 1.
    warmup: how many calls come before them, after the first one.
    steps_per_call: how many steps a call makes, whose times are then those of
      one; operations and images are those of a step, too.

  Returns:
    What the json module can write: times, images and operations of a step, and
    the rate of the matrix products. `first_step_seconds` is that of the first
    call, in which TensorFlow optimises the graph.
  """
  print(f"{name}: tracing", flush=True)
  graph, trace_seconds = timed(
    lambda: function.get_concrete_function(*arguments)
  )
  _, first_seconds = timed(lambda: function(*arguments))
  matmul_gflops = _matrix_product()
  for _ in range(warmup):
    function(*arguments)
  seconds, rates = [], [matmul_gflops()]
  for _ in tqdm.trange(steps, desc=name):
    seconds.append(timed(lambda: function(*arguments))[1] / steps_per_call)
    rates.append(matmul_gflops())
  flops_by_op = operations.count(graph)
  flops = sum(flops_by_op.values())
  step, product = _spread(seconds), _spread(rates)
  gflops = flops / step["median"] / 1e9
  return {
    "trace_seconds": trace_seconds,
    "first_step_seconds": first_seconds,
    "step_seconds_median": step["median"],
    "step_seconds": step,
    "images_per_second": batch_size / step["median"],
    "flops_per_step": flops,
    "flops_by_op": flops_by_op,
    "gflops": gflops,
    "matmul_gflops": product["median"],
    "matmul_gflops_spread": product,
    "share_of_matmul": gflops / product["median"],
    # Of the fastest step and product, which were disturbed the least.
    "share_of_matmul_fastest": flops / step["min"] / 1e9 / product["max"],
  }


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
  """Returns a function's result and the time until all devices are done."""
  start = time.perf_counter()
  result = function()
  tf.test.experimental.sync_devices()
  return result, time.perf_counter() - start


def _spread(values: Sequence[float]) -> dict[str, float]:
  names = ("median", "lower_quartile", "upper_quartile", "min", "max")
  percentiles = np.percentile(values, [50, 25, 75, 0, 100])
  return dict(zip(names, percentiles.tolist(), strict=True))


def _matrix_product() -> Callable[[], float]:
  """Returns what multiplies large float32 matrices and tells its rate.

  That is in 1e9 operations a second.
  """
  size = _MATRIX_SIZE
  # Operands are arguments, as a product of constants would be folded.
  matrices = tf.unstack(tf.random.stateless_uniform([2, size, size], [0, 0]))
  product = tf.function(tf.matmul, autograph=False)
  product(*matrices)
  return lambda: 2 * size**3 / timed(lambda: product(*matrices))[1] / 1e9


def measure_input(
  dataset: datasets.SceneDataset, num_batches: int
) -> dict[str, Any]:
  """Reads training batches as a training does, and does nothing with them.

  Args:
    dataset: where they come from.
    num_batches: how many are read after the first one, at least.

  Returns:
    `first_batch_seconds`, with all files to be opened; `scenes_per_second`
    after that; and `num_scenes`, with how many that was measured.
  """
  strategy = tf.distribute.get_strategy()
  feed, opening = timed(lambda: training.Feed(dataset, strategy))
  with feed.explained_errors():
    _, waiting = timed(lambda: next(feed.batches))
    done, start = 0, time.perf_counter()
    while done < num_batches or time.perf_counter() - start < _MIN_SECONDS:
      next(feed.batches)
      done += 1
    seconds = time.perf_counter() - start
  num_scenes = done * dataset.batch_size
  return {
    "first_batch_seconds": opening + waiting,
    "scenes_per_second": num_scenes / seconds,
    "num_scenes": num_scenes,
  }


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
  dataset: datasets.SceneDataset,
  mapping: Sequence[tuple[str, int, str]],
  num_frames: int = 1,
) -> Data:
  """Returns noise in the shape of a data set's batches; no file is read.

  Where the scenes have no masks there are neither masks nor factors.

  Args:
    dataset: gives B, H, W, C and L.
    mapping: the factors, see `FactorRegressor`.
    num_frames: T.
  """
  rng = np.random.default_rng(0)
  batch_size, num_entities = dataset.batch_size, dataset.num_true_objects
  lead = (batch_size, num_frames)
  image = rng.uniform(size=(*lead, *dataset.image_shape))
  batch: Data = {"image": tf.constant(image, tf.float32), "factors": {}}
  if not num_entities:
    return batch
  owner = rng.integers(num_entities, size=(*lead, *dataset.image_shape[:2]))
  mask = owner[:, :, None] == np.arange(num_entities)[:, None, None]
  batch["mask"] = tf.constant(mask[..., None], tf.float32)
  batch["visibility"] = tf.ones([batch_size, num_entities])
  for name, size, kind in mapping:
    shape = (batch_size, num_entities, size if kind == "scalar" else 1)
    if kind == "categorical":
      classes = rng.integers(size, size=shape)
      batch["factors"][name] = tf.constant(classes, tf.uint8)
    else:
      values = rng.uniform(size=shape)
      batch["factors"][name] = tf.constant(values, tf.float32)
  return batch
