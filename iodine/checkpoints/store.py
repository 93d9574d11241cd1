"""Saving the state of a training: the last checkpoints, and the best one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

import tensorflow as tf

from iodine import errors, files, optimizers
from iodine.checkpoints import finding, tf2
from iodine.modules import iodine


class CheckpointStore:
  """Saves the state of a training in one folder and finds it again."""

  def __init__(
    self,
    folder: str,
    model: iodine.IODINE,
    optimizer: optimizers.Adam,
    seed: int = 0,
    max_to_keep: int = 5,
    writes: bool = True,
    validates: bool = False,
  ):
    """Opens the folder; model and optimizer must have all their variables.

    Args:
      folder: where the checkpoints are; it is created if missing.
      model: the model.
      optimizer: its optimizer, with moments and step.
      seed: what samples and the order of scenes follow from.
      max_to_keep: how many of the latest checkpoints are kept.
      writes: whether this process writes; of several that train together one
        does, and nothing is written by the others' `save`.
      validates: whether the best checkpoint is that of the lowest loss on
        held-out scenes, which `save_if_best` is told, and not in training.

    Raises:
      errors.UserError: if the folder cannot be created or written to.
    """
    self.folder = folder
    self._optimizer = optimizer
    self._writes = writes
    self._objects = {
      "model": model,
      "optimizer": optimizer,
      "best_loss": tf.Variable(float("inf"), trainable=False),
      "seed": tf.Variable(seed, dtype=tf.int64, trainable=False),
    }
    self._best_loss = self._objects["best_loss"]
    if validates:
      # Of its own, as a run may begin to validate when it is continued.
      self._best_loss = tf.Variable(float("inf"), trainable=False)
      self._objects[tf2.BEST_VALIDATION] = self._best_loss
    self._checkpoint = tf.train.Checkpoint(**self._objects)
    # Of variables that replicas have copies of, each copy.
    self._parts = [
      part
      for variable in tf2.variables_by_path(self._checkpoint).values()
      for part in getattr(variable, "values", [variable])
    ]
    if writes:
      files.make_folder(folder)
    self._latest = tf.train.CheckpointManager(
      self._checkpoint, folder, max_to_keep=max_to_keep
    )
    self._best = tf.train.CheckpointManager(
      self._checkpoint, os.path.join(folder, finding.BEST_FOLDER), max_to_keep=1
    )

  @property
  def latest(self) -> str | None:
    """Returns the prefix of the newest checkpoint, or None."""
    if not self._writes:
      return finding.latest(self.folder)  # of the process that does
    return self._latest.latest_checkpoint

  @property
  def best(self) -> str | None:
    """Returns the prefix of the one with the lowest loss, or None."""
    return self._best.latest_checkpoint

  def save(self, mean_loss: float | None = None) -> str | None:
    """Writes a checkpoint under the optimizer's step; returns its prefix.

    None where another process writes.

    TensorFlow writes to temporary files and renames them at the end, so an
    interrupted save leaves the older checkpoints as they are.

    Args:
      mean_loss: mean training loss since the last save; where it is the
        lowest so far, the checkpoint is kept as the best, too.

    Raises:
      errors.UserError: if the files cannot be written.
    """
    if not self._writes:
      return None
    if mean_loss is not None:
      self.save_if_best(mean_loss)
    return self._save(self._latest)

  def save_if_best(self, loss: float) -> None:
    """Keeps a checkpoint as the best where its loss is the lowest so far.

    A `save` after it knows that loss in a continued run.

    Raises:
      errors.UserError: if the files cannot be written.
    """
    if self._writes and loss < self._best_loss.numpy():
      with contextlib.ExitStack() as unsaved:
        unsaved.callback(self._best_loss.assign, self._best_loss.numpy())
        self._best_loss.assign(loss)
        self._save(self._best)
        unsaved.pop_all()

  def forget_best(self) -> None:
    """Has the next loss be the lowest so far, where losses become others."""
    self._best_loss.assign(float("inf"))

  def hold(self) -> Callable[[], None]:
    """Returns a function that has all that is saved be as it is now again.

    Nothing is copied until a variable changes. Of several processes each holds
    its own.
    """
    read = tf.raw_ops.ReadVariableOp  # a third of the time of `read_value`
    held = [read(resource=x.handle, dtype=x.dtype) for x in self._parts]

    def put_back() -> None:
      for part, value in zip(self._parts, held, strict=True):
        part.assign(value)

    return put_back

  def _save(self, manager: tf.train.CheckpointManager) -> str:
    """Writes a checkpoint under the optimizer's step; returns its prefix."""
    step = int(self._optimizer.global_step.numpy())
    try:
      path: str = manager.save(checkpoint_number=step)
    except (tf.errors.OpError, OSError) as error:
      raise errors.UserError(
        f"cannot write a checkpoint to `{self.folder}` at step {step}: make "
        "room or choose another `checkpoint_dir`, then go on with "
        f"`continue_run=True` ({finding.first_line(error)})"
      ) from error
    return path

  def restore(self) -> str:
    """Restores the newest checkpoint of the folder; returns its prefix.

    Raises:
      errors.UserError: if there is none, or it does not fit.
    """
    return tf2.restore(self.folder, **self._objects)
