"""The records that cross module borders, and what parts have to offer.

A part of the model may be anybody's class, named by its dotted path in a
config. The protocols say what it has to have.

Dimensions: B batch, T iterations + 1, K slots, H W C image, Z latent size,
Zp latent parameter size, Cp pixel parameter channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

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


class Rendering(NamedTuple):
  """What a mixture looks like.

  Attributes:
    masks: [B, K, H, W, 1] probabilities, which sum to 1 over the slots.
    components: [B, K, H, W, C] what every slot alone looks like, masks not
      used.
    reconstruction: [B, 1, H, W, C], the sum of masks times components.
  """

  masks: tf.Tensor
  components: tf.Tensor
  reconstruction: tf.Tensor


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
    flat: tensors [B, K, features].
    spatial: tensors [B, K or 1, H, W, channels].
  """

  flat: dict[str, tf.Tensor]
  spatial: dict[str, tf.Tensor]


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


class BatchPart(NamedTuple):
  """Which images of a training step's batch are at hand, of equal parts.

  What a batch has in common is taken of the whole then, so that the means of
  losses, gradients and scalars over the parts are those of the whole batch.

  Attributes:
    number: of the part, from 0; an integer or a scalar tensor.
    num_parts: how many there are.
    visibility: [B, L] of the whole batch, of no use without masks.
    factors: {name: [B, L, n]} of the whole batch.
  """

  number: int | tf.Tensor
  num_parts: int
  visibility: tf.Tensor
  factors: dict[str, tf.Tensor]


# ---------------------------------------------------------------- protocols


@runtime_checkable
class PixelDecoder(Protocol):
  """Turns vectors into images; `networks.PixelDecoder` may be its base."""

  def set_output_shape(self, shape: Sequence[int]) -> None:
    """Tells (H, W, channels), of which the first is the mask logit."""

  def __call__(self, z: tf.Tensor) -> tf.Tensor:
    """Maps [N, Z + 1] -> [N, H, W, channels]."""


@runtime_checkable
class Encoder(Protocol):
  """Turns the spatial refinement inputs into features."""

  def __call__(self, image: tf.Tensor) -> tf.Tensor:
    """Maps [N, H, W, C] -> [N, features]."""


@runtime_checkable
class RecurrentNet(Protocol):
  """Takes in features, step by step."""

  def initial_state(self, num: int) -> Any:
    """Returns the state of N = num sequences before their first step."""

  def __call__(self, x: tf.Tensor, state: Any) -> tuple[tf.Tensor, Any]:
    """Maps [N, F] and the state -> [N, H2] and the next state."""


@runtime_checkable
class Head(Protocol):
  """Turns what was seen into the next latent parameters."""

  def __call__(self, zp: tf.Tensor, hidden: tf.Tensor) -> tf.Tensor:
    """Maps ([N, Zp], [N, H2]) -> [N, Zp]."""


@runtime_checkable
class Optimizer(Protocol):
  """Updates the model's variables.

  Attributes:
    global_step: int64, counts calls of `apply`.
  """

  global_step: tf.Variable

  @property
  def variables(self) -> Sequence[tf.Variable]:
    """Returns its own variables, such as moments, which checkpoints hold."""

  @property
  def learning_rate(self) -> tf.Tensor:
    """Returns the learning rate of the next update, a scalar."""

  def initialize(self, variables: Sequence[tf.Variable]) -> None:
    """Creates what it keeps about the variables, once."""

  def apply(
    self,
    gradients: Sequence[tf.Tensor],
    variables: Sequence[tf.Variable],
    loss: tf.Tensor | None = None,
  ) -> tf.Tensor:
    """Makes one update and returns the gradients' global norm, a scalar.

    Args:
      gradients: one for each variable.
      variables: the same at every call, in the same order.
      loss: scalar; where it or the norm is not finite, only `global_step`
        changes. None to make every update.
    """


@runtime_checkable
class Schedule(Protocol):
  """Says how large updates are."""

  def __call__(self, step: tf.Tensor) -> tf.Tensor:
    """Returns the learning rate after `step` updates, a scalar."""


@runtime_checkable
class DataSet(Protocol):
  """Gives batches as `IODINE.__call__` wants them.

  Attributes:
    image_shape: (H, W, C) of the images.
    batch_size: B.
    num_true_objects: L, 0 without masks.
  """

  image_shape: tuple[int, int, int]
  batch_size: int
  num_true_objects: int

  def __call__(self, subset: str | None, skip_batches: int = 0) -> Any:
    """Returns a `tf.data.Dataset` of "train", "summary" or "test"."""

  def batches(
    self, subset: str | None, skip_batches: int = 0
  ) -> Iterator[dict[str, Any]]:
    """Yields the same, with errors that name the file."""
