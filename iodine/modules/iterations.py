"""Loss weights, samples and records of the refinement iterations.

Dimensions: B batch, K slots, Z latent size; there are num_iters refinements and
num_iters + 1 decodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import shapeguard
import tensorflow as tf

from iodine import errors, kinds
from iodine.modules import distributions, types

LossWeights = (
  Literal["linspace"] | kinds.NonNegative | Sequence[kinds.NonNegative]
)


def loss_weights(kind: LossWeights, num_iters: int) -> tuple[float, ...]:
  """Returns the loss weight of each of the num_iters + 1 decodes.

  Args:
    kind: "linspace" (from 0 to 1), a number for all, or a list.
    num_iters: number of refinements.
  """
  steps = num_iters + 1
  if isinstance(kind, str):
    # FIDELITY: from 0 to 1 inclusive, the initial decode has no weight.
    return tuple(t / num_iters for t in range(steps)) if num_iters else (0.0,)
  if isinstance(kind, (int, float)):
    return (float(kind),) * steps
  if len(kind) != steps:
    raise errors.UserError(
      f"`iter_loss_weight` has {len(kind)} entries, and `num_iters` "
      f"{num_iters} needs {steps}"
    )
  return tuple(float(weight) for weight in kind)


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
  """
  steps = num_iters + 1
  if z is not None:
    samples = tf.unstack(tf.convert_to_tensor(z), steps)
    return [Source(z=each) for each in samples]
  if seed is not None:
    return [Source(seed=each) for each in tf.unstack(step_seeds(seed, steps))]
  return [Source()] * steps


def step_seeds(seed: tf.Tensor, steps: int) -> tf.Tensor:
  """Returns a seed for each decode, [steps, 2] or [steps, B, 2].

  Args:
    seed: [2] integers, or [B, 2] for one an image.
    steps: the number of decodes.
  """

  def fold_in(seed: tf.Tensor) -> tf.Tensor:
    fold = tf.random.experimental.stateless_fold_in
    return tf.stack([fold(seed, t) for t in range(steps)])

  seed = tf.convert_to_tensor(seed)
  if seed.shape.rank == 1:
    return fold_in(seed)
  folded = tf.map_fn(fold_in, seed, fn_output_signature=tf.int32)
  # Not by a transposition: where AVX2 is the widest, TensorFlow gives it to
  # oneDNN, has to take it back and prints an error about it.
  return tf.stack(tf.unstack(folded, axis=1))


def sample(
  module: distributions.DistributionModule,
  dist: types.Distribution,
  zp: tf.Tensor,
  source: Source,
  part: types.BatchPart | None = None,
) -> tf.Tensor:
  """Draws the latents [B, K, Z] of one decode, or replays them.

  Args:
    module: makes the distribution of the latents.
    dist: that distribution.
    zp: [B, K, Zp] its parameters.
    source: where the sample comes from.
    part: which images of a batch are drawn for; None for all.
  """
  z, seed = source
  if z is not None:
    sg = shapeguard.ShapeGuard({"B": zp.shape[0], "K": zp.shape[1]})
    return distributions.replay(dist, sg.guard(z, "B, K, Z"))
  if seed is not None and seed.shape.rank == 2:
    return distributions.sample_each(module, zp, seed)
  if seed is not None and part is not None:
    return distributions.sample_part(module, zp, seed, part)
  return dist.sample(seed=seed)


def as_lists(
  estimates: Sequence[types.Estimate],
  inputs: Sequence[types.RefinementInputs],
) -> dict[str, list[Any]]:
  """Returns the records as one dict of lists, as the original returns them."""
  lists = map(list, zip(*estimates, strict=True))
  names = types.Estimate._fields
  return {**dict(zip(names, lists, strict=True)), "inputs": list(inputs)}
