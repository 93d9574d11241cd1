"""One file to share: a checkpoint with its config, metrics and pictures."""

from __future__ import annotations

import os
import pathlib
import tempfile

import tensorflow as tf

import iodine
from iodine import checkpoints, config_files, errors, evaluation, files
from iodine.commands import common, evaluate

# Of an evaluation that says roughly how good a model is.
_NUM_SCENES = 32
# How a file of `checkpoints.pack` begins, by its date; no other is replaced.
_BEGIN = "PK\3\4\x14\0\0\0\x08\0\0\0!\0"
_README = pathlib.Path(__file__).with_name("packed_readme.md")


def run(
  config: common.Config, checkpoint: common.Checkpoint, output: str | None
) -> str:
  """Evaluates a checkpoint and packs it; returns the file.

  The same checkpoint makes the same bytes.

  Args:
    config: the complete config.
    checkpoint: see `checkpoints.open_checkpoint`.
    output: the file to write.
  """
  source = os.path.realpath(config["checkpoint_dir"])
  if (
    output is None
    or not output.endswith(files.PACKED)
    or os.path.realpath(output) == source
  ):
    raise errors.UserError(
      f"`output` is {output!r}: give a file to write, not the checkpoint "
      "itself, such as `output=model.zip`"
    )
  files.check_writable(output, _BEGIN)
  opened = checkpoints.open_checkpoint(checkpoint)
  number = config["evaluation"]["num_scenes"] or _NUM_SCENES
  options = {"num_components": None, "num_scenes": number}
  config = {**config, "evaluation": {**config["evaluation"], **options}}
  strategy = tf.distribute.get_strategy()
  dataset, batches = evaluate.open_scenes(config)
  models = evaluate.restore(config, opened, strategy)
  result = evaluate.measure(config, models, dataset, batches, strategy)
  (own,) = models.values()
  with (
    files.replaced(output, (tf.errors.OpError,)) as temporary,
    tempfile.TemporaryDirectory() as folder,
  ):
    example = next(iter(dataset.batches("test")))
    evaluate.write_pictures(config, own.model, example, folder)
    _write_checkpoint(folder, config, opened)
    about = {"step": opened.step, "version": iodine.__version__}
    metrics = {**about, **result.as_json()}
    files.write_json(os.path.join(folder, "metrics.json"), metrics)
    table = evaluation.tables.final_table(result)
    text = _README.read_text(encoding="utf-8").format(
      name=os.path.basename(output), table=table, **about
    )
    files.write(os.path.join(folder, "README.md"), text)
    checkpoints.pack(temporary, folder)
  print(f"packed: {output}", flush=True)
  return output


def _write_checkpoint(
  folder: str, config: common.Config, opened: checkpoints.Opened
) -> None:
  """Writes the tensors, and the config of the training beside them."""
  stored = dict(config)
  if os.path.exists(checkpoints.config_path(opened.prefix)):
    stored = checkpoints.config_beside(opened.prefix)
  # On what it was trained; the rest of one call or machine is left out.
  kept = {"environment": stored.get("environment", {})}
  stored = {**config_files.for_another_call(stored), **kept}
  files.write_json(os.path.join(folder, files.RUN_CONFIG), stored)
  if not config["pack_optimizer"]:
    opened = checkpoints.without_optimizer(opened)
  names = sorted(opened.tensors)
  tf.raw_ops.SaveV2(
    prefix=os.path.join(folder, f"ckpt-{opened.step}"),
    tensor_names=names,
    shape_and_slices=[""] * len(names),
    tensors=[tf.convert_to_tensor(opened.tensors[name]) for name in names],
  )
