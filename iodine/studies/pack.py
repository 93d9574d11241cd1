"""One file to share: a checkpoint with its config, metrics and pictures."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import tensorflow as tf

import iodine
from iodine import (
  checkpoints,
  config_files,
  errors,
  evaluation,
  files,
  replicas,
)
from iodine.commands import common, evaluate

Config = common.Config

# Of an evaluation that says roughly how good a model is.
_NUM_SCENES = 32
# How a file of `checkpoints.pack` begins, by its date; no other is replaced.
_BEGIN = "PK\3\4\x14\0\0\0\x08\0\0\0!\0"

_README = """# A model of IODINE

![Scenes, their reconstructions and what each slot shows](overview.png)

IODINE decomposes images into objects. This model was packed by iodine-tf2
{version} after {step:,} updates. `config.json` says how it was trained.

## Open it

Do not unpack the file. With iodine-tf2, at the command line and in Python:

    python -m iodine evaluate with checkpoint_dir={name}
    python -m iodine segment with checkpoint_dir={name} images=photos

    model, config = iodine.restore("{name}")

## What it reaches

On {num_scenes} scenes of `data.test`; `metrics.json` has more.

```
{table}
```

## Cite

```bibtex
@inproceedings{{greff2019multi,
  title={{Multi-Object Representation Learning with Iterative Variational
         Inference}},
  author={{Greff, Klaus and Kaufman, Rapha{{\\"e}}l Lopez and Kabra, Rishabh and
          Watters, Nick and Burgess, Christopher and Zoran, Daniel and
          Matthey, Loic and Botvinick, Matthew and Lerchner, Alexander}},
  booktitle={{International Conference on Machine Learning}},
  year={{2019}}
}}
```
"""


def run(
  config: Config, checkpoint: common.Checkpoint, output: str | None
) -> str:
  """Evaluates a checkpoint and packs it; returns the file.

  The same checkpoint makes the same bytes.

  Args:
    config: the complete config.
    checkpoint: see `checkpoints.open_checkpoint`.
    output: the file to write.
  """
  if output is None or not output.endswith(files.PACKED):
    raise errors.UserError(
      f"`output` is {output!r}: give the file to write, such as "
      "`output=model.zip`"
    )
  if os.path.realpath(output) == os.path.realpath(config["checkpoint_dir"]):
    raise errors.UserError(
      f"`{output}` is the checkpoint itself: give `output` another name"
    )
  files.check_writable(output, _BEGIN)
  opened = checkpoints.open_checkpoint(checkpoint)
  options = {**config["evaluation"], "num_components": None}
  options["num_scenes"] = options["num_scenes"] or _NUM_SCENES
  config = {**config, "evaluation": options}
  strategy = replicas.make_strategy(config)
  dataset, batches = evaluate.open_scenes(config)
  models = evaluate.restore(config, opened, strategy)
  result = evaluate.measure(config, models, dataset, batches, strategy)
  (own,) = models.values()
  with (
    files.replaced(output, (tf.errors.OpError,)) as temporary,
    tempfile.TemporaryDirectory() as folder,
  ):
    example = next(iter(dataset.batches("test")))
    evaluate.write_pictures(own.model, example, folder)
    _write_files(folder, config, opened, result, os.path.basename(output))
    checkpoints.pack(temporary, folder)
  size = os.path.getsize(output) / 1e6
  print(f"packed: {output} ({size:.1f} MB)", flush=True)
  return output


def _write_files(
  folder: str,
  config: Config,
  opened: checkpoints.Opened,
  result: evaluation.Evaluation,
  name: str,
) -> None:
  """Writes all but the pictures; `name` is that of the packed model."""
  kept = (
    opened
    if config["pack_optimizer"]
    else checkpoints.without_optimizer(opened)
  )
  tf.raw_ops.SaveV2(
    prefix=os.path.join(folder, f"ckpt-{opened.step}"),
    tensor_names=sorted(kept.tensors),
    shape_and_slices=[""] * len(kept.tensors),
    tensors=[
      tf.convert_to_tensor(kept.tensors[n]) for n in sorted(kept.tensors)
    ],
  )
  about = {"step": opened.step, "version": iodine.__version__}
  files.write_json(
    os.path.join(folder, files.RUN_CONFIG), _config_of(config, opened)
  )
  metrics = {**about, **result.as_json()}
  files.write_json(os.path.join(folder, "metrics.json"), metrics)
  table = evaluation.tables.final_table(result)
  text = _README.format(
    name=name, table=table, num_scenes=result.num_scenes, **about
  )
  files.write(os.path.join(folder, "README.md"), text)


def _config_of(config: Config, opened: checkpoints.Opened) -> dict[str, Any]:
  """Returns the config of a training, without what was of one call or place."""
  if os.path.exists(checkpoints.config_path(opened.prefix)):
    config = checkpoints.config_beside(opened.prefix)
  kept = {k: config[k] for k in ("environment",) if config.get(k)}
  return {**config_files.for_another_call(config), **kept}
