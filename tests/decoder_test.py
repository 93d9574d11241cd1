"""Tests of the component decoder."""

import helpers
import pytest
import tensorflow as tf

from iodine import errors
from iodine.modules import decoder, networks, types


def _decoder(channels=3, size=(6, 5)):
  cnn_opt = {"output_channels": [4, None], "kernel_shapes": [3]}
  net = decoder.ComponentDecoder(networks.BroadcastConv(cnn_opt))
  net.set_output_shapes(
    types.MixtureParameters(pixel=(*size, channels), mask=(*size, 1))
  )
  return net


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_channel_0_is_the_mask_and_the_rest_the_pixels(channels):
  net = _decoder(channels)
  z = tf.random.normal([2, 3, 4])
  params = net(z)
  assert params.pixel.shape == (2, 3, 6, 5, channels)
  assert params.mask.shape == (2, 3, 6, 5, 1)
  for b in range(2):
    for k in range(3):
      image = net.pixel_decoder(z[b, k][None])[0]
      # float32 sums in another order, as the batch is another
      helpers.assert_near(params.mask[b, k], image[..., :1])
      helpers.assert_near(params.pixel[b, k], image[..., 1:])


def test_maps_of_another_size_are_a_sentence():
  cnn_opt = {"output_channels": [None], "kernel_shapes": [3], "strides": [2]}
  net = decoder.ComponentDecoder(networks.BroadcastConv(cnn_opt))
  net.set_output_shapes(types.MixtureParameters((6, 4, 3), (6, 4, 1)))
  with pytest.raises(errors.UserError, match="`strides` of 1"):
    net(tf.zeros([1, 2, 4]))
