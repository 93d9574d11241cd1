"""Curves and other charts, from NumPy arrays; no TensorFlow here.

Dimensions: B scenes, T iterations + 1, K slots.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iodine.drawing import canvas, palette

Arrays = Mapping[str, np.ndarray]
# By the number of slots, means of a metric and the ends of their bars [3, T].
_Lines = Mapping[int, np.ndarray]
# What metrics, by their names, cannot pass; nor do bands and error bars.
_LIMITS = {
  **dict.fromkeys(("ari", "ari_nobg"), (-1.0, 1.0)),
  **dict.fromkeys(("mse", "kl", "factor"), (0.0, math.inf)),
}


def metrics_plot(info: Mapping[str, Any], titles: Mapping[str, str]) -> Figure:
  """Draws losses and metrics over the iterations, three panels a row.

  A line is the mean over the scenes, the band around it one standard deviation
  of theirs.

  Args:
    info: as from `IODINE.eval`, in NumPy; `losses` and `metrics` are used. The
      factor loss may be [B, T] as well as [T], where it has no band.
    titles: of the panels, by name of the metric; what is not there has none.
  """
  losses, metrics = info["losses"], info["metrics"]
  kl = losses["kl"].sum(axis=-1)
  values = {
    name: np.atleast_2d(np.asarray(array, np.float64))
    for name, array in {**losses, **metrics, "kl": kl}.items()
    if name in titles
  }
  means = {name: x.mean(axis=0) for name, x in values.items()}
  spreads = {n: x.std(axis=0, ddof=1) for n, x in values.items() if len(x) > 1}
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
  names = [name for name in titles if name in means]
  rows = math.ceil(len(names) / 3)
  figure, grid = canvas.new_chart(1000, 300 * rows, rows, 3)
  for axes in grid.flat[len(names) :]:
    axes.remove()
  for axes, name in zip(grid.flat, names, strict=False):
    steps = np.arange(len(means[name]))
    axes.plot(steps, means[name], marker="o", markersize=4)
    if name in errors:
      axes.fill_between(steps, *_edges(means, errors, name), alpha=0.2)
    axes.set_xticks(steps[:: math.ceil(len(steps) / 10)])
    _label(axes, titles[name], "iteration")
  over = f"mean and {error_name} over {num_scenes} scenes"
  if not canvas.style().is_paper:
    figure.suptitle(over if num_scenes > 1 else "one scene", fontsize=10)
  return figure


def _edges(means: Arrays, errors: Arrays, name: str) -> np.ndarray:
  """Returns the edges [2, T] of a band, which end where the metric does."""
  edges = means[name] + np.outer([-1, 1], errors[name])
  return np.clip(edges, *_LIMITS.get(name, (-math.inf, math.inf)))


def _label(axes: Axes, title: str, x_title: str) -> None:
  """Says what is drawn: above the panel, on paper at its side."""
  if canvas.style().is_paper:
    axes.set_ylabel(textwrap.fill(title, 20))
  else:
    axes.set_title(title, fontsize=10)
  axes.set_xlabel(x_title, fontsize=9)
  axes.tick_params(labelsize=8)
  axes.grid(alpha=0.3)


def _mark(axes: Axes, x: float, **style: Any) -> None:
  axes.axvline(x, color="0.45", linestyle="--", linewidth=1, **style)


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
  figure, grid = canvas.new_chart(1000, 330, 1, len(curves))
  for axes, (title, curve) in zip(grid.flat, curves.items(), strict=True):
    steps, values = np.array(curve, np.float64).T
    draw_smoothed(axes, steps, values)
    _leave_out_first(axes, [values])
    _mark(axes, at_step)
    _label(axes, title, "step; dashed: this checkpoint")
  return figure


def groups_plot(
  panels: Mapping[str, Mapping[str, Sequence[Sequence[tuple[int, float]]]]],
  titles: Mapping[str, str],
) -> Figure:
  """Draws what groups of runs logged: means, and a band over the runs.

  A band is one standard deviation wide on either side. Curves are means over
  the nearest twentieth of the training, as in `training_plot`, and end where
  the shortest run of a group does.

  Args:
    panels: {metric: {group: curves}}, a curve being [(step, value)].
    titles: by the metrics.
  """
  figure, grid = canvas.new_chart(1000, 400, 1, len(panels))
  for axes, (name, groups) in zip(grid.flat, panels.items(), strict=True):
    for label, curves in groups.items():
      pairs = [np.array(curve, np.float64).T for curve in curves]
      steps = min((steps for steps, _ in pairs), key=lambda x: x[-1])
      values = np.array([np.interp(steps, x, _smooth(y)) for x, y in pairs])
      mean = values.mean(axis=0)
      (line,) = axes.plot(steps, mean, label=f"{label} (n = {len(curves)})")
      if len(curves) > 1:
        spread, color = values.std(axis=0, ddof=1), line.get_color()
        edges = _edges({name: mean}, {name: spread}, name)
        axes.fill_between(steps, *edges, color=color, alpha=0.2, linewidth=0)
    _leave_out_first(axes, [line.get_ydata() for line in axes.lines])
    _label(axes, titles[name], "step")
  handles, labels = grid.flat[0].get_legend_handles_labels()
  place = {"loc": "outside lower center", "ncols": 2}
  figure.legend(handles, labels, fontsize=8, frameon=False, **place)
  return figure


def _leave_out_first(axes: Axes, curves: Sequence[np.ndarray]) -> None:
  """Leaves the first values of a loss out if they are far beyond the rest."""
  values = np.concatenate(curves)
  ordinary = np.concatenate([x[len(x) // 20 :] for x in curves])
  if np.ptp(values) > 2 * np.ptp(ordinary) > 0:
    room = 0.08 * np.ptp(ordinary)
    axes.set_ylim(ordinary.min() - room, ordinary.max() + room)


def draw_smoothed(
  axes: Axes, x: np.ndarray, values: np.ndarray, label: str | None = None
) -> None:
  """Draws a pale line, and one of means over the nearest twentieth of it."""
  (line,) = axes.plot(x, values, alpha=0.3, linewidth=1)
  axes.plot(x, _smooth(values), color=line.get_color(), label=label)


def _smooth(values: np.ndarray) -> np.ndarray:
  """Returns means over windows that end where the values do."""
  window = np.ones(2 * (len(values) // 40) + 1)
  counts = np.convolve(np.ones(len(values)), window, "same")
  return np.convolve(values, window, "same") / counts


# ------------------------------------------------------ over slots and steps


class Trained(NamedTuple):
  """What a model was trained with: numbers of slots and of refinements."""

  num_components: int
  num_iters: int


def generalisation_plot(
  curves: Mapping[int, tuple[Arrays, Arrays]],
  trained: Trained,
  titles: Mapping[str, str],
) -> Figure:
  """Draws ARI, if there is one, and error over iterations and over slots.

  Args:
    curves: by the number of slots, means [T] by name, of which ari_nobg and mse
      are drawn, and by the same names half the lengths of their error bars, nan
      for none; for a single number there is no axis of slots.
    trained: is marked in every panel where it is in range.
    titles: of ari_nobg and mse.
  """
  num_columns = 1 if len(curves) == 1 else 2
  measured, _ = next(iter(curves.values()))
  names = [name for name in ("ari_nobg", "mse") if name in measured]
  rows, shared = len(names), {"sharex": "col", "sharey": "row"}
  figure, grid = canvas.new_chart(
    540 * num_columns, 360 * rows, rows, num_columns, **shared
  )
  for row, name in zip(grid, names, strict=True):
    lines = {
      k: np.array([means[name], *_edges(means, errors, name)])
      for k, (means, errors) in sorted(curves.items())
    }
    _draw_over_iterations(row[0], lines, trained)
    row[0].set_ylabel(titles[name])
    if num_columns == 2:
      _draw_over_slots(row[1], lines, trained)
    _set_range(row[0], name, lines)
  for axes, title in zip(grid[-1], ("refinements", "slots K"), strict=False):
    axes.set_xlabel(title)
  for axes in grid[0]:
    # Above the panels, where it hides nothing.
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
    axes.legend(fontsize=9, frameon=False, ncols=2, **place)
  for axes in grid.flat:
    axes.spines[["top", "right"]].set_visible(False)
  return figure


def _draw_over_iterations(axes: Axes, lines: _Lines, trained: Trained) -> None:
  steps = np.arange(next(iter(lines.values())).shape[1])
  colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(lines)))
  # Side by side, so that error bars do not hide each other.
  shifts = np.linspace(-0.12, 0.12, len(lines)) if len(lines) > 1 else [0.0]
  for (k, line), color, shift in zip(
    lines.items(), colors, shifts, strict=True
  ):
    label = f"K = {k}{', as trained' if k == trained.num_components else ''}"
    _draw_line(axes, steps + shift, line, color=color, label=label)
  if 0 < trained.num_iters < steps[-1]:
    _mark(axes, trained.num_iters, label="trained until here", zorder=0)
  axes.set_xticks(steps[:: max(1, len(steps) // 12)])


def _draw_line(axes: Axes, x: Any, line: np.ndarray, **style: Any) -> None:
  mean, low, high = line
  bars = np.nan_to_num([mean - low, high - mean])
  axes.errorbar(x, mean, bars, marker="o", markersize=4, capsize=2.5, **style)
  axes.grid(alpha=0.25)


def _draw_over_slots(axes: Axes, lines: _Lines, trained: Trained) -> None:
  slots, values = list(lines), np.stack(list(lines.values()), axis=1)
  last = values.shape[-1] - 1
  steps = sorted({min(trained.num_iters, last), last})
  for step, color in zip(steps, palette.LINES, strict=False):
    trained_too = ", as trained" if step == trained.num_iters else ""
    label = f"after {step} refinements{trained_too}"
    _draw_line(axes, slots, values[..., step], color=color, label=label)
  if slots[0] <= trained.num_components <= slots[-1]:
    _mark(axes, trained.num_components, label="trained with", zorder=0)
  axes.set_xticks(slots)


def _set_range(axes: Axes, name: str, lines: _Lines) -> None:
  """Makes the axis logarithmic where the values are; ARI has a known top."""
  values = np.array([mean for mean, *_ in lines.values()])
  if name == "mse" and values.min() > 0 and values.max() > 10 * values.min():
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(ticker.NullLocator())
  elif name == "mse":
    axes.set_ylim(bottom=0)
  else:
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.02)


def importance_plot(
  values: Sequence[Sequence[float]], factors: Sequence[str]
) -> Figure:
  """Draws how much every latent says about factors, a row for each of these.

  Args:
    values: [factors, latents], each row sums to 1.
    factors: what they are called.
  """
  rows, columns = np.shape(values)
  width, height = 250 + max(24 * columns, 200), 90 + 28 * rows
  figure, ((axes,),) = canvas.new_chart(width, height, 1, 1)
  drawn = axes.imshow(values, aspect="auto", vmin=0.0, cmap="viridis")
  axes.set_yticks(range(rows), factors, fontsize=9)
  axes.xaxis.set_major_locator(ticker.MaxNLocator(16, integer=True))
  axes.set_xlabel("latent", fontsize=9)
  figure.colorbar(drawn, label="importance", pad=0.02)
  return figure
