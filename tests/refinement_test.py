"""Tests of the refinement core and its heads."""

import helpers
import numpy as np
import pytest
import tensorflow as tf

from iodine.modules import networks, refinement, types

B, K, H, W, Zp = 2, 3, 4, 5, 6


def _random(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return tf.constant(rng.normal(size=shape), tf.float32)


SPATIAL = {  # in an order that is not the sorted one
  "mask": _random(B, K, H, W, 1, seed=1),
  "image": _random(B, 1, H, W, 3, seed=2),
  "zebra": _random(B, K, H, W, 2, seed=3),
  "apple": _random(B, 1, H, W, 1, seed=4),
}
FLAT = {"zp": _random(B, K, Zp, seed=5), "dzp": _random(B, K, 2, seed=6)}


def test_core_without_recurrence_is_encoder_and_head():
  # Inputs are sorted by name, tiled over slots and concatenated; the encoding
  # comes first.
  cnn_opt = {"output_channels": [4], "kernel_shapes": [3]}
  core = refinement.RefinementCore(
    networks.CNN(cnn_opt, {"output_sizes": [5]}),
    networks.LSTM([]),
    refinement.ResHead(),
  )
  inputs = types.RefinementInputs(spatial=SPATIAL, flat=FLAT)
  zp = _random(B, K, Zp)
  state = core.initial_state(B, K)
  assert state == []
  next_zp, state = core(inputs, zp, state)
  assert state == []
  tiled = [
    np.broadcast_to(x, (B, K, H, W, x.shape[-1]))
    for _, x in sorted(SPATIAL.items())
  ]
  images = tf.reshape(np.concatenate(tiled, -1), [B * K, H, W, -1])
  flat = [np.reshape(x, (B * K, -1)) for _, x in sorted(FLAT.items())]
  hidden = np.concatenate([core.encoder_net(images), *flat], -1)
  linear = core.refinement_head.linear
  expected = np.reshape(zp, (B * K, Zp)) + hidden @ linear.w + linear.b
  helpers.assert_near(next_zp, np.reshape(expected, (B, K, Zp)))  # float32


@pytest.mark.parametrize("hidden_sizes", [(), (5,), (5, 4)])
@pytest.mark.parametrize(
  "name, activation", [("elu", helpers.elu), ("tanh", np.tanh)]
)
def test_predictor_corrector_head(hidden_sizes, name, activation):
  head = refinement.PredictorCorrectorHead(
    hidden_sizes=hidden_sizes,
    pred_gate_bias=-1.5,
    corrector_gate_bias=0.7,
    activation=name,
  )
  zp, hidden = _random(4, Zp), _random(4, 7, seed=1)
  head(zp, hidden)
  helpers.perturb(head)
  actual = head(zp, hidden)

  zp, hidden = zp.numpy(), hidden.numpy()
  gate = hidden @ head.gate.w.numpy() + head.gate.b.numpy()
  update = hidden @ head.update.w.numpy() + head.update.b.numpy()
  corrected = zp + helpers.sigmoid(gate + 0.7) * (update - zp)
  x = zp  # not the corrected one
  layers = head.predictor.layers
  assert len(layers) == len(hidden_sizes) + 1
  for i, layer in enumerate(layers):
    x = x @ layer.w.numpy() + layer.b.numpy()
    if i < len(hidden_sizes):
      x = activation(x)
  prediction, logit = x[:, :Zp], x[:, Zp:]
  pred_gate = helpers.sigmoid(logit - 1.5)
  expected = corrected + pred_gate * (prediction - corrected)
  helpers.assert_near(actual, expected)  # float32 sums
