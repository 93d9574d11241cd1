"""What TensorBoard gets: scalars and the three overview images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from iodine.modules import iodine


class SummaryWriter:
  """Writes the events of one run."""

  def __init__(self, folder: str):
    """Opens the folder; a continued run adds a file to those that are there."""
    self.folder = folder
    self._writer = tf.summary.create_file_writer(folder)

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Writes scalars under their names."""
    with self._writer.as_default(step=step):
      for name, value in values.items():
        tf.summary.scalar(name, value)
    self._writer.flush()

  def images(self, step: int, images: Mapping[str, tf.Tensor]) -> None:
    """Writes images [1, height, width, 3] in [0, 1] under their names."""
    with self._writer.as_default(step=step):
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
