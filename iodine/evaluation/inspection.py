"""What pictures of a model show: computed by TensorFlow, given in NumPy.

Nothing here changes the state of the model.

Dimensions: B batch, T iterations + 1, K slots, L true entities, N objects or
images, H W C image, Z latent size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from iodine import errors
from iodine.drawing import latent_plots
from iodine.evaluation import decomposing, scores
from iodine.modules import distributions, factor_eval, iodine, types, utils
from iodine.modules import info as info_lib

tfd = tfp.distributions
Info = dict[str, Any]

# Of traversals, in standard deviations of the prior.
_VALUES = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)


class Scene(NamedTuple):
  """What there is to know about one scene.

  Attributes:
    number: of the scene among the batches.
    info: as from `IODINE.eval` with B = 1, in NumPy, but losses/factor is
      [B, T], what concerns whole batches is left out, and the background's slot
      comes first, see `background_first`.
    latent_kl: [K, Z] how far every latent of the last iteration is from the
      prior (nats).
  """

  number: int
  info: Info
  latent_kl: np.ndarray


class SceneStatistics(NamedTuple):
  """What is known about many scenes.

  Attributes:
    num_scenes: how many.
    info: `losses` and `metrics` as in `Scene`, B being the scenes.
    latents: [N, Z] means of the slots that overlap the true objects most; None
      without masks.
    factors: {name: [N, n]} of those objects.
  """

  num_scenes: int
  info: Info
  latents: np.ndarray | None
  factors: dict[str, np.ndarray]


def decompose_scenes(
  model: iodine.IODINE,
  batches: Iterable[dict[str, Any]],
  batch_size: int,
  scenes: Sequence[int] = (),
  num_scenes: int = 0,
  seed: int = 0,
) -> tuple[list[Scene], SceneStatistics | None]:
  """Decomposes some scenes to be shown, and the first ones for statistics.

  Scenes are batched, filled up and sampled as in `evaluator.evaluate`.

  Args:
    model: the model.
    batches: batches of batch_size scenes, of which the last may be smaller.
    batch_size: how many scenes are decomposed at a time.
    scenes: numbers of those to be shown, from 0.
    num_scenes: how many are in the statistics, or all if there are fewer.
    seed: the latents are sampled from it.

  Returns:
    The scenes in the order of their numbers as given, and the statistics; None
    if these have no scene.

  Raises:
    errors.UserError: if a scene is not there, or there is none at all.
  """
  shown: dict[int, Scene] = {}
  parts: list[Info] = []
  done = 0
  for numbers, decompose in decomposing.decompose_batches(
    decomposing.compiled(model, inspect),
    batches,
    batch_size,
    max([num_scenes, *(number + 1 for number in scenes)]),
  ):
    done = numbers.stop
    chosen = [number for number in scenes if number in numbers]
    counted = slice(max(0, min(num_scenes, done) - numbers.start))
    if not chosen and not counted.stop:
      continue
    inspected = to_numpy(decompose(seed))
    for number in chosen:
      row = number - numbers.start
      info = _rows(inspected["info"], slice(row, row + 1))
      shown[number] = Scene(number, info, inspected["latent_kl"][row])
    if counted.stop:
      parts.append(_rows(inspected["statistics"], counted))
  for number in scenes:
    if number not in shown:
      raise errors.UserError(
        f"there is no scene {number}: the test subset has {done} scenes, "
        "which count from 0"
      )
  return [shown[number] for number in scenes], _join(parts) if parts else None


def to_numpy(info: Info) -> Info:
  """Returns the same nested dict with arrays in place of tensors."""
  return tf.nest.map_structure(np.asarray, info)


def background_first(info: Info) -> Info:
  """Numbers the slots in what `IODINE.eval` returns as in all pictures.

  That is `utils.background_first` of the last iteration's masks.
  """
  return info_lib.reorder(info, _order(info))


def _order(info: Info) -> tf.Tensor:
  return utils.background_first(info["outputs"]["pred_mask"][:, -1])


def inspect(
  model: iodine.IODINE, data: dict[str, Any], seeds: tf.Tensor
) -> Info:
  """Decomposes a batch for pictures and statistics.

  Args:
    model: the model.
    data: the batch, see `IODINE.__call__`.
    seeds: of the samples, see `IODINE.__call__`.

  Returns:
    info [B, ...] and latent_kl [B, K, Z], see `Scene`; statistics, of which a
    `SceneStatistics` is made; and scores, see `scores.score`.
  """
  data = model.cut_frames(data)
  estimates, inputs = model.encode(data["image"], seed=seeds)
  info = model.describe(data, estimates, inputs, update=False)
  # These concern the batch with the copies that fill it up.
  del info["losses"]["total"]
  info.get("factor_regressor", {}).pop("metrics", None)
  scored = scores.score(model, data, estimates)
  if model.regresses(data):
    info["losses"]["factor"] = scored["factor"]
  order = _order(info)
  info = info_lib.reorder(info, order)
  prior = model.latent_dist.default_prior()
  # Independent's own divergence is the sum over the latents.
  kl = tfd.kl_divergence(estimates[-1].z_dist.distribution, prior.distribution)
  statistics = {"losses": info["losses"], "metrics": info["metrics"]}
  if "mask" in data:
    statistics |= _describe_objects(info)
  return {
    "info": info,
    "latent_kl": utils.reorder(kl, order),
    "statistics": statistics,
    "scores": scored,
  }


def _describe_objects(info: Info) -> Info:
  """Returns latents and factors of the entities, and which are objects."""
  seen, true_mask = info["data"], info["data"]["true_mask"][:, -1]
  assignment = factor_eval.assign_slots(
    true_mask, info["outputs"]["pred_mask"][:, -1], seen["visibility"]
  )
  has_pixels = tf.reduce_max(true_mask, axis=[2, 3, 4]) > 0
  is_entity = has_pixels & (seen["visibility"] > 0)
  means = info["latent"]["z_mean"][:, -1]
  return {
    "latents": tf.einsum("blk,bkz->blz", assignment, means),
    "factors": seen["factors"],
    # The background is not an object.
    "is_object": is_entity & (tf.range(is_entity.shape[1]) > 0),
  }


def _rows(nested: Any, rows: slice) -> Any:
  return tf.nest.map_structure(lambda x: x[rows], nested)


def _join(parts: Sequence[Info]) -> SceneStatistics:
  joined = tf.nest.map_structure(lambda *x: np.concatenate(x), *parts)
  info = {name: joined[name] for name in ("losses", "metrics")}
  latents, factors = None, {}
  if "latents" in joined:
    chosen = joined["is_object"]
    latents = joined["latents"][chosen]
    factors = {name: x[chosen] for name, x in joined["factors"].items()}
  num_scenes = len(info["losses"]["recons"])
  return SceneStatistics(num_scenes, info, latents, factors)


# --------------------------------------------------------- decoding latents


class Decoder:
  """Decodes many latents, some at a time, compiled once."""

  def __init__(self, model: iodine.IODINE, batch_size: int):
    """Takes a model with variables, and how many images fit into memory."""
    self.model = model
    self._batch_size = batch_size
    self._compiled = tf.function(
      lambda z: distributions.render(model.decode(z).x_dist), autograph=False
    )

  def __call__(self, z: np.ndarray) -> types.Rendering:
    """Decodes [N, K, Z] to N images, in NumPy."""
    # Always as many at a time, so that there is one graph.
    missing = -len(z) % self._batch_size
    padded = np.pad(np.asarray(z, np.float32), [(0, missing), (0, 0), (0, 0)])
    chunks = np.split(padded, len(padded) // self._batch_size)
    parts = [to_numpy(self._compiled(chunk)) for chunk in chunks]
    whole = tf.nest.map_structure(lambda *x: np.concatenate(x), *parts)
    return _rows(whole, slice(len(z)))


def sample(
  decoder: Decoder, num_samples: int = 16, seed: int = 0
) -> types.Rendering:
  """Decodes latents that are sampled from the prior, see `background_first`."""
  model = decoder.model
  prior = model.latent_dist.default_prior()
  shape = [num_samples, model.num_components]
  decoded = decoder(prior.sample(shape, seed=tf.constant([seed, 0])).numpy())
  order = utils.background_first(tf.constant(decoded.masks))
  return decoded._replace(
    components=utils.reorder(decoded.components, order).numpy(),
    masks=utils.reorder(decoded.masks, order).numpy(),
  )


def foreground_slot(masks: np.ndarray) -> int:
  """Returns the slot of the second largest area: the background has more.

  Args:
    masks: [K, H, W, 1]; a pixel belongs to the largest.

  Returns:
    Its number from 0; the largest one's where no other slot has a pixel.
  """
  owner = masks[..., 0].argmax(axis=0)
  areas = np.bincount(owner.ravel())
  owners = [k for k in np.argsort(-areas, kind="stable") if areas[k]]
  return int(owners[:2][-1])


def traverse(
  decoder: Decoder,
  scene: Scene,
  slot: int | None = None,
  latent: int | None = None,
  num_latents: int = 8,
  values: Sequence[float] = _VALUES,
) -> latent_plots.Traversal:
  """Changes the latents of one slot, one at a time.

  All else stays at the posterior mean of the last iteration.

  Args:
    decoder: of the model that decomposed the scene.
    scene: see `decompose_scenes`.
    slot: from 0; None for `foreground_slot`.
    latent: the only one, from 0; None: those of the highest KL.
    num_latents: how many these are.
    values: what a latent is set to, in standard deviations of the prior from
      its mean.
  """
  z = scene.info["latent"]["z_mean"][0, -1]
  if slot is None:
    slot = foreground_slot(scene.info["outputs"]["pred_mask"][0, -1])
  kl = scene.latent_kl[slot]
  latents = np.argsort(-kl, kind="stable")[:num_latents]
  latents = latents if latent is None else np.array([latent])
  prior = decoder.model.latent_dist.default_prior()
  mean, deviation = prior.mean().numpy(), prior.stddev().numpy()
  changed = np.tile(z, [len(latents), 1 + len(values), 1, 1])
  for row, i in enumerate(latents):
    changed[row, 1:, slot, i] = mean[i] + deviation[i] * np.asarray(values)
  decoded = decoder(changed.reshape(-1, *z.shape))
  grid = (*changed.shape[:2], *scene.info["data"]["image"].shape[2:])
  return latent_plots.Traversal(
    slot=slot,
    num_slots=len(z),
    latents=latents,
    kl=kl[latents],
    values=np.asarray(values),
    inferred=((z[slot] - mean) / deviation)[latents],
    recons=decoded.reconstruction.reshape(grid),
    components=decoded.components[:, slot].reshape(grid),
    masks=decoded.masks[:, slot].reshape(*grid[:-1], 1),
  )
