"""Charts: what is in their axes, and what can be seen."""

import helpers
import numpy as np
import pytest

from iodine.drawing import canvas, charts

TITLES = {
  "recons": "reconstruction loss [nats]",
  "mse": "mean squared error",
  "kl": "KL divergence, sum over slots [nats]",
  "ari": "ARI",
  "ari_nobg": "ARI, foreground",
  "factor": "factor loss",
}


def make_info(scenes=5, steps=4, slots=3):
  rng = np.random.default_rng(0)
  return {
    "losses": {
      "recons": rng.normal(size=[scenes, steps]),
      "kl": rng.normal(size=[scenes, steps, slots]),
      "factor": rng.normal(size=[steps]),
    },
    "metrics": {
      name: rng.normal(size=[scenes, steps])
      for name in ("ari", "ari_nobg", "mse")
    },
  }


def by_title(figure):
  return {axes.get_title().split(" [")[0]: axes for axes in figure.axes}


def test_metrics_are_means_with_their_spread():
  info = make_info()
  panels = by_title(charts.metrics_plot(info, TITLES))
  expected = {
    "reconstruction loss": info["losses"]["recons"],
    "mean squared error": info["metrics"]["mse"],
    "KL divergence, sum over slots": info["losses"]["kl"].sum(2),
    "ARI": info["metrics"]["ari"],
    "ARI, foreground": info["metrics"]["ari_nobg"],
  }
  assert list(panels) == [*expected, "factor loss"]
  limits = {"ARI": (-1, 1), "ARI, foreground": (-1, 1)}
  limits |= {"mean squared error": (0, np.inf)}
  limits |= {"KL divergence, sum over slots": (0, np.inf)}
  for title, values in expected.items():
    (line,) = panels[title].lines
    mean, most = values.mean(0), limits.get(title, (-np.inf, np.inf))
    np.testing.assert_array_equal(line.get_xdata(), range(4))
    np.testing.assert_allclose(line.get_ydata(), mean)
    (band,) = panels[title].collections
    corners = band.get_paths()[0].vertices
    spread = np.sqrt(((values - mean) ** 2).sum(0) / 4)  # unbiased
    for t in range(4):
      heights = corners[corners[:, 0] == t, 1]
      # A band ends where the metric does.
      ends = np.clip([mean[t] - spread[t], mean[t] + spread[t]], *most)
      np.testing.assert_allclose([heights.min(), heights.max()], ends)
  figure = charts.metrics_plot(make_info(scenes=1), TITLES)
  assert figure.get_suptitle() == "one scene"
  assert not any(axes.collections for axes in figure.axes)


def test_the_factor_loss_may_be_of_batches_or_scenes_or_missing():
  def panel():
    return by_title(charts.metrics_plot(info, TITLES))["factor loss"]

  info = make_info()
  of_batches = info["losses"]["factor"]
  np.testing.assert_array_equal(panel().lines[0].get_ydata(), of_batches)
  assert not panel().collections
  per_scene = info["losses"]["factor"] = np.arange(20.0).reshape(5, 4)
  means = panel().lines[0].get_ydata()
  np.testing.assert_array_equal(means, per_scene.mean(0))
  assert len(panel().collections) == 1
  del info["losses"]["factor"]
  # There is no empty frame.
  assert len(charts.metrics_plot(info, TITLES).axes) == 5


def test_an_evaluation_is_drawn_with_its_own_numbers():
  names = ("recons", "mse", "kl", "ari", "ari_nobg")
  means = {name: np.arange(1.0, 5.0) / 5 for name in names}
  errors = {name: np.full(4, 0.125) for name in names}
  means["kl/slot_1"] = means["kl"]
  errors["ari"] += 0.125
  figure = charts.evaluation_plot(means, errors, TITLES, 9)
  for axes, name in zip(figure.axes, names, strict=True):
    (line,) = axes.lines
    np.testing.assert_array_equal(line.get_ydata(), means[name])
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == 0.2 - errors[name][0]
    assert heights.max() == min(0.8 + errors[name][0], 1.0)
  assert "standard error over 9 scenes" in figure.get_suptitle()


def test_a_training_has_its_values_and_their_running_mean():
  rng = np.random.default_rng(0)
  values = [500.0, *rng.normal(size=119)]
  steps = np.arange(120) * 10
  figure = charts.training_plot(
    {"loss": list(zip(steps, values, strict=True)), "ARI": [(5, 0.5)]}, 700
  )
  axes, single = figure.axes
  logged, smooth, mark = axes.lines
  np.testing.assert_array_equal(logged.get_xdata(), steps)
  np.testing.assert_array_equal(logged.get_ydata(), values)
  windows = [values[max(i - 3, 0) : i + 4] for i in range(120)]
  expected = [np.mean(window) for window in windows]
  tolerance = {"rtol": 0, "atol": 1e-12}  # sums of at most 500
  np.testing.assert_allclose(smooth.get_ydata(), expected, **tolerance)
  assert list(mark.get_xdata()) == [700, 700]
  # The outlier at the start does not flatten the rest.
  bottom, top = axes.get_ylim()
  assert bottom < min(values) and max(values[6:]) < top < 10
  assert list(single.lines[1].get_ydata()) == [0.5]


def make_curves(slots, steps=4, error=0.02):
  rng = np.random.default_rng(0)
  shape = [len(slots), steps]
  ari = np.sort(rng.uniform(0.2, 0.9, shape))
  mse = np.sort(rng.uniform(0.1, 0.2, shape))[:, ::-1]
  return {
    k: (
      {"ari_nobg": ari[i], "mse": mse[i], "other": mse[i]},
      {name: np.full(steps, error) for name in ("ari_nobg", "mse")},
    )
    for i, k in enumerate(slots)
  }


def draw(*arguments):
  return canvas.pixels(charts.generalisation_plot(*arguments, TITLES))


def num_pixels(image, color):
  return np.all(image == color, axis=-1).sum()


def test_what_was_trained_with_is_marked():
  marks = []
  for trained in [(9, 3), (9, 2), (5, 2)]:
    image = draw(make_curves([4, 5]), charts.Trained(*trained))
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
  trained = charts.Trained(4, 2)
  red = (213, 94, 0)  # of the last iteration, over slots
  with_bars = draw(make_curves([4, 5], error=0.2), trained)
  without = draw(make_curves([4, 5], error=error), trained)
  assert num_pixels(without, red) > 0
  assert num_pixels(with_bars, red) > num_pixels(without, red) + 50


def test_the_importance_of_latents_for_factors():
  importance = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
  figure = charts.importance_plot(importance, ["shape", "color"])
  axes = figure.axes[0]
  helpers.assert_shows(axes, importance)
  assert [x.get_text() for x in axes.get_yticklabels()] == ["shape", "color"]
