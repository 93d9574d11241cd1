"""The `info` structure: what `IODINE.eval` says about a batch.

Dimensions: B batch, T iterations + 1, K slots, L true entities, H W C image,
Z latent size. Source: the original's `IODINE.eval`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from iodine.modules import metrics, types, utils


def collect(
  data: dict[str, Any],
  frames: Sequence[int],
  estimates: Sequence[types.Estimate],
  renderings: Sequence[types.Rendering],
  inputs: Sequence[types.RefinementInputs],
  loss: tf.Tensor,
  factors: Sequence[types.FactorPredictions],
) -> dict[str, Any]:
  """Gathers the records of one batch into one nested dict of tensors.

  Args:
    data: the batch, as for `IODINE.__call__`.
    frames: for every iteration the index of the frame that it sees.
    estimates: T records.
    renderings: T records, of their mixtures.
    inputs: T - 1 records.
    loss: the scalar training loss.
    factors: T records, or none.

  Returns:
    data/{image,true_mask,visibility,factors}, without masks image and factors
    only, inputs/{flat,spatial}/<name>
    [B, T, ...] with a leading block of zeros, latent/{z,z_mean,z_std}
    [B, T, K, Z], outputs/{recons,pred_mask,pred_mask_logits,components},
    losses/{total,recons,kl,factor}, metrics/{ari,ari_nobg,mse} [B, T],
    factor_regressor/{assignment,metrics,predictions}. Without masks there is
    no ari and no ari_nobg.
  """
  truth = {}
  if "mask" in data:
    truth = {"true_mask": data["mask"], "visibility": data["visibility"]}
  result = {
    "data": {
      "image": data["image"],
      **truth,
      "factors": dict(data["factors"]),
    },
    "inputs": {
      "flat": _stack_inputs([i.flat for i in inputs]),
      "spatial": _stack_inputs([i.spatial for i in inputs]),
    },
    "latent": {
      "z": _stack(estimates, lambda e: e.z),
      "z_mean": _stack(estimates, lambda e: e.z_dist.mean()),
      "z_std": _stack(estimates, lambda e: e.z_dist.stddev()),
    },
    "outputs": {
      "recons": _stack(renderings, lambda r: r.reconstruction),
      "pred_mask": _stack(renderings, lambda r: r.masks),
      "pred_mask_logits": _stack(estimates, _mask_logits),
      "components": _stack(renderings, lambda r: r.components),
    },
    "losses": {
      "total": loss,
      "recons": _stack(estimates, lambda e: e.re),
      "kl": _stack(estimates, lambda e: e.kl),
    },
    "metrics": _metrics(data, frames, renderings),
  }
  if factors:
    result["losses"]["factor"] = tf.stack([f.loss for f in factors])
    result["factor_regressor"] = {
      "assignment": _stack(factors, lambda f: f.assignment),
      "metrics": {
        name: tf.stack([f.metrics[name] for f in factors])
        for name in factors[0].metrics
      },
      "predictions": {
        name: tf.stack([f.predictions[name] for f in factors], axis=1)
        for name in factors[0].predictions
      },
    }
  return result


def reorder(info: dict[str, Any], order: tf.Tensor) -> dict[str, Any]:
  """Returns the same of the same slots in another order.

  Args:
    info: as from `collect`; it stays as it is.
    order: [B, K], see `utils.background_first`.
  """

  def reordered(values: tf.Tensor) -> tf.Tensor:
    # Inputs that the slots share have 1 in place of K.
    is_shared = values.shape[2] != order.shape[1]
    return values if is_shared else utils.reorder(values, order, axis=2)

  outputs, losses = info["outputs"], info["losses"]
  result = {
    **info,
    "inputs": tf.nest.map_structure(reordered, info["inputs"]),
    "latent": tf.nest.map_structure(reordered, info["latent"]),
    "outputs": {
      name: values if name == "recons" else reordered(values)
      for name, values in outputs.items()
    },
    "losses": {**losses, "kl": reordered(losses["kl"])},
  }
  if "factor_regressor" in info:
    factors = info["factor_regressor"]
    assignment = utils.reorder(factors["assignment"], order, axis=3)
    result["factor_regressor"] = {**factors, "assignment": assignment}
  return result


def _stack(
  records: Sequence[Any], tensor: Callable[[Any], tf.Tensor]
) -> tf.Tensor:
  return tf.stack([tensor(record) for record in records], axis=1)


def _stack_inputs(
  inputs: Sequence[dict[str, tf.Tensor]],
) -> dict[str, tf.Tensor]:
  if not inputs:
    return {}
  return {
    name: tf.stack(
      [tf.zeros_like(inputs[0][name]), *[step[name] for step in inputs]],
      axis=1,
    )
    for name in inputs[0]
  }


def _mask_logits(estimate: types.Estimate) -> tf.Tensor:
  return utils.to_slots(estimate.x_dist.mixture_distribution.logits_parameter())


def _metrics(
  data: dict[str, Any],
  frames: Sequence[int],
  renderings: Sequence[types.Rendering],
) -> dict[str, tf.Tensor]:
  scores = [
    metrics.score(
      data["image"][:, frame : frame + 1],
      rendering.reconstruction,
      data["mask"][:, frame] if "mask" in data else None,
      rendering.masks,
    )
    for frame, rendering in zip(frames, renderings, strict=True)
  ]
  return {
    name: tf.stack([score[name] for score in scores], axis=1)
    for name in scores[0]
  }
