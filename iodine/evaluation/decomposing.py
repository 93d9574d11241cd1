"""Scenes decomposed batch by batch, for all that follows from it.

Dimensions: B batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tensorflow as tf

from iodine import errors, replicas
from iodine.modules import iodine

Data = dict[str, Any]
# Takes a batch and seeds [B, 2]; returns nested tensors [B, ...].
Decompose = Callable[[Data, tf.Tensor], Any]


def compiled(
  model: iodine.IODINE,
  describe: Callable[[iodine.IODINE, Data, tf.Tensor], Any],
  strategy: tf.distribute.Strategy | None = None,
) -> Decompose:
  """Compiles what is said about the scenes that a model decomposes.

  Args:
    model: the model.
    describe: takes the model, a batch and seeds [B, 2], and returns nested
      tensors [B, ...].
    strategy: whose replicas share every batch; None for one device.
  """
  strategy = strategy or tf.distribute.get_strategy()
  function = replicas.divided(strategy, functools.partial(describe, model))
  return tf.function(function, autograph=False)


def decompose_batches(
  decompose: Decompose,
  batches: Iterable[Data],
  batch_size: int,
  num_scenes: int | None = None,
  done: int = 0,
) -> Iterator[tuple[range, Callable[[int], Any]]]:
  """Decomposes scenes batch by batch, each of them once.

  The samples of a scene follow from the seed and its number, so that with a
  `refinement_batch_size` the result for a scene depends on no other and on no
  batch size, but for rounding. Without it the result depends on the batch size
  (see `IODINE.__call__`). A smaller batch is therefore filled up to the full
  size with copies of its first scene, which do not count.

  Args:
    decompose: what `compiled` returned.
    batches: batches of at most batch_size scenes.
    batch_size: how many scenes are decomposed at a time.
    num_scenes: stop after so many; None for all.
    done: how many scenes came before these, of the same.

  Yields:
    Of each batch the numbers of its scenes that count, and a function that
    decomposes the batch with samples from a seed.

  Raises:
    errors.UserError: if there is no scene.
  """
  for batch in batches:
    size = batch["image"].shape[0]
    if num_scenes is not None:
      size = min(size, num_scenes - done)

    def run(seed: int, batch: Data = batch, first: int = done) -> Any:
      seeds = scene_seeds(seed, first, batch_size)
      return decompose(_pad(batch, batch_size), seeds)

    yield range(done, done + size), run
    done += size
    if done == num_scenes:
      return
  if not done:
    raise errors.UserError(
      "there is no scene to evaluate: give `data.path` a file with scenes, or "
      "widen `data.test` and the bounds on the number of objects"
    )


def scene_seeds(seed: int, first: int, size: int) -> tf.Tensor:
  """Returns seeds [size, 2] for the scenes from the number `first` on."""
  return tf.constant([[seed, first + i] for i in range(size)], tf.int64)


def _pad(batch: Data, batch_size: int) -> Data:
  """Repeats the first scene of a batch until it has batch_size scenes."""
  size = batch["image"].shape[0]
  if size == batch_size:
    return batch
  rows = [*range(size), *[0] * (batch_size - size)]
  return tf.nest.map_structure(lambda x: tf.gather(x, rows), batch)
