"""Tests of names, coordinate maps and reshapes against NumPy."""

import helpers
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from iodine.modules import utils

tfd = tfp.distributions

X = np.linspace(-3.0, 3.0, 13).astype(np.float32)
SELU_SCALE, SELU_ALPHA = 1.05070098, 1.67326324
EXPECTED = {
  "identity": X,
  "sigmoid": helpers.sigmoid(X),
  "tanh": np.tanh(X),
  "relu": np.maximum(X, 0.0),
  "elu": helpers.elu(X),
  "selu": SELU_SCALE
  * np.where(X > 0, X, SELU_ALPHA * np.expm1(np.minimum(X, 0))),
  "softplus": np.log1p(np.exp(X)),
  "exp": np.exp(X),
  "softmax": np.exp(X) / np.exp(X).sum(),
}


@pytest.mark.parametrize("name", utils.ACTIVATIONS)
@pytest.mark.parametrize("change_case", [str.lower, str.title])
def test_activation_by_name_in_any_case(name, change_case):
  actual = utils.get_activation(change_case(name))(tf.constant(X))
  np.testing.assert_allclose(actual, EXPECTED[name], 2e-6)  # float32 rounding


def test_unknown_names_are_key_errors():
  with pytest.raises(KeyError, match="unknown activation 'swish': .* softplus"):
    utils.get_activation("swish")
  with pytest.raises(KeyError, match="unknown distribution .* log_normal"):
    utils.get_distribution("gumbel")


def test_linear_coordinates():
  actual = utils.coordinate_map("linear", 3, 5, order="hw")
  assert actual.shape == (3, 5, 2) and actual.dtype == np.float32
  for i in range(3):
    for j in range(5):
      expected = [-1 + i, -1 + j / 2]  # rows, then columns for the decoder
      np.testing.assert_allclose(actual[i, j], expected, 0, 1e-7)  # float32
  # Columns, then rows for the refinement.
  other = utils.coordinate_map("linear", 3, 5, order="wh")
  np.testing.assert_array_equal(other, actual[..., ::-1])


@pytest.mark.parametrize("freqs", [1, 2, 3, 4])
def test_cosine_coordinates(freqs):
  height, width = 4, 7
  actual = utils.coordinate_map("cos", height, width, freqs)
  assert actual.shape == (height, width, freqs**2 - 1)
  assert actual.dtype == np.float32
  channels = []
  for along_width in range(freqs):  # the slow axis
    for along_height in range(freqs):  # the fast axis
      channel = np.zeros([height, width])
      for i in range(height):
        for j in range(width):
          y, x = np.pi * i / (height - 1), np.pi * j / (width - 1)
          channel[i, j] = np.cos(along_width * x) * np.cos(along_height * y)
      channels.append(channel)
  np.testing.assert_array_equal(channels[0], 1.0)  # the one that is dropped
  for c, expected in enumerate(channels[1:]):
    np.testing.assert_allclose(actual[..., c], expected, 0, 1e-6)  # float32


def masks_of(*owners, num_slots=4):
  """Masks [B, K, 2, 3, 1] in which pixels belong to these slots."""
  owner = np.reshape(owners, [len(owners), 2, 3])
  probabilities = 0.1 + 0.6 * np.eye(num_slots)[owner]
  return tf.constant(np.moveaxis(probabilities, -1, 1)[..., None], tf.float32)


def test_the_slot_of_the_largest_area_comes_first():
  masks = masks_of(
    [2, 2, 2, 0, 1, 1],
    [0, 0, 0, 0, 3, 3],
    [3, 3, 3, 1, 1, 1],  # of equals the first
    [3, 3, 3, 3, 3, 3],
  )
  expected = [[2, 0, 1, 3], [0, 1, 2, 3], [1, 0, 2, 3], [3, 0, 1, 2]]
  order = utils.background_first(masks)
  np.testing.assert_array_equal(order, expected)
  compiled = tf.function(utils.background_first, jit_compile=True)
  np.testing.assert_array_equal(compiled(masks), expected)
  ordered = utils.reorder(masks, order)
  for i, slots in enumerate(expected):
    np.testing.assert_array_equal(ordered[i], masks.numpy()[i, slots])
  np.testing.assert_array_equal(
    utils.background_first(ordered), [[0, 1, 2, 3]] * 4
  )


def test_areas_count_pixels_not_probabilities():
  # Slot 0 has three pixels by a hair, slot 1 one and more in the sum.
  share = np.array([[0.51, 0.51, 0.51, 0.0]])
  masks = np.stack([share, 1 - share], axis=1)[..., None, None]
  order = utils.background_first(tf.constant(masks, tf.float32))
  np.testing.assert_array_equal(order, [[0, 1]])
  tied = tf.fill([1, 3, 2, 2, 1], 1 / 3)  # all pixels are the first slot's
  np.testing.assert_array_equal(utils.background_first(tied), [[0, 1, 2]])
