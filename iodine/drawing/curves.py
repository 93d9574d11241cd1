"""Curves of metrics, from NumPy arrays with matplotlib; no TensorFlow here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iodine.drawing import canvas

_NAMES = ("ari_nobg", "mse")
_MARK: dict[str, Any] = {
  "color": "0.45",
  "linestyle": "--",
  "linewidth": 1,
  "zorder": 0,
}


class SlotCurve(NamedTuple):
  """Metrics over the iterations for one number of slots.

  Attributes:
    num_components: K.
    means: by name, of which ari_nobg and mse are drawn; each [T].
    errors: half the lengths of the error bars; the same shapes, nan for none.
  """

  num_components: int
  means: Mapping[str, np.ndarray]
  errors: Mapping[str, np.ndarray]


class Trained(NamedTuple):
  """What a model was trained with: numbers of slots and of refinements."""

  num_components: int
  num_iters: int


def generalisation_plot(
  curves: Sequence[SlotCurve], trained: Trained, titles: Mapping[str, str]
) -> Figure:
  """Draws ARI, if there is one, and error over iterations and over slots.

  Args:
    curves: of equally many iterations; for a single one there is no axis of
      slots.
    trained: is marked in every panel where it is in range.
    titles: of ari_nobg and mse.
  """
  curves = sorted(curves, key=lambda curve: curve.num_components)
  num_columns = 1 if len(curves) == 1 else 2
  names = [name for name in _NAMES if name in curves[0].means]
  figure = canvas.new_figure(540 * num_columns, 360 * len(names))
  figure.set_layout_engine("constrained")
  grid = figure.subplots(
    len(names), num_columns, squeeze=False, sharex="col", sharey="row"
  )
  for row, name in zip(grid, names, strict=True):
    _draw_over_iterations(row[0], name, curves, trained)
    row[0].set_ylabel(titles[name])
    if num_columns == 2:
      _draw_over_slots(row[1], name, curves, trained)
    _set_range(row[0], name, curves)
  for axes, title in zip(grid[-1], ("refinements", "slots K"), strict=False):
    axes.set_xlabel(title)
  for axes in grid[0]:
    # Above the panels, where it hides nothing.
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
    axes.legend(fontsize=9, frameon=False, ncols=2, **place)
  for axes in grid.flat:
    axes.spines[["top", "right"]].set_visible(False)
  return figure


def _draw_over_iterations(
  axes: Axes, name: str, curves: Sequence[SlotCurve], trained: Trained
) -> None:
  steps = np.arange(len(curves[0].means[name]))
  colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(curves)))
  # Side by side, so that error bars do not hide each other.
  shifts = np.linspace(-0.12, 0.12, len(curves)) if len(curves) > 1 else [0.0]
  for curve, color, shift in zip(curves, colors, shifts, strict=True):
    is_trained = curve.num_components == trained.num_components
    label = f"K = {curve.num_components}{', as trained' if is_trained else ''}"
    x, mean, error = steps + shift, curve.means[name], curve.errors[name]
    _draw_line(axes, x, mean, error, color=color, label=label)
  if 0 < trained.num_iters < steps[-1]:
    axes.axvline(trained.num_iters, label="trained until here", **_MARK)
  axes.set_xticks(steps[:: max(1, len(steps) // 12)])


def _draw_line(
  axes: Axes, x: np.ndarray, mean: np.ndarray, error: np.ndarray, **style: Any
) -> None:
  error = np.nan_to_num(error)
  axes.errorbar(x, mean, error, marker="o", markersize=4, capsize=2.5, **style)
  axes.grid(alpha=0.25)


def _draw_over_slots(
  axes: Axes, name: str, curves: Sequence[SlotCurve], trained: Trained
) -> None:
  slots = np.array([curve.num_components for curve in curves])
  means = np.array([curve.means[name] for curve in curves])
  errors = np.array([curve.errors[name] for curve in curves])
  last = means.shape[1] - 1
  steps = sorted({min(trained.num_iters, last), last})
  for step, color in zip(steps, ("tab:blue", "tab:red"), strict=False):
    trained_too = ", as trained" if step == trained.num_iters else ""
    label = f"after {step} refinements{trained_too}"
    mean, error = means[:, step], errors[:, step]
    _draw_line(axes, slots, mean, error, color=color, label=label)
  if slots[0] <= trained.num_components <= slots[-1]:
    axes.axvline(trained.num_components, label="trained with", **_MARK)
  axes.set_xticks(slots)


def _set_range(axes: Axes, name: str, curves: Sequence[SlotCurve]) -> None:
  """Makes the axis logarithmic where the values are; ARI has a known top."""
  values = np.concatenate([curve.means[name] for curve in curves])
  if name == "mse" and values.min() > 0 and values.max() > 10 * values.min():
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(ticker.NullLocator())
  elif name == "mse":
    axes.set_ylim(bottom=0)
  else:
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.02)
