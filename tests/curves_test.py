"""The picture of metrics over iterations and slots."""

import numpy as np
import pytest

from iodine.drawing import canvas, curves

TITLES = {"ari_nobg": "ARI, foreground", "mse": "mean squared error"}


def make_curves(slots, steps=4, error=0.02):
  rng = np.random.default_rng(0)
  shape = [len(slots), steps]
  ari = np.sort(rng.uniform(0.2, 0.9, shape))
  mse = np.sort(rng.uniform(0.1, 0.2, shape))[:, ::-1]
  return [
    curves.SlotCurve(
      k,
      {"ari_nobg": ari[i], "mse": mse[i], "other": mse[i]},
      {name: np.full(steps, error) for name in ("ari_nobg", "mse")},
    )
    for i, k in enumerate(slots)
  ]


def draw(*arguments):
  return canvas.pixels(curves.generalisation_plot(*arguments, TITLES))


def num_pixels(image, color):
  return np.all(image == color, axis=-1).sum()


def test_a_single_number_of_slots_has_no_axis_of_slots():
  trained = curves.Trained(4, 2)
  one = draw(make_curves([4]), trained)
  several = draw(make_curves([5, 4, 7]), trained)
  assert one.shape[0] == several.shape[0]
  assert several.shape[1] == 2 * one.shape[1]


def test_what_was_trained_with_is_marked():
  marks = []
  for trained in [(9, 3), (9, 2), (5, 2)]:
    image = draw(make_curves([4, 5]), curves.Trained(*trained))
    # matplotlib's 0.45, which the edge of a line is mixed with white.
    grey = np.all(np.abs(image.astype(int) - 115) < 30, axis=-1)
    marks.append(grey.sum(axis=0).max())  # of the column with most
  assert marks[0] < 60
  assert marks[1] > 150  # a line over iterations
  assert marks[2] > 150
  columns = np.flatnonzero(grey.sum(axis=0) > 150)
  assert np.ptp(columns) > 300  # another one over slots


@pytest.mark.parametrize("error", [np.nan, 0.0])
def test_a_single_scene_has_no_error_bars(error):
  trained = curves.Trained(4, 2)
  red = (214, 39, 40)  # of the last iteration, over slots
  with_bars = draw(make_curves([4, 5], error=0.2), trained)
  without = draw(make_curves([4, 5], error=error), trained)
  assert num_pixels(without, red) > 0
  assert num_pixels(with_bars, red) > num_pixels(without, red) + 50
