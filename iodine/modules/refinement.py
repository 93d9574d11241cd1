"""The refinement network: encoder, recurrent net and head.

Dimensions: B batch, K slots, H W image, Zp latent parameter size, H1 size of
the encoding, H2 size of the recurrent output. Source: section B.2 of the
paper, the original's `iodine/modules/refinement.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import shapeguard
import sonnet as snt
import tensorflow as tf

from iodine import kinds
from iodine.modules import networks, types, utils


class RefinementCore(utils.Module):
  """From refinement inputs and state to the next latent parameters."""

  def __init__(
    self,
    encoder_net: types.Encoder,
    recurrent_net: types.RecurrentNet,
    refinement_head: types.Head,
    name: str = "refinement_core",
  ):
    """Takes the parts.

    Args:
      encoder_net: [N, H, W, C] -> [N, H1], for instance a `networks.CNN`.
      recurrent_net: a `networks.LSTM`; without layers there is no state.
      refinement_head: (zp [N, Zp], h [N, H2]) -> the next zp [N, Zp].
      name: name of the module.
    """
    super().__init__(name=name)
    self.encoder_net: snt.Module = encoder_net
    self.recurrent_net: snt.Module = recurrent_net
    self.refinement_head: snt.Module = refinement_head

  def initial_state(self, batch_size: int, num_components: int) -> list[Any]:
    """Zeros for every image and slot."""
    return self.recurrent_net.initial_state(batch_size * num_components)

  def __call__(
    self, inputs: types.RefinementInputs, zp: tf.Tensor, state: list[Any]
  ) -> tuple[tf.Tensor, list[Any]]:
    """Refines zp.

    Args:
      inputs: spatial tensors [B, K or 1, H, W, channels], of which those with
        1 are shared by all slots, and flat tensors [B, K, features].
      zp: [B, K, Zp] current latent parameters.
      state: of the recurrent net.

    Returns:
      The next zp [B, K, Zp] and the next state.
    """
    sg = shapeguard.ShapeGuard()
    sg.guard(zp, "B, K, Zp")
    features = []
    if inputs.spatial:
      features.append(self._encode(inputs.spatial, sg.K))
    features += [
      snt.merge_leading_dims(sg.guard(tensor, "B, K, _F"), 2)
      for _, tensor in sorted(inputs.flat.items())
    ]
    hidden, state = self.recurrent_net(tf.concat(features, axis=-1), state)
    next_zp = self.refinement_head(snt.merge_leading_dims(zp, 2), hidden)
    next_zp = snt.split_leading_dim(next_zp, zp, 2)
    return sg.guard(next_zp, "B, K, Zp"), state

  def _encode(
    self, spatial: dict[str, tf.Tensor], num_components: int
  ) -> tf.Tensor:
    """Returns the encoding [B * K, H1] of the spatial inputs, in name order.

    Those that all slots share have 1 in place of K.
    """
    sg = shapeguard.ShapeGuard({"K": num_components})
    planes = [
      sg.guard(x, f"B, {'K' if x.shape[1] > 1 else '1'}, H, W, _C")
      for _, x in sorted(spatial.items())
    ]
    some_are_shared = len({x.shape[1] for x in planes}) == 2
    if some_are_shared and isinstance(self.encoder_net, networks.CNN):
      return self.encoder_net.apply_to_slots(planes)
    shape = [sg.B, sg.K, sg.H, sg.W]
    planes = [tf.broadcast_to(x, [*shape, x.shape[-1]]) for x in planes]
    return self.encoder_net(
      snt.merge_leading_dims(tf.concat(planes, axis=-1), 2)
    )


class ResHead(utils.Module):
  """Adds a linear update: zp + Linear(h)."""

  def __init__(self, name: str = "residual_head"):
    super().__init__(name=name)

  @snt.once
  def _make_layers(self, zp_size: int) -> None:
    self.linear = snt.Linear(zp_size, name="linear")

  def __call__(self, zp: tf.Tensor, hidden: tf.Tensor) -> tf.Tensor:
    """Maps ([N, Zp], [N, H2]) -> [N, Zp]."""
    sg = shapeguard.ShapeGuard()
    sg.guard(zp, "N, Zp")
    sg.guard(hidden, "N, H2")
    self._make_layers(sg.Zp)
    return sg.guard(zp + self.linear(hidden), "N, Zp")


class PredictorCorrectorHead(utils.Module):
  """Corrects zp by what was seen, then predicts what comes next.

  Used for sequences (original: `PredictorCorrectorHead`).
  """

  def __init__(
    self,
    hidden_sizes: Sequence[kinds.Size] = (64,),
    pred_gate_bias: float = 0.0,
    corrector_gate_bias: float = 0.0,
    activation: utils.Activation = "elu",
    name: str = "predcorr_head",
  ):
    """Sets the options.

    Args:
      hidden_sizes: hidden layers of the predictor.
      pred_gate_bias: added to the logit of the predictor's gate.
      corrector_gate_bias: added to the logit of the corrector's gate.
      activation: of the predictor's hidden layers, by name.
      name: name of the module.

    Raises:
      errors.UserError: if the activation is unknown.
    """
    super().__init__(name=name)
    self._hidden_sizes = tuple(hidden_sizes)
    self._pred_gate_bias = pred_gate_bias
    self._corrector_gate_bias = corrector_gate_bias
    self._activation = utils.get_activation(activation)

  @snt.once
  def _make_layers(self, zp_size: int) -> None:
    self.update = snt.Linear(zp_size, name="linear")
    self.gate = snt.Linear(zp_size, name="linear_1")
    self.predictor = networks.MLP(
      [*self._hidden_sizes, 2 * zp_size], activation=self._activation
    )

  def __call__(self, zp: tf.Tensor, hidden: tf.Tensor) -> tf.Tensor:
    """Maps ([N, Zp], [N, H2]) -> [N, Zp]."""
    sg = shapeguard.ShapeGuard()
    sg.guard(zp, "N, Zp")
    sg.guard(hidden, "N, H2")
    self._make_layers(sg.Zp)
    gate = tf.sigmoid(self.gate(hidden) + self._corrector_gate_bias)
    corrected = zp + gate * (self.update(hidden) - zp)
    # FIDELITY: the predictor sees zp as it was before the correction.
    prediction, logit = tf.split(self.predictor(zp), 2, axis=-1)
    pred_gate = tf.sigmoid(logit + self._pred_gate_bias)
    return sg.guard(corrected + pred_gate * (prediction - corrected), "N, Zp")
