"""Colours of slots, as colour-blind readers see them."""

import itertools

import numpy as np
import pytest
from skimage import color

from iodine.drawing import palette

# Machado, Oliveira and Fernandes 2009, severity 1, of linear RGB.
SEEN_AS = {
  "normal": np.eye(3),
  "protanopia": [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
  ],
  "deuteranopia": [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.011820, 0.042940, 0.968881],
  ],
  "tritanopia": [
    [1.255528, -0.076749, -0.178779],
    [-0.078411, 0.930809, 0.147602],
    [0.004733, 0.691367, 0.303900],
  ],
}


def seen(colors, matrix):
  """sRGB colours [N, 3] as somebody sees them."""
  low = colors / 12.92
  linear = np.where(colors <= 0.04045, low, ((colors + 0.055) / 1.055) ** 2.4)
  x = np.clip(linear @ np.transpose(matrix), 0, 1)
  return np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("number", [8, 11])
@pytest.mark.parametrize("kind", SEEN_AS)
def test_slots_can_be_told_apart(kind, number):
  colors = palette.slot_colors(number).astype(float)
  lab = color.rgb2lab(seen(colors, SEEN_AS[kind]))
  for one, other in itertools.combinations(range(number), 2):
    difference = color.deltaE_ciede2000(lab[one], lab[other])
    assert difference >= 10, (one, other)


def test_a_slot_has_one_color():
  many = palette.slot_colors(40)
  np.testing.assert_array_equal(palette.slot_colors(5), many[:5])
  np.testing.assert_allclose(many[0], 0.8)  # light grey: the background
  assert len(np.unique(many, axis=0)) == 40
