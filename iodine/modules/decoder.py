"""The component decoder: every slot on its own, with shared weights.

Dimensions: B batch, K slots, H W image, Z latent size, Cp pixel parameter
channels. Source: section B.1 of the paper, the original's
`iodine/modules/decoder.py`.
"""

from __future__ import annotations

import shapeguard
import sonnet as snt
import tensorflow as tf

from iodine import errors
from iodine.modules import types, utils
from iodine.ops import recomputation


class ComponentDecoder(utils.Module):
  """Decodes every slot to pixel parameters and a mask logit."""

  def __init__(
    self,
    pixel_decoder: types.PixelDecoder,
    recompute: bool = False,
    name: str = "component_decoder",
  ):
    """Wraps the pixel decoder.

    Args:
      pixel_decoder: from vectors to images; all slots share it.
      recompute: whether the gradient of training decodes again rather than
        keep all activations in memory, see `recomputation`.
      name: name of the module.
    """
    super().__init__(name=name)
    self.pixel_decoder: snt.Module = pixel_decoder
    self._recompute = recompute
    self._size: tuple[int, int] | None = None

  def set_output_shapes(self, shapes: types.MixtureParameters) -> None:
    """Tells the shapes of pixel parameters (H, W, Cp) and masks (H, W, 1)."""
    height, width, channels = shapes.pixel
    self._size = (height, width)
    self.pixel_decoder.set_output_shape((height, width, 1 + channels))

  def __call__(self, z: tf.Tensor) -> types.MixtureParameters:
    """Maps [B, K, Z] -> pixel [B, K, H, W, Cp] and mask [B, K, H, W, 1].

    Channel 0 of the pixel decoder is the mask logit.
    """
    sg = shapeguard.ShapeGuard()
    sg.guard(z, "B, K, Z")
    decode = self.pixel_decoder
    if self._recompute:
      decode = recomputation.recompute_later(decode)
    decoded = decode(snt.merge_leading_dims(z, 2))
    if tuple(decoded.shape[1:3]) != self._size:
      raise errors.UserError(
        f"the pixel decoder gives maps of {decoded.shape[1:3]} for images of "
        f"{self._size}: give its layers `strides` of 1, as none may change the "
        "size of the image"
      )
    decoded = snt.split_leading_dim(decoded, z, 2)
    mask, pixel = tf.split(decoded, [1, decoded.shape[-1] - 1], axis=-1)
    sg.guard(pixel, "B, K, H, W, Cp")
    sg.guard(mask, "B, K, H, W, 1")
    return types.MixtureParameters(pixel, mask)
