"""Saving the state of a training: the last checkpoints, and the best one."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from iodine import errors, files
from iodine.checkpoints import finding, tf2
from iodine.modules import iodine, types

# Of the latest checkpoints, besides the best.
_MAX_TO_KEEP = 5


class CheckpointStore:
  """Saves the state of a training in one folder and finds it again."""

  def __init__(
    self,
    folder: str,
    model: iodine.IODINE,
    optimizer: types.Optimizer,
    seed: int = 0,
    writes: bool = True,
    validates: bool = False,
  ):
    """Opens the folder; model and optimizer must have all their variables.

    Args:
      folder: where the checkpoints are; the first save creates it.
      model: the model.
      optimizer: its optimizer, with moments and step.
      seed: what samples and the order of scenes follow from.
      writes: whether this process writes; of several that train together one
        does, and nothing is written by the others' `save`.
      validates: whether the best checkpoint is that of the lowest loss on
        held-out scenes, which `save_if_best` is told, and not in training.
    """
    finding.check_name(folder)
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
    checkpoint = tf.train.Checkpoint(**self._objects)
    # Of variables that replicas have copies of, each copy.
    self._parts = [
      part
      for variable in tf2.variables_by_path(checkpoint).values()
      for part in getattr(variable, "values", [variable])
    ]
    if writes:
      best_folder = os.path.join(folder, finding.BEST_FOLDER)
      self._latest = _manager(checkpoint, folder, _MAX_TO_KEEP)
      self._best = _manager(checkpoint, best_folder, 1)

  @property
  def latest(self) -> str | None:
    """Returns the prefix of the newest checkpoint, or None."""
    return finding.latest(self.folder)

  def save(self, mean_loss: float | None = None) -> str | None:
    """Writes a checkpoint under the optimizer's step; returns its prefix.

    None where another process writes.

    An interrupted save leaves the older checkpoints as they are.

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
    """
    if self._writes and loss < self._best_loss.numpy():
      with contextlib.ExitStack() as unsaved:
        unsaved.callback(self._best_loss.assign, self._best_loss.numpy())
        # Of Python's numbers TensorFlow would keep a tensor for ever.
        self._best_loss.assign(np.float32(loss))
        self._save(self._best)
        unsaved.pop_all()
      config = os.path.join(self.folder, files.RUN_CONFIG)
      if os.path.exists(config):
        # So that it can be copied elsewhere alone.
        shutil.copy(config, self._best.directory)

  def forget_best(self) -> None:
    """Has the next loss be the lowest so far, where losses become others."""
    self._best_loss.assign(float("inf"))

  def snapshot(self) -> Callable[[], None]:
    """Returns a function that has all that is saved be as it is now again.

    Nothing is copied until a variable changes. Of several processes each has
    its own.
    """
    read = tf.raw_ops.ReadVariableOp  # a third of the time of `read_value`
    held = [read(resource=x.handle, dtype=x.dtype) for x in self._parts]

    def rewind() -> None:
      for part, value in zip(self._parts, held, strict=True):
        part.assign(value)

    return rewind

  def _save(self, manager: tf.train.CheckpointManager) -> str:
    """Writes a checkpoint under the optimizer's step; returns its prefix."""
    step = int(self._optimizer.global_step.numpy())

    def explain(error: Exception) -> str:
      # What is there of it takes room.
      prefix = os.path.join(manager.directory, f"ckpt-{step}")
      shutil.rmtree(f"{prefix}_temp", ignore_errors=True)
      is_first = self.latest is None
      again = "start again" if is_first else "go on with `continue_run=True`"
      return (
        f"cannot write a checkpoint to `{self.folder}` at step {step}: make "
        f"room or choose another `checkpoint_dir`, then {again} "
        f"({errors.reason(error)})"
      )

    with errors.as_user_error((tf.errors.OpError, OSError), explain):
      return manager.save(checkpoint_number=step)

  def restore(self, start: finding.Opened | None = None) -> str:
    """Restores a checkpoint; returns its prefix.

    Args:
      start: the checkpoint; None for the newest of the folder.

    Raises:
      errors.UserError: if there is none, or it does not fit.
    """
    start = start or finding.open_checkpoint(self.folder)
    tf2.restore(start, **self._objects)
    return start.prefix


def _manager(
  checkpoint: tf.train.Checkpoint, folder: str, max_to_keep: int
) -> tf.train.CheckpointManager:
  """Returns what keeps the newest few of a folder's checkpoints."""
  # TensorFlow's manager knows those of the state file alone, which may be lost,
  # or have been copied from another place, where it would remove some.
  names = [os.path.basename(x) for x in reversed(finding.candidates(folder))]
  if names:
    # It leaves those for ever that have no time.
    finding.write_state(folder, names, [1.0] * len(names))
  return tf.train.CheckpointManager(checkpoint, folder, max_to_keep)
