"""The checkpoints `ckpt-<step>` that a folder keeps.

`tf.train.CheckpointManager` takes names for patterns when it deletes, so that
`lr[0.1]` is `lr0`, too, and knows the checkpoints of its state file alone. Here
every file that is deleted or moved has its exact name.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil

import tensorflow as tf

from iodine import files
from iodine.checkpoints import finding

_CKPT = "ckpt-(?P<step>0|[1-9][0-9]*)"
_NAME = re.compile(_CKPT)
_INDEX = re.compile(rf"{_CKPT}\.index")
# Where a checkpoint is written until it is whole.
_UNFINISHED = ".unfinished"
# What a killed save has left, of TensorFlow's `CheckpointManager`, too.
_LEFT_FOLDER = re.compile(rf"{re.escape(_UNFINISHED)}|ckpt-[0-9]+_temp")
_LEFT_FILE = re.compile(r"checkpoint\.tmp[0-9a-f]{32}")
_DATA = re.compile(rf"{_CKPT}\.data-[0-9]{{5}}-of-[0-9]{{5}}")


class Folder:
  """The newest few checkpoints of a folder, which need not be there yet."""

  def __init__(self, path: str, max_to_keep: int):
    """Reads which ones are kept; without a state file all that are there."""
    self.path = path
    self._max_to_keep = max_to_keep
    steps = self._steps_there()
    listed = map(_NAME.fullmatch, finding.state(path))
    kept = [int(match["step"]) for match in listed if match]
    self._steps = [s for s in reversed(kept) if s in steps] or steps

  @property
  def newest(self) -> str | None:
    """Returns the prefix of the newest checkpoint, or None."""
    return self.prefix(self._steps[-1]) if self._steps else None

  def prefix(self, step: int) -> str:
    """Returns the prefix of a step's checkpoint."""
    return os.path.join(self.path, f"ckpt-{step}")

  def save(self, checkpoint: tf.train.Checkpoint, step: int) -> str:
    """Writes a checkpoint; removes the oldest where there are too many.

    Its index gets its place as the last, and once that is there it is whole.

    Returns:
      Its prefix.
    """
    prefix = self.prefix(step)
    unfinished = os.path.join(self.path, _UNFINISHED)
    _remove_folder(unfinished)
    files.make_folder(unfinished)
    try:
      checkpoint.save_counter.assign_add(1)
      name = os.path.join(unfinished, os.path.basename(prefix))
      *data, index = finding.parts(checkpoint.write(name))
      steps = [*(s for s in self._steps if s != step), step]
      _list(self.path, steps)  # While nothing is changed, as it may fail.
      _remove(prefix)
      _move([*data, index], self.path)
    finally:
      _remove_folder(unfinished)
    self._steps = steps[-self._max_to_keep :]
    for old in steps[: -self._max_to_keep]:
      _remove(self.prefix(old))
    _list(self.path, self._steps)
    return prefix

  def clear(self) -> None:
    """Removes what killed saves have left, and nothing else."""
    steps = self._steps_there()
    for name in self._names():
      path = os.path.join(self.path, name)
      data = _DATA.fullmatch(name)
      if os.path.isdir(path):
        if _LEFT_FOLDER.fullmatch(name):
          _remove_folder(path)
      elif _LEFT_FILE.fullmatch(name) or (
        data and int(data["step"]) not in steps
      ):
        os.remove(path)

  def go_back(self, step: int, is_kept: bool) -> list[str]:
    """Makes the checkpoint of a step the newest; moves newer ones away.

    They get a folder of their own in this one.

    Args:
      step: of the checkpoint that a run goes on from.
      is_kept: whether the one under this name stays, as it is that one.

    Returns:
      The prefixes of what was moved, as they are now.
    """
    there = self._steps_there()
    newer = [s for s in there if s > step or (s == step and not is_kept)]
    self._steps = [s for s in sorted({*self._steps, step}) if s in there]
    self._steps = [s for s in self._steps if s not in newer]
    if not newer:
      return []
    # Before anything is moved: what is newest is known at every moment.
    _list(self.path, self._steps)
    place = self._free_place(step, newer)
    files.make_folder(place)
    for each in newer:
      _move(finding.parts(self.prefix(each)), place)
    _list(place, newer)
    return [os.path.join(place, f"ckpt-{s}") for s in newer]

  def _free_place(self, step: int, steps: list[int]) -> str:
    """Returns a folder that holds none of these yet."""
    stem = os.path.join(self.path, f"{finding.NEWER_FOLDER}{step}")
    for number in itertools.count(1):
      place = stem if number == 1 else f"{stem}_{number}"
      names = (os.path.join(place, f"ckpt-{s}.index") for s in steps)
      if not any(map(os.path.exists, names)):
        break
    return place

  def _names(self) -> list[str]:
    return os.listdir(self.path) if os.path.isdir(self.path) else []

  def _steps_there(self) -> list[int]:
    """Returns the steps that an index is there of."""
    found = map(_INDEX.fullmatch, self._names())
    return sorted(int(match["step"]) for match in found if match)


def _list(folder: str, steps: list[int]) -> None:
  """Writes a folder's state file; what it lists need not be there."""
  path = os.path.join(folder, finding.STATE_FILE)
  lines = [f'model_checkpoint_path: "ckpt-{step}"\n' for step in steps[-1:]]
  lines += [f'all_model_checkpoint_paths: "ckpt-{step}"\n' for step in steps]
  if steps:
    files.write(path, "".join(lines))
  elif os.path.exists(path):
    os.remove(path)


def _move(paths: list[str], folder: str) -> None:
  for path in paths:
    files.move(path, os.path.join(folder, os.path.basename(path)))


def _remove(prefix: str) -> None:
  """Removes a checkpoint, the index first: without it there is none."""
  for path in reversed(finding.parts(prefix)):
    os.remove(path)


def _remove_folder(path: str) -> None:
  """Removes a folder of this project's, no link to another."""
  if os.path.isdir(path) and not os.path.islink(path):
    shutil.rmtree(path)
