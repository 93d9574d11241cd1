"""Saving the state of a training: the last checkpoints, and the best one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from iodine import errors, files, optimizers
from iodine.checkpoints import finding, kept, tf2
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
    self._latest = kept.Folder(folder, max_to_keep)
    self._best = kept.Folder(os.path.join(folder, finding.BEST_FOLDER), 1)

  @property
  def latest(self) -> str | None:
    """Returns the prefix of the newest checkpoint, or None."""
    if not self._writes:
      return finding.latest(self.folder)  # of the process that does
    return self._latest.newest

  @property
  def best(self) -> str | None:
    """Returns the prefix of the one with the lowest loss, or None."""
    return self._best.newest

  def save(self, mean_loss: float | None = None) -> str | None:
    """Writes a checkpoint under the optimizer's step; returns its prefix.

    None where another process writes.

    It is written elsewhere and gets its name at the end, so an interrupted save
    leaves the older checkpoints as they are.

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
        # Of Python's numbers TensorFlow would keep a tensor for ever.
        self._best_loss.assign(np.float32(loss))
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

  def _save(self, folder: kept.Folder) -> str:
    """Writes a checkpoint under the optimizer's step; returns its prefix."""
    step = self._step
    try:
      return folder.save(self._checkpoint, step)
    except (tf.errors.OpError, OSError) as error:
      is_first = not finding.candidates(self.folder)
      again = "start again" if is_first else "go on with `continue_run=True`"
      raise errors.UserError(
        f"cannot write a checkpoint to `{self.folder}` at step {step}: make "
        f"room or choose another `checkpoint_dir`, then {again} "
        f"({finding.first_line(error)})"
      ) from error

  @property
  def _step(self) -> int:
    return int(self._optimizer.global_step.numpy())

  def restore(self, start: finding.Opened | None = None) -> str:
    """Restores a checkpoint; returns its prefix.

    Args:
      start: the checkpoint; None for the newest of the folder.

    Raises:
      errors.UserError: if there is none, or it does not fit.
    """
    return tf2.restore(start or self.folder, **self._objects)

  def go_on(self, prefix: str, leaves_best: bool = False) -> list[str]:
    """Makes what was restored the newest checkpoint, and clears left-overs.

    Newer ones are moved to `newer_than_<step>` in the folder: they stay, and
    nothing takes them for newer ones of what comes now.

    Args:
      prefix: of the checkpoint that was restored.
      leaves_best: whether a newer best one is moved, too. Where the run is not
        changed it finds that one again.

    Returns:
      The prefixes of what was moved, as they are now.

    Raises:
      errors.UserError: if that cannot be done.
    """
    if not self._writes:
      return []
    own = self._latest.prefix(self._step)
    is_own = os.path.realpath(prefix) == os.path.realpath(own)
    with errors.as_user_error((OSError,), self._cannot_change):
      for folder in (self._latest, self._best):
        folder.clear()
      moved = self._latest.go_back(self._step, is_own)
      if leaves_best:
        moved += self._best.go_back(self._step, is_kept=True)
    if not is_own:
      self._save(self._latest)
    return moved

  def _cannot_change(self, error: Exception) -> str:
    return (
      f"cannot change the folder `{self.folder}` ({error}): see to it that you "
      "may write there"
    )
