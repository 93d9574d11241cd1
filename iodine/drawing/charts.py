"""Curves and other charts, from NumPy arrays; no TensorFlow here.

Dimensions: B scenes, T iterations + 1, K slots.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iodine.drawing import canvas


def metrics_plot(info: Mapping[str, Any], titles: Mapping[str, str]) -> Figure:
  """Draws losses and metrics over the iterations, three panels a row.

  A line is the mean over the scenes, the band around it one standard deviation
  of theirs.

  Args:
    info: as from `IODINE.eval`, in NumPy; `losses` and `metrics` are used. The
      factor loss may be [B, T] as well as [T], where it has no band.
    titles: of the panels, by name of the metric; what is not there is said to
      be missing.
  """
  losses, metrics = info["losses"], info["metrics"]
  values = {**losses, **metrics, "kl": losses["kl"].sum(axis=-1)}
  means, spreads = {}, {}
  for name in titles.keys() & values.keys():
    array = np.atleast_2d(np.asarray(values[name], np.float64))
    means[name] = array.mean(axis=0)
    if len(array) > 1:
      spreads[name] = array.std(axis=0, ddof=1)
  return evaluation_plot(
    means, spreads, titles, len(losses["recons"]), "standard deviation"
  )


def evaluation_plot(
  means: Mapping[str, np.ndarray],
  errors: Mapping[str, np.ndarray],
  titles: Mapping[str, str],
  num_scenes: int,
  error_name: str = "standard error",
) -> Figure:
  """Draws the panels of `metrics_plot` with standard errors.

  Args:
    means: by name of the metric, each [T].
    errors: of the means, by the same names; nan, or no entry, for none.
    titles: of the panels, as for `metrics_plot`.
    num_scenes: how many scenes they are of.
    error_name: what the errors are.
  """
  rows = math.ceil(len(titles) / 3)
  figure = canvas.new_figure(1000, 300 * rows)
  grid = list(figure.subplots(rows, 3, squeeze=False).flat)
  for axes in grid[len(titles) :]:
    axes.remove()
  for axes, (name, title) in zip(grid, titles.items(), strict=False):
    if name in means:
      _draw_mean(axes, means[name], errors.get(name))
    else:
      axes.axis("off")
      missing = "no factor regressor" if name == "factor" else "not measured"
      axes.text(0.5, 0.5, missing, ha="center", va="center")
    axes.set_title(title, fontsize=10)
  over = f"mean and {error_name} over {num_scenes} scenes"
  figure.suptitle(over if num_scenes > 1 else "one scene", fontsize=10)
  figure.tight_layout()
  return figure


def _draw_mean(axes: Axes, mean: np.ndarray, spread: np.ndarray | None) -> None:
  """Draws means [T] and the band around them."""
  steps = np.arange(len(mean))
  axes.plot(steps, mean, marker="o", markersize=4)
  if spread is not None:
    axes.fill_between(steps, mean - spread, mean + spread, alpha=0.2)
  axes.set_xticks(steps)
  _label(axes, "iteration")


def _label(axes: Axes, x_title: str) -> None:
  axes.set_xlabel(x_title, fontsize=9)
  axes.tick_params(labelsize=8)
  axes.grid(alpha=0.3)


def training_plot(
  curves: Mapping[str, Sequence[tuple[int, float]]], at_step: int
) -> Figure:
  """Draws what was logged in training, a panel for each, over the steps.

  The logged values are pale, since they are of a few batches each; the line is
  their mean over the nearest twentieth of the training.

  Args:
    curves: {title: [(step, value)]}, in the order of the steps.
    at_step: is marked, the checkpoint's.
  """
  figure = canvas.new_figure(1000, 330)
  grid = figure.subplots(1, len(curves), squeeze=False)
  for axes, (title, curve) in zip(grid.flat, curves.items(), strict=True):
    steps, values = np.array(curve, np.float64).T
    draw_smoothed(axes, steps, values)
    # The first values of a loss may be far beyond all others.
    ordinary = values[len(values) // 20 :]
    if np.ptp(values) > 2 * np.ptp(ordinary) > 0:
      room = 0.08 * np.ptp(ordinary)
      axes.set_ylim(ordinary.min() - room, ordinary.max() + room)
    axes.axvline(at_step, color="0.45", linestyle="--", linewidth=1)
    axes.set_title(title, fontsize=10)
    _label(axes, "step; dashed: this checkpoint")
  figure.tight_layout()
  return figure


def draw_smoothed(
  axes: Axes, x: np.ndarray, values: np.ndarray, label: str | None = None
) -> None:
  """Draws a pale line, and one of means over the nearest twentieth of it."""
  (line,) = axes.plot(x, values, alpha=0.3, linewidth=1)
  axes.plot(x, _smooth(values), color=line.get_color(), label=label)


def _smooth(values: np.ndarray) -> np.ndarray:
  """Returns means over windows that end where the values do."""
  half = len(values) // 40
  sums = np.cumsum([0.0, *values])
  places = np.arange(len(values))
  first = np.maximum(places - half, 0)
  last = np.minimum(places + half + 1, len(values))
  return (sums[last] - sums[first]) / (last - first)
