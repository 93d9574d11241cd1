"""Object-based checkpoints of this project, all of their variables or none."""

from __future__ import annotations

import collections
from typing import Any

import tensorflow as tf

from iodine.checkpoints import finding

BEST_VALIDATION = "best_validation"
# Of older versions, which trained in float16, too. All else was float32.
_GONE = "/loss_scale/"


def restore(opened: finding.Opened, **objects: Any) -> finding.Report:
  """Restores objects from a TF2 checkpoint, all of their variables or none.

  Args:
    opened: the checkpoint.
    **objects: what to restore, under the names they were saved by: `model`,
      `optimizer`, `best_loss`, `best_validation` where it is there. Everything
      else in the checkpoint is ignored.

  Returns:
    What was restored of the model.
  """
  objects["model"].require_variables()
  if f"{BEST_VALIDATION}{finding.VALUE_SUFFIX}" not in opened.tensors:
    # A run may begin to validate when it is continued.
    objects.pop(BEST_VALIDATION, None)
  saved = {
    name.removesuffix(finding.VALUE_SUFFIX): value
    for name, value in opened.tensors.items()
    if name.endswith(finding.VALUE_SUFFIX) and _GONE not in name
  }
  variables = variables_by_path(tf.train.Checkpoint(**objects))
  ours = {k: v for k, v in saved.items() if k.split("/")[0] in objects}
  finding.assign(opened.prefix, ours, variables)
  shapes = {
    name.removeprefix("model/"): tuple(variable.shape)
    for name, variable in variables.items()
    if name.startswith("model/")
  }
  return finding.Report(dict.fromkeys(shapes, "restored"), shapes)


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
