"""Loss weights, samples and records of the refinement iterations.

Dimensions: B batch, K slots, Z latent size; there are num_iters refinements and
num_iters + 1 decodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from iodine import errors, validation
from iodine.modules import types


def loss_weights(
  kind: str | float | Sequence[float], num_iters: int
) -> tuple[float, ...]:
  """Returns the loss weight of each of the num_iters + 1 decodes.

  Args:
    kind: "linspace" (from 0 to 1), a number for all, or a list.
    num_iters: number of refinements.

  Raises:
    errors.UserError: if the kind is unknown or the list has another length.
  """
  steps = num_iters + 1
  if kind == "linspace":
    # FIDELITY: from 0 to 1 inclusive, the initial decode has no weight.
    return tuple(t / num_iters for t in range(steps)) if num_iters else (0.0,)
  if isinstance(kind, (int, float)):
    validation.check_number("iter_loss_weight", kind)
    return (float(kind),) * steps
  if isinstance(kind, (list, tuple)):
    if len(kind) != steps:
      raise errors.UserError(
        f"`iter_loss_weight` has {len(kind)} entries, and `num_iters` "
        f"{num_iters} needs {steps}"
      )
    for i, weight in enumerate(kind):
      validation.check_number(f"iter_loss_weight[{i}]", weight)
    return tuple(float(weight) for weight in kind)
  raise errors.UserError(
    f"`iter_loss_weight` is {kind!r}: use 'linspace', a number, or a list of "
    f"{steps} numbers"
  )


def samples(
  num_iters: int,
  z: tf.Tensor | Sequence[tf.Tensor] | None,
  seed: tf.Tensor | None,
) -> list[tuple[tf.Tensor | None, tf.Tensor | None]]:
  """Returns for every decode the sample to replay or the seed to draw from.

  Args:
    num_iters: number of refinements.
    z: recorded samples [num_iters + 1, B, K, Z] or a list, or None.
    seed: [2] integers, [B, 2] for one an image, or None for the global random
      state.

  Raises:
    errors.UserError: if z has another number of samples.
  """
  steps = num_iters + 1
  if z is not None:
    recorded = list(z) if isinstance(z, (list, tuple)) else tf.unstack(z)
    if len(recorded) != steps:
      raise errors.UserError(
        f"`z` has {len(recorded)} recorded samples, and `num_iters` "
        f"{num_iters} needs {steps}"
      )
    return [(tf.convert_to_tensor(sample), None) for sample in recorded]
  if seed is None:
    return [(None, None)] * steps
  seed = tf.convert_to_tensor(seed)
  if seed.shape.rank == 1:
    return [(None, each) for each in _fold_in_steps(seed, steps)]
  seeds = tf.map_fn(
    lambda each: tf.stack(_fold_in_steps(each, steps)),
    seed,
    fn_output_signature=tf.int32,
  )
  return [(None, each) for each in tf.unstack(seeds, steps, axis=1)]


def _fold_in_steps(seed: tf.Tensor, steps: int) -> list[tf.Tensor]:
  """Returns a seed [2] for each step."""
  return [
    tf.random.experimental.stateless_fold_in(seed, t) for t in range(steps)
  ]


def as_lists(
  estimates: Sequence[types.Estimate],
  inputs: Sequence[types.RefinementInputs],
) -> dict[str, list[Any]]:
  """Returns the records as one dict of lists, as the original returns them."""
  lists = {
    field: [getattr(estimate, field) for estimate in estimates]
    for field in types.Estimate._fields
  }
  return {**lists, "inputs": list(inputs)}
