"""A loss scale that follows the gradients, for training in float16.

Source: Micikevicius et al. 2018, Mixed Precision Training (arXiv:1710.03740),
and the rule that is usual since: halve at an overflow, double after a while.
"""

from __future__ import annotations

from collections.abc import Sequence

import sonnet as snt
import tensorflow as tf


class LossScale(snt.Module):
  """Keeps gradients inside of the range of float16.

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
      ValueError: if the scale is no power of two from MIN to MAX, or there are
        no steps.
    """
    super().__init__(name=name)
    powers = [2.0**exponent for exponent in range(-24, 25)]
    if isinstance(initial, bool) or initial not in powers:
      raise ValueError(
        f"`initial` is {initial!r}: give a power of two, from 2^-24 to 2^24"
      )
    if not isinstance(growth_steps, int) or growth_steps < 1:
      raise ValueError(
        f"`growth_steps` is {growth_steps!r}: give a whole number, at least 1"
      )
    self._growth_steps = growth_steps
    self.scale = tf.Variable(float(initial), trainable=False, name="scale")
    self.good_steps = tf.Variable(
      0, dtype=tf.int64, trainable=False, name="good_steps"
    )

  def scaled(self, loss: tf.Tensor) -> tf.Tensor:
    """The loss to differentiate."""
    return loss * self.scale

  def unscaled(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """What the gradients are without the scale."""
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
