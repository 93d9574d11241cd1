"""Adam in TF1's form, the schedule of its learning rate and its loss scale.

Source: Kingma & Ba 2014, the efficient form at the end of section 2; what
`tf.train.AdamOptimizer` and `tf.train.exponential_decay` compute.
"""

from __future__ import annotations

from collections.abc import Sequence

import sonnet as snt
import tensorflow as tf

from iodine import validation


class ExponentialDecay:
  """learning_rate * decay_rate^(step / decay_steps), without stairs.

  The decay may begin later, and the rate may rise before: neither is in the
  original.
  """

  def __init__(
    self,
    learning_rate: float,
    decay_rate: float = 0.1,
    decay_steps: float = 1e6,
    hold_steps: float = 0,
    warmup_steps: float = 0,
  ):
    """Sets the numbers.

    Args:
      learning_rate: the full rate.
      decay_rate: what is left of it after `decay_steps`.
      decay_steps: in updates.
      hold_steps: updates from the first one on before it decays.
      warmup_steps: the first updates, over which it rises in a line: update
        number n, from 1, has n / warmup_steps of it.

    Raises:
      errors.UserError: if a number is negative, or no updates make a decay.
    """
    validation.check_number("learning_rate", learning_rate)
    validation.check_number("decay_rate", decay_rate)
    validation.check_number("decay_steps", decay_steps, above=0.0)
    validation.check_number("hold_steps", hold_steps)
    validation.check_number("warmup_steps", warmup_steps)
    self._learning_rate = float(learning_rate)
    self._decay_rate = float(decay_rate)
    self._decay_steps = float(decay_steps)
    self._hold_steps = float(hold_steps)
    self._warmup_steps = float(warmup_steps)

  def __call__(self, step: tf.Tensor) -> tf.Tensor:
    """Returns the learning rate after `step` updates, a scalar."""
    step = tf.cast(step, tf.float32)
    exponent = tf.maximum(step - self._hold_steps, 0.0) / self._decay_steps
    rate = self._learning_rate * tf.pow(self._decay_rate, exponent)
    if self._warmup_steps == 0.0:
      return rate
    return rate * tf.minimum((step + 1.0) / self._warmup_steps, 1.0)


class LossScale(snt.Module):
  """Keeps gradients inside of the range of float16.

  Source: Micikevicius et al. 2018, Mixed Precision Training
  (arXiv:1710.03740), and the rule that is usual since: halve at an overflow,
  double after a while.

  The loss is multiplied by the scale and the gradients are divided by it, both
  of which is exact, the scale being a power of two. An update whose gradients
  are not finite does not happen.

  Attributes:
    scale: float32, of the next step.
    good_steps: int64, with finite gradients since it changed.
  """

  # Where gradients overflow even so, they are not finite in float32 either.
  MIN = 2.0**-24
  MAX = 2.0**24

  def __init__(
    self,
    initial: float = 1.0,
    growth_steps: int = 2000,
    name: str = "loss_scale",
  ):
    """Sets the numbers.

    Args:
      initial: the first scale, a power of two. Losses are sums over pixels
        here, whose gradients are large to begin with.
      growth_steps: steps with finite gradients after which it doubles.
      name: name of the module.

    Raises:
      errors.UserError: if the scale is not a power of two from MIN to MAX, or
        there are no steps.
    """
    super().__init__(name=name)
    validation.require(
      not isinstance(initial, bool)
      and initial in [2.0**exponent for exponent in range(-24, 25)],
      "initial",
      initial,
      "a power of two, from 2^-24 to 2^24",
    )
    validation.check_whole("growth_steps", growth_steps, least=1)
    self._growth_steps = growth_steps
    self.scale = tf.Variable(float(initial), trainable=False, name="scale")
    self.good_steps = tf.Variable(
      0, dtype=tf.int64, trainable=False, name="good_steps"
    )

  def scaled(self, loss: tf.Tensor) -> tf.Tensor:
    """Returns the loss to differentiate."""
    return loss * self.scale

  def unscaled(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns what the gradients are without the scale."""
    return [gradient / self.scale for gradient in gradients]

  def update(self, is_finite: tf.Tensor) -> None:
    """Sets the next scale.

    Args:
      is_finite: scalar, whether all gradients of this step are.
    """
    good_steps = self.good_steps + 1
    grows = good_steps >= self._growth_steps
    factor = tf.where(is_finite, tf.where(grows, 2.0, 1.0), 0.5)
    changes = tf.logical_or(grows, tf.logical_not(is_finite))
    self.scale.assign(tf.clip_by_value(self.scale * factor, self.MIN, self.MAX))
    self.good_steps.assign(
      tf.where(changes, tf.zeros_like(good_steps), good_steps)
    )


class Adam(snt.Module):
  """Adam whose epsilon is not bias-corrected, with gradients clipped.

  lr_t = lr * sqrt(1 - beta2^t) / (1 - beta1^t), then
  variable -= lr_t * m / (sqrt(v) + epsilon). `snt.optimizers.Adam`
  bias-corrects epsilon, too.

  Attributes:
    global_step: int64, counts updates, left out ones too, since samples and
      the order of scenes follow from it; the schedule sees it.
    beta1_power: beta1^(updates + 1), as TF1 stores it; likewise beta2_power.
      They count by themselves, since a checkpoint may hold a global_step but
      no moments.
    m, v: first and second moments, in the order of the variables.
    loss_scale: what the loss is multiplied by, or None.
  """

  def __init__(
    self,
    learning_rate: float | ExponentialDecay,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    max_gradient_norm: float | None = None,
    loss_scale: bool | LossScale = False,
    name: str = "adam",
  ):
    """Sets the numbers.

    Args:
      learning_rate: a number or a schedule.
      beta1: decay of the first moment.
      beta2: decay of the second moment.
      epsilon: added to the square root of the second moment.
      max_gradient_norm: gradients are scaled down to this global norm; None
        for no clipping.
      loss_scale: whether there is one, as float16 needs it; or which.
      name: name of the module.

    Raises:
      errors.UserError: if an argument is of the wrong type or out of range.
    """
    super().__init__(name=name)
    if not callable(learning_rate):
      validation.check_number("learning_rate", learning_rate)
    # Of 1 there would be a division by zero.
    validation.check_number("beta1", beta1, below=1.0)
    validation.check_number("beta2", beta2, below=1.0)
    validation.check_number("epsilon", epsilon)
    if max_gradient_norm is not None:
      validation.check_number("max_gradient_norm", max_gradient_norm, above=0.0)
      max_gradient_norm = float(max_gradient_norm)
    if not isinstance(loss_scale, LossScale):
      validation.check_flag("loss_scale", loss_scale)
    self._learning_rate = learning_rate
    self._beta1 = float(beta1)
    self._beta2 = float(beta2)
    self._epsilon = float(epsilon)
    self._max_gradient_norm = max_gradient_norm
    # Where it is a flag, the scale's own defaults hold.
    self.loss_scale: LossScale | None = (
      LossScale() if loss_scale is True else loss_scale or None
    )
    self.global_step = tf.Variable(
      0, dtype=tf.int64, trainable=False, name="global_step"
    )
    self.beta1_power = tf.Variable(
      self._beta1, dtype=tf.float32, trainable=False, name="beta1_power"
    )
    self.beta2_power = tf.Variable(
      self._beta2, dtype=tf.float32, trainable=False, name="beta2_power"
    )

  @snt.once
  def initialize(self, variables: Sequence[tf.Variable]) -> None:
    """Creates the moments; done on the first `apply` otherwise."""
    with tf.init_scope():
      self.m = [_zeros_like(variable, "m") for variable in variables]
      self.v = [_zeros_like(variable, "v") for variable in variables]

  def reset(self) -> None:
    """Starts afresh, zero moments and t = 0; the global step stays."""
    for moment in [*self.m, *self.v]:
      moment.assign(tf.zeros_like(moment))
    self.beta1_power.assign(self._beta1)
    self.beta2_power.assign(self._beta2)

  @property
  def learning_rate(self) -> tf.Tensor:
    """Returns the learning rate of the next update."""
    if callable(self._learning_rate):
      return self._learning_rate(self.global_step)
    return tf.constant(self._learning_rate, tf.float32)

  def apply(
    self,
    gradients: Sequence[tf.Tensor],
    variables: Sequence[tf.Variable],
    loss: tf.Tensor | None = None,
  ) -> tf.Tensor:
    """Makes one update.

    It is left out where it is not finite and there is a loss scale or `loss`:
    variables, moments and powers stay as they are.

    Args:
      gradients: one for each variable, without the loss scale.
      variables: the same at every call, in the same order.
      loss: scalar, which has to be finite, too, see `is_finite`.

    Returns:
      The global norm of the gradients before clipping, a scalar.
    """
    self.initialize(variables)
    norm = global_norm(gradients)
    if self.loss_scale is None and loss is None:
      self._update(gradients, variables, norm)
    else:
      happens = is_finite(norm if loss is None else loss, norm)
      tf.cond(
        happens,
        lambda: self._update(gradients, variables, norm),
        lambda: None,
      )
      if self.loss_scale is not None:
        self.loss_scale.update(happens)
    self.global_step.assign_add(1)
    return norm

  def _update(
    self,
    gradients: Sequence[tf.Tensor],
    variables: Sequence[tf.Variable],
    norm: tf.Tensor,
  ) -> None:
    """Changes variables, moments and powers."""
    if self._max_gradient_norm is not None:
      gradients, _ = tf.clip_by_global_norm(
        gradients, self._max_gradient_norm, use_norm=norm
      )
    # Once for all variables: a graph is made and optimised the sooner.
    numbers = tf.nest.map_structure(
      tf.convert_to_tensor,
      {
        "beta1_power": self.beta1_power,
        "beta2_power": self.beta2_power,
        "lr": self.learning_rate,
        "beta1": self._beta1,
        "beta2": self._beta2,
        "epsilon": self._epsilon,
      },
    )
    for gradient, variable, m, v in zip(
      gradients, variables, self.m, self.v, strict=True
    ):
      # The kernel that TF1's optimizer calls too.
      tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=m.handle,
        v=v.handle,
        grad=gradient,
        **numbers,
      )
    self.beta1_power.assign(self.beta1_power * self._beta1)
    self.beta2_power.assign(self.beta2_power * self._beta2)


def global_norm(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
  """Returns the norm of all tensors together, a scalar.

  Float32 holds no squares of numbers above 1.8e19. Where their sum is infinite
  it is taken of smaller numbers.
  """
  norm = tf.linalg.global_norm(tensors)
  smaller = tf.linalg.global_norm([2.0**-64 * tensor for tensor in tensors])
  return tf.where(tf.math.is_finite(norm), norm, 2.0**64 * smaller)


def is_finite(loss: tf.Tensor, norm: tf.Tensor) -> tf.Tensor:
  """Returns whether an update of this loss and gradient norm can be made."""
  return tf.math.is_finite(loss) & tf.math.is_finite(norm)


def _zeros_like(variable: tf.Variable, slot: str) -> tf.Variable:
  name = f"{variable.name.split(':')[0]}/{slot}"
  return tf.Variable(
    tf.zeros(variable.shape, variable.dtype), trainable=False, name=name
  )
