"""What the page asks of a model, one request at a time.

Dimensions: N pictures, T iterations + 1, K slots, H W C image, Z latent size.
"""

from __future__ import annotations

import copy
import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any

import numpy as np
import tensorflow as tf

from iodine import evaluation, segmentation
from iodine.drawing import sheet
from iodine.modules import iodine, types

# How many graphs, and how many answers, are kept.
_NUM_GRAPHS, _NUM_ANSWERS = 8, 32
_PATIENCE_SECONDS = 0.5
# A latent carries the name of a factor that it goes with at least so much.
_LEAST_CORRELATION = 0.4
# What the numbers of a factor are called.
_PARTS = {"position": ["x", "y", "z"], "color": ["red", "green", "blue"]}

Names = list[str | None]


class Engine:
  """A restored model and some scenes, for threads that take turns.

  Attributes:
    image_shape: (H, W, C).
    scenes: batches of one scene each.
    deviations: of every latent from 0 beforehand, [Z].
    names: will be what the latents are called, [Z]; None where nothing is.
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
    self.deviations = prior.stddev().numpy().tolist()
    self.names: futures.Future[Names] = futures.Future()
    self._lock, self._asked = threading.RLock(), 0.0
    self._decoder = evaluation.Decoder(model, batch_size=1)
    self._inferring = functools.lru_cache(_NUM_GRAPHS)(self._compile)
    self._answer = functools.lru_cache(_NUM_ANSWERS)(self._infer)

  def infer(self, source: int | bytes, **options: int) -> dict[str, Any]:
    """Decomposes a scene, by its number, or a picture, a file's content.

    Args:
      source: which.
      **options: slots, refinements and seed.

    Returns:
      What `sheet.of_scene` does; samples and means of the latents, [T][K][Z],
      and the KL of each in the end, [K][Z]. The last answers are kept.
    """
    with self._lock:
      self._asked = time.monotonic()
      return self._answer(source, **options)

  def decode(self, latents: np.ndarray) -> types.Rendering:
    """Decodes [N, K, Z] to N images, in NumPy."""
    with self._lock:
      self._asked = time.monotonic()
      return self._decoder(latents)

  def read(self, content: bytes) -> np.ndarray:
    """Reads a file as `segment` does: what the model sees, [1, H, W, C]."""
    return segmentation.prepare(content, self.image_shape)[0]

  def _infer(self, source: int | bytes, **options: int) -> dict[str, Any]:
    if isinstance(source, bytes):
      # A model for films sees the picture again and again.
      length = self._model.frame_index(options["refinements"]) + 1
      image = self.read(source).repeat(length, axis=0)
      batch = {"image": tf.constant(image[None])}
    else:
      batch = self.scenes[source]
    found = self._decompose(batch, **options)
    latents = found["info"]["latent"]
    return {
      **sheet.of_scene(found["info"]),
      "samples": latents["z"][0].tolist(),
      "means": latents["z_mean"][0].tolist(),
      "latent_kl": found["latent_kl"][0].tolist(),
    }

  def _decompose(
    self, batch: dict[str, Any], slots: int, refinements: int, seed: int
  ) -> dict[str, Any]:
    seeds = tf.constant([seed, 0], tf.int64)  # those of `segment`
    with self._lock:
      infer = self._inferring(slots, refinements)
      return evaluation.to_numpy(infer({**batch, "factors": {}}, seeds))

  def _compile(self, slots: int, refinements: int) -> Callable[..., Any]:
    # No weight depends on these numbers.
    model = copy.copy(self._model)
    model.num_components, model.num_iters = slots, refinements
    model.iter_weights = (1.0,) * (refinements + 1)
    return evaluation.compiled(model, evaluation.inspect)

  def prepare(self, **options: int) -> None:
    """Compiles what is asked for first; finds names while nobody asks."""
    rows = []
    if self.scenes:
      found = self.infer(0, **options)
      self.decode(np.array(found["means"][-1:], np.float32))
    for scene in self.scenes:
      if "mask" not in scene or not scene["factors"]:
        break
      while time.monotonic() - self._asked < _PATIENCE_SECONDS:
        time.sleep(_PATIENCE_SECONDS)
      found = self._decompose(scene, **options)["statistics"]
      table = {"": found["latents"], **evaluation.to_numpy(scene["factors"])}
      rows.append({k: v[found["is_object"]] for k, v in table.items()})
    names: Names = [None] * len(self.deviations)
    if rows:
      table = {k: np.concatenate([row[k] for row in rows]) for k in rows[0]}
      names = names_of(table.pop(""), table)
    self.names.set_result(names)


def names_of(latents: np.ndarray, factors: Mapping[str, np.ndarray]) -> Names:
  """Returns the factor that each latent says most about, by correlation.

  Args:
    latents: [objects, Z].
    factors: {name: [objects, n]}. A category, an integer, counts as whether an
      object is of it.
  """
  titles, columns, size = [], [], latents.shape[1]
  for name, values in factors.items():
    parts = [f"{name} {part}" for part in _PARTS.get(name, [])]
    if values.shape[1] == 1 and np.all(values == np.round(values)):
      values = values == np.unique(values)  # a category
    columns += list(values.T)
    titles += (parts + [name] * len(values.T))[: len(values.T)]
  with np.errstate(invalid="ignore"):  # of what is always the same
    table = np.corrcoef(np.array([*latents.T, *columns], np.float64))
  found = np.abs(np.nan_to_num(table[:size, size:]))
  return [
    titles[row.argmax()] if row.max() >= _LEAST_CORRELATION else None
    for row in found
  ]
