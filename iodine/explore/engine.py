"""What the page asks of a model, one request at a time.

Dimensions: T iterations + 1, K slots, L true entities, H W C image, Z latent
size.
"""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from iodine import evaluation, segmentation
from iodine.drawing import canvas, palette, sheet
from iodine.modules import distributions, iodine, metrics, utils
from iodine.readers import image_files

Arrays = dict[str, np.ndarray]

# How many graphs, and how many answers, are kept.
_NUM_GRAPHS, _NUM_ANSWERS = 8, 32
_CURVES = ("loss", "KL", "ARI")
# A latent carries the name of a factor that it goes with at least so much.
_LEAST_CORRELATION = 0.4
# What the numbers of a factor are called.
_PARTS = {
  "position": dict(enumerate("xyz")),
  "color": dict(enumerate(("red", "green", "blue"))),
}


class Options(NamedTuple):
  """How a picture is decomposed.

  Attributes:
    slots: K.
    refinements: how many.
    seed: the latents are sampled from it.
    sample: whether samples are shown, or else the means of what they are of.
  """

  slots: int
  refinements: int
  seed: int
  sample: bool


class Engine:
  """A restored model and some scenes, for threads that take turns.

  Attributes:
    image_shape: (H, W, C).
    num_scenes: how many there are.
    names: [Z] what latents are called; None while that is not known.
  """

  def __init__(
    self, model: iodine.IODINE, scenes: Arrays, kinds: Mapping[str, str]
  ):
    """Takes the model and the scenes.

    Args:
      model: a restored one.
      scenes: image [N, frames, H, W, C]; where they are known mask [N, frames,
        L, H, W, 1], visibility [N, L], and factor/NAME [N, L, n].
      kinds: of factors, where they are known.
    """
    self.image_shape = tuple(model.output_dist.output_shape)
    self.num_scenes = len(scenes.get("image", ()))
    self.names: list[tuple[str, float] | None] | None = None
    self._model, self._scenes, self._kinds = model, scenes, kinds
    self._lock = threading.Lock()
    kept = functools.lru_cache(_NUM_GRAPHS)
    self._inferring, self._decoding = kept(self._infer), kept(self._decode)
    self._answers = functools.lru_cache(_NUM_ANSWERS)(self._answer)

  @property
  def prior(self) -> tuple[list[float], list[float]]:
    """Returns mean and standard deviation of every latent beforehand."""
    prior = self._model.latent_dist.default_prior()
    return prior.mean().numpy().tolist(), prior.stddev().numpy().tolist()

  def thumbnails(self) -> list[str]:
    """Returns a small picture of every scene, as data URIs."""
    step = -(-max(self.image_shape[:2]) // 64)
    scenes = [self._scene(number) for number in range(self.num_scenes)]
    small = [scene["image"][0, ::step, ::step] for scene in scenes]
    return [sheet.png_uri(canvas.to_rgb(image)) for image in small]

  def read(self, content: bytes, name: str) -> np.ndarray:
    """Reads a file as `segment` does: what the model sees, [1, H, W, C]."""
    height, width, channels = self.image_shape
    framing = image_files.Framing((height, width), None, channels == 1)
    image = image_files.read(content, framing, name)
    return segmentation.prepare(image, self.image_shape)[0]

  def infer(self, source: int | bytes, options: Options) -> dict[str, Any]:
    """Decomposes a scene, by its number, or a picture, a file's content.

    Returns:
      What `sheet.describe` does; and latents [T][K][Z], latent_kl [K][Z] of
      the last iteration.
    """
    with self._lock:
      return self._answers(source, options)

  def decode(self, latents: np.ndarray) -> Arrays:
    """Decodes [K, Z]: reconstruction [H, W, C], masks, components [K, ...]."""
    with self._lock:
      decoded = self._decoding(len(latents))(latents[None])
    found: Any = evaluation.to_numpy(decoded)
    return {
      "reconstruction": found.reconstruction[0, 0],
      "masks": found.masks[0, ..., 0],
      "components": found.components[0],
    }

  def _answer(self, source: int | bytes, options: Options) -> dict[str, Any]:
    if isinstance(source, bytes):
      found = self._decompose({"image": self.read(source, "picture")}, options)
    else:
      found = self._decompose(self._scene(source), options)
    curves = {str(k): found[k] for k in _CURVES if k in found}
    drawn: dict[str, Any] = {k: found[k] for k in sheet.PICTURES}
    described = sheet.describe(**drawn, curves=curves, kl=found["kl"])
    numbers = {k: found[k].tolist() for k in ("latents", "latent_kl")}
    return {**described, **numbers}

  def _scene(self, number: int) -> Arrays:
    return {k: v[number] for k, v in self._scenes.items()}

  def _decompose(self, scene: Arrays, options: Options) -> Arrays:
    """Returns what `_infer` says about a scene, in NumPy."""
    # Of a film as many frames as are seen; a still, or the last, stays.
    steps = range(options.refinements + 1)
    last = len(scene["image"]) - 1
    frames = [min(self._model.frame_index(t), last) for t in steps]
    mask = scene["mask"][frames] if "mask" in scene else None
    infer = self._inferring(options._replace(seed=0))
    seed = tf.constant([options.seed, 0], tf.int64)
    return evaluation.to_numpy(infer(scene["image"][frames], mask, seed))

  def _infer(self, options: Options) -> Callable[..., Any]:
    """Compiles inference for numbers of slots and refinements."""
    model = self._with_slots(options.slots)
    model.num_iters = options.refinements

    def infer(image: tf.Tensor, mask: Any, seed: tf.Tensor) -> dict[str, Any]:
      estimates, _ = model.encode(image[None], seed=seed)
      dists = [estimate.z_dist for estimate in estimates]
      z = tf.concat(
        [e.z if options.sample else e.z_dist.mean() for e in estimates], axis=0
      )
      _, x_dist = model.decode(z)
      rendering = distributions.render(x_dist)
      log_prob = distributions.score(x_dist, image[:, None]).log_prob
      prior = model.latent_dist.default_prior()
      kl = tf.concat(
        [
          tfp.distributions.kl_divergence(dist.distribution, prior.distribution)
          for dist in dists
        ],
        axis=0,
      )
      # The slots are in one order in all iterations, that of `segment`.
      last = distributions.render(estimates[-1].x_dist)
      order = utils.background_first(last.masks)[0]
      slots = {
        "masks": rendering.masks[..., 0],
        "components": rendering.components,
        "latents": z,
        "latent_kl": kl,
      }
      found = {k: tf.gather(v, order, axis=1) for k, v in slots.items()}
      found["kl"] = tf.reduce_sum(found["latent_kl"], axis=-1)
      found["latent_kl"] = found["latent_kl"][-1]
      found["KL"] = tf.reduce_sum(found["kl"], axis=1)
      found["loss"] = found["KL"] - tf.reduce_sum(log_prob, axis=[1, 2, 3])
      found["image"] = image
      found["reconstruction"] = rendering.reconstruction[:, 0]
      if mask is not None:
        scores = metrics.score(
          image[:, None], rendering.reconstruction, mask, rendering.masks
        )
        found["ARI"] = scores["ari_nobg"]
      return found

    return tf.function(infer, autograph=False)

  def _decode(self, slots: int) -> Callable[[np.ndarray], Any]:
    """Compiles decoding for a number of slots."""
    model = self._with_slots(slots)
    return tf.function(
      lambda z: distributions.render(model.decode(z)[1]), autograph=False
    )

  def _with_slots(self, slots: int) -> iodine.IODINE:
    """Returns a model of so many slots, which no weight depends on."""
    model = copy.copy(self._model)
    model.output_dist = copy.copy(model.output_dist)
    model.num_components = model.output_dist.num_components = slots
    return model

  # ------------------------------------------------------ what latents say

  def name_latents(self, options: Options) -> None:
    """Finds the factor that every latent says most about, scene by scene.

    By the largest correlation over the objects of all scenes; of a category,
    with whether an object is of it.
    """
    latents, factors = [], []
    for number in range(self.num_scenes):
      scene = self._scene(number)
      with self._lock:  # others have their turn in between
        found = self._decompose(scene, options)
      if "mask" not in scene:
        break
      masks = found["masks"][-1][..., None]
      slots = palette.match_entities(scene["mask"][-1], masks)
      objects = [i for i, k in enumerate(slots) if i > 0 and k >= 0]
      latents.append(found["latents"][-1, slots[objects]])
      factors.append({k: v[objects] for k, v in scene.items() if "/" in k})
    size = len(self.prior[0])
    columns = self._columns(factors) if factors else {}
    names: list[tuple[str, float] | None] = [None] * size
    if columns:
      table = np.concatenate([np.concatenate(latents), *columns.values()], 1)
      with np.errstate(invalid="ignore"):  # of what is always the same
        matrix = np.corrcoef(table.T)[:size, size:]
      likeness = np.abs(np.nan_to_num(matrix))
      titles = [name for name, x in columns.items() for _ in x.T]
      for i, best in enumerate(likeness.argmax(axis=1)):
        if likeness[i, best] >= _LEAST_CORRELATION:
          names[i] = titles[best], round(float(likeness[i, best]), 2)
    self.names = names

  def _columns(self, factors: list[Arrays]) -> Arrays:
    """Returns what latents are compared with, {title: [objects, n]}."""
    columns = {}
    for name in factors[0]:
      title = name.partition("/")[2]
      values = np.concatenate([each[name] for each in factors])
      if self._kinds.get(title) == "categorical":
        columns[title] = (values == np.unique(values)).astype(np.float32)
      elif values.shape[1] == 1:
        columns[title] = values
      else:
        for i, each in enumerate(values.T):
          part = _PARTS.get(title, {}).get(i, i + 1)
          columns[f"{title} {part}"] = each[:, None]
    return columns
