"""Scores on held-out scenes, again and again while a model is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from iodine import errors, evaluation
from iodine.modules import datasets, iodine, types


class HeldOut:
  """The scenes on which a training is validated, kept in memory.

  They are the first of the data set's test subset, and each is decomposed from
  the same samples every time, so that the scores of different steps can be
  compared.
  """

  def __init__(self, dataset: types.DataSet, num_scenes: int):
    """Begins to read, in the background where the data set does.

    Args:
      dataset: whose test subset has the scenes.
      num_scenes: how many.
    """
    _check_held_out(dataset)
    self._num_scenes = num_scenes
    self._batch_size = dataset.batch_size
    self._unread = iter(dataset.batches("test"))
    self._batches: list[dict[str, Any]] = []

  def read(self) -> None:
    """Reads the scenes, unless that is done."""
    missing = self._num_scenes - sum(map(_size, self._batches))
    while missing > 0 and (batch := next(self._unread, None)):
      self._batches.append(batch)
      missing -= _size(batch)
    self._unread = iter(())  # which lets go of the files
    if not self._batches:
      raise errors.UserError(
        "there is no scene to validate on: widen `data.test`, or leave out "
        "`validate_every`"
      )

  def scorer(
    self, model: iodine.IODINE, strategy: tf.distribute.Strategy
  ) -> Callable[[], dict[str, float]]:
    """Returns a function that evaluates the model as it is then.

    It gives the means of the final decode by the names of metrics, see
    `evaluation.evaluate`, and makes its graph at the first call.

    Args:
      model: the model.
      strategy: whose replicas share every batch. All workers call the function.
    """
    size = self._batch_size
    score = evaluation.compiled(model, evaluation.score_batch, strategy)

    def scores() -> dict[str, float]:
      result = evaluation.evaluate(
        model, self._batches, size, num_scenes=self._num_scenes, score=score
      )
      return {name: value.mean for name, value in result.metrics.items()}

    return scores


def _size(batch: dict[str, Any]) -> int:
  return int(batch["image"].shape[0])


def _check_held_out(dataset: types.DataSet) -> None:
  """Checks the ranges or names of a data set, where it has some."""
  train, test = datasets.ranges_of(dataset)
  if test is None and getattr(dataset, "held_out", None) is not None:
    print(
      "there are fewer than ten scenes, none is held out: validations are on "
      "those of the training",
      flush=True,
    )
    return
  names = [isinstance(value, str) for value in (train, test)]
  if any(names):
    is_held_out = all(names) and train != test
  else:
    is_held_out = test is not None and not _overlap(train or (0, None), test)
  if not is_held_out:
    raise errors.UserError(
      f"`data.test` is {test!r}: give scenes that `data.train` leaves out, "
      "such as `data.train=[100,None] data.test=[0,100]`, or leave out "
      "`validate_every`"
    )


def _overlap(*ranges: Sequence[Any]) -> bool:
  """Returns whether two ranges [start, stop), stop may be None, overlap."""
  starts = [start for start, _ in ranges]
  stops = [math.inf if stop is None else stop for _, stop in ranges]
  return bool(max(starts) < min(stops))
