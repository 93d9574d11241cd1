"""Do the latents tell the factors of the objects? A linear regressor.

Dimensions: B batch, K slots, L true entities, H W image, Z latent size, M sum
of the factor sizes. Source: section 4.2 of the paper, the original's
`iodine/modules/factor_eval.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import shapeguard
import sonnet as snt
import tensorflow as tf

from iodine import errors, kinds
from iodine.modules import types, utils

KINDS = ("scalar", "categorical", "angle")


def _is_factor(value: Sequence[Any]) -> bool:
  """Returns whether a list is what an entry of a mapping is."""
  if len(value) != 3 or value[2] not in KINDS:
    return False
  _, size, kind = value
  return kinds.fits(size, kinds.Size) and (kind != "angle" or size == 2)


_Factor = Annotated[
  Sequence[Any],
  kinds.Limit(
    f"(name, size, kind), kind one of {KINDS}, an angle of size 2", _is_factor
  ),
]
_Mapping = Annotated[Sequence[_Factor], kinds.Length(1)]


class OnlineMeanVarEstimator(utils.Module):
  """Running weighted mean and variance (Welford), per feature."""

  @snt.once
  def initialize(self, num_features: int) -> None:
    """Creates the variables."""

    def zeros(name: str) -> tf.Variable:
      return tf.Variable(tf.zeros([num_features]), trainable=False, name=name)

    self.mean = zeros("mean")
    self.m2 = zeros("M2")
    self.total = zeros("total")

  def __call__(
    self, x: tf.Tensor, weights: tf.Tensor, update: bool = True
  ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Takes in a batch.

    Args:
      x: [B, L, n] values.
      weights: of a shape that broadcasts to x.
      update: False computes what the result would be and changes nothing.

    Returns:
      mean [n], variance [n] and sum of the weights [n], x included.
    """
    self.initialize(x.shape[-1])
    weights = tf.broadcast_to(weights, x.shape)
    total = self.total + tf.reduce_sum(weights, axis=[0, 1])
    delta = (x - self.mean) * weights
    mean = self.mean + tf.math.divide_no_nan(
      tf.reduce_sum(delta, axis=[0, 1]), total
    )
    m2 = self.m2 + tf.reduce_sum(delta * (x - mean), axis=[0, 1])
    if update:
      self.total.assign(total)
      self.mean.assign(mean)
      self.m2.assign(m2)
    return mean, m2 / (total - 1.0), total


class FactorRegressor(utils.Module):
  """Predicts the factors of every true entity from its slot's latent."""

  def __init__(self, mapping: _Mapping, name: str = "repres_content"):
    """Sets the factors.

    Args:
      mapping: (name, size, kind) of every factor; kind is "scalar" (squared
        error), "categorical" (cross-entropy over `size` classes) or "angle"
        (squared error of cosine and sine, size 2).
      name: name of the module.
    """
    super().__init__(name=name)
    self._mapping = tuple(
      (str(factor), int(size), str(kind)) for factor, size, kind in mapping
    )
    self.predict_latents = snt.Linear(sum(size for _, size, _ in self._mapping))
    self.mean_var = {
      factor: OnlineMeanVarEstimator(name=f"{factor}_mean_var")
      for factor, _, kind in self._mapping
      if kind != "categorical"
    }

  @property
  def kinds(self) -> dict[str, str]:
    """Returns {factor: kind}, in the order of the mapping."""
    return {factor: kind for factor, _, kind in self._mapping}

  def initialize(self, n_z: int) -> None:
    """Creates every variable, for latents of size n_z."""
    self.predict_latents(tf.zeros([1, n_z]))
    for factor, size, _ in self._mapping:
      if factor in self.mean_var:
        self.mean_var[factor].initialize(size)

  def __call__(
    self,
    z: tf.Tensor,
    true_mask: tf.Tensor,
    pred_mask: tf.Tensor,
    visibility: tf.Tensor,
    factors: dict[str, tf.Tensor],
    update: bool = True,
    part: types.BatchPart | None = None,
  ) -> types.FactorPredictions:
    """Regresses and scores.

    Args:
      z: [B, K, Z] latents.
      true_mask: [B, L, H, W, 1].
      pred_mask: [B, K, H, W, 1].
      visibility: [B, L], 1 for entities that are there.
      factors: {name: [B, L, n]}, of which the mapping's are used.
      update: whether the running statistics take this batch in.
      part: which entities of a larger batch these are, see `IODINE.__call__`;
        None for all. The running statistics take in the whole batch.
    """
    sg = shapeguard.ShapeGuard()
    sg.guard(z, "B, K, Z")
    sg.guard(true_mask, "B, L, H, W, 1")
    sg.guard(pred_mask, "B, K, H, W, 1")
    sg.guard(visibility, "B, L")
    assignment = assign_slots(true_mask, pred_mask, visibility)
    sizes = [size for _, size, _ in self._mapping]
    outputs = tf.split(snt.BatchApply(self.predict_latents)(z), sizes, axis=-1)
    if part is None:
      part = types.BatchPart(0, 1, visibility, factors)
    num_visible = tf.reduce_sum(part.visibility) / part.num_parts
    entity_losses, metrics, predictions, targets = [], {}, {}, {}
    for (factor, size, kind), output in zip(
      self._mapping, outputs, strict=True
    ):
      target = targets[factor] = _target(factors, factor, size, kind)
      error = _error(target, output, kind)  # [B, L, K]
      entity_losses.append(tf.reduce_sum(error * assignment, axis=-1))
      predictions[factor] = tf.einsum("blk,bkn->bln", assignment, output)
      if kind == "categorical":
        # Of visible entities; the predictions of others are zero.
        classes = (tf.argmax(x, -1) for x in (target, predictions[factor]))
        right = tf.cast(tf.equal(*classes), tf.float32) * visibility
        metrics[factor] = tf.reduce_sum(right) / num_visible
      else:
        squares = tf.square(target[:, :, None] - output[:, None])
        squared_error = tf.reduce_sum(squares * assignment[..., None], axis=2)
        _, variance, _ = self.mean_var[factor](
          _target(part.factors, factor, size, kind),
          part.visibility[..., None],
          update=update,
        )
        # FIDELITY: the mean runs over all entities, so that invisible ones,
        # whose error is zero, count as R2 = 1.
        metrics[factor] = tf.reduce_mean(1.0 - squared_error / variance)
    loss = tf.add_n([tf.reduce_sum(x) for x in entity_losses]) / num_visible
    entity_loss = tf.add_n(entity_losses)
    return types.FactorPredictions(
      loss, entity_loss, metrics, predictions, targets, assignment
    )


def assign_slots(
  true_mask: tf.Tensor, pred_mask: tf.Tensor, visibility: tf.Tensor
) -> tf.Tensor:
  """Returns for each true entity the slot whose mask overlaps it most.

  Several entities may get the same slot.

  Args:
    true_mask: [B, L, H, W, 1].
    pred_mask: [B, K, H, W, 1].
    visibility: [B, L].

  Returns:
    [B, L, K] one-hot, zero for invisible entities.
  """
  overlap = tf.einsum("blhwc,bkhwc->blk", true_mask, pred_mask)
  best = tf.one_hot(tf.argmax(overlap, axis=-1), pred_mask.shape[1])
  return best * visibility[..., None]


def _target(
  factors: dict[str, tf.Tensor], factor: str, size: int, kind: str
) -> tf.Tensor:
  """Returns the target [B, L, size] of one factor."""
  sizes = {name: values.shape[-1] for name, values in factors.items()}
  if factor not in sizes or (kind == "scalar" and sizes[factor] != size):
    raise errors.UserError(
      f"the regressor's `mapping` has the factor `{factor}` of size {size}, "
      f"and the factors of the data have the sizes {sizes}: change `mapping`, "
      "or set `model.factor_evaluator=None`"
    )
  values = factors[factor]
  if kind == "categorical":
    return tf.one_hot(tf.cast(values[..., 0], tf.int32), size)
  values = tf.cast(values, tf.float32)
  if kind == "angle":
    return tf.concat([tf.cos(values), tf.sin(values)], axis=-1)
  return values


def _error(target: tf.Tensor, output: tf.Tensor, kind: str) -> tf.Tensor:
  """Returns the error [B, L, K] of every slot's output for every entity."""
  target, output = target[:, :, None], output[:, None]
  if kind == "categorical":
    return -tf.reduce_sum(target * tf.nn.log_softmax(output), axis=-1)
  return tf.reduce_sum(tf.square(target - output), axis=-1)
