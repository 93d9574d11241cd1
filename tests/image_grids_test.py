"""Tests of the overview images against the original and by hand."""

import numpy as np
import pytest
import tensorflow as tf

from iodine.modules import image_grids

EXACT = 1e-6  # one float32 rounding of values in [0, 1]


def _assert_image(actual, expected):
  assert actual.shape == expected.shape
  np.testing.assert_allclose(actual, expected, 0, EXACT)


def _random(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return tf.constant(rng.uniform(size=shape), tf.float32)


# ------------------------------------------------------------ the original


@pytest.mark.parametrize(
  "case, options",
  [
    ("w4", {}),
    ("h2", {"grid_height": 2, "grid_width": None}),
    ("noborder", {"grid_width": 3, "border": None}),
  ],
)
def test_grid_as_in_the_original(units, case, options):
  actual = image_grids.images_to_grid(tf.constant(units["grid/in"]), **options)
  _assert_image(actual, units[f"grid/{case}"])


@pytest.mark.parametrize(
  "case, num_inputs, options",
  [
    ("out", 4, {}),
    ("out_masked", 4, {"mask_components": True}),
    ("reconstr", 2, {}),
  ],
)
def test_overview_as_in_the_original(units, case, num_inputs, options):
  names = ("images", "recons", "masks", "components")[:num_inputs]
  inputs = [tf.constant(units[f"diagnostic/{name}"]) for name in names]
  actual = image_grids.diagnostic_image(*inputs, **options)
  _assert_image(actual, units[f"diagnostic/{case}"])


def test_sequence_as_in_the_original(units):
  actual = image_grids.iterations_image(
    *[
      tf.constant(units[f"iterations/{name}"])
      for name in ("images", "recons", "masks")
    ]
  )
  _assert_image(actual, units["iterations/out"])


def test_colors_as_in_the_original(units):
  _assert_image(image_grids.hue_wheel(5), units["colors/5"])


# ------------------------------------------------------------ grid


@pytest.mark.parametrize(
  "num, options, grid",
  [
    (7, {}, (2, 4)),
    (30, {}, (4, 4)),  # as high as needed, up to 4: the rest is dropped
    (5, {"grid_width": 2}, (3, 2)),
    (5, {"grid_height": 2, "grid_width": None}, (2, 3)),
    (5, {"grid_height": 1, "grid_width": 2}, (1, 2)),
  ],
)
@pytest.mark.parametrize("border", [0.5, 0.2, None])
def test_grid_by_hand(num, options, grid, border):
  images = _random(num, 3, 5, 2)
  b = 0 if border is None else 2
  height, width = 3 + 2 * b, 5 + 2 * b
  fill = 0.0 if border is None else border
  expected = np.full([grid[0] * height, grid[1] * width, 2], fill)
  for i in range(min(num, grid[0] * grid[1])):
    top, left = i // grid[1] * height + b, i % grid[1] * width + b
    expected[top : top + 3, left : left + 5] = images[i]
  actual = image_grids.images_to_grid(images, border=border, **options)
  _assert_image(actual, expected)


# ------------------------------------------------------------ overview


def test_overview_of_gray_images_is_that_of_three_equal_channels():
  images, recons = _random(2, 4, 5, 1), _random(2, 4, 5, 1)
  masks, components = _random(2, 4, 5, 3), _random(2, 4, 5, 3, 1)
  gray = image_grids.diagnostic_image(images, recons, masks, components)
  images, recons, components = (
    x * tf.ones([3]) for x in (images, recons, components)
  )
  color = image_grids.diagnostic_image(images, recons, masks, components)
  _assert_image(gray, color)


# ------------------------------------------------------------ sequence


@pytest.mark.parametrize("channels, frames", [(1, 1), (3, 2), (3, 5)])
def test_sequence_by_hand(channels, frames):
  images = _random(3, frames, 1, 4, 5, channels)
  recons = 2.0 * _random(3, 3, 1, 4, 5, channels) - 0.5
  masks = _random(3, 3, 2, 4, 5, 1)
  actual = image_grids.iterations_image(images, recons, masks).numpy()
  assert actual.shape == (1, 2 * 3 * 8, 3 * 9, 3)  # two scenes of the three
  tiles = actual.reshape(2, 3, 8, 3, 9, 3)
  rgb = np.ones([4, 5, 3])
  colors = image_grids.hue_wheel(2).numpy()
  for b in range(2):
    for t in range(3):
      inner = tiles[b, :, 2:-2, t, 2:-2]
      _assert_image(inner[0], images.numpy()[b, min(t, frames - 1), 0] * rgb)
      _assert_image(inner[1], np.clip(recons.numpy()[b, t, 0], 0, 1) * rgb)
      mixed = sum(masks.numpy()[b, t, k] * colors[k] for k in range(2))
      _assert_image(inner[2], np.clip(mixed, 0, 1))
  np.testing.assert_array_equal(tiles[:, :, 0], 0.5)
