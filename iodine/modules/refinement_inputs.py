"""The 14 refinement inputs, their stopped gradients and layer norms.

Dimensions: B batch, K slots, H W C image, Zp latent parameter size, Cp pixel
parameter channels. Source: section 3.2 and table 1 of the paper's supplement,
the original's `IODINE._get_inputs_for`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import shapeguard
import sonnet as snt
import tensorflow as tf

from iodine import building, errors, kinds
from iodine.modules import types, utils


class Evidence(NamedTuple):
  """What the inputs of one iteration are computed from.

  Attributes:
    image: [B, 1, H, W, C] the frame.
    estimate: the `Estimate` of this iteration.
    gradients: `Gradients` of its loss.
    coordinates: [H, W, n] coordinate channels.
  """

  image: tf.Tensor
  estimate: types.Estimate
  gradients: types.Gradients
  coordinates: tf.Tensor


def _posterior(evidence: Evidence) -> tf.Tensor:
  """Responsibilities of the components alone [B, K, H, W, 1].

  FIDELITY: p_k / (sum_j p_j + 1e-6) without the masks.
  """
  component = evidence.estimate.scores.component
  # Densities that float32 does not hold are divided by as much as it takes,
  # which the quotient does not depend on; for others that is 1.
  largest = tf.reduce_max(component, axis=-1, keepdims=True)
  excess = tf.stop_gradient(tf.nn.relu(largest - 80.0))
  density = tf.exp(component - excess)
  total = tf.reduce_sum(density, axis=-1, keepdims=True)
  total += 1e-6 * tf.exp(-excess)
  return utils.to_slots(density / total)


def counterfactual(evidence: Evidence) -> tf.Tensor:
  """Returns what each slot adds to the log-likelihood [B, K, H, W, 1].

  log_prob minus the log_prob of the mixture without slot k, the weights of
  the others renormalised. One masked log-sum-exp over the K component
  densities stands for K mixtures of K - 1 components.
  """
  scores = evidence.estimate.scores
  num_components = scores.component.shape[-1]
  if num_components < 2:
    raise errors.UserError(
      "the refinement input `counterfactual` needs `num_components` of at "
      "least 2: there is no mixture without the only slot"
    )
  # A diagonal of -inf, zero elsewhere: [..., 1, j] + [k, j] drops j = k.
  removed = tf.where(tf.eye(num_components) > 0, float("-inf"), 0.0)
  weight = tf.expand_dims(scores.log_weight, -2) + removed
  joint = weight + tf.expand_dims(scores.component, -2)
  without = tf.reduce_logsumexp(joint, axis=-1) - tf.reduce_logsumexp(
    weight, axis=-1
  )
  return utils.to_slots(tf.expand_dims(scores.log_prob, -1) - without)


def _coordinates(evidence: Evidence) -> tf.Tensor:
  """Returns coordinate channels [B, 1, H, W, n]."""
  batch_size = evidence.image.shape[0]
  return tf.tile(evidence.coordinates[None, None], [batch_size, 1, 1, 1, 1])


Function = Callable[[Evidence], tf.Tensor]

SPATIAL: dict[str, Function] = {
  "image": lambda e: e.image,
  "log_prob": lambda e: tf.expand_dims(e.estimate.scores.log_prob, -1),
  # FIDELITY: `mask` is the raw logit, before any mask activation.
  "mask": lambda e: e.estimate.params.mask,
  "pred_mask": lambda e: utils.to_slots(tf.exp(e.estimate.scores.log_weight)),
  "components": lambda e: e.estimate.params.pixel,
  "dmask": lambda e: e.gradients.mask,
  "dcomponents": lambda e: e.gradients.pixel,
  "posterior": _posterior,
  "capacity": lambda e: tf.fill(e.estimate.params.mask.shape, 0.5),
  "coordinates": _coordinates,
  "counterfactual": counterfactual,
}

FLAT: dict[str, Function] = {
  "zp": lambda e: e.estimate.zp,
  "dzp": lambda e: e.gradients.zp,
  "flat_capacity": lambda e: tf.fill([*e.estimate.zp.shape[:2], 1], 0.5),
}

ALL = (*SPATIAL, *FLAT)
Names = Annotated[Sequence[str], kinds.Length(1)]
# The defaults of the paper and the original.
NORMALIZED = ("log_prob", "dmask", "dcomponents", "counterfactual", "dzp")


def find(name: str) -> Function:
  """Returns the function that computes an input.

  Args:
    name: one of `ALL`, or the dotted path of a function of `Evidence`, such as
      `my_file.edges`. It returns [B, K, features] for a flat input, and
      [B, K or 1, H, W, channels] for a spatial one.
  """
  function = {**SPATIAL, **FLAT}.get(name) or building.resolve(name)
  if not callable(function):
    raise errors.UserError(
      f"unknown refinement input {name!r}: use some of {', '.join(ALL)}, or "
      "the dotted path of a function of `Evidence`"
    )
  return function


def _in_order(names: Sequence[str]) -> tuple[str, ...]:
  """Returns the names once each, those of `ALL` first and in its order."""
  for name in names:
    find(name)
  own = [name for name in dict.fromkeys(names) if name not in ALL]
  return (*[name for name in ALL if name in names], *own)


@snt.allow_empty_variables
class RefinementInputMaker(utils.Module):
  """Computes the chosen inputs, stops gradients, normalises."""

  def __init__(
    self,
    inputs: Names = ALL,
    preprocess: Sequence[str] = NORMALIZED,
    stop_gradients: Sequence[str] = NORMALIZED,
    name: str = "preprocess",
  ):
    """Chooses what the refinement core sees.

    Args:
      inputs: names of the inputs in use, see `find`.
      preprocess: names of those that get a layer norm.
      stop_gradients: names of those that training gradients do not enter.
      name: name of the module.

    Raises:
      errors.UserError: if a name is unknown.
    """
    super().__init__(name=name)
    self._inputs = _in_order(inputs)
    self._stop_gradients = _in_order(stop_gradients)
    # FIDELITY: over all axes but the batch (so H, W and channels together),
    # with scales and offsets of the size of the last axis only.
    self.layer_norms = {
      name: snt.LayerNorm(
        axis=slice(1, None), create_scale=True, create_offset=True, eps=1e-5
      )
      for name in _in_order(preprocess)
      if name in self._inputs
    }

  def __call__(self, evidence: Evidence) -> types.RefinementInputs:
    """Returns the inputs as the core gets them."""
    _guard(evidence)
    inputs = types.RefinementInputs(spatial={}, flat={})
    for name in self._inputs:
      tensor = find(name)(evidence)
      # Before the layer norm, so that its scale and offset are trained.
      if name in self._stop_gradients:
        tensor = tf.stop_gradient(tensor)
      if name in self.layer_norms:
        normalized = self.layer_norms[name](snt.merge_leading_dims(tensor, 2))
        tensor = snt.split_leading_dim(normalized, tensor, 2)
      is_flat = tensor.shape.rank == 3
      (inputs.flat if is_flat else inputs.spatial)[name] = tensor
    return inputs


def _guard(evidence: Evidence) -> None:
  sg = shapeguard.ShapeGuard()
  estimate, gradients = evidence.estimate, evidence.gradients
  sg.guard(evidence.image, "B, 1, H, W, C")
  sg.guard(evidence.coordinates, "H, W, _n")
  sg.guard(estimate.zp, "B, K, Zp")
  sg.guard(estimate.params.pixel, "B, K, H, W, Cp")
  sg.guard(estimate.params.mask, "B, K, H, W, 1")
  sg.guard(estimate.scores.component, "B, 1, H, W, K")
  sg.guard(gradients.zp, "B, K, Zp")
  sg.guard(gradients.pixel, "B, K, H, W, Cp")
  sg.guard(gradients.mask, "B, K, H, W, 1")
