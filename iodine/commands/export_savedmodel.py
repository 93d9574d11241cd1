"""Writing a model that runs without this project's code."""

from __future__ import annotations

import tensorflow as tf

from iodine import checkpoints, errors, files, segmentation
from iodine.commands import common

Config = common.Config


def run(
  config: Config, checkpoint: common.Checkpoint, output: str | None
) -> str:
  """Writes the SavedModel of a checkpoint; returns its folder."""
  opened = checkpoints.open_checkpoint(checkpoint)
  if output is None:
    raise errors.UserError(
      "`output` is not set: give the folder to write, such as "
      "`output=saved_model`"
    )
  checkpoints.check_name(output)  # TensorFlow loads it
  files.check_replaceable(output)
  files.check_folder(output)
  model = common.restore(checkpoints.as_evaluated(config), opened).model
  image_shape = tuple(model.output_dist.output_shape)
  print(f"exporting {opened.prefix}, which takes some seconds", flush=True)
  with files.replaced_folder(output, (tf.errors.OpError,)) as temporary:
    segmentation.export(temporary, model, image_shape, config["seed"])
  print(f"written: {output}", flush=True)
  return output
