"""Metrics over a whole data set, every scene once.

Dimensions: B batch, T iterations + 1, K slots, L true entities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine import errors
from iodine.modules import distributions, iodine, metrics

Data = dict[str, Any]


class Summary(NamedTuple):
  """One metric over all scenes.

  Attributes:
    mean: over the scenes.
    standard_error: of that mean; None for a single scene.
  """

  mean: float
  standard_error: float | None


class Evaluation(NamedTuple):
  """The metrics of one evaluation.

  Attributes:
    num_scenes: how many scenes they cover.
    metrics: by name: ari, ari_nobg (foreground), miou, mse, and the losses in
      nats: recons (negative log-likelihood of the final decode), kl (of the
      final latents, summed over slots), total (the weighted training loss
      without the factor loss) and factor (of the regressor, if there is one).
  """

  num_scenes: int
  metrics: dict[str, Summary]

  def as_json(self) -> dict[str, Any]:
    """A nested dict that the json module can write."""
    return {
      "num_scenes": self.num_scenes,
      **{name: value._asdict() for name, value in self.metrics.items()},
    }


def evaluate(
  model: iodine.IODINE,
  batches: Iterable[Data],
  batch_size: int,
  seed: int = 0,
  num_scenes: int | None = None,
  on_progress: Callable[[int], None] = lambda num_scenes: None,
) -> Evaluation:
  """Evaluates a model on every scene of `batches` exactly once.

  The result for a scene depends slightly on the batch size, as in training
  (see `IODINE.__call__`). A smaller batch is therefore filled up to the full
  size with copies of its first scene, which do not count. The state of the
  model does not change.

  Args:
    model: the model.
    batches: batches of at most batch_size scenes.
    batch_size: how many scenes are decomposed at a time.
    seed: the latents are sampled from it.
    num_scenes: stop after so many; None for all.
    on_progress: called with the number of scenes done.

  Raises:
    errors.UserError: if there is no scene.
  """
  compiled = tf.function(
    lambda data, index: _scores(model, data, seed, index), autograph=False
  )
  scores: list[Mapping[str, np.ndarray]] = []
  done = 0
  for index, batch in enumerate(batches):
    size = batch["image"].shape[0]
    if num_scenes is not None:
      size = min(size, num_scenes - done)
    if size <= 0:
      break
    padded = pad(batch, batch_size)
    result = compiled(padded, tf.constant(index, tf.int64))
    scores.append(_per_scene(result, size))
    done += size
    on_progress(done)
  if not scores:
    raise errors.UserError(
      "there is no scene to evaluate: give `data.path` a file with scenes, or "
      "widen `data.test` and the bounds on the number of objects"
    )
  joined = {
    name: np.concatenate([each[name] for each in scores]) for name in scores[0]
  }
  return Evaluation(done, {k: summarize(v) for k, v in joined.items()})


def summarize(values: np.ndarray) -> Summary:
  """Mean and standard error of one number per scene."""
  values = np.asarray(values, np.float64)
  error = None
  if len(values) > 1:
    error = float(values.std(ddof=1) / math.sqrt(len(values)))
  return Summary(float(values.mean()), error)


def _scores(
  model: iodine.IODINE, data: Data, seed: int, index: tf.Tensor
) -> dict[str, tf.Tensor]:
  """Scores of one batch, all but `contingency` of shape [B]."""
  batch_seed = tf.stack([tf.constant(seed, tf.int64), index])
  estimates, _ = model.encode(data["image"], seed=batch_seed)
  last = estimates[-1]
  mask = distributions.mask_probabilities(last.scores)
  frame = model.final_frame_index
  true_mask = data["mask"][:, frame]
  image = data["image"][:, frame : frame + 1]
  total = [
    weight * (estimate.re + tf.reduce_sum(estimate.kl, axis=1))
    for weight, estimate in zip(model.iter_weights, estimates, strict=True)
  ]
  scores = {
    "ari": metrics.mask_ari(true_mask, mask),
    "ari_nobg": metrics.mask_ari(true_mask, mask, foreground=True),
    "contingency": metrics.mask_contingency(true_mask, mask),
    "mse": metrics.mean_squared_error(image, last.x_dist.mean()),
    "recons": last.re,
    "kl": tf.reduce_sum(last.kl, axis=1),
    "total": tf.add_n(total),
  }
  if model.factor_evaluator is not None:
    factors = model.evaluate_factors(data, last.z, mask, update=False)
    scores["factor"] = tf.reduce_sum(
      factors.entity_loss, axis=1
    ) / tf.reduce_sum(data["visibility"], axis=1)
  return scores


def _per_scene(
  scores: Mapping[str, tf.Tensor], size: int
) -> dict[str, np.ndarray]:
  """The scores of the first `size` scenes as NumPy, mean IoU matched."""
  arrays = {name: value.numpy()[:size] for name, value in scores.items()}
  tables = arrays.pop("contingency")
  arrays["miou"] = np.array([metrics.mean_iou(table) for table in tables])
  return arrays


def pad(batch: Data, batch_size: int) -> Data:
  """Repeats the first scene of a batch until it has batch_size scenes."""
  missing = batch_size - batch["image"].shape[0]
  if not missing:
    return batch
  return tf.nest.map_structure(
    lambda x: tf.concat([x, tf.repeat(x[:1], missing, axis=0)], axis=0), batch
  )
