"""Adam in TF1's form, and the schedule of its learning rate.

Source: Kingma & Ba 2014, the efficient form at the end of section 2; what
`tf.train.AdamOptimizer` and `tf.train.exponential_decay` compute.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Annotated, Any

import sonnet as snt
import tensorflow as tf

from iodine import kinds
from iodine.modules import types, utils

# Of 1 there would be a division by zero.
_Beta = Annotated[kinds.NonNegative, kinds.Below(1)]


@dataclasses.dataclass(frozen=True)
class ExponentialDecay:
  """learning_rate * decay_rate^(step / decay_steps), without stairs.

  The decay may begin later, and the rate may rise before: neither is in the
  original.

  Attributes:
    learning_rate: the full rate.
    decay_rate: what is left of it after `decay_steps`.
    decay_steps: in updates.
    hold_steps: updates from the first one on before it decays.
    warmup_steps: the first updates, over which it rises in a line: update
      number n, from 1, has n / warmup_steps of it.
  """

  learning_rate: kinds.NonNegative
  decay_rate: kinds.NonNegative = 0.1
  decay_steps: kinds.PositiveFloat = 1e6
  hold_steps: kinds.NonNegative = 0
  warmup_steps: kinds.NonNegative = 0

  def __call__(self, step: tf.Tensor) -> tf.Tensor:
    """Returns the learning rate after `step` updates, a scalar."""
    step = tf.cast(step, tf.float32)
    exponent = tf.maximum(step - self.hold_steps, 0.0) / self.decay_steps
    rate = self.learning_rate * tf.pow(float(self.decay_rate), exponent)
    if not self.warmup_steps:
      return rate
    return rate * tf.minimum((step + 1.0) / self.warmup_steps, 1.0)


class Adam(utils.Module):
  """Adam whose epsilon is not bias-corrected (FIDELITY), gradients clipped.

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
  """

  def __init__(
    self,
    learning_rate: kinds.NonNegative | types.Schedule,
    beta1: _Beta = 0.9,
    beta2: _Beta = 0.999,
    epsilon: kinds.NonNegative = 1e-8,
    max_gradient_norm: kinds.PositiveFloat | None = None,
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
      name: name of the module.
    """
    super().__init__(name=name)
    self._learning_rate = learning_rate
    self._beta1 = float(beta1)
    self._beta2 = float(beta2)
    self._epsilon = float(epsilon)
    self._max_norm = max_gradient_norm
    self.global_step = _state(0, "global_step", tf.int64)
    self.beta1_power = _state(self._beta1, "beta1_power")
    self.beta2_power = _state(self._beta2, "beta2_power")

  @snt.once
  def initialize(self, variables: Sequence[tf.Variable]) -> None:
    """Creates the moments; done on the first `apply` otherwise."""

    def zeros(name: str) -> list[tf.Variable]:
      return [
        _state(tf.zeros(v.shape), f"{v.name.split(':')[0]}/{name}")
        for v in variables
      ]

    with tf.init_scope():
      self.m, self.v = zeros("m"), zeros("v")

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

    With `loss` it is left out where it is not finite, see `is_finite`:
    variables, moments and powers stay as they are.

    Args:
      gradients: one for each variable.
      variables: the same at every call, in the same order.
      loss: scalar, which has to be finite, too; None to make every update.

    Returns:
      The global norm of the gradients before clipping, a scalar.
    """
    self.initialize(variables)
    norm = global_norm(gradients)
    update = functools.partial(self._update, gradients, variables, norm)
    if loss is None:
      update()
    else:
      tf.cond(is_finite(loss, norm), update, lambda: None)
    self.global_step.assign_add(1)
    return norm

  def _update(
    self,
    gradients: Sequence[tf.Tensor],
    variables: Sequence[tf.Variable],
    norm: tf.Tensor,
  ) -> None:
    """Changes variables, moments and powers."""
    if self._max_norm is not None:
      gradients, _ = tf.clip_by_global_norm(gradients, self._max_norm, norm)
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
        var=variable.handle, m=m.handle, v=v.handle, grad=gradient, **numbers
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


def _state(value: Any, name: str, dtype: Any = tf.float32) -> tf.Variable:
  return tf.Variable(value, trainable=False, name=name, dtype=dtype)
