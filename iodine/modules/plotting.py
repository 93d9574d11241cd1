"""Pictures, from NumPy arrays with matplotlib; no TensorFlow here."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends import backend_agg
from matplotlib.figure import Figure

_PIXELS_PER_INCH = 100


def save_titled_image(
  path: str,
  image: np.ndarray,
  column_titles: Sequence[str] = (),
  min_size: int = 900,
) -> None:
  """Writes an image as PNG, enlarged, with a title above each column.

  Args:
    path: file to write.
    image: [height, width, 1 or 3] in [0, 1].
    column_titles: one for each of the equally wide columns.
    min_size: the longer side is enlarged by a whole number to at least this
      many pixels.
  """
  height, width, _ = image.shape
  zoom = max(1, -(-min_size // max(height, width)))
  title_height = 30 if len(column_titles) else 0
  total_height = height * zoom + title_height
  figure = Figure(
    figsize=(
      width * zoom / _PIXELS_PER_INCH,
      total_height / _PIXELS_PER_INCH,
    ),
    dpi=_PIXELS_PER_INCH,
  )
  backend_agg.FigureCanvasAgg(figure)
  axes = figure.add_axes((0, 0, 1, height * zoom / total_height))
  axes.imshow(_to_rgb(image), interpolation="nearest", aspect="auto")
  axes.axis("off")
  column_width = width / max(len(column_titles), 1)
  for i, title in enumerate(column_titles):
    figure.text(
      (i + 0.5) * column_width / width,
      1 - title_height / total_height / 2,
      title,
      ha="center",
      va="center",
      # As large as the column allows, at most 11 points.
      fontsize=min(11, column_width * zoom / 9),
    )
  figure.savefig(path)


def save_image_rows(
  path: str,
  rows: Mapping[str, np.ndarray],
  column_titles: Sequence[str],
) -> None:
  """Writes rows of images as PNG, each with a title to its left.

  Args:
    path: file to write.
    rows: {title: [columns, height, width, 1 or 3]} in [0, 1].
    column_titles: one for each column.
  """
  columns = len(column_titles)
  figure = Figure(figsize=(1.5 * columns + 2.5, 1.6 * len(rows)))
  backend_agg.FigureCanvasAgg(figure)
  grid = figure.subplots(len(rows), columns, squeeze=False)
  for axes_row, (title, images) in zip(grid, rows.items(), strict=True):
    for axes, image in zip(axes_row, images, strict=True):
      axes.imshow(_to_rgb(image), interpolation="nearest")
      axes.set(xticks=[], yticks=[])
    axes_row[0].set_ylabel(
      textwrap.fill(title, 20), rotation=0, ha="right", va="center"
    )
  for axes, title in zip(grid[0], column_titles, strict=True):
    axes.set_title(title)
  figure.tight_layout()
  figure.savefig(path, dpi=_PIXELS_PER_INCH)


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
  figure = Figure(figsize=(4.0 * len(columns) + 0.5, 3.2 * num_rows))
  backend_agg.FigureCanvasAgg(figure)
  grid = figure.subplots(num_rows, len(columns), squeeze=False)
  for i, panel in enumerate(panels):
    _draw_sweep(grid[i % num_rows, i // num_rows], panel)
  figure.tight_layout()
  figure.savefig(path, dpi=_PIXELS_PER_INCH)


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


def _to_rgb(image: np.ndarray) -> np.ndarray:
  """[height, width, 1 or 3] -> [height, width, 3], cut to [0, 1]."""
  if image.shape[-1] == 1:
    image = np.repeat(image, 3, axis=-1)
  return np.clip(image, 0.0, 1.0)
