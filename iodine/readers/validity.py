"""What numbers of a scene must be, so that a loss can be computed of them.

Dimensions:
  B: scenes of a batch.
  L: entities of a scene.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

# Float32 holds sums of squares of what is smaller.
LARGEST = 1e18
CATEGORICAL = "categorical"

# (name, size, kind) of every factor that is regressed.
Factors = Sequence[tuple[str, int, str]]


def valid_parts(
  batch: Mapping[str, Any], factors: Factors
) -> dict[str, tf.Tensor]:
  """Returns whether the numbers of a batch are as they must be.

  Args:
    batch: see `datasets.SceneDataset`. What is missing in it is not checked.
    factors: those that count, in which classes of entities that are not visible
      may be anything.

  Returns:
    {name: scalar bool}, of image, visibility and the factors.
  """
  parts = {}
  image = batch["image"]
  if image.dtype.is_floating:
    parts["image"] = tf.abs(image) < LARGEST
  # They weigh the factors, and count for nothing else.
  if "visibility" in batch and factors:
    visibility = batch["visibility"]
    parts["visibility"] = tf.abs(visibility) < LARGEST
    for name, size, kind in factors:
      if name not in batch["factors"]:
        continue
      values = tf.cast(batch["factors"][name], tf.float32)
      parts[name] = tf.abs(values) < LARGEST
      if kind == CATEGORICAL:
        classes = values[..., 0]
        is_class = (classes > -1.0) & (classes < float(size))
        parts[name] = is_class | (visibility <= 0.0)
  return {name: tf.reduce_all(fits) for name, fits in parts.items()}


def all_valid(batch: Mapping[str, Any], factors: Factors) -> tf.Tensor:
  """Returns whether all numbers of a batch are, a scalar bool."""
  return tf.reduce_all(list(valid_parts(batch, factors).values()))


def explain(
  title: str, batch: Mapping[str, Any], factors: Factors
) -> str | None:
  """Returns a sentence about a batch that is not valid; None if it is.

  Args:
    title: what its scenes are called.
    batch: has the numbers.
    factors: as for `valid_parts`.
  """
  sizes = {n: size for n, size, kind in factors if kind == CATEGORICAL}
  for name, fits in valid_parts(batch, factors).items():
    if fits:
      continue
    numbers = {**batch, **batch["factors"]}[name].numpy()
    need = f"finite numbers below {LARGEST:g} are needed"
    remedy = "mend the data, or leave the scene out"
    if name in sizes:
      need = f"the model's `mapping` has classes from 0 to {sizes[name] - 1}"
      remedy = "mend the data, or give the mapping a larger size"
    if name != "image":
      remedy += ", or set `model.factor_evaluator=None`"
    return (
      f"{title} has numbers from {numbers.min():g} to {numbers.max():g} in"
      f" `{name}` of a scene, where {need}: {remedy}"
    )
  return None
