"""Curves and other charts, from NumPy arrays; no TensorFlow here.

Dimensions: B scenes, T iterations + 1, K slots.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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
  return _draw_panels(
    means, spreads, titles, "standard deviation", len(losses["recons"])
  )


def evaluation_plot(
  means: Mapping[str, np.ndarray],
  errors: Mapping[str, np.ndarray],
  titles: Mapping[str, str],
  num_scenes: int,
) -> Figure:
  """Draws the panels of `metrics_plot` with standard errors.

  Args:
    means: by name of the metric, each [T].
    errors: standard errors of the means, nan for none.
    titles: of the panels, as for `metrics_plot`.
    num_scenes: how many scenes they are of.
  """
  return _draw_panels(means, errors, titles, "standard error", num_scenes)


def _draw_panels(
  means: Mapping[str, np.ndarray],
  spreads: Mapping[str, np.ndarray],
  titles: Mapping[str, str],
  spread_name: str,
  num_scenes: int,
) -> Figure:
  rows = math.ceil(len(titles) / 3)
  figure = canvas.new_figure(1000, 300 * rows)
  grid = list(figure.subplots(rows, 3, squeeze=False).flat)
  for axes in grid[len(titles) :]:
    axes.remove()
  for axes, (name, title) in zip(grid, titles.items(), strict=False):
    axes.set_title(title, fontsize=10)
    if name in means:
      _draw_mean(axes, means[name], spreads.get(name))
    else:
      axes.axis("off")
      missing = "no factor regressor" if name == "factor" else "not measured"
      axes.text(0.5, 0.5, missing, ha="center", va="center")
  figure.suptitle(
    f"mean and {spread_name} over {num_scenes} scenes"
    if num_scenes > 1
    else "one scene",
    fontsize=10,
  )
  figure.tight_layout()
  return figure


def _draw_mean(axes: Axes, mean: np.ndarray, spread: np.ndarray | None) -> None:
  """Draws means [T] and the band around them."""
  steps = np.arange(len(mean))
  axes.plot(steps, mean, marker="o", markersize=4)
  if spread is not None:
    axes.fill_between(steps, mean - spread, mean + spread, alpha=0.2)
  axes.set_xlabel("iteration", fontsize=9)
  axes.set_xticks(steps)
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
    axes.set_xlabel("step; dashed: this checkpoint", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
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


class SweepPanel(NamedTuple):
  """A metric that was measured at several values of a quantity.

  Attributes:
    x_title: name of the quantity.
    y_title: name of the metric, with its unit.
    x: values of the quantity, numbers.
    x_labels: the same as text.
    y: values of the metric.
    low: lower ends of their error bars.
    high: upper ends of their error bars.
    line: (intercept, slope) of a straight line through them; None: none.
    line_label: what the legend says about the line.
  """

  x_title: str
  y_title: str
  x: Sequence[float]
  x_labels: Sequence[str]
  y: Sequence[float]
  low: Sequence[float]
  high: Sequence[float]
  line: tuple[float, float] | None = None
  line_label: str = ""


def save_sweep(path: str, panels: Sequence[SweepPanel]) -> None:
  """Writes the panels as PNG, a column for each quantity.

  Args:
    path: file to write.
    panels: for every quantity equally many metrics, one below the other.
  """
  columns = list(dict.fromkeys(panel.x_title for panel in panels))
  num_rows = len(panels) // len(columns)
  figure = canvas.new_figure(400 * len(columns) + 50, 320 * num_rows)
  grid = figure.subplots(num_rows, len(columns), squeeze=False)
  for i, panel in enumerate(panels):
    _draw_sweep(grid[i % num_rows, i // num_rows], panel)
  figure.tight_layout()
  canvas.save(figure, path)


def _draw_sweep(axes: Axes, panel: SweepPanel) -> None:
  x, y = np.asarray(panel.x), np.asarray(panel.y)
  errors = [y - np.asarray(panel.low), np.asarray(panel.high) - y]
  axes.errorbar(x, y, yerr=errors, fmt="o", capsize=3)
  if panel.line is not None:
    intercept, slope = panel.line
    ends = np.array([min(0, *x), max(x)])
    axes.plot(ends, intercept + slope * ends, "--", label=panel.line_label)
    axes.legend(fontsize=8, loc="upper left")
  axes.set_xticks(x, panel.x_labels, fontsize=8)
  axes.set_xlabel(panel.x_title)
  axes.set_ylabel(panel.y_title)
  # From zero, so that proportions can be seen; room for the legend.
  axes.set_xlim(0.0, 1.08 * max(1.0, *x))
  axes.set_ylim(0.0, 1.3 * max(panel.high))
  axes.grid(alpha=0.3)
