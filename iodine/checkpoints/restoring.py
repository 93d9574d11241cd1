"""Restoring from a checkpoint of either kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from iodine import building
from iodine.checkpoints import configs, finding, tf1, tf2
from iodine.modules import iodine


class Restored(NamedTuple):
  """What was read.

  Attributes:
    prefix: of the checkpoint.
    report: what became of the variables.
  """

  prefix: str
  report: finding.Report


def restore(path: finding.Path, **objects: Any) -> Restored:
  """Restores objects from a TF1 or TF2 checkpoint.

  Args:
    path: a prefix or a folder, or what `open_checkpoint` returned.
    **objects: what to restore, under the names they were saved by: `model`,
      `optimizer`; from TF2 checkpoints also `best_loss` and `seed`. Everything
      else in the checkpoint is ignored.

  Raises:
    errors.UserError: if there is no checkpoint, it cannot be read, or a
      variable is missing in it or of another shape. Nothing is changed then.
  """
  opened = finding.open_checkpoint(path)
  kind = tf1 if opened.is_tf1 else tf2
  return Restored(opened.prefix, kind.restore(opened, **objects))


def restore_model(
  path: finding.Path,
  config: Mapping[str, Any] | None = None,
  evaluated: bool = False,
) -> tuple[iodine.IODINE, dict[str, Any]]:
  """Builds the model that a checkpoint is of, and restores it.

  It decomposes images as in its training: with gradients of the mean over a
  batch of `config["batch_size"]`, whatever the batch at hand.

  Args:
    path: a prefix or a folder of a TF1 or TF2 checkpoint, or what
      `open_checkpoint` returned.
    config: the complete config; None for the `config.json` that a training
      leaves beside its checkpoints, which those of the original do not have.
    evaluated: whether it refines as often as `evaluate` lets it, not as often
      as in its training.

  Returns:
    The model, with all of its variables, and its config.

  Raises:
    errors.UserError: if there is no checkpoint or config, or they do not fit.
  """
  opened = finding.open_checkpoint(path)
  if config is None:
    config = configs.config_beside(opened.prefix)
  configs.check_complete(config)
  config = configs.as_trained(config)
  if evaluated:
    config = configs.as_evaluated(config)
  image_shape = building.build(config["data"], "data").image_shape
  model: iodine.IODINE = building.build(config["model"], "model")
  model.initialize(image_shape)
  restore(opened, model=model)
  return model, config
