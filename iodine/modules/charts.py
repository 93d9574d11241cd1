"""Curves and other charts, from NumPy arrays; no TensorFlow here.

Dimensions: B scenes, T iterations + 1, K slots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iodine.modules import canvas


def metrics_plot(info: Mapping[str, Any]) -> Figure:
  """How losses and metrics change over the iterations: 2 x 3 panels.

  A line is the mean over the scenes, the band around it one standard deviation
  of theirs.

  Args:
    info: as from `IODINE.eval`, in NumPy; `losses` and `metrics` are used. The
      factor loss may be [B, T] as well as [T], where it has no band.
  """
  losses, metrics = info["losses"], info["metrics"]
  panels = {
    "reconstruction loss [nats]": losses["recons"],
    "mean squared error": metrics["mse"],
    "KL divergence, sum over slots [nats]": losses["kl"].sum(axis=-1),
    "ARI": metrics["ari"],
    "ARI, foreground": metrics["ari_nobg"],
    "factor loss": losses.get("factor"),
  }
  figure = canvas.new_figure(1000, 600)
  for axes, (title, values) in zip(
    figure.subplots(2, 3).flat, panels.items(), strict=True
  ):
    axes.set_title(title, fontsize=10)
    if values is None:
      axes.axis("off")
      axes.text(0.5, 0.5, "no factor regressor", ha="center", va="center")
    else:
      _draw_mean(axes, np.atleast_2d(np.asarray(values, np.float64)))
  scenes = len(losses["recons"])
  figure.suptitle(
    f"mean and standard deviation over {scenes} scenes"
    if scenes > 1
    else "one scene",
    fontsize=10,
  )
  figure.tight_layout()
  return figure


def _draw_mean(axes: Axes, values: np.ndarray) -> None:
  """Mean and spread of [B, T] over B."""
  steps = np.arange(values.shape[1])
  mean = values.mean(axis=0)
  axes.plot(steps, mean, marker="o", markersize=4)
  if len(values) > 1:
    spread = values.std(axis=0, ddof=1)
    axes.fill_between(steps, mean - spread, mean + spread, alpha=0.2)
  axes.set_xlabel("iteration", fontsize=9)
  axes.set_xticks(steps)
  axes.tick_params(labelsize=8)
  axes.grid(alpha=0.3)


class SweepPanel(NamedTuple):
  """A figure that was measured at several values of a quantity.

  Attributes:
    x_title: name of the quantity.
    y_title: name of the figure, with its unit.
    x: values of the quantity, numbers.
    x_labels: the same as text.
    y: values of the figure.
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
    panels: for every quantity equally many figures, one below the other.
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
