"""One file to share: a checkpoint with its config, metrics and pictures."""

from __future__ import annotations

import os
import pathlib
import shutil

import tensorflow as tf

import iodine
from iodine import checkpoints, config_files, errors, evaluation, files
from iodine.commands import common, evaluate

_README = pathlib.Path(__file__).with_name("packed_readme.md")


def run(
  config: common.Config, checkpoint: common.Checkpoint, output: str | None
) -> str:
  """Evaluates a checkpoint and packs it; returns the file.

  Args:
    config: the complete config.
    checkpoint: see `checkpoints.open_checkpoint`.
    output: the file to write, a new one.
  """
  end = files.PACKED
  if output is None or not output.endswith(end) or os.path.exists(output):
    raise errors.UserError(
      f"`output` is {output!r}: give the name of a file that is not there yet, "
      "such as `output=shared.zip`"
    )
  files.check_writable(output)
  opened = checkpoints.open_checkpoint(checkpoint)
  strategy = tf.distribute.get_strategy()
  dataset, batches = evaluate.open_scenes(config)
  models = evaluate.restore(config, opened, strategy)
  result = evaluate.measure(config, models, dataset, batches, strategy)
  (own, *_), stored = models.values(), config
  optimizer = own.optimizer
  if not config["pack_optimizer"]:
    optimizer = common.build_optimizer(config["optimizer"], own.model)
    optimizer.global_step.assign(own.step)
  if os.path.exists(checkpoints.config_path(opened.prefix)):
    stored = checkpoints.config_beside(opened.prefix)
  # On what it was trained, but not where it wrote there.
  environment = {"environment": stored.get("environment", {})}
  stored = {**config_files.for_another_call(stored), **environment}
  about = {"step": opened.step, "version": iodine.__version__}
  table, name = evaluation.tables.final_table(result), os.path.basename(output)
  readme = _README.read_text("utf-8").format(name=name, table=table, **about)
  with files.replaced(output) as temporary:
    folder = temporary.removesuffix(end)
    saved = (folder, own.model, optimizer, opened.seed)
    checkpoints.CheckpointStore(*saved).save()
    example = next(iter(dataset.batches("test")))
    evaluate.write_pictures(config, own.model, example, folder)
    metrics = {**about, **result.as_json()}
    files.write_json(os.path.join(folder, "metrics.json"), metrics)
    files.write_json(os.path.join(folder, files.RUN_CONFIG), stored)
    files.write(os.path.join(folder, "README.md"), readme)
    shutil.make_archive(folder, "zip", folder)
  print(f"packed: {output}", flush=True)
  return output
