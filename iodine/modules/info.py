"""The `info` structure: what `IODINE.eval` says about a batch.

Dimensions: B batch, T iterations + 1, K slots, L true entities, H W C image,
Z latent size. Source: the original's `IODINE.eval`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from iodine.modules import distributions, metrics, types, utils


def collect(
  data: dict[str, Any],
  frames: Sequence[int],
  estimates: Sequence[types.Estimate],
  inputs: Sequence[types.RefinementInputs],
  loss: tf.Tensor,
  factors: Sequence[types.FactorPredictions],
) -> dict[str, Any]:
  """Gathers the records of one batch into one nested dict of tensors.

  Args:
    data: the batch, as for `IODINE.__call__`.
    frames: for every iteration the index of the frame that it sees.
    estimates: T records.
    inputs: T - 1 records.
    loss: the scalar training loss.
    factors: T records, or none.

  Returns:
    data/{image,true_mask,visibility,factors}, inputs/{flat,spatial}/<name>
    [B, T, ...] with a leading block of zeros, latent/{z,z_mean,z_std}
    [B, T, K, Z], outputs/{recons,pred_mask,pred_mask_logits,components},
    losses/{total,recons,kl,factor}, metrics/{ari,ari_nobg,mse} [B, T],
    factor_regressor/{assignment,metrics,predictions}.
  """
  result = {
    "data": {
      "image": data["image"],
      "true_mask": data["mask"],
      "visibility": data["visibility"],
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
    "outputs": _outputs(estimates),
    "losses": {
      "total": loss,
      "recons": _stack(estimates, lambda e: e.re),
      "kl": _stack(estimates, lambda e: e.kl),
    },
    "metrics": _metrics(data, frames, estimates),
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


def _outputs(estimates: Sequence[types.Estimate]) -> dict[str, tf.Tensor]:
  def logits(estimate: types.Estimate) -> tf.Tensor:
    return estimate.x_dist.mixture_distribution.logits_parameter()

  def components(estimate: types.Estimate) -> tf.Tensor:
    means = estimate.x_dist.components_distribution.mean()  # [B,1,H,W,K,C]
    return tf.transpose(means[:, 0], [0, 3, 1, 2, 4])

  return {
    "recons": _stack(estimates, lambda e: e.x_dist.mean()),
    "pred_mask": _stack(
      estimates, lambda e: distributions.mask_probabilities(e.scores)
    ),
    "pred_mask_logits": _stack(estimates, lambda e: utils.to_slots(logits(e))),
    "components": _stack(estimates, components),
  }


def _metrics(
  data: dict[str, Any],
  frames: Sequence[int],
  estimates: Sequence[types.Estimate],
) -> dict[str, tf.Tensor]:
  ari, ari_nobg, mse = [], [], []
  for frame, estimate in zip(frames, estimates, strict=True):
    mask = distributions.mask_probabilities(estimate.scores)
    true_mask = data["mask"][:, frame]
    ari.append(metrics.mask_ari(true_mask, mask))
    ari_nobg.append(metrics.mask_ari(true_mask, mask, foreground=True))
    mse.append(
      metrics.mean_squared_error(
        data["image"][:, frame : frame + 1], estimate.x_dist.mean()
      )
    )
  return {
    "ari": tf.stack(ari, axis=1),
    "ari_nobg": tf.stack(ari_nobg, axis=1),
    "mse": tf.stack(mse, axis=1),
  }
