"""Saves memory by computing twice (gradient checkpointing).

Source: Chen et al. 2016 (arXiv:1604.06174), as in `tf.recompute_grad`, which
cannot be used: it stops all tapes, and the model takes gradients of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf


def recompute_later(
  function: Callable[[tf.Tensor], tf.Tensor],
) -> Callable[[tf.Tensor], tf.Tensor]:
  """Makes only the first gradient of a function use what is in memory.

  The model takes two gradients through its decoder: its own, right after
  decoding, and that of training, when all iterations are done. The first is
  computed as usual, after which the activations can be dropped; for the second
  they are computed again. Values and gradients are the same. Memory is saved
  in graphs (`tf.function`), which drop what no operation needs any more.

  Args:
    function: of one tensor and of trainable variables that exist.
  """

  def recomputing(x: tf.Tensor) -> tf.Tensor:
    stored: list[tuple[tf.GradientTape, tf.Tensor, tf.Tensor]] = []

    @tf.custom_gradient
    def call(x: tf.Tensor):
      stored.append(_record(function, x))

      def gradient(
        dy: tf.Tensor, variables: Sequence[tf.Variable] = ()
      ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        tape, x_in, y = (
          stored.pop() if stored else _record(function, _after(dy, x))
        )
        dx, *d_variables = tape.gradient(
          y,
          [x_in, *variables],
          output_gradients=dy,
          unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return dx, d_variables

      return stored[-1][-1], gradient

    return call(x)

  return recomputing


def _record(
  function: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor
) -> tuple[tf.GradientTape, tf.Tensor, tf.Tensor]:
  with tf.GradientTape() as tape:
    tape.watch(x)
    y = function(x)
  return tape, x, y


def _after(dy: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
  """Returns `x`, but to be had only once there is a `dy`.

  Otherwise TensorFlow would see that the computation has been done before, or
  do it right away and keep the result in memory. XLA does not respect control
  dependencies, so there is a number of `dy` in it, too, which makes no
  difference: one that is not equal to itself is nan, and so are its gradients.
  """
  probe = tf.reshape(dy, [-1])[0]
  nothing = tf.where(tf.equal(probe, probe), tf.zeros_like(probe), probe)
  with tf.control_dependencies([dy]):
    return x + tf.cast(nothing, x.dtype)
