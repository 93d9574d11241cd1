"""Tests of the networks against plain NumPy."""

import helpers
import numpy as np
import pytest
import tensorflow as tf

from iodine import errors
from iodine.modules import decoder, networks, types, utils


def _random(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _linear(x, layer):
  return x @ layer.w.numpy() + layer.b.numpy()


def _conv_net(x, layers, strides, activation, activate_final):
  for i, layer in enumerate(layers):
    x = helpers.convolve(x, layer.w.numpy(), strides[i]) + layer.b.numpy()
    if activate_final or i < len(layers) - 1:
      x = activation(x)
  return x


# ------------------------------------------------------------ ConvNet2D


@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
@pytest.mark.parametrize("strides", [[1], [2], [2, 1, 3]])
@pytest.mark.parametrize("kernels", [[3], [5, 1, 4]])
def test_conv_net_against_numpy(size, strides, kernels):
  net = networks.ConvNet2D([4, 2, 3], kernels, strides, "elu")
  x = _random(2, *size, 3)
  net(tf.constant(x))
  helpers.perturb(net)
  for layer, kernel in zip(net.layers, kernels * 3, strict=False):
    assert layer.w.shape[:2] == (kernel, kernel)
  per_layer = strides if len(strides) == 3 else strides * 3
  expected = _conv_net(x, net.layers, per_layer, helpers.elu, False)
  helpers.assert_near(net(tf.constant(x)), expected)  # float32 sums


# ------------------------------------------------------------ CNN and MLP


@pytest.mark.parametrize("mode", ["flatten", "avg_pool"])
@pytest.mark.parametrize("sizes", [None, [5, 6]])
def test_cnn_against_numpy(mode, sizes):
  mlp_opt = sizes and {"output_sizes": sizes, "activation": "tanh"}
  cnn_opt = {
    "output_channels": [4, 3],
    "kernel_shapes": [3],
    "strides": [2],
    "activation": "elu",
  }
  net = networks.CNN(cnn_opt, mlp_opt, mode)
  x = _random(2, 7, 6, 3)
  net(tf.constant(x))
  helpers.perturb(net)
  hidden = _conv_net(x, net.conv_net.layers, [2, 2], helpers.elu, True)
  if mode == "flatten":
    hidden = hidden.reshape(2, -1)
  else:
    hidden = hidden.mean(axis=(1, 2))
  if sizes:
    first, last = net.mlp.layers
    hidden = _linear(np.tanh(_linear(hidden, first)), last)
  else:
    assert net.mlp is None
  helpers.assert_near(net(tf.constant(x)), hidden)  # float32 sums


@pytest.mark.parametrize("activate_final", [False, True])
@pytest.mark.parametrize(
  "name, activation",
  [
    ("elu", helpers.elu),
    (None, lambda x: x),
    ("relu", lambda x: np.maximum(x, 0)),
  ],
)
def test_mlp_against_numpy(activate_final, name, activation):
  net = networks.MLP([5, 4], name, activate_final)
  x = _random(3, 6)
  net(tf.constant(x))
  helpers.perturb(net)
  first, last = net.layers
  expected = _linear(activation(_linear(x, first)), last)
  if activate_final:
    expected = activation(expected)
  helpers.assert_near(net(tf.constant(x)), expected)  # float32 sums


# ------------------------------------------------------------ LSTM


def _lstm_step(x, h, c, layer):
  """The equations as Sonnet 1 orders them: input, candidate, forget, output."""
  gates = np.concatenate([x, h], axis=-1) @ layer.w_gates.numpy()
  i, j, f, o = np.split(gates + layer.b_gates.numpy(), 4, axis=-1)
  c = helpers.sigmoid(f + 1.0) * c + helpers.sigmoid(i) * np.tanh(j)
  return helpers.sigmoid(o) * np.tanh(c), c


def test_two_lstm_layers_over_three_steps_against_numpy():
  net = networks.LSTM([4, 3])
  xs = _random(3, 2, 5)
  net(tf.constant(xs[0]), net.initial_state(2))
  helpers.perturb(net)
  state = net.initial_state(2)
  expected = [(np.zeros([2, 4]),) * 2, (np.zeros([2, 3]),) * 2]
  for x in xs:
    actual, state = net(tf.constant(x), state)
    for i, layer in enumerate(net.layers):
      expected[i] = _lstm_step(x, *expected[i], layer)
      x = expected[i][0]
      helpers.assert_near(state[i].hidden, expected[i][0])  # float32 sums
      helpers.assert_near(state[i].cell, expected[i][1])  # float32 sums
    helpers.assert_near(actual, x)  # float32 sums


def _assert_truncated_normal(values, stddev):
  values = np.asarray(values)
  assert np.abs(values).max() <= 2 * stddev * 1.0001  # cut at two deviations
  # A normal cut at two deviations keeps 0.8796 of its deviation; at a few
  # thousand values the standard error is about 1 %.
  np.testing.assert_allclose(values.std(), 0.8796 * stddev, 0.05)
  assert abs(values.mean()) < 5 * stddev / np.sqrt(values.size)


def test_lstm_initial_values():
  net = networks.LSTM([500, 400])
  net(tf.zeros([1, 300]), net.initial_state(1))
  for layer, (inputs, hidden) in zip(
    net.layers, [(300, 500), (500, 400)], strict=True
  ):
    stddev = 1 / np.sqrt(inputs + hidden)
    assert layer.w_gates.shape == (inputs + hidden, 4 * hidden)
    _assert_truncated_normal(layer.w_gates, stddev)
    # The bias is random too; the forget bias comes on top at run time.
    _assert_truncated_normal(layer.b_gates, stddev)


# ------------------------------------------------------------ initial values


def test_initial_weights_and_biases():
  conv = networks.ConvNet2D([40], 3)
  conv(tf.zeros([1, 4, 4, 20]))
  mlp = networks.MLP([80])
  mlp(tf.zeros([1, 90]))
  _assert_truncated_normal(conv.layers[0].w, 1 / np.sqrt(3 * 3 * 20))
  _assert_truncated_normal(mlp.layers[0].w, 1 / np.sqrt(90))
  assert not np.any(conv.layers[0].b) and not np.any(mlp.layers[0].b)


# ------------------------------------------------------------ BroadcastConv


def _broadcast_conv(shape=(6, 8, 4), **options):
  cnn_opt = {
    "output_channels": [5, None],
    "kernel_shapes": [3],
    "activation": "elu",
  }
  net = networks.BroadcastConv(cnn_opt, **options)
  net.set_output_shape(shape)
  return net


@pytest.mark.parametrize(
  "coord_type, freqs, channels",
  [("linear", 3, 2), ("cos", 3, 8), ("cos", 2, 3), (None, 3, 0)],
)
@pytest.mark.parametrize("mlp", [False, True])
def test_broadcast_conv_against_numpy(coord_type, freqs, channels, mlp):
  mlp_opt = {"output_sizes": [5, 7], "activation": "tanh"} if mlp else None
  net = _broadcast_conv(
    mlp_opt=mlp_opt, coord_type=coord_type, coord_freqs=freqs
  )
  z = _random(2, 3)
  net(tf.constant(z))
  helpers.perturb(net)
  features = z
  if mlp:
    for layer in net.mlp.layers:  # the last one is activated too
      features = np.tanh(_linear(features, layer))
  coordinates = utils.coordinate_map(coord_type, 6, 8, freqs, order="hw")
  planes = np.concatenate(
    [
      np.broadcast_to(features[:, None, None], (2, 6, 8, features.shape[1])),
      np.broadcast_to(coordinates, (2, 6, 8, channels)),
    ],
    axis=-1,
  )
  assert net.conv_net.layers[0].w.shape[2] == features.shape[1] + channels
  expected = _conv_net(planes, net.conv_net.layers, [1, 1], helpers.elu, False)
  helpers.assert_near(net(tf.constant(z)), expected)  # float32 sums


# ------------------------------------------------------------ DeConv


def _deconv(shape=(7, 5, 4), sizes=(12,), **options):
  cnn_opt = {
    "output_channels": [6, None],
    "kernel_shapes": [3],
    "strides": [2],
    "activation": "elu",
    **options,
  }
  net = networks.DeConv(cnn_opt, {"output_sizes": list(sizes)})
  net.set_output_shape(shape)
  return net


@pytest.mark.parametrize(
  "shape, strides, features",
  [
    ((7, 5, 4), [2], 2 * 2 * 3),  # odd sizes: 7x5 from 4x3 from 2x2
    ((8, 8, 4), [2], 2 * 2 * 3),
    ((8, 8, 4), [1, 2], 4 * 4 * 2),
    ((9, 6, 3), [3, 1], 3 * 2 * 2),
    ((5, 5, 2), 1, 25),
  ],
)
def test_deconv_sizes(shape, strides, features):
  net = _deconv(shape, [features], strides=strides)
  assert net(tf.random.normal([2, 3])).shape == (2, *shape)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 4])
def test_deconv_is_the_adjoint_of_the_convolution(stride, kernel):
  size = (6, 8) if stride == 1 else (3, 4)
  net = _deconv(
    (6, 8, 4),
    [size[0] * size[1] * 5],
    output_channels=[None],
    kernel_shapes=[kernel],
    strides=[stride],
  )
  z = tf.constant(_random(2, 3))
  x = net.mlp(z).numpy().reshape(2, *size, 5)
  assert np.min(x) == 0.0  # the last layer of the MLP is activated too
  y = _random(2, 6, 8, 4, seed=1)
  (layer,) = net.layers
  left = np.vdot(net(z), y)  # the biases are still zero
  right = np.vdot(x, helpers.convolve(y, layer.w.numpy(), stride))
  np.testing.assert_allclose(left, right, 1e-4)  # float32 sums that cancel


def test_deconv_activates_between_the_layers_only():
  net = _deconv((8, 8, 4), [16], strides=[1, 2], activation="relu")
  # float32 sums
  z = tf.constant(_random(2, 3))
  x = tf.reshape(net.mlp(z), [2, 4, 4, 1])
  first, last = net.layers
  helpers.assert_near(net(z), last(tf.nn.relu(first(x))))
  assert np.min(net(z)) < 0.0


@pytest.mark.parametrize(
  "make, sentence",
  [
    (
      lambda: networks.ConvNet2D([4, 4, 4], [3, 3]),
      "`kernel_shapes` has 2 entries .* 3",
    ),
    (lambda: _deconv((8, 8, 4), [10]), "a multiple of 4"),
    # In height and width a broadcast decoder may change, in channels not.
    (
      lambda: _broadcast_conv().set_output_shape((6, 8, 2)),
      "of shape .6, 8, 4. and cannot give .6, 8, 2",
    ),
    (
      lambda: _deconv((8, 8, 4), [16]).set_output_shape((6, 8, 4)),
      "cannot give .6, 8, 4",
    ),
  ],
)
def test_what_does_not_fit_together_is_a_sentence(make, sentence):
  with pytest.raises(errors.UserError, match=sentence):
    make()


# ------------------------------------------------------------ the decoder


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_channel_0_is_the_mask_and_the_rest_the_pixels(channels):
  cnn_opt = {"output_channels": [4, None], "kernel_shapes": [3]}
  net = decoder.ComponentDecoder(networks.BroadcastConv(cnn_opt))
  shapes = types.MixtureParameters((6, 5, channels), (6, 5, 1))
  net.set_output_shapes(shapes)
  z = tf.random.normal([2, 3, 4])
  params = net(z)
  images = net.pixel_decoder(tf.reshape(z, [6, 4]))
  images = tf.reshape(images, [2, 3, 6, 5, 1 + channels])
  helpers.assert_near(params.mask, images[..., :1])
  helpers.assert_near(params.pixel, images[..., 1:])


def test_maps_of_another_size_are_a_sentence():
  cnn_opt = {"output_channels": [None], "kernel_shapes": [3], "strides": [2]}
  net = decoder.ComponentDecoder(networks.BroadcastConv(cnn_opt))
  net.set_output_shapes(types.MixtureParameters((6, 4, 3), (6, 4, 1)))
  with pytest.raises(errors.UserError, match="`strides` of 1"):
    net(tf.zeros([1, 2, 4]))
