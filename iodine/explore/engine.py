"""What the page asks of a model, one request at a time.

Dimensions: N pictures, T iterations + 1, K slots, H W C image, Z latent size.
"""

from __future__ import annotations

import copy
import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from iodine import evaluation, segmentation
from iodine.drawing import sheet
from iodine.modules import iodine, types
from iodine.readers import image_files

# How many graphs, and how many answers, are kept.
_NUM_GRAPHS, _NUM_ANSWERS = 8, 32
_PATIENCE_SECONDS = 0.5
# A latent carries the name of a factor that it goes with at least so much.
_LEAST_CORRELATION = 0.4
# What the numbers of a factor are called.
_PARTS = {"position": ("x", "y", "z"), "color": ("red", "green", "blue")}

_OF_OBJECTS = ("is_object", "latents")

# By which a picture is decomposed.
OPTIONS = ("slots", "refinements", "seed")

Names = list[tuple[str, float] | None]


class Engine:
  """A restored model and some scenes, for threads that take turns.

  Attributes:
    image_shape: (H, W, C).
    scenes: batches of one scene each.
    prior: mean and standard deviation of every latent beforehand, [2][Z].
    names: [Z] what latents are called, and why; None where nothing is.
    named: happens when that is known.
    infer: `_infer`, which keeps its last answers.
  """

  def __init__(self, model: iodine.IODINE, scenes: Sequence[dict[str, Any]]):
    """Takes the model and the scenes.

    Args:
      model: a restored one.
      scenes: batches of one scene each, of which there may be none.
    """
    self.image_shape = tuple(model.output_dist.output_shape)
    self.scenes, self._model = scenes, model
    prior = model.latent_dist.default_prior()
    self.prior = [x.numpy().tolist() for x in (prior.mean(), prior.stddev())]
    self.names: Names = [None] * len(self.prior[0])
    self.named = threading.Event()
    self._lock, self._asked = threading.Lock(), 0.0
    self._decoder = evaluation.Decoder(model, batch_size=1)
    self._inferring = functools.lru_cache(_NUM_GRAPHS)(self._compile)
    self.infer = functools.lru_cache(_NUM_ANSWERS)(self._infer)

  def decode(self, latents: np.ndarray) -> types.Rendering:
    """Decodes [N, K, Z] to N images, in NumPy."""
    with self._lock:
      self._asked = time.monotonic()
      return self._decoder(latents)

  def read(self, content: bytes, name: str) -> np.ndarray:
    """Reads a file as `segment` does: what the model sees, [1, H, W, C]."""
    height, width, channels = self.image_shape
    framing = image_files.Framing((height, width), None, channels == 1)
    image = image_files.read(content, framing, name)
    return segmentation.prepare(image, self.image_shape)[0]

  def _infer(
    self, source: int | bytes, slots: int, refinements: int, seed: int
  ) -> dict[str, Any]:
    """Decomposes a scene, by its number, or a picture, a file's content.

    Returns:
      What `sheet.of_scene` does; samples and means of the latents, [T][K][Z],
      and the KL of each in the end, [K][Z].
    """
    if isinstance(source, bytes):
      # A model for films sees the picture again and again.
      length = self._model.frame_index(refinements) + 1
      image = self.read(source, "picture").repeat(length, axis=0)
      batch = {"image": tf.constant(image[None])}
    else:
      batch = self.scenes[source]
    seeds = tf.constant([seed, 0], tf.int64)  # those of `segment`
    with self._lock:
      self._asked = time.monotonic()
      infer = self._inferring(slots, refinements)
      found = evaluation.to_numpy(infer({**batch, "factors": {}}, seeds))
    latents = found["info"]["latent"]
    return {
      **sheet.of_scene(found["info"]),
      "samples": latents["z"][0].tolist(),
      "means": latents["z_mean"][0].tolist(),
      "latent_kl": found["latent_kl"][0].tolist(),
    }

  def _compile(self, slots: int, refinements: int) -> Callable[..., Any]:
    # No weight depends on these numbers.
    model = copy.copy(self._model)
    model.num_components, model.num_iters = slots, refinements
    model.iter_weights = (1.0,) * (refinements + 1)
    return evaluation.compiled(model, evaluation.inspect)

  def name_latents(self, slots: int, refinements: int, seed: int) -> None:
    """Decomposes all scenes to find names, while nobody asks."""
    infer, rows = self._inferring(slots, refinements), []
    for scene in self.scenes:
      if "mask" not in scene or not scene["factors"]:
        break
      while time.monotonic() - self._asked < _PATIENCE_SECONDS:
        time.sleep(_PATIENCE_SECONDS)
      with self._lock:
        found = infer(
          {**scene, "factors": {}}, tf.constant([seed, 0], tf.int64)
        )
      is_object, latents = (found["statistics"][k] for k in _OF_OBJECTS)
      arrays = {"": latents, **scene["factors"]}
      rows.append({k: v[is_object].numpy() for k, v in arrays.items()})
    if rows:
      table = {k: np.concatenate([row[k] for row in rows]) for k in rows[0]}
      self.names = names_of(table.pop(""), table)
    self.named.set()


def names_of(latents: np.ndarray, factors: Mapping[str, np.ndarray]) -> Names:
  """Returns the factor that each latent says most about, by correlation.

  Args:
    latents: [objects, Z].
    factors: {name: [objects, n]}. A category, an integer, counts as whether an
      object is of it.
  """
  titles, rows = [], []
  for name, values in factors.items():
    if values.shape[1] == 1 and np.all(values == np.round(values)):
      values = values == np.unique(values)  # a category
    parts = _PARTS.get(name, ())
    for i, row in enumerate(values.T):
      titles.append(f"{name} {parts[i]}" if i < len(parts) else name)
      rows.append(row)
  size = latents.shape[1]
  with np.errstate(invalid="ignore"):  # of what is always the same
    table = np.corrcoef(np.array([*latents.T, *rows], np.float64))
  best = np.abs(np.nan_to_num(table[:size, size:]))
  return [
    (titles[row.argmax()], round(float(row.max()), 2))
    if row.max() >= _LEAST_CORRELATION
    else None
    for row in best
  ]
