"""Object-based checkpoints of this project, all of their variables or none."""

from __future__ import annotations

import collections
from typing import Any

import tensorflow as tf

from iodine import errors
from iodine.checkpoints import finding

BEST_VALIDATION = "best_validation"
_VALUE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def restore(path: Any, **objects: Any) -> str:
  """Restores objects from a TF2 checkpoint, all of their variables or none.

  Args:
    path: see `finding.open_checkpoint`.
    **objects: what to restore, under the names they were saved by: `model`,
      `optimizer`, `best_loss`, `best_validation` where it is there. Everything
      else in the checkpoint is ignored.

  Returns:
    The prefix of the checkpoint that was read.

  Raises:
    errors.UserError: if there is no checkpoint, it cannot be read, or a
      variable is missing in it or of another shape.
  """
  if "model" in objects:
    objects["model"].require_variables()
  opened = finding.open_checkpoint(path)
  if f"{BEST_VALIDATION}{_VALUE_SUFFIX}" not in opened.shapes:
    # A run may begin to validate when it is continued.
    objects.pop(BEST_VALIDATION, None)
  checkpoint = tf.train.Checkpoint(**objects)
  saved = {
    key.removesuffix(_VALUE_SUFFIX): list(shape)
    for key, shape in opened.shapes.items()
    if key.endswith(_VALUE_SUFFIX)
  }
  _check_fit(opened.prefix, saved, variables_by_path(checkpoint), objects)
  with finding.reading(opened.prefix):
    status = checkpoint.read(finding.literal(opened.prefix))
    status.assert_existing_objects_matched()
    status.expect_partial()  # what is only in the checkpoint is no surprise
  return opened.prefix


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
      + errors.join_some(sorted(differences, key=_is_of_optimizer))
    )


def _is_of_optimizer(difference: str) -> bool:
  """Returns whether it is about the optimizer, which follows the model."""
  return difference.startswith("optimizer/")


def _is_optional(name: str) -> bool:
  """Returns whether a variable may be only there or only here.

  Whoever goes on in float16, or leaves it, begins with a new loss scale; all
  other variables are float32 in either case.
  """
  return "/loss_scale/" in name


def variables_by_path(root: Any) -> dict[str, tf.Variable]:
  """Returns the variables below `root` by the names a checkpoint gives them.

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


def read_seed(path: Any) -> int:
  """Returns the seed of the run that a checkpoint is of.

  Args:
    path: see `finding.open_checkpoint`.

  Raises:
    errors.UserError: if there is no checkpoint or it cannot be read.
  """
  seed = tf.Variable(0, dtype=tf.int64, trainable=False)
  restore(path, seed=seed)
  return int(seed)
