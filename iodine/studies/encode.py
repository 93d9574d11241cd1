"""Latents of any number of scenes, in one file.

Dimensions: B batch, T iterations + 1, K slots, L true entities, H W image, Z
latent size.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import scipy.optimize
import tensorflow as tf
import tqdm

from iodine import checkpoints, errors, evaluation, files, replicas
from iodine.commands import common, evaluate
from iodine.modules import iodine, metrics
from iodine.readers import cache
from iodine.studies import evaluated, latents

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
  if config["strategy"] == "multi_worker":
    raise errors.UserError(
      "`strategy` is 'multi_worker', and one process writes latents: give "
      "`strategy=mirrored`, or a `data.test` of its own to each machine"
    )
  strategy = replicas.make_strategy(config)
  dataset = evaluate.build_dataset(config)
  common.tell_scenes(dataset)
  # A data set of somebody's own need not say which its files and names are.
  find_files = getattr(dataset, "files", lambda subset: ())
  find_names = getattr(dataset, "names", lambda subset: ())
  content = evaluated.digest(config, opened, (*evaluated.DECIDE, "encode"))
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
  """Decomposes a batch; returns nested tensors [B, ...], see `_rows_of`."""
  found = evaluation.inspect(model, data, seeds)
  info = found["info"]
  last = {
    "mean": info["latent"]["z_mean"],
    "scale": info["latent"]["z_std"],
    "masks": info["outputs"]["pred_mask"][..., 0],
  }
  return {
    "kl": found["latent_kl"],
    **{name: values[:, -1] for name, values in last.items()},
    "truth": {k: data[k] for k in ("visibility", "factors") if k in data},
    "scores": found["scores"],
  }


def _rows_of(found: Found, size: int, masks: str) -> Found:
  """Returns the rows of a file, see `latents.read_latents`.

  Args:
    found: what `_describe` returns, in NumPy.
    size: how many scenes count; copies that fill up the batch follow.
    masks: "labels" or "probabilities".
  """
  found = tf.nest.map_structure(lambda x: x[:size], found)
  rows, truth = found, found.pop("truth")
  scores = {k: x[None].astype(float) for k, x in found.pop("scores").items()}
  num_slots = rows["mean"].shape[1]
  if masks == "labels":
    labels = rows.pop("masks").argmax(axis=1)
    rows["labels"] = labels.astype(np.min_scalar_type(num_slots - 1))
  for metric, values in evaluation.catalogue.measure(scores, _METRICS):
    rows[f"metrics/{metric.name}"] = np.atleast_3d(values)[0, :, -1]
  entities = {f"factors/{k}": x for k, x in truth.get("factors", {}).items()}
  if "contingency" in scores:
    visibility = truth["visibility"]
    counts = scores["contingency"][0, :, -1] * (visibility > 0)[..., None]
    slots = np.stack([match_entities(table) for table in counts])
    scene, entity = np.nonzero(slots >= 0)

    def of_slots(values: np.ndarray, none: float) -> np.ndarray:
      """Maps [B, L, ...] of entities -> [B, K, ...] of slots."""
      shape = (size, num_slots, *values.shape[2:])
      result = np.full(shape, none, values.dtype)
      result[scene, slots[scene, entity]] = values[scene, entity]
      return result

    rows["entity"] = of_slots(np.indices(slots.shape, np.int16)[1], -1)
    rows["visibility"] = of_slots(visibility, 0)
    for name, values in entities.items():
      rows[name] = of_slots(values.astype(np.float32), np.nan)
    entities["slot"], entities["visibility"] = slots, visibility
    entities["pixels"] = counts.sum(axis=-1).astype(np.int32)
  return rows | {f"entities/{name}": x for name, x in entities.items()}


def match_entities(counts: np.ndarray) -> np.ndarray:
  """Gives true entities a slot each, so that the sum of their IoU is largest.

  Objects come before the background (entity 0), as where slots divide that,
  none of them has little of it.

  Args:
    counts: [L, K] numbers of pixels that they share.

  Returns:
    [L] int16 slots; -1 where there is none that shares a pixel.
  """
  iou = metrics.pairwise_iou(counts)
  iou[0] *= 1e-6
  rows, columns = scipy.optimize.linear_sum_assignment(iou, maximize=True)
  slots = np.full(len(counts), -1, np.int16)
  slots[rows] = np.where(iou[rows, columns] > 0, columns, -1)
  return slots
