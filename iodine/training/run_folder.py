"""The folder of a run: found, locked, made."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator
from typing import Any

import filelock

from iodine import checkpoints, errors, files, replicas
from iodine.training import summaries

LOCK_FILE = ".lock"
_LOSS = "loss/total"


@dataclasses.dataclass
class RunFolder:
  """Where a run lives.

  Attributes:
    path: of the folder, for checkpoints, TensorBoard logs and the config.
    start: the checkpoint to begin with; None to begin afresh.
    is_new: whether the folder has yet to be made, and belongs to nobody else.
    held: the locks, until it is closed.
  """

  path: str
  start: checkpoints.Opened | None = None
  is_new: bool = False
  held: contextlib.ExitStack = dataclasses.field(
    default_factory=contextlib.ExitStack, compare=False
  )

  @classmethod
  def find(
    cls,
    checkpoint_dir: str,
    run_id: Any,
    continue_run: bool,
    checkpoint: checkpoints.Opened | str | None = None,
  ) -> RunFolder:
    """Returns where a run goes, and what it begins with.

    A continued run goes on in exactly `checkpoint_dir`; where that is one of a
    run's checkpoints, or its best one's folder, in the folder of that run. A
    new one, and one that goes on from a TF1 checkpoint, gets
    `<checkpoint_dir>_<run_id>`, 1 if no observer gave an id. One that goes on
    from a packed model gets that in the current folder.
    """
    checkpoints.check_name(checkpoint_dir)
    start = None
    if continue_run:
      start = checkpoints.open_checkpoint(checkpoint or checkpoint_dir)
      if checkpoints.is_unpacked(start.prefix):
        name = os.path.basename(checkpoint_dir)
        checkpoint_dir = name.removesuffix(files.PACKED)
      elif not start.is_tf1:
        return cls(checkpoints.run_folder(start.prefix), start)
    path = f"{checkpoint_dir.rstrip('/')}_{run_id or 1}"
    return cls(path, start, is_new=True)

  @classmethod
  def at(cls, path: str) -> RunFolder:
    """Returns a folder whose run goes on if it has a checkpoint."""
    has_some = checkpoints.latest(path) is not None
    return cls(path, checkpoints.open_checkpoint(path) if has_some else None)

  @property
  def step(self) -> int:
    """Returns how many updates there were before."""
    return self.start.step if self.start else 0

  def lock(self) -> None:
    """Locks the folder of a run that is there, or checks the place of one."""
    if self.is_new:
      # Before scenes are read, which may take hours.
      files.check_folder(os.path.dirname(self.path) or os.curdir)
      return
    self.held.enter_context(locked(self.path))
    start = self.start.prefix if self.start else "its beginning"
    if checkpoints.latest(self.path) not in (None, start):
      newest = checkpoints.open_checkpoint(self.path)
      if newest.step > self.step:
        raise errors.UserError(
          f"the run has a checkpoint that is newer than `{start}`, "
          f"`{newest.prefix}`: to go on from the older one copy it into a new "
          f"folder, with `{files.RUN_CONFIG}`, or remove the newer ones"
        )

  def create(self, workers: replicas.Workers) -> None:
    """Makes and locks a new folder; the next free number where one is taken.

    The first worker does, and tells the others its number.
    """
    if not self.is_new:
      return
    stem, _, number = self.path.rpartition("_")
    claimed = int(number) if number.isdigit() else 0
    if workers.is_chief:
      while not files.make_new_folder(self.path):
        claimed += 1
        self.path = f"{stem}_{claimed}"
      self.held.enter_context(locked(self.path))
    claimed = workers.of_chief(claimed)
    if not workers.is_chief:
      self.path = f"{stem}_{claimed or number}"
    self.is_new = False

  def remove_if_empty(self) -> None:
    """Removes a folder in which there is no checkpoint, nor a logged loss."""
    has_some = checkpoints.latest(self.path) is not None
    if not has_some and not summaries.read_scalars(self.path, [_LOSS]):
      shutil.rmtree(self.path, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
  """Keeps the trainings of other processes out of a folder.

  This process may lock it several times; the lock ends with the process.

  Args:
    folder: it is created if missing.
  """
  files.make_folder(folder)
  path = os.path.join(os.path.realpath(folder), LOCK_FILE)
  lock = filelock.FileLock(path, timeout=0, is_singleton=True)
  with errors.as_user_error(
    (filelock.Timeout,),
    lambda _: (
      f"another training writes into `{folder}`: wait until it has ended, end "
      "it, or choose another `checkpoint_dir`"
    ),
  ):
    held = lock.acquire()
  with held:
    yield
