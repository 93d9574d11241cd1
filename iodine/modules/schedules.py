"""Numbers that change as a training goes on."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


class PiecewiseConstant:
  """A number that jumps from one value to the next at given steps."""

  def __init__(self, values: Sequence[float], boundaries: Sequence[int]):
    """Sets the numbers.

    Args:
      values: one after the other.
      boundaries: numbers of updates, rising, after which the next value holds;
        one fewer than values.

    Raises:
      ValueError: if there are not as many boundaries, or they do not rise.
    """
    self._values = [float(value) for value in values]
    self._boundaries = [int(step) for step in boundaries]
    if len(self._boundaries) != len(self._values) - 1:
      raise ValueError(
        f"there are {len(self._values)} `values` and {len(self._boundaries)} "
        "`boundaries`: give one value more"
      )
    if self._boundaries != sorted(set(self._boundaries)):
      raise ValueError(f"`boundaries` are {boundaries!r}: they have to rise")

  @property
  def values(self) -> tuple[float, ...]:
    """All that it is ever going to be."""
    return tuple(self._values)

  def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
    """The value of the update after `step` updates, a scalar."""
    step = tf.cast(step, tf.int64)
    boundaries = tf.constant(self._boundaries, tf.int64)
    passed = tf.reduce_sum(tf.cast(step >= boundaries, tf.int32))
    return tf.gather(tf.constant(self._values), passed)
