"""The 14 refinement inputs, their stopped gradients and layer norms.

Dimensions: B batch, K slots, H W C image, Zp latent parameter size, Cp pixel
parameter channels. Source: section 3.2 and table 1 of the paper's supplement,
the original's `IODINE._get_inputs_for`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import shapeguard
import sonnet as snt
import tensorflow as tf

from iodine import errors
from iodine.modules import distributions, types, utils


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


def _pred_mask(evidence: Evidence) -> tf.Tensor:
  """Mask probabilities [B, K, H, W, 1]."""
  return distributions.mask_probabilities(evidence.estimate.scores)


def _posterior(evidence: Evidence) -> tf.Tensor:
  """Responsibilities of the components alone [B, K, H, W, 1].

  FIDELITY: p_k / (sum_j p_j + 1e-6) without the masks.
  """
  density = tf.exp(evidence.estimate.scores.component)
  total = tf.reduce_sum(density, axis=-1, keepdims=True) + 1e-6
  return utils.to_slots(density / total)


def plain_counterfactual(evidence: Evidence) -> tf.Tensor:
  """What each slot adds to the log-likelihood [B, K, H, W, 1].

  log_prob minus the log_prob of the mixture without slot k, the weights of
  the others renormalised.
  """
  scores = evidence.estimate.scores
  num_components = scores.component.shape[-1]
  result = []
  for k in range(num_components):
    others = [j for j in range(num_components) if j != k]
    weight = tf.gather(scores.log_weight, others, axis=-1)
    joint = weight + tf.gather(scores.component, others, axis=-1)
    without = tf.reduce_logsumexp(joint, axis=-1) - tf.reduce_logsumexp(
      weight, axis=-1
    )
    result.append(scores.log_prob - without)
  return utils.to_slots(tf.stack(result, axis=-1))


def counterfactual(evidence: Evidence) -> tf.Tensor:
  """`plain_counterfactual` at once, in a fraction of the operations.

  One masked log-sum-exp over the K component densities stands for K mixtures
  of K - 1 components.
  """
  scores = evidence.estimate.scores
  num_components = scores.component.shape[-1]
  if num_components < 2:
    raise errors.UserError(
      "the refinement input `counterfactual` needs `num_components` of at "
      "least 2: there is no mixture without the only slot"
    )
  removed = tf.linalg.diag(
    tf.fill([num_components], tf.constant(float("-inf")))
  )
  # A diagonal of -inf, zero elsewhere: [..., 1, j] + [k, j] drops j = k.
  removed = tf.where(tf.eye(num_components) > 0, removed, 0.0)
  weight = tf.expand_dims(scores.log_weight, -2) + removed
  joint = weight + tf.expand_dims(scores.component, -2)
  without = tf.reduce_logsumexp(joint, axis=-1) - tf.reduce_logsumexp(
    weight, axis=-1
  )
  return utils.to_slots(tf.expand_dims(scores.log_prob, -1) - without)


def _constant_plane(evidence: Evidence) -> tf.Tensor:
  """The constant 0.5 [B, K, H, W, 1]."""
  return tf.fill(evidence.estimate.params.mask.shape, 0.5)


def _constant_feature(evidence: Evidence) -> tf.Tensor:
  """The constant 0.5 [B, K, 1]."""
  return tf.fill([*evidence.estimate.zp.shape[:2], 1], 0.5)


def _coordinates(evidence: Evidence) -> tf.Tensor:
  """Coordinate channels [B, 1, H, W, n]."""
  batch_size = evidence.image.shape[0]
  return tf.tile(evidence.coordinates[None, None], [batch_size, 1, 1, 1, 1])


SPATIAL: dict[str, Callable[[Evidence], tf.Tensor]] = {
  "image": lambda e: e.image,
  "log_prob": lambda e: tf.expand_dims(e.estimate.scores.log_prob, -1),
  # FIDELITY: `mask` is the raw logit, before any mask activation.
  "mask": lambda e: e.estimate.params.mask,
  "pred_mask": _pred_mask,
  "components": lambda e: e.estimate.params.pixel,
  "dmask": lambda e: e.gradients.mask,
  "dcomponents": lambda e: e.gradients.pixel,
  "posterior": _posterior,
  "capacity": _constant_plane,
  "coordinates": _coordinates,
  "counterfactual": counterfactual,
}

FLAT: dict[str, Callable[[Evidence], tf.Tensor]] = {
  "zp": lambda e: e.estimate.zp,
  "dzp": lambda e: e.gradients.zp,
  "flat_capacity": _constant_feature,
}

ALL = (*SPATIAL, *FLAT)
# The defaults of the paper and the original.
NORMALIZED = ("log_prob", "dmask", "dcomponents", "counterfactual", "dzp")


def _known(names: Sequence[str], argument: str) -> tuple[str, ...]:
  unknown = [name for name in names if name not in ALL]
  if unknown:
    raise ValueError(
      f"unknown refinement input {unknown[0]!r} in `{argument}`: use some of "
      f"{', '.join(ALL)}"
    )
  return tuple(dict.fromkeys(names))


@snt.allow_empty_variables
class RefinementInputMaker(snt.Module):
  """Computes the chosen inputs, stops gradients, normalises."""

  def __init__(
    self,
    inputs: Sequence[str] = ALL,
    preprocess: Sequence[str] = NORMALIZED,
    stop_gradients: Sequence[str] = NORMALIZED,
    name: str = "preprocess",
  ):
    """Chooses what the refinement core sees.

    Args:
      inputs: names of the inputs in use.
      preprocess: names of those that get a layer norm.
      stop_gradients: names of those that training gradients do not enter.
      name: name of the module.

    Raises:
      ValueError: if a name is unknown or none is in use.
    """
    super().__init__(name=name)
    self._inputs = _known(inputs, "inputs")
    if not self._inputs:
      raise ValueError(
        f"`inputs` is empty: use at least one of {', '.join(ALL)}"
      )
    self._stop_gradients = _known(stop_gradients, "stop_gradients")
    # FIDELITY: over all axes but the batch (so H, W and channels together),
    # with scales and offsets of the size of the last axis only.
    self.layer_norms = {
      name: snt.LayerNorm(
        axis=slice(1, None), create_scale=True, create_offset=True, eps=1e-5
      )
      for name in _known(preprocess, "preprocess")
      if name in self._inputs
    }

  def __call__(self, evidence: Evidence) -> types.RefinementInputs:
    """Returns the inputs as the core gets them."""
    _guard(evidence)
    return types.RefinementInputs(
      spatial=self._compute(SPATIAL, evidence),
      flat=self._compute(FLAT, evidence),
    )

  def _compute(
    self,
    functions: dict[str, Callable[[Evidence], tf.Tensor]],
    evidence: Evidence,
  ) -> dict[str, tf.Tensor]:
    tensors = {}
    for name, function in functions.items():
      if name not in self._inputs:
        continue
      tensor = function(evidence)
      # Before the layer norm, so that its scale and offset are trained.
      if name in self._stop_gradients:
        tensor = tf.stop_gradient(tensor)
      if name in self.layer_norms:
        normalized = self.layer_norms[name](utils.merge_leading(tensor))
        tensor = utils.split_leading(normalized, tensor.shape[:2])
      tensors[name] = tensor
    return tensors


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
