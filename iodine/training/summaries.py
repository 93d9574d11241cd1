"""What TensorBoard gets, scalars and the three overview images."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import message

from iodine.modules import iodine


class SummaryWriter:
  """Writes the events of one run, as TensorBoard reads them.

  The methods raise a tf.errors.OpError where files cannot be written.
  """

  def __init__(self, folder: str):
    """Adds a file to those that are in the folder, which may be new."""
    self._writer = tf.summary.create_file_writer(folder)

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Writes scalars under their names."""
    # At once: `tf.summary.scalar` takes about a millisecond for each.
    metadata = tf.compat.v1.SummaryMetadata(data_class="DATA_CLASS_SCALAR")
    metadata.plugin_data.plugin_name = "scalars"
    summary = tf.compat.v1.Summary()
    for name, value in values.items():
      tensor = tf.make_tensor_proto(value, tf.float32)
      summary.value.add(tag=name, tensor=tensor, metadata=metadata)
    with self._writer.as_default():
      tf.summary.experimental.write_raw_pb(
        summary.SerializeToString(), np.int64(step)
      )
    self._writer.flush()

  def images(self, step: int, images: Mapping[str, tf.Tensor]) -> None:
    """Writes images [1, height, width, 3 or 1] in [0, 1] under their names."""
    with self._writer.as_default(np.int64(step)):
      for name, image in images.items():
        tf.summary.image(name, image)
    self._writer.flush()


class OverviewImages:
  """The images `overview`, `sequence` and `samples` of a model.

  The same scenes and samples are drawn each time, so that pictures of
  different steps can be compared.
  """

  def __init__(self, model: iodine.IODINE, num_images: int = 4):
    """Compiles the drawing; num_images is the number of scenes."""
    seed = tf.constant([0, 0])
    # The forward pass is compiled once for the batch shape of the summaries.
    self._draw_scenes = tf.function(
      lambda data: model.get_overview_images(data, num_images, seed=seed),
      autograph=False,
    )
    self._draw_samples = tf.function(
      lambda: model.get_sample_images(seed=seed), autograph=False
    )

  def __call__(self, data: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Draws scenes of `data` and prior samples; images [1, h, w, 3 or 1]."""
    return {**self._draw_scenes(data), "samples": self._draw_samples()}


def read_scalars(
  folder: str, tags: Sequence[str]
) -> dict[str, list[tuple[int, float]]]:
  """Reads scalars from the event files in a folder, not from those below it.

  A training that is continued after a crash goes back to its last checkpoint:
  what was logged after that, in an older file, no longer counts, so that the
  curve is that of the run as it went on. A file is read as far as it is whole.

  Args:
    folder: where a `SummaryWriter` wrote.
    tags: names of the scalars.

  Returns:
    {tag: [(step, value)]} with steps that rise; without tags that were never
    logged, and without values that are not finite.
  """
  curves: dict[str, list[tuple[int, float]]] = {tag: [] for tag in tags}
  for path in sorted(glob.glob(f"{glob.escape(folder)}/*.tfevents.*")):
    for event in _events(path):
      for value in event.summary.value:
        curve = curves.get(value.tag)
        if curve is None:
          continue
        while curve and curve[-1][0] >= event.step:
          curve.pop()
        # TF1's are plain numbers, and those of TF2 tensors.
        is_tensor = value.HasField("tensor")
        number = (
          tf.make_ndarray(value.tensor) if is_tensor else value.simple_value
        )
        curve.append((event.step, float(number)))
  finite = {
    tag: [(step, value) for step, value in curve if np.isfinite(value)]
    for tag, curve in curves.items()
  }
  return {tag: curve for tag, curve in finite.items() if curve}


def _events(path: str) -> Iterator[Any]:
  """Yields the events of a file, as far as it is whole.

  It is cut off where a training was, or still is, writing.
  """
  try:
    for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
      yield tf.compat.v1.Event.FromString(record)
  except (tf.errors.OpError, message.DecodeError):
    return
