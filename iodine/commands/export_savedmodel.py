"""Writing a model that runs without this project's code."""

from __future__ import annotations

import os

import tensorflow as tf

from iodine import checkpoints, errors, files, segmentation, validation
from iodine.commands import common

Config = common.Config


def run(config: Config, checkpoint_dir: str, output: str | None) -> str:
  """Writes the SavedModel of a checkpoint; returns its folder.

  Raises:
    errors.UserError: if `output` is not set or has content that an export did
      not write, or the checkpoint does not fit.
  """
  if output is None:
    raise errors.UserError(
      "`output` is not set: give the folder to write, such as "
      "`output=saved_model`"
    )
  validation.check_path("output", output, "the path of a folder to write")
  checkpoints.check_name(output)
  is_ours = os.path.exists(os.path.join(output, files.MARK))
  if os.path.exists(output) and not (is_ours or _is_empty_folder(output)):
    raise errors.UserError(
      f"`{output}` is there already and no empty folder: give another "
      "`output`, or remove it"
    )
  files.check_folder(output)
  prefix = checkpoints.find(checkpoint_dir)
  model = common.restore(checkpoints.as_evaluated(config), prefix).model
  image_shape = tuple(model.output_dist.output_shape)
  print(f"exporting {prefix}, which takes some seconds", flush=True)
  with files.replaced_folder(output, (OSError, tf.errors.OpError)) as temporary:
    segmentation.export(temporary, model, image_shape, config["seed"])
  print(f"written: {output}", flush=True)
  return output


def _is_empty_folder(path: str) -> bool:
  return os.path.isdir(path) and not os.listdir(path)
