"""What TensorBoard gets, scalars and the three overview images; reading it."""

from __future__ import annotations

import functools
import glob
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import message

from iodine import files
from iodine.modules import iodine


class SummaryWriter:
  """Writes the events of one run, as TensorBoard reads them.

  The methods raise an errors.UserError or a tf.errors.OpError where files
  cannot be written.

  `tf.summary` names its files by the clock alone. Files are read in the order
  of their names, and a clock may have been set back.
  """

  def __init__(self, folder: str, after_step: int | None = None):
    """Is about to add a file to those that are in the folder.

    Args:
      folder: it is created if missing.
      after_step: what older files have of later steps is dropped, as the run
        goes on from this one; None leaves it.
    """
    self._folder = folder
    self._after_step = after_step

  @functools.cached_property
  def _file(self) -> tf.io.TFRecordWriter:
    """Opens the file, which is there once something is written."""
    files.make_folder(self._folder)
    if self._after_step is not None:
      _purge(self._folder, self._after_step)
    writer = tf.io.TFRecordWriter(_next_path(self._folder))
    writer.write(_event(file_version="brain.Event:2"))
    if self._after_step is not None:
      start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
      # For a TensorBoard that has read the older files. It drops nothing at the
      # first that it finds, which they may not have.
      for _ in range(2):
        writer.write(_event(step=self._after_step + 1, session_log=start))
    return writer

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Writes scalars under their names."""
    tensors = {
      k: tf.make_tensor_proto(v, tf.float32) for k, v in values.items()
    }
    self._summary(step, "scalars", "DATA_CLASS_SCALAR", tensors)

  def images(self, step: int, images: Mapping[str, tf.Tensor]) -> None:
    """Writes images [1, height, width, 3 or 1] in [0, 1] under their names."""
    tensors = {}
    for name, image in images.items():
      _, height, width, _ = image.shape
      pixels = tf.image.convert_image_dtype(image[0], tf.uint8, saturate=True)
      png = tf.io.encode_png(pixels).numpy()
      content = [str(width).encode(), str(height).encode(), png]
      tensors[name] = tf.make_tensor_proto(content, tf.string)
    self._summary(step, "images", "DATA_CLASS_BLOB_SEQUENCE", tensors)

  def _summary(
    self, step: int, plugin: str, data_class: str, tensors: Mapping[str, Any]
  ) -> None:
    """Writes tensors for a plugin of TensorBoard."""
    summary = tf.compat.v1.Summary()
    metadata = tf.compat.v1.SummaryMetadata(data_class=data_class)
    metadata.plugin_data.plugin_name = plugin
    for tag, tensor in tensors.items():
      summary.value.add(tag=tag, tensor=tensor, metadata=metadata)
    self._file.write(_event(step=step, summary=summary))
    self._file.flush()


def _event(**fields: Any) -> bytes:
  event = tf.compat.v1.Event(wall_time=time.time(), **fields)
  return event.SerializeToString()


def _event_files(folder: str) -> list[str]:
  """Returns the paths of event files in the order in which they are read."""
  return sorted(glob.glob(os.path.join(glob.escape(folder), "*.tfevents.*")))


def _events(path: str) -> Iterator[tuple[bytes, Any]]:
  """Yields the events of a file, as they are and parsed, as far as it is whole.

  It is cut off where a training was, or still is, writing.
  """
  try:
    for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
      yield record, tf.compat.v1.Event.FromString(record)
  except (tf.errors.OpError, message.DecodeError):
    return


def _purge(folder: str, last_step: int) -> None:
  """Drops what event files have of later steps.

  TensorBoard has several readers, which know more or less of continued runs.

  Raises:
    errors.UserError: if a file cannot be replaced.
  """
  for path in _event_files(folder):
    if any(event.step > last_step for _, event in _events(path)):
      with (
        files.replaced(path, failures=(tf.errors.OpError,)) as temporary,
        tf.io.TFRecordWriter(temporary) as writer,
      ):
        for record, event in _events(path):
          if event.step <= last_step:
            writer.write(record)


def _next_path(folder: str) -> str:
  """Returns the path of a new event file, which is read after all others."""
  seconds = int(time.time())
  for path in _event_files(folder)[-1:]:
    number = path.rpartition(".tfevents.")[2].partition(".")[0]
    if number.isdecimal():
      seconds = max(seconds, int(number) + 1)
  name = f"events.out.tfevents.{seconds:010d}.{socket.gethostname()}.v2"
  return os.path.join(folder, name)


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
  for path in _event_files(folder):
    is_first = True
    for _, event in _events(path):
      # Runs that are older than this class do not say where they begin.
      if is_first and (event.summary.value or event.HasField("session_log")):
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
  return {
    tag: curve
    for tag, values in found.items()
    if (curve := [(s, v) for s, v in sorted(values.items()) if np.isfinite(v)])
  }
