"""Restoring from a checkpoint of either kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iodine import building, config_files
from iodine.checkpoints import finding, tf1, tf2
from iodine.modules import iodine


def restore(
  path: finding.Path,
  model: iodine.IODINE,
  optimizer: Any = None,
) -> finding.Report:
  """Restores a model, and its optimizer if given, from either kind.

  Args:
    path: a prefix or a folder, or what `open_checkpoint` returned.
    model: an initialised model; all of its variables are restored.
    optimizer: an initialised `types.Optimizer`; from TF1 an `optimizers.Adam`.

  Returns:
    What became of the variables.

  Raises:
    errors.UserError: if there is no checkpoint, it cannot be read, or a
      variable is missing in it or of another shape. Nothing is changed then.
  """
  opened = finding.open_checkpoint(path)
  if opened.is_tf1:
    return tf1.restore(opened, model, optimizer)
  objects = {"optimizer": optimizer} if optimizer else {}
  return tf2.restore(opened, model=model, **objects)


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
    config = finding.config_beside(opened.prefix)
    config, told = config_files.at_step(config, opened.step)
    if told:
      print(told, flush=True)
  config_files.check_complete(config)
  config = config_files.as_trained(config)
  if evaluated:
    config = config_files.as_evaluated(config)
  image_shape = building.build(config["data"], "data").image_shape
  model: iodine.IODINE = building.build(config["model"], "model")
  model.initialize(image_shape)
  restore(opened, model=model)
  return model, config
