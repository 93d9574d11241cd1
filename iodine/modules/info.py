"""The `info` structure: what `IODINE.eval` says about a batch.

Dimensions: B batch, T iterations + 1, K slots, L true entities, H W C image,
Z latent size. Source: the original's `IODINE.eval`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from iodine.modules import metrics, types, utils


def collect(
  data: dict[str, Any],
  iterations: Sequence[dict[str, Any]],
  inputs: Sequence[types.RefinementInputs],
  loss: tf.Tensor,
) -> dict[str, Any]:
  """Gathers what there is to know of one batch into one dict of tensors.

  Args:
    data: the batch, as for `IODINE.__call__`.
    iterations: T dicts as from `describe`.
    inputs: T - 1 records.
    loss: the scalar training loss.

  Returns:
    data/{image,true_mask,visibility,factors}, without masks image and factors
    only, inputs/{flat,spatial}/<name> [B, T, ...] with a leading block of
    zeros, losses/total, and what `describe` gives, stacked along a second axis;
    scalars are [T].
  """
  seen = {"image": data["image"]}
  if "mask" in data:
    seen |= {"true_mask": data["mask"], "visibility": data["visibility"]}
  seen["factors"] = dict(data.get("factors", {}))
  refined: dict[str, Any] = {"flat": {}, "spatial": {}}
  if inputs:
    blank = tf.nest.map_structure(tf.zeros_like, inputs[0])
    refined = tf.nest.map_structure(_stack, blank, *inputs)._asdict()
  result = tf.nest.map_structure(_stack, *iterations)
  result["losses"] = {"total": loss, **result["losses"]}
  return {"data": seen, "inputs": refined, **result}


def _stack(*tensors: tf.Tensor) -> tf.Tensor:
  """Stacks the tensors of all iterations behind the batch, or scalars."""
  return tf.stack(tensors, axis=min(tensors[0].shape.rank, 1))


def describe(
  image: tf.Tensor,
  true_mask: tf.Tensor | None,
  estimate: types.Estimate,
  rendering: types.Rendering,
  factors: types.FactorPredictions | None,
) -> dict[str, Any]:
  """Returns what there is to know of one iteration.

  Args:
    image: [B, 1, H, W, C], the frame that it is compared with.
    true_mask: [B, L, H, W, 1], or None.
    estimate: its record.
    rendering: of its mixture.
    factors: what the regressor says about it, or None.

  Returns:
    latent/{z,z_mean,z_std} [B, K, Z],
    outputs/{recons,pred_mask,pred_mask_logits,components},
    losses/{recons,kl,factor}, metrics/{ari,ari_nobg,mse} [B],
    factor_regressor/{assignment,metrics,predictions}. Without masks there is
    no ari and no ari_nobg, without a regressor no factor and factor_regressor.
  """
  logits = estimate.x_dist.mixture_distribution.logits_parameter()
  result = {
    "latent": {
      "z": estimate.z,
      "z_mean": estimate.z_dist.mean(),
      "z_std": estimate.z_dist.stddev(),
    },
    "outputs": {
      "recons": rendering.reconstruction,
      "pred_mask": rendering.masks,
      "pred_mask_logits": utils.to_slots(logits),
      "components": rendering.components,
    },
    "losses": {"recons": estimate.re, "kl": estimate.kl},
    "metrics": metrics.score(
      image, rendering.reconstruction, true_mask, rendering.masks
    ),
  }
  if factors is not None:
    result["losses"]["factor"] = factors.loss
    result["factor_regressor"] = {
      "assignment": factors.assignment,
      "metrics": factors.metrics,
      "predictions": factors.predictions,
    }
  return result


def reorder(info: dict[str, Any], order: tf.Tensor) -> dict[str, Any]:
  """Returns the same of the same slots in another order.

  Args:
    info: as from `collect`; it stays as it is.
    order: [B, K], see `utils.background_first`.
  """

  def reordered(values: tf.Tensor) -> tf.Tensor:
    # What is the same for all slots has 1 in place of K.
    is_shared = values.shape[2] != order.shape[1]
    return values if is_shared else utils.reorder(values, order, axis=2)

  groups = {name: info[name] for name in ("inputs", "latent", "outputs")}
  kl = reordered(info["losses"]["kl"])
  result = {
    **info,
    **tf.nest.map_structure(reordered, groups),
    "losses": {**info["losses"], "kl": kl},
  }
  if "factor_regressor" in info:
    factors = info["factor_regressor"]
    assignment = utils.reorder(factors["assignment"], order, axis=3)
    result["factor_regressor"] = {**factors, "assignment": assignment}
  return result
