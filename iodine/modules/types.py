"""The records that cross module borders.

Dimensions: B batch, T iterations + 1, K slots, H W C image, Z latent size,
Zp latent parameter size, Cp pixel parameter channels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

# `tfp.distributions.Distribution`; TensorFlow Probability has no type hints.
Distribution = Any


class MixtureParameters(NamedTuple):
  """What the decoder says about every pixel.

  Attributes:
    pixel: [B, K, H, W, Cp] parameters of the component distributions.
    mask: [B, K, H, W, 1] mask logits, before any mask activation.
  """

  pixel: tf.Tensor
  mask: tf.Tensor


class MixtureScores(NamedTuple):
  """How well the mixture and its components explain an image.

  Attributes:
    component: [B, 1, H, W, K] log-density of each component, masks not used.
    log_weight: [B, 1, H, W, K] log of the mask probabilities.
    log_prob: [B, 1, H, W] log-density of the mixture (nats per pixel).
  """

  component: tf.Tensor
  log_weight: tf.Tensor
  log_prob: tf.Tensor


class Estimate(NamedTuple):
  """All that one setting of the latent parameters implies about one image.

  Attributes:
    zp: [B, K, Zp] latent parameters.
    z_dist: distribution with batch shape [B, K] and event shape [Z].
    z: [B, K, Z] a sample of it.
    params: the decoded `MixtureParameters`.
    x_dist: distribution with batch shape [B, 1, H, W] and event shape [C].
    scores: `MixtureScores` of the frame under x_dist.
    kl: [B, K] divergence of z_dist from the prior (nats).
    re: [B] negative log-likelihood of the frame (nats).
  """

  zp: tf.Tensor
  z_dist: Distribution
  z: tf.Tensor
  params: MixtureParameters
  x_dist: Distribution
  scores: MixtureScores
  kl: tf.Tensor
  re: tf.Tensor


class Gradients(NamedTuple):
  """Gradients of the batch-mean loss of one iteration.

  Attributes:
    zp: [B, K, Zp], pixel: [B, K, H, W, Cp], mask: [B, K, H, W, 1].
  """

  zp: tf.Tensor
  pixel: tf.Tensor
  mask: tf.Tensor


class RefinementInputs(NamedTuple):
  """The inputs of the refinement core, by name.

  Attributes:
    spatial: tensors [B, K or 1, H, W, channels].
    flat: tensors [B, K, features].
  """

  spatial: dict[str, tf.Tensor]
  flat: dict[str, tf.Tensor]


class SlotPlanes(NamedTuple):
  """The images [B, K, H, W, C] of all slots, shared channels held once.

  Attributes:
    own: [B, K, H, W, C1] channels of every slot.
    shared: [B, H, W, C2] channels that are the same for all slots.
    own_channels: where the own channels stand among all C = C1 + C2.
    shared_channels: where the shared channels stand.
  """

  own: tf.Tensor
  shared: tf.Tensor
  own_channels: tuple[int, ...]
  shared_channels: tuple[int, ...]

  @property
  def num_channels(self) -> int:
    """C."""
    return len(self.own_channels) + len(self.shared_channels)

  def concatenated(self) -> tf.Tensor:
    """The images [B * K, H, W, C], slots folded into the batch."""
    batch_size, num_components, height, width, _ = self.own.shape
    shared = tf.repeat(self.shared[:, None], num_components, axis=1)
    order = [*self.own_channels, *self.shared_channels]
    stacked = tf.gather(
      tf.concat([self.own, shared], axis=-1),
      sorted(range(len(order)), key=order.__getitem__),
      axis=-1,
    )
    return tf.reshape(
      stacked, [batch_size * num_components, height, width, len(order)]
    )


class FactorPredictions(NamedTuple):
  """What the factor regressor says about one batch.

  Attributes:
    loss: scalar, mean loss of a visible entity, summed over the factors.
    entity_loss: [B, L] loss of every entity, zero for invisible ones.
    metrics: {factor: scalar}, accuracy or R2.
    predictions: {factor: [B, L, size]} raw outputs of the assigned slots.
    targets: {factor: [B, L, size]} what they should be: the values, classes as
      one-hot, or cosine and sine.
    assignment: [B, L, K] one-hot, zero for invisible entities.
  """

  loss: tf.Tensor
  entity_loss: tf.Tensor
  metrics: dict[str, tf.Tensor]
  predictions: dict[str, tf.Tensor]
  targets: dict[str, tf.Tensor]
  assignment: tf.Tensor
