"""TF2 checkpoints of a run: the last ones, the best one, and restoring them.

A run's folder holds `ckpt-<step>.*` with the `checkpoint` state file of
`tf.train.CheckpointManager`, and the same for the best one in `best/`.
"""

from __future__ import annotations

import collections
import glob
import os
from typing import Any

import tensorflow as tf

from iodine import files
from iodine import errors, optimizers
from iodine.modules import iodine

BEST_FOLDER = "best"
# What TensorFlow raises for files that are broken in one way or another.
READ_ERRORS = (
  tf.errors.OpError,
  AssertionError,
  IndexError,
  RuntimeError,
)
_VALUE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


class CheckpointStore:
  """Saves the state of a training in one folder and finds it again."""

  def __init__(
    self,
    folder: str,
    model: iodine.IODINE,
    optimizer: optimizers.Adam,
    seed: int = 0,
    max_to_keep: int = 5,
  ):
    """Opens the folder; model and optimizer must have all their variables.

    Args:
      folder: where the checkpoints are; it is created if missing.
      model: the model.
      optimizer: its optimizer, with moments and step.
      seed: what samples and the order of scenes follow from.
      max_to_keep: how many of the latest checkpoints are kept.

    Raises:
      errors.UserError: if the folder cannot be created or written to.
    """
    self.folder = folder
    self._optimizer = optimizer
    self._objects = {
      "model": model,
      "optimizer": optimizer,
      "best_loss": tf.Variable(float("inf"), trainable=False),
      "seed": tf.Variable(seed, dtype=tf.int64, trainable=False),
    }
    self._checkpoint = tf.train.Checkpoint(**self._objects)
    files.make_folder(folder)
    self._latest = tf.train.CheckpointManager(
      self._checkpoint, folder, max_to_keep=max_to_keep
    )
    self._best = tf.train.CheckpointManager(
      self._checkpoint, os.path.join(folder, BEST_FOLDER), max_to_keep=1
    )

  @property
  def latest(self) -> str | None:
    """Prefix of the newest checkpoint, or None."""
    return self._latest.latest_checkpoint

  @property
  def best(self) -> str | None:
    """Prefix of the checkpoint with the lowest training loss, or None."""
    return self._best.latest_checkpoint

  def save(self, mean_loss: float | None = None) -> str:
    """Writes a checkpoint under the optimizer's step; returns its prefix.

    TensorFlow writes to temporary files and renames them at the end, so an
    interrupted save leaves the older checkpoints as they are.

    Args:
      mean_loss: mean training loss since the last save; where it is the
        lowest so far, the checkpoint is kept as the best, too.

    Raises:
      errors.UserError: if the files cannot be written.
    """
    step = int(self._optimizer.global_step)
    is_best = mean_loss is not None and mean_loss < float(
      self._objects["best_loss"]
    )
    if is_best:
      self._objects["best_loss"].assign(mean_loss)
    try:
      path = self._latest.save(checkpoint_number=step)
      if is_best:
        self._best.save(checkpoint_number=step)
    except (tf.errors.OpError, OSError) as error:
      raise errors.UserError(
        f"cannot write a checkpoint to `{self.folder}` at step {step}: make "
        "room or choose another `checkpoint_dir`, then go on with "
        f"`continue_run=True` ({first_line(error)})"
      ) from error
    return path

  def restore(self) -> str:
    """Restores the newest checkpoint of the folder; returns its prefix.

    Raises:
      errors.UserError: if there is none, or it does not fit.
    """
    return restore(self.folder, **self._objects)


def as_path(path: Any) -> str:
  """A path as a string.

  Raises:
    errors.UserError: if it is none.
  """
  if not isinstance(path, (str, os.PathLike)):
    raise errors.UserError(
      f"{path!r} is no path: give a checkpoint's prefix or a folder"
    )
  return os.fspath(path)


def latest(folder: str) -> str | None:
  """The prefix that the state file of a folder names, if it is there."""
  try:
    return tf.train.latest_checkpoint(folder)
  except (UnicodeDecodeError, *READ_ERRORS):
    return None  # a state file that cannot be read is as good as none


def find(path: str) -> str:
  """The prefix of the checkpoint that `path` means.

  Args:
    path: a checkpoint prefix, or a folder, of which the newest counts.

  Raises:
    errors.UserError: if there is none.
  """
  path = as_path(path)
  if os.path.isdir(path):
    prefix = latest(path)
    if prefix is not None:
      return prefix
    # No state file, or one that was written elsewhere.
    found = sorted(glob.glob(os.path.join(glob.escape(path), "*.index")))
    if len(found) == 1:
      return found[0].removesuffix(".index")
    if found:
      raise errors.UserError(
        f"the folder `{path}` holds {len(found)} checkpoints and no state file "
        f"that names one: give a prefix, such as "
        f"`{found[-1].removesuffix('.index')}`"
      )
    raise errors.UserError(
      f"the folder `{path}` holds no checkpoint: give `checkpoint_dir` the "
      "folder that a training printed, or a checkpoint's prefix"
    )
  if not tf.io.gfile.exists(path + ".index"):
    raise errors.UserError(
      f"there is no checkpoint at `{path}`: give `checkpoint_dir` the folder "
      "that a training printed, or a checkpoint's prefix such as "
      "`folder/ckpt-1000`"
    )
  return path


def open_reader(prefix: str) -> Any:
  """A reader of the checkpoint with that prefix.

  Raises:
    errors.UserError: if its files are broken.
  """
  try:
    return tf.train.load_checkpoint(prefix)
  except READ_ERRORS as error:
    raise broken(prefix, error) from error


def broken(prefix: str, error: Exception) -> errors.UserError:
  """The error to raise for a checkpoint that cannot be read."""
  return errors.UserError(
    f"the checkpoint `{prefix}` cannot be read, its files are broken or "
    f"incomplete: use an older one ({first_line(error)})"
  )


def read_seed(path: str) -> int:
  """The seed of the run that a checkpoint is of.

  Args:
    path: a checkpoint prefix or a folder, see `find`.

  Raises:
    errors.UserError: if there is no checkpoint or it cannot be read.
  """
  seed = tf.Variable(0, dtype=tf.int64, trainable=False)
  restore(path, seed=seed)
  return int(seed)


def restore(path: str, **objects: Any) -> str:
  """Restores objects from a TF2 checkpoint, all of their variables or none.

  Args:
    path: a checkpoint prefix or a folder, see `find`.
    **objects: what to restore, under the names they were saved by: `model`,
      `optimizer`, `best_loss`. Everything else in the checkpoint is ignored.

  Returns:
    The prefix of the checkpoint that was read.

  Raises:
    errors.UserError: if there is no checkpoint, it cannot be read, or a
      variable is missing in it or of another shape.
  """
  if "model" in objects:
    objects["model"].require_variables()
  prefix = find(path)
  checkpoint = tf.train.Checkpoint(**objects)
  reader = open_reader(prefix)
  saved = {
    key.removesuffix(_VALUE_SUFFIX): list(shape)
    for key, shape in reader.get_variable_to_shape_map().items()
    if key.endswith(_VALUE_SUFFIX)
  }
  _check_fit(prefix, saved, variables_by_path(checkpoint), objects)
  try:
    status = checkpoint.read(prefix).assert_existing_objects_matched()
    status.expect_partial()  # what is only in the checkpoint is no surprise
  except READ_ERRORS as error:
    raise broken(prefix, error) from error
  return prefix


def _check_fit(
  prefix: str,
  saved: dict[str, list[int]],
  variables: dict[str, tf.Variable],
  objects: dict[str, Any],
) -> None:
  """Raises a UserError that lists every variable that does not fit."""
  differences = []
  for name, variable in variables.items():
    there, here = saved.get(name), variable.shape.as_list()
    if there is None and not _is_optional(name):
      differences.append(f"{name} is not in the checkpoint")
    elif there is not None and there != here:
      differences.append(f"{name} is {there} there and {here} here")
  differences += [
    f"{name} {shape} is only there"
    for name, shape in sorted(saved.items())
    if name.split("/")[0] in objects
    and name not in variables
    and not _is_optional(name)
  ]
  if differences:
    raise errors.UserError(
      f"the checkpoint `{prefix}` does not fit this configuration, give the "
      "named config and updates it was trained with: "
      + errors.abridge(sorted(differences, key=_is_of_optimizer))
    )


def _is_of_optimizer(difference: str) -> bool:
  """Whether a sentence is about the optimizer, which follows the model."""
  return difference.startswith("optimizer/")


def _is_optional(name: str) -> bool:
  """Whether a variable may be only there or only here.

  Whoever goes on in float16, or leaves it, begins with a new loss scale; all
  other variables are float32 in either case.
  """
  return "/loss_scale/" in name


def variables_by_path(root: Any) -> dict[str, tf.Variable]:
  """The variables below `root` under the names that a checkpoint gives them.

  That is the first path that a breadth-first walk over the attributes finds.
  """
  view = tf.train.TrackableView(root)
  queue = collections.deque([("", root)])
  seen = {id(root)}
  variables = {}
  while queue:
    path, node = queue.popleft()
    for name, child in view.children(node).items():
      if id(child) in seen:
        continue
      seen.add(id(child))
      child_path = f"{path}/{name}" if path else name
      if isinstance(child, tf.Variable):
        variables[child_path] = child
      else:
        queue.append((child_path, child))
  # TensorFlow's own, which it makes in every checkpoint.
  variables.pop("save_counter", None)
  return variables


def first_line(error: Exception) -> str:
  """What an error of TensorFlow says, without the details."""
  return str(error).strip().split("\n")[0]
