"""Latents of any number of scenes, in one file.

Dimensions: B batch, K slots, H W image.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import tensorflow as tf
import tqdm

from iodine import checkpoints, errors, evaluation, files, replicas
from iodine.commands import common, evaluate
from iodine.drawing import palette
from iodine.modules import iodine
from iodine.readers import cache
from iodine.studies import latents

Config = common.Config
Found = dict[str, Any]

# Families say nothing of a scene, or say it by the slot.
_METRICS = [x for x in evaluation.catalogue.STANDARD if "{}" not in x.name]


def run(
  config: Config, checkpoint: common.Checkpoint, output: str | None
) -> str:
  """Decomposes every scene of the test subset as `evaluate` does.

  Args:
    config: the complete config.
    checkpoint: see `checkpoints.open_checkpoint`.
    output: the file to write; None for latents.h5 where results go. Where it
      follows from the same checkpoint, config and data already, it stays.

  Returns:
    Its path.
  """
  opened = checkpoints.open_checkpoint(checkpoint)
  output = output or common.results_path(config, opened.prefix, "latents.h5")
  files.check_writable(output)
  there = latents.about(output)
  if os.path.exists(output) and latents.MADE_FROM not in there:
    raise errors.UserError(
      f"`{output}` is there already, and is not a file of latents: choose "
      "another `output`, or remove it"
    )
  strategy = replicas.make_strategy(config)
  dataset = evaluate.build_dataset(config)
  common.tell_scenes(dataset)
  # A data set of somebody's own need not say which its files and names are.
  find_files = getattr(dataset, "files", lambda subset: ())
  find_names = getattr(dataset, "names", lambda subset: ())
  content = evaluate.digest(config, opened, ("encode",))
  made_from = cache.name_of(content, find_files("test"))
  if there.get(latents.MADE_FROM) == made_from:
    print(f"latents: {output} (there already)", flush=True)
    return output
  if there:
    print(f"{output} is of another model or other scenes: replaced", flush=True)
  own, *_ = evaluate.restore(config, opened, strategy).values()
  print(f"encoding with {opened.prefix}", flush=True)
  with files.unfinished(output, made_from) as folder:
    decompose = evaluation.compiled(own.model, _describe, strategy)
    _write_pieces(folder, config, dataset, decompose)
    about = {**evaluate.origin(opened), latents.MADE_FROM: made_from}
    about["config"] = json.dumps(config, default=str)
    latents.join(folder, output, about, find_names("test"))
  print(f"latents: {output}", flush=True)
  return output


def _write_pieces(
  folder: str, config: Config, dataset: Any, decompose: Any
) -> None:
  """Writes a piece of each batch, but for those that are there."""
  num_scenes, size = config["evaluation"]["num_scenes"], dataset.batch_size
  done = max(latents.pieces(folder), default=0)
  if done == num_scenes:
    return
  skip = -(-done // size)
  unread = dataset.batches("test", skip)
  batches = tqdm.tqdm(unread, unit=" batches", initial=skip)
  for numbers, decomposed in evaluation.decompose_batches(
    decompose, batches, size, num_scenes, done
  ):
    found = evaluation.to_numpy(decomposed(config["seed"]))
    rows = _rows_of(found, len(numbers), config["encode"]["masks"])
    path = os.path.join(folder, f"{numbers.stop:012}.npz")
    with files.replaced(path) as temporary:
      np.savez(temporary, **rows)


def _describe(
  model: iodine.IODINE, data: dict[str, Any], seeds: tf.Tensor
) -> Found:
  """Decomposes a batch; returns tensors [B, ...] by their names in the file.

  But for "masks" [B, K, H, W] and "scores", of which `_rows_of` makes others.
  """
  found = evaluation.inspect(model, data, seeds)
  info = found["info"]
  rows = {
    "mean": info["latent"]["z_mean"][:, -1],
    "scale": info["latent"]["z_std"][:, -1],
    "masks": info["outputs"]["pred_mask"][:, -1, ..., 0],
    "kl": found["latent_kl"],
    "scores": found["scores"],
  }
  rows |= {f"factors/{k}": x for k, x in data.get("factors", {}).items()}
  if "visibility" in data:
    rows["visibility"] = data["visibility"]
  return rows


def _rows_of(found: Found, size: int, masks: str) -> Found:
  """Returns the rows of a file, see `latents.read_latents`.

  Args:
    found: what `_describe` returns, in NumPy.
    size: how many scenes count; copies that fill up the batch follow.
    masks: "labels" or "probabilities".
  """
  rows = tf.nest.map_structure(lambda x: x[:size], found)
  scores = {k: x[None].astype(float) for k, x in rows.pop("scores").items()}
  if masks == "labels":
    labels, most = rows.pop("masks").argmax(axis=1), rows["mean"].shape[1] - 1
    rows["labels"] = labels.astype(np.min_scalar_type(most))
  for metric, values in evaluation.catalogue.measure(scores, _METRICS):
    rows[f"metrics/{metric.name}"] = np.atleast_3d(values)[0, :, -1]
  if "contingency" in scores:
    counts = scores["contingency"][0, :, -1]
    counts *= (rows["visibility"] > 0)[..., None]
    slots = [palette.match_by_iou(table) for table in counts]
    rows["slot"] = np.stack(slots).astype(np.int16)
    rows["pixels"] = counts.sum(axis=-1).astype(np.int32)
  return rows
