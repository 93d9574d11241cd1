"""Loss weights, samples and records of the refinement iterations.

Dimensions: B batch, K slots, Z latent size; there are num_iters refinements and
num_iters + 1 decodes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import shapeguard
import tensorflow as tf

from iodine import errors, validation
from iodine.modules import distributions, types

# Draws [B, K, Z] from the latents' distribution and its parameters [B, K, Zp].
Sampler = Callable[[types.Distribution, tf.Tensor], tf.Tensor]


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


class Source(NamedTuple):
  """Where the sample of one decode comes from: the global state if neither.

  Attributes:
    z: [B, K, Z] recorded samples, or None.
    seed: that of the decode, see `step_seeds`, or None.
  """

  z: tf.Tensor | None = None
  seed: tf.Tensor | None = None


def sources(
  num_iters: int,
  z: tf.Tensor | Sequence[tf.Tensor] | None,
  seed: tf.Tensor | None,
) -> list[Source]:
  """Returns for every decode where its sample comes from.

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
    samples = list(z) if isinstance(z, (list, tuple)) else tf.unstack(z)
    if len(samples) != steps:
      raise errors.UserError(
        f"`z` has {len(samples)} recorded samples, and `num_iters` "
        f"{num_iters} needs {steps}"
      )
    return [Source(z=tf.convert_to_tensor(sample)) for sample in samples]
  if seed is not None:
    return [Source(seed=each) for each in tf.unstack(step_seeds(seed, steps))]
  return [Source()] * steps


def step_seeds(seed: tf.Tensor, steps: int) -> tf.Tensor:
  """Returns a seed for each decode, [steps, 2] or [steps, B, 2].

  Args:
    seed: [2] integers, or [B, 2] for one an image.
    steps: the number of decodes.
  """
  seed = tf.convert_to_tensor(seed)
  if seed.shape.rank == 1:
    return tf.stack(_fold_in_steps(seed, steps))
  folded = tf.map_fn(
    lambda each: tf.stack(_fold_in_steps(each, steps)),
    seed,
    fn_output_signature=tf.int32,
  )
  # Not by a transposition: where AVX2 is the widest, TensorFlow gives it to
  # oneDNN, has to take it back and prints an error about it.
  return tf.stack(tf.unstack(folded, axis=1))


def sampler(
  module: distributions.DistributionModule,
  source: Source,
  part: types.BatchPart | None = None,
) -> Sampler:
  """Returns what draws the sample of one decode, or replays it.

  Args:
    module: makes the distribution of the latents.
    source: where the sample comes from.
    part: which images of a batch are drawn for; None for all.
  """
  return functools.partial(_draw, module=module, source=source, part=part)


def _draw(
  dist: types.Distribution,
  zp: tf.Tensor,
  *,
  module: distributions.DistributionModule,
  source: Source,
  part: types.BatchPart | None,
) -> tf.Tensor:
  z, seed = source
  if z is not None:
    sg = shapeguard.ShapeGuard({"B": zp.shape[0], "K": zp.shape[1]})
    return distributions.replay(dist, sg.guard(z, "B, K, Z"))
  if seed is not None and seed.shape.rank == 2:
    return distributions.sample_each(module, zp, seed)
  if seed is not None and part is not None:
    return distributions.sample_part(module, zp, seed, part)
  return dist.sample(seed=seed)


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
