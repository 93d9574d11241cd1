"""What pictures of a model show: computed by TensorFlow, given in NumPy.

Nothing here changes the state of the model.

Dimensions: B batch, T iterations + 1, K slots, L true entities, N objects or
images, H W C image, Z latent size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from iodine import errors
from iodine.drawing import latent_plots
from iodine.evaluation import evaluator
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


class Survey(NamedTuple):
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


def look(
  model: iodine.IODINE,
  batches: Iterable[dict[str, Any]],
  batch_size: int,
  scenes: Sequence[int] = (),
  num_surveyed: int = 0,
  seed: int = 0,
  on_progress: Callable[[int], None] = lambda num_scenes: None,
) -> tuple[list[Scene], Survey | None]:
  """Decomposes some scenes to be shown and the first ones to be surveyed.

  Scenes are batched, filled up and sampled as in `evaluator.evaluate`.

  Args:
    model: the model.
    batches: batches of batch_size scenes, of which the last may be smaller.
    batch_size: how many scenes are decomposed at a time.
    scenes: numbers of those to be shown, from 0.
    num_surveyed: how many are surveyed, or all if there are fewer.
    seed: the latents are sampled from it.
    on_progress: called with the number of scenes passed.

  Returns:
    The scenes in the order of their numbers as given, and the survey; None if
    it has no scene.

  Raises:
    errors.UserError: if a scene is not there.
  """
  inspect = tf.function(
    lambda data, seeds: _inspect(model, data, seeds), autograph=False
  )
  needed = max([num_surveyed, *(number + 1 for number in scenes)])
  shown: dict[int, Scene] = {}
  surveyed: list[Info] = []
  done = 0
  for batch in batches:
    if done >= needed:
      break
    size = batch["image"].shape[0]
    chosen = [n for n in scenes if done <= n < done + size]
    num_here = min(size, max(0, num_surveyed - done))
    if chosen or num_here:
      padded = evaluator.pad(batch, batch_size)
      seeds = evaluator.scene_seeds(seed, done, batch_size)
      parts = inspect(padded, seeds)
      for number in chosen:
        shown[number] = _scene(parts, number, number - done)
      if num_here:
        surveyed.append(_survey(parts, num_here))
    done += size
    on_progress(done)
  missing = [number for number in scenes if number not in shown]
  if missing:
    raise errors.UserError(
      f"there is no scene {missing[0]}: the test subset has {done} scenes, "
      "which count from 0"
    )
  survey = _join(surveyed) if surveyed else None
  return [shown[number] for number in scenes], survey


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


def _inspect(
  model: iodine.IODINE, data: dict[str, Any], seeds: tf.Tensor
) -> Info:
  """Returns info of a batch, KL of its latents, latents of its objects."""
  estimates, inputs = model.encode(data["image"], seed=seeds)
  info = model.describe(data, estimates, inputs, update=False)
  # These concern the batch with the copies that fill it up.
  del info["losses"]["total"]
  info.get("factor_regressor", {}).pop("metrics", None)
  if model.regresses(data):
    info["losses"]["factor"] = _factor_loss(model, data, estimates)
  order = _order(info)
  info = info_lib.reorder(info, order)
  last = estimates[-1]
  prior = model.latent_dist.default_prior()
  # Independent's own divergence is the sum over the latents.
  kl = tfd.kl_divergence(last.z_dist.distribution, prior.distribution)
  inspected = {"info": info, "latent_kl": utils.reorder(kl, order)}
  if "mask" not in data:
    return inspected
  true_mask = info["data"]["true_mask"][:, -1]
  assignment = factor_eval.assign_slots(
    true_mask, info["outputs"]["pred_mask"][:, -1], data["visibility"]
  )
  has_pixels = tf.reduce_max(true_mask, axis=[2, 3, 4]) > 0
  return {
    **inspected,
    "latents": tf.einsum(
      "blk,bkz->blz", assignment, info["latent"]["z_mean"][:, -1]
    ),
    "present": has_pixels & (data["visibility"] > 0),
  }


def _factor_loss(
  model: iodine.IODINE,
  data: dict[str, Any],
  estimates: Sequence[types.Estimate],
) -> tf.Tensor:
  """Returns the factor loss [B, T] of every scene by itself."""
  visible = tf.reduce_sum(data["visibility"], axis=1)
  losses = []
  for t, estimate in enumerate(estimates):
    mask = distributions.render(estimate.x_dist).masks
    factors = model.evaluate_factors(
      data, estimate.z, mask, frame=t, update=False
    )
    entities = tf.reduce_sum(factors.entity_loss, axis=1)
    losses.append(tf.math.divide_no_nan(entities, visible))
  return tf.stack(losses, axis=1)


def _scene(parts: Info, number: int, row: int) -> Scene:
  """Returns one scene of an inspected batch."""
  info = tf.nest.map_structure(lambda x: x[row : row + 1], parts["info"])
  return Scene(number, to_numpy(info), parts["latent_kl"][row].numpy())


def _survey(parts: Info, size: int) -> Info:
  """Returns what the survey keeps of the first scenes of a batch."""

  def cut(tensor: tf.Tensor) -> np.ndarray:
    return tensor.numpy()[:size]

  info = parts["info"]
  kept = {name: info[name] for name in ("losses", "metrics")}
  surveyed = {"info": tf.nest.map_structure(cut, kept)}
  if "present" not in parts:
    return surveyed
  present = cut(parts["present"]).copy()
  present[:, 0] = False  # the background is not an object
  return {
    **surveyed,
    "latents": cut(parts["latents"])[present],
    "factors": {
      name: cut(values)[present]
      for name, values in info["data"]["factors"].items()
    },
  }


def _join(surveyed: Sequence[Info]) -> Survey:
  joined = tf.nest.map_structure(lambda *x: np.concatenate(x), *surveyed)
  return Survey(
    len(joined["info"]["losses"]["recons"]),
    joined["info"],
    joined.get("latents"),
    joined.get("factors", {}),
  )


# --------------------------------------------------------- decoding latents


class Decoded(NamedTuple):
  """What latents look like.

  Attributes:
    recons: [N, H, W, C].
    components: [N, K, H, W, C].
    masks: [N, K, H, W, 1] probabilities.
  """

  recons: np.ndarray
  components: np.ndarray
  masks: np.ndarray


class Decoder:
  """Decodes many latents, some at a time, compiled once."""

  def __init__(self, model: iodine.IODINE, batch_size: int):
    """Takes a model with variables, and how many images fit into memory."""
    self.model = model
    self._batch_size = batch_size
    self._compiled = tf.function(self._decode, autograph=False)

  def __call__(self, z: np.ndarray) -> Decoded:
    """Decodes [N, K, Z] to N images."""
    parts = []
    for start in range(0, len(z), self._batch_size):
      chunk = np.asarray(z[start : start + self._batch_size], np.float32)
      size = len(chunk)
      missing = [(0, self._batch_size - size), (0, 0), (0, 0)]
      decoded = self._compiled(tf.constant(np.pad(chunk, missing)))
      parts.append([tensor.numpy()[:size] for tensor in decoded])
    return Decoded(*(np.concatenate(x) for x in zip(*parts, strict=True)))

  def _decode(self, z: tf.Tensor) -> Decoded:
    _, x_dist = self.model.decode(z)
    rendering = distributions.render(x_dist)
    return Decoded(
      recons=rendering.reconstruction[:, 0],
      components=rendering.components,
      masks=rendering.masks,
    )


def sample(decoder: Decoder, num_samples: int = 16, seed: int = 0) -> Decoded:
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
  areas = np.bincount(owner.ravel(), minlength=len(masks))
  order = np.argsort(-areas, kind="stable")
  has_second = len(order) > 1 and areas[order[1]] > 0
  return int(order[1] if has_second else order[0])


def traverse(
  decoder: Decoder,
  scene: Scene,
  slot: int | None = None,
  num_latents: int = 8,
  values: Sequence[float] = _VALUES,
) -> latent_plots.Traversal:
  """Changes the latents of one slot, one at a time.

  All else stays at the posterior mean of the last iteration.

  Args:
    decoder: of the model that decomposed the scene.
    scene: see `look`.
    slot: from 0; None for `foreground_slot`.
    num_latents: how many, those of the highest KL.
    values: what a latent is set to, in standard deviations of the prior from
      its mean.
  """
  z = scene.info["latent"]["z_mean"][0, -1]
  if slot is None:
    slot = foreground_slot(scene.info["outputs"]["pred_mask"][0, -1])
  kl = scene.latent_kl[slot]
  latents = np.argsort(-kl, kind="stable")[:num_latents]
  prior = decoder.model.latent_dist.default_prior()
  mean, deviation = prior.mean().numpy(), prior.stddev().numpy()
  changed = np.tile(z, [len(latents), len(values), 1, 1])
  for row, i in enumerate(latents):
    changed[row, :, slot, i] = mean[i] + deviation[i] * np.asarray(values)
  decoded = decoder(np.concatenate([z[None], changed.reshape(-1, *z.shape)]))
  own = decoded.components[:, slot] * decoded.masks[:, slot]
  grid = (len(latents), len(values), *own.shape[1:])
  return latent_plots.Traversal(
    slot=slot,
    num_slots=len(z),
    latents=latents,
    kl=kl[latents],
    values=np.asarray(values),
    inferred=((z[slot] - mean) / deviation)[latents],
    recons=decoded.recons[1:].reshape(grid),
    components=own[1:].reshape(grid),
    unchanged_recons=decoded.recons[0],
    unchanged_component=own[0],
  )
