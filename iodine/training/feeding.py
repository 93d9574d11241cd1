"""Batches on their way from the data set to the devices."""

from __future__ import annotations

import contextlib
from typing import Any

import tensorflow as tf

Data = dict[str, Any]


class Feed:
  """Training batches for every device, in the order of one device.

  A worker decodes no scenes but its own, and a GPU has its next batch before
  it asks.

  Attributes:
    batches: iterator; with several replicas a value of it has a part of the
      batch for each.
  """

  def __init__(
    self,
    dataset: Any,
    strategy: tf.distribute.Strategy,
    skip_batches: int = 0,
  ):
    """Begins to read.

    Args:
      dataset: a `types.DataSet`; its `batch_size` is that of all replicas.
      strategy: where the training runs.
      skip_batches: how many batches the run has had.
    """
    self._dataset = dataset
    # Those of others need not know parts of batches, nor the compact form.
    self._is_ours = hasattr(dataset, "expand")
    self._skip_batches = skip_batches
    if strategy.num_replicas_in_sync > 1:
      size = dataset.batch_size // strategy.num_replicas_in_sync

      def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        number = dataset.batch_size // context.num_input_pipelines
        first = context.input_pipeline_id * number
        own = self._read(first, first + number)
        # Told that it does not end, workers need not ask each other for more.
        return own.rebatch(size, drop_remainder=True).apply(
          tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        )

      batches = strategy.distribute_datasets_from_function(of_worker)
    else:
      batches = self._read(0, dataset.batch_size)
      for gpu in tf.config.list_logical_devices("GPU")[:1]:
        batches = batches.apply(
          tf.data.experimental.prefetch_to_device(gpu.name)
        )
    with self.explained_errors():
      self.batches = iter(batches)

  def _read(self, first: int, last: int) -> tf.data.Dataset:
    """Returns the images from `first` to `last` of every batch."""
    if self._is_ours:
      batches = self._dataset(
        "train", self._skip_batches, rows=(first, last), compact=True
      )
    else:
      batches = self._dataset("train", self._skip_batches).map(
        lambda data: tf.nest.map_structure(lambda x: x[first:last], data)
      )
    options = tf.data.Options()
    options.experimental_warm_start = True
    # A data set that ends is read again.
    return batches.repeat().with_options(options)

  def expand(self, data: Data) -> Data:
    """Returns what the model takes, of what the batches have; in a graph."""
    if self._is_ours:
      return self._dataset.expand(data)
    return data

  def explained_errors(self) -> contextlib.AbstractContextManager[None]:
    """Has errors in reading scenes say where they are, as far as known."""
    if self._is_ours:
      return self._dataset.explained_errors("train")
    return contextlib.nullcontext()
