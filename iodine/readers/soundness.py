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


def sound_rows(
  batch: Mapping[str, Any], factors: Factors
) -> dict[str, tf.Tensor]:
  """Returns which scenes of a batch are as they must be.

  Args:
    batch: see `datasets.SceneDataset`. What is missing in it is not checked.
    factors: those that count, in which classes of entities that are not visible
      may be anything.

  Returns:
    {name: [B] bool}, of image, visibility and the factors.
  """
  rows = {}
  image = batch["image"]
  if image.dtype.is_floating:
    rows["image"] = _all(tf.abs(image) < LARGEST)
  # They weigh the factors, and count for nothing else.
  if "visibility" not in batch or not factors:
    return rows
  visibility = batch["visibility"]
  rows["visibility"] = _all(tf.abs(visibility) < LARGEST)
  for name, size, kind in factors:
    if name not in batch["factors"]:
      continue
    values = tf.cast(batch["factors"][name], tf.float32)
    fits = tf.abs(values) < LARGEST
    if kind == CATEGORICAL:
      classes = values[..., 0]
      fits = (classes > -1.0) & (classes < float(size)) | (visibility <= 0.0)
    rows[name] = _all(fits)
  return rows


def are_sound(batch: Mapping[str, Any], factors: Factors) -> tf.Tensor:
  """Returns whether all scenes of a batch are, a scalar bool."""
  rows = sound_rows(batch, factors)
  return tf.reduce_all([tf.reduce_all(fits) for fits in rows.values()])


def explain(
  batch: Mapping[str, Any], row: int, name: str, factors: Factors
) -> str:
  """Returns the predicate of a sentence about a scene that is not sound.

  Args:
    batch: has it.
    row: where.
    name: a key of what `sound_rows` returns.
    factors: as there.
  """
  sizes = {n: size for n, size, kind in factors if kind == CATEGORICAL}
  values = batch["factors"][name] if name in batch["factors"] else batch[name]
  numbers = tf.cast(values[row], tf.float32)
  if name in sizes:
    classes = numbers[:, 0]
    is_bad = ~((classes > -1.0) & (classes < float(sizes[name])))
    is_bad &= batch["visibility"][row] > 0.0
    worst = float(classes[is_bad][0])
    return (
      f"has the class {worst:g} in `{name}`, of which the model's "
      f"`factor_evaluator.mapping` knows 0 to {sizes[name] - 1}: mend the "
      "data, or give the mapping a larger size"
    )
  worst = float(numbers[~(tf.abs(numbers) < LARGEST)][0])
  remedy = "mend the data, or leave the scene out"
  if name != "image":
    remedy += ", or set `model.factor_evaluator=None`"
  return (
    f"has {worst:g} in `{name}`, where finite numbers below {LARGEST:g} are "
    f"needed: {remedy}"
  )


def _all(fits: tf.Tensor) -> tf.Tensor:
  """Maps [B, ...] -> [B]."""
  return tf.reduce_all(fits, axis=list(range(1, fits.shape.rank)))
