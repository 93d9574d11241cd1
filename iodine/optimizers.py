"""Adam in TF1's form, and the schedule of its learning rate.

Source: Kingma & Ba 2014, the efficient form at the end of section 2; what
`tf.train.AdamOptimizer` and `tf.train.exponential_decay` compute.
"""

from __future__ import annotations

from collections.abc import Sequence

import sonnet as snt
import tensorflow as tf

from iodine import loss_scaling


class ExponentialDecay:
  """learning_rate * decay_rate^(step / decay_steps), without stairs."""

  def __init__(
    self,
    learning_rate: float,
    decay_rate: float = 0.1,
    decay_steps: float = 1e6,
  ):
    """Sets the numbers; decay_steps is in updates.

    Raises:
      ValueError: if a number is negative, or no updates make a decay.
    """
    self._learning_rate = _number("learning_rate", learning_rate)
    self._decay_rate = _number("decay_rate", decay_rate)
    self._decay_steps = _number("decay_steps", decay_steps, above=0.0)

  def __call__(self, step: tf.Tensor) -> tf.Tensor:
    """The learning rate of the update after `step` updates, a scalar."""
    exponent = tf.cast(step, tf.float32) / self._decay_steps
    return self._learning_rate * tf.pow(self._decay_rate, exponent)


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
    loss_scale: what the loss is multiplied by, or None. With it an update
      whose gradients are not finite is left out.
  """

  def __init__(
    self,
    learning_rate: float | ExponentialDecay,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    max_gradient_norm: float | None = None,
    loss_scale: bool | loss_scaling.LossScale = False,
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
      ValueError: if an argument is of the wrong type or out of range.
    """
    super().__init__(name=name)
    self._learning_rate = (
      learning_rate
      if callable(learning_rate)
      else _number("learning_rate", learning_rate)
    )
    self._beta1 = _number("beta1", beta1)
    self._beta2 = _number("beta2", beta2)
    self._epsilon = _number("epsilon", epsilon)
    self._max_gradient_norm = (
      None
      if max_gradient_norm is None
      else _number("max_gradient_norm", max_gradient_norm, above=0.0)
    )
    if isinstance(loss_scale, bool):
      self.loss_scale = loss_scaling.LossScale() if loss_scale else None
    elif isinstance(loss_scale, loss_scaling.LossScale):
      self.loss_scale = loss_scale
    else:
      raise ValueError(f"`loss_scale` is {loss_scale!r}: use True or False")
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
    """The learning rate of the next update."""
    if callable(self._learning_rate):
      return self._learning_rate(self.global_step)
    return tf.constant(self._learning_rate, tf.float32)

  def apply(
    self,
    gradients: Sequence[tf.Tensor],
    variables: Sequence[tf.Variable],
  ) -> tf.Tensor:
    """One update.

    Args:
      gradients: one for each variable, without the loss scale.
      variables: the same at every call, in the same order.

    Returns:
      The global norm of the gradients before clipping, a scalar.
    """
    self.initialize(variables)
    global_norm = tf.linalg.global_norm(gradients)
    if self.loss_scale is None:
      self._update(gradients, variables, global_norm)
    else:
      is_finite = tf.math.is_finite(global_norm)
      tf.cond(
        is_finite,
        lambda: self._update(gradients, variables, global_norm),
        lambda: None,
      )
      self.loss_scale.update(is_finite)
    self.global_step.assign_add(1)
    return global_norm

  def _update(
    self,
    gradients: Sequence[tf.Tensor],
    variables: Sequence[tf.Variable],
    global_norm: tf.Tensor,
  ) -> None:
    """Changes variables, moments and powers."""
    if self._max_gradient_norm is not None:
      gradients, _ = tf.clip_by_global_norm(
        gradients, self._max_gradient_norm, use_norm=global_norm
      )
    learning_rate = self.learning_rate
    for gradient, variable, m, v in zip(
      gradients, variables, self.m, self.v, strict=True
    ):
      # The kernel that TF1's optimizer calls too.
      tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=m.handle,
        v=v.handle,
        beta1_power=self.beta1_power,
        beta2_power=self.beta2_power,
        lr=learning_rate,
        beta1=self._beta1,
        beta2=self._beta2,
        epsilon=self._epsilon,
        grad=gradient,
      )
    self.beta1_power.assign(self.beta1_power * self._beta1)
    self.beta2_power.assign(self.beta2_power * self._beta2)


def _number(name: str, value: float, above: float | None = None) -> float:
  """The value as a number of at least 0, or above a bound."""
  try:
    number = float(value)
  except (TypeError, ValueError):
    number = -1.0
  if not (number >= 0.0 if above is None else number > above):
    need = "of at least 0" if above is None else f"above {above:g}"
    raise ValueError(f"`{name}` is {value!r}: give a number {need}")
  return number


def _zeros_like(variable: tf.Variable, slot: str) -> tf.Variable:
  name = f"{variable.name.split(':')[0]}/{slot}"
  return tf.Variable(
    tf.zeros(variable.shape, variable.dtype), trainable=False, name=name
  )
