"""What TensorBoard gets, scalars and the three overview images; reading it."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import message

from iodine.modules import iodine


class SummaryWriter:
  """Writes the events of one run."""

  def __init__(self, folder: str):
    """Opens the folder; a continued run adds a file to those that are there."""
    self.folder = folder
    self._writer = tf.summary.create_file_writer(folder)

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Writes scalars under their names."""
    # Not as Python's numbers: TensorFlow keeps a tensor of each for ever, so
    # that 20 scalars a report took 15 kB a report.
    with self._writer.as_default(step=np.int64(step)):
      for name, value in values.items():
        tf.summary.scalar(name, np.float32(value))
    self._writer.flush()

  def images(self, step: int, images: Mapping[str, tf.Tensor]) -> None:
    """Writes images [1, height, width, 3] in [0, 1] under their names."""
    with self._writer.as_default(step=np.int64(step)):
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


def _forget_from(curves: dict[str, dict[int, float]], step: int) -> None:
  """Drops the values at this step and after it."""
  for curve in curves.values():
    for later in [s for s in curve if s >= step]:
      del curve[later]


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
  found: dict[str, dict[int, float]] = {tag: {} for tag in tags}
  pattern = os.path.join(glob.escape(folder), "*.tfevents.*")
  # Their names begin with the seconds at which they were opened.
  for path in sorted(glob.glob(pattern)):
    is_first = True
    try:
      for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
        event = tf.compat.v1.Event.FromString(record)
        if is_first and event.summary.value:
          is_first = False
          _forget_from(found, event.step)
        for value in event.summary.value:
          if value.tag in found:
            # TF1's are plain numbers, and those of TF2 tensors.
            is_tensor = value.HasField("tensor")
            number = (
              tf.make_ndarray(value.tensor) if is_tensor else value.simple_value
            )
            found[value.tag][event.step] = float(number)
    except (tf.errors.OpError, message.DecodeError):
      continue  # cut off where the training was, or still is, writing
  return {
    tag: curve
    for tag, values in found.items()
    if (curve := [(s, v) for s, v in sorted(values.items()) if np.isfinite(v)])
  }
