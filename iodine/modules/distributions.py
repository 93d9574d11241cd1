"""Distributions over latents and pixels, parameterised by network outputs.

Dimensions: B batch, K slots, H W C image, Z latent size, Cp pixel parameter
channels. Source: section 3 of the paper's supplement and the original's
`iodine/modules/distributions.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import shapeguard
import sonnet as snt
import tensorflow as tf
import tensorflow_probability as tfp

from iodine import errors, kinds
from iodine.modules import types, utils

tfd = tfp.distributions

# The raw scales for which float32 holds both an activation and its reciprocal;
# beyond them the scale would be 0 or infinite.
_RAW_RANGES = {
  tf.nn.softplus: (-87.0, math.inf),
  tf.nn.sigmoid: (-87.0, math.inf),
  tf.exp: (-87.0, 87.0),
}
# What a fixed scale may be.
_FIXED_SCALE = kinds.Limit(
  "above 0, or -1.0 for a trained one", lambda x: x > 0.0 or x == -1.0
)


class DistributionModule(utils.Module):
  """Turns the output of a network into a distribution.

  It is told the shape of one sample after construction and then knows the
  shape of its parameters (original: `DistributionModule`).

  Attributes:
    output_shape: of one sample, once it is told.
  """

  output_shape: tuple[int, ...]

  def set_output_shape(self, shape: Sequence[int]) -> None:
    """Tells the shape of one sample, the event axis last."""
    self.output_shape = tuple(int(size) for size in shape)

  @property
  def input_shape(self) -> tuple[int, ...]:
    """Returns the shape of the parameters of one sample."""
    raise NotImplementedError

  def default_prior(self) -> types.Distribution:
    """Returns the distribution at all-zero parameters.

    FIDELITY: with scale `var` and softplus the variance of this prior is
    softplus(0) = ln 2, not 1, as in the original.
    """
    return self(tf.zeros(self.input_shape))


@snt.allow_empty_variables
class BernoulliOutput(DistributionModule):
  """Bernoulli pixels from logits; the last axis is the event."""

  @property
  def input_shape(self) -> tuple[int, ...]:
    """Returns as many logits as outputs."""
    return self.output_shape

  def __call__(self, params: tf.Tensor) -> types.Distribution:
    """Maps [..., C] logits -> float32 Bernoulli with event shape [C]."""
    return tfd.Independent(
      tfd.Bernoulli(logits=params, dtype=tf.float32),
      reinterpreted_batch_ndims=1,
    )


@snt.allow_empty_variables
class LocScaleDistribution(DistributionModule):
  """A location-scale family with one of four ways to set the scale."""

  def __init__(
    self,
    dist: str | type = "normal",
    scale: Literal["stddev", "var", "prec", "fixed"] = "stddev",
    scale_act: utils.Activation = "exp",
    loc_act: utils.Activation = None,
    scale_val: Annotated[float, _FIXED_SCALE] = 1.0,
    dist_kwargs: Mapping[str, Any] | None = None,
    name: str = "loc_scale_dist",
  ):
    """Chooses the family and the meaning of its parameters.

    Args:
      dist: normal, log_normal, laplace, logistic, or a tfd class.
      scale: how the raw scale s is read: "stddev" act(s), "var"
        sqrt(act(s)), "prec" 1 / act(s), or "fixed" (no s in the parameters).
      scale_act: activation of the raw scale, by name.
      loc_act: activation of the location, by name; None for the identity.
      scale_val: the scale in mode "fixed"; -1.0 means one trained scalar that
        starts at 0.1 and is used as it is.
      dist_kwargs: further arguments of the family.
      name: name of the module (and of its variables in TF1 checkpoints).

    Raises:
      errors.UserError: if an activation, `dist` or one of its arguments is
        unknown.
    """
    super().__init__(name=name)
    self._dist = utils.get_distribution(dist)
    given = {"loc": 0.0, "scale": 1.0, **(dist_kwargs or {})}
    kinds.check_arguments("dist_kwargs", self._dist, given)
    self._scale_mode = scale
    self._scale_act = utils.get_activation(scale_act)
    self._loc_act = utils.get_activation(loc_act)
    self._dist_kwargs = tuple((dist_kwargs or {}).items())
    if scale == "fixed":
      is_trained = scale_val == -1.0
      self.scale = tf.Variable(0.1, name="scale") if is_trained else scale_val

  @property
  def input_shape(self) -> tuple[int, ...]:
    """Returns [..., loc and raw scale], or [..., loc] for a fixed scale."""
    *leading, last = self.output_shape
    return (*leading, last if self._scale_mode == "fixed" else 2 * last)

  def _scale(self, raw: tf.Tensor) -> tf.Tensor:
    if self._scale_act in _RAW_RANGES:
      raw = _clip(raw, *_RAW_RANGES[self._scale_act])
    activated = self._scale_act(raw)
    if self._scale_mode == "var":
      return tf.sqrt(activated)
    if self._scale_mode == "prec":
      return 1.0 / activated
    return activated

  def __call__(self, params: tf.Tensor) -> types.Distribution:
    """Maps [..., Z or 2Z] parameters -> distribution with event shape [Z]."""
    if self._scale_mode == "fixed":
      loc, scale = params, tf.convert_to_tensor(self.scale, tf.float32)
    else:
      loc, raw = tf.split(params, 2, axis=-1)
      scale = self._scale(raw)
    loc = self._loc_act(loc)
    dist = self._dist(loc=loc, scale=scale, **dict(self._dist_kwargs))
    return tfd.Independent(dist, reinterpreted_batch_ndims=1)


@snt.allow_empty_variables
class MaskedMixture(DistributionModule):
  """A spatial mixture: every pixel chooses one of K components."""

  def __init__(
    self,
    component_dist: DistributionModule,
    mask_activation: utils.Activation = None,
    num_components: kinds.Positive | None = None,
    name: str = "masked_mixture",
  ):
    """Combines masks and components.

    Args:
      component_dist: the distribution of a pixel within one component.
      mask_activation: activation of the mask logits, by name; None for none.
      num_components: K, if it is not to be told.
      name: name of the module.

    Raises:
      errors.UserError: if the activation is unknown.
    """
    super().__init__(name=name)
    self.num_components = num_components
    self._mask_activation = utils.get_activation(mask_activation)
    self.component_dist = component_dist

  def set_num_components(self, num_components: int) -> None:
    """Tells K, which may not be another one than before."""
    if self.num_components not in (None, num_components):
      raise errors.UserError(
        f"`num_components` is {num_components} for the model and "
        f"{self.num_components} for `output_dist`: set it once, at the top of "
        "the config"
      )
    self.num_components = num_components

  def set_output_shape(self, shape: Sequence[int]) -> None:
    """Tells the shape of the image, [H, W, C]."""
    super().set_output_shape(shape)
    self.component_dist.set_output_shape(shape)

  @property
  def input_shapes(self) -> types.MixtureParameters:
    """Returns the shapes (H, W, Cp) of pixels and (H, W, 1) of masks."""
    height, width, _ = self.output_shape
    return types.MixtureParameters(
      pixel=self.component_dist.input_shape, mask=(height, width, 1)
    )

  def __call__(self, pixel: tf.Tensor, mask: tf.Tensor) -> types.Distribution:
    """Maps pixel parameters and mask logits -> tfd.MixtureSameFamily.

    Args:
      pixel: [B, K, H, W, Cp].
      mask: [B, K, H, W, 1] logits.

    Returns:
      A distribution with batch shape [B, 1, H, W] and event shape [C].
    """
    sg = shapeguard.ShapeGuard()  # any K: slots may be taken out and put in
    sg.guard(pixel, "B, K, H, W, Cp")
    sg.guard(mask, "B, K, H, W, 1")
    logits = self._mask_activation(mask)
    logits = tf.transpose(logits, [0, 4, 2, 3, 1])  # [B, 1, H, W, K]
    pixel = tf.transpose(pixel, [0, 2, 3, 1, 4])  # [B, H, W, K, Cp]
    x_dist = tfd.MixtureSameFamily(
      mixture_distribution=tfd.Categorical(logits=logits),
      components_distribution=self.component_dist(tf.expand_dims(pixel, 1)),
    )
    sg.guard(x_dist, "B, 1, H, W, C")
    return x_dist


@tf.custom_gradient
def _clip(x: tf.Tensor, low: float, high: float) -> Any:
  """Returns x within bounds, with the gradient of x, which leads back there."""
  return tf.clip_by_value(x, low, high), lambda dy: (dy, None, None)


def score(x_dist: types.Distribution, x: tf.Tensor) -> types.MixtureScores:
  """Scores an image under a mixture, keeping the parts of the sum.

  `x_dist.log_prob(x)` is `.log_prob` of the result; the refinement inputs
  `posterior` and `counterfactual` need the parts, so they are computed once.

  Args:
    x_dist: mixture with batch shape [B, 1, H, W] and event shape [C].
    x: [B, 1, H, W, C].
  """
  component = x_dist.components_distribution.log_prob(tf.expand_dims(x, -2))
  logits = x_dist.mixture_distribution.logits_parameter()
  log_weight = tf.nn.log_softmax(logits, axis=-1)
  return types.MixtureScores(
    component=component,
    log_weight=log_weight,
    log_prob=tf.reduce_logsumexp(component + log_weight, axis=-1),
  )


class Decoded(NamedTuple):
  """What latents [B, K, Z] decode to.

  Attributes:
    params: what the decoder says about every pixel.
    x_dist: distribution of the image, with batch shape [B, 1, H, W] and event
      shape [C].
  """

  params: types.MixtureParameters
  x_dist: types.Distribution

  def __repr__(self) -> str:
    size, _, height, width = self.x_dist.batch_shape
    return f"Decoded: {size} images, {height} x {width}"

  @property
  def image(self) -> tf.Tensor:
    """Returns [B, H, W, C], the mean; about 0 to 1."""
    return self.x_dist.mean()[:, 0]

  @property
  def masks(self) -> tf.Tensor:
    """Returns [B, K, H, W], the probability that a pixel is of a slot."""
    return render(self.x_dist).masks[..., 0]

  @property
  def components(self) -> tf.Tensor:
    """Returns [B, K, H, W, C], what slots alone look like, masks not used."""
    return render(self.x_dist).components


def render(x_dist: types.Distribution) -> types.Rendering:
  """Returns the mean image of a mixture, and what it is made of.

  Args:
    x_dist: mixture with batch shape [B, 1, H, W] and event shape [C].
  """
  logits = x_dist.mixture_distribution.logits_parameter()
  log_weight = tf.nn.log_softmax(logits, axis=-1)
  components = x_dist.components_distribution.mean()  # [B, 1, H, W, K, C]
  return types.Rendering(
    masks=utils.to_slots(tf.exp(log_weight)),
    components=tf.transpose(components[:, 0], [0, 3, 1, 2, 4]),
    reconstruction=x_dist.mean(),
  )


def sample_each(
  module: DistributionModule, params: tf.Tensor, seeds: tf.Tensor
) -> tf.Tensor:
  """Draws a sample for every image by itself, reparameterised.

  It depends on no other image, as it does where all are drawn from one seed.

  Args:
    module: makes the distribution.
    params: [B, ...] its parameters.
    seeds: [B, 2] integers.
  """
  return tf.map_fn(
    lambda own: module(own[0]).sample(seed=own[1]),
    (params, seeds),
    fn_output_signature=params.dtype,
  )


def sample_part(
  module: DistributionModule,
  params: tf.Tensor,
  seed: tf.Tensor,
  part: types.BatchPart,
) -> tf.Tensor:
  """Draws for images what they would be given among all of their batch.

  Args:
    module: makes the distribution.
    params: [B / num_parts, ...] its parameters for the images of the part.
    seed: [2] integers that the whole batch is drawn from.
    part: which of the images these are.
  """
  size = params.shape[0]
  # What is drawn at a place depends on the shape alone, and of the rest only
  # the shape matters.
  repeats = [part.num_parts] + [1] * (params.shape.rank - 1)
  whole = module(tf.tile(params, repeats)).sample(seed=seed)
  begin = [part.number * size] + [0] * (whole.shape.rank - 1)
  return tf.slice(whole, begin, [size, *whole.shape[1:]])


def replay(dist: types.Distribution, value: tf.Tensor) -> tf.Tensor:
  """Returns `value` as if `dist` had just drawn it, reparameterised.

  The noise is recovered as (value - loc) / scale and held constant, so that
  gradients flow to loc and scale as they did when the value was drawn.

  Args:
    dist: tfd.Independent over a location-scale family.
    value: a recorded sample of it, of its shape.
  """
  base = dist.distribution
  log_scale = isinstance(base, tfd.LogNormal)
  value = tf.math.log(value) if log_scale else value
  noise = tf.stop_gradient((value - base.loc) / base.scale)
  replayed = base.loc + base.scale * noise
  return tf.exp(replayed) if log_scale else replayed
