"""Latents of any number of scenes, in one file.

Dimensions: B batch, T iterations + 1, K slots, L true entities, H W image, Z
latent size.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.optimize
import tensorflow as tf
import tensorflow_probability as tfp
import tqdm

from iodine import checkpoints, errors, evaluation, files, replicas
from iodine.commands import common, evaluate
from iodine.modules import distributions, iodine, metrics, utils
from iodine.readers import cache
from iodine.studies import evaluated, latents

Config = common.Config

# Metrics that say something of a scene; families say it by the slot.
_METRICS = [
  metric
  for metric in evaluation.catalogue.STANDARD
  if metric.of_scenes and "{}" not in metric.name
]


def run(
  config: Config, checkpoint: common.Checkpoint, output: str | None
) -> str:
  """Decomposes every scene of the test subset as `evaluate` does.

  Args:
    config: the complete config.
    checkpoint: a path, or what `checkpoints.open_checkpoint` returned.
    output: the file to write; None for latents.h5 where results go. Where it
      follows from the same checkpoint, config and data already, it stays.

  Returns:
    Its path.
  """
  opened = checkpoints.open_checkpoint(checkpoint)
  output = output or common.results_path(config, opened.prefix, "latents.h5")
  latents.check(output)
  if config["strategy"] == "multi_worker":
    raise errors.UserError(
      "`strategy` is 'multi_worker', and one process writes latents: give "
      "`strategy=mirrored`, or a `data.test` of its own and another `output` "
      "on each machine"
    )
  strategy = replicas.make_strategy(config)
  dataset = evaluate.build_dataset(config)
  common.tell_scenes(dataset)
  # A data set of somebody's own need not say which its files and names are.
  find_files = getattr(dataset, "files", lambda subset: ())
  find_names = getattr(dataset, "names", lambda subset: ())
  content = evaluated.digest(config, opened, (*evaluated.DECIDE, "encode"))
  made_from = cache.name_of(content, find_files("test"))
  if latents.about(output).get(latents.MADE_FROM) == made_from:
    print(f"latents: {output} (there already)", flush=True)
    return output
  own, *_ = evaluate.restore(config, opened, strategy).values()
  print(f"encoding with {opened.prefix}", flush=True)
  with files.unfinished(output, made_from) as folder:
    pieces = latents.Pieces(folder)
    if pieces.num_scenes:
      print(f"going on after {pieces.num_scenes:,} scenes", flush=True)
    for piece in _encode(
      config, own.model, dataset, strategy, pieces.num_scenes
    ):
      pieces.add(piece)
    about = {**evaluate.origin(opened), latents.MADE_FROM: made_from}
    about["config"] = json.dumps(config, default=str)
    pieces.join(output, about, find_names("test"))
  print(f"latents: {output} ({pieces.num_scenes:,} scenes)", flush=True)
  return output


def _encode(
  config: Config,
  model: iodine.IODINE,
  dataset: Any,
  strategy: tf.distribute.Strategy,
  done: int,
) -> Iterator[latents.Arrays]:
  """Yields the rows of each batch that is left.

  Args:
    config: the complete config.
    model: the model.
    dataset: whose test subset has the scenes.
    strategy: whose replicas share every batch.
    done: how many scenes came before.
  """
  num_scenes, size = config["evaluation"]["num_scenes"], dataset.batch_size
  if done == num_scenes:
    return
  as_labels = config["encode"]["masks"] == "labels"
  describe = functools.partial(_describe, as_labels=as_labels)
  decompose = evaluation.compiled(model, describe, strategy)
  skip = -(-done // size)
  batches = tqdm.tqdm(
    dataset.batches("test", skip), unit=" batches", initial=skip
  )
  for numbers, decomposed in evaluation.decompose_batches(
    decompose, batches, size, num_scenes, done
  ):
    found = evaluation.to_numpy(decomposed(config["seed"]))
    yield _rows_of(found, len(numbers))


def _describe(
  model: iodine.IODINE,
  data: dict[str, Any],
  seeds: tf.Tensor,
  as_labels: bool,
) -> dict[str, Any]:
  """Decomposes a batch; returns nested tensors [B, ...] of the last iteration.

  Args:
    model: the model.
    data: the batch.
    seeds: [B, 2].
    as_labels: whether masks are numbers of slots.
  """
  data = model.cut_frames(data)
  estimates, _ = model.encode(data["image"], seed=seeds)
  last = estimates[-1]
  masks = distributions.render(last.x_dist).masks
  order = utils.background_first(masks)
  masks = utils.reorder(masks, order)[..., 0]
  # Independent's own divergence is the sum over the latents.
  prior = model.latent_dist.default_prior().distribution
  kl = tfp.distributions.kl_divergence(last.z_dist.distribution, prior)
  of_slots = {"mean": last.z_dist.mean(), "scale": last.z_dist.stddev()}
  of_slots["kl"] = kl
  arrays = {name: utils.reorder(x, order) for name, x in of_slots.items()}
  if as_labels:
    dtype = tf.uint8 if model.num_components <= 256 else tf.uint16
    arrays["labels"] = tf.cast(tf.argmax(masks, axis=1), dtype)
  else:
    arrays["masks"] = masks
  truth = {k: data[k] for k in ("visibility", "factors") if k in data}
  scores = evaluation.score(model, data, estimates)
  return {"arrays": arrays, "truth": truth, "scores": scores}


def _rows_of(found: dict[str, Any], size: int) -> latents.Arrays:
  """Returns the rows of a file, see `latents.read_latents`.

  Args:
    found: what `_describe` returns, in NumPy.
    size: how many scenes count; copies that fill up the batch follow.
  """
  found = tf.nest.map_structure(lambda x: x[:size], found)
  rows = dict(found["arrays"])
  scores = {k: x[None].astype(np.float64) for k, x in found["scores"].items()}
  for metric, values in evaluation.catalogue.measure(scores, _METRICS):
    rows[f"metrics/{metric.name}"] = np.atleast_3d(values)[0, :, -1]
  factors = found["truth"].get("factors", {})
  for name, values in factors.items():
    rows[f"entities/factors/{name}"] = values
  if "contingency" not in scores:
    return rows
  visibility = found["truth"]["visibility"]
  counts = found["scores"]["contingency"][:, -1] * (visibility > 0)[..., None]
  slots = np.stack([match_entities(table) for table in counts])
  entity = np.full(rows["mean"].shape[:2], -1, np.int16)
  scene, number = np.nonzero(slots >= 0)
  entity[scene, slots[scene, number]] = number
  rows["entity"] = entity
  rows["entities/slot"] = slots
  rows["entities/pixels"] = counts.sum(axis=-1).astype(np.int32)
  rows["entities/visibility"] = visibility
  rows["visibility"] = np.where(entity < 0, 0, _take(visibility, entity))
  for name, values in factors.items():
    of_slots = _take(values.astype(np.float32), entity)
    of_slots[entity < 0] = np.nan
    rows[f"factors/{name}"] = of_slots
  return rows


def _take(values: np.ndarray, entity: np.ndarray) -> np.ndarray:
  """Maps [B, L, ...] of entities -> [B, K, ...] of slots."""
  return values[np.arange(len(entity))[:, None], entity]


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
  slots = np.full(len(counts), -1, np.int16)
  rows, columns = scipy.optimize.linear_sum_assignment(iou[1:], maximize=True)
  shared = iou[1:][rows, columns] > 0
  slots[1 + rows[shared]] = columns[shared]
  left = np.setdiff1d(np.arange(counts.shape[1]), slots)
  if iou[0, left].max(initial=0.0) > 0:
    slots[0] = left[iou[0, left].argmax()]
  return slots
