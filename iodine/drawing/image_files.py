"""Ready images as files, with titles; no TensorFlow here."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from iodine.drawing import canvas


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
  figure = canvas.new_figure(width * zoom, total_height)
  axes = figure.add_axes((0, 0, 1, height * zoom / total_height))
  axes.imshow(canvas.to_rgb(image), interpolation="nearest", aspect="auto")
  axes.axis("off")
  for i, title in enumerate(column_titles):
    column_width = width * zoom / len(column_titles)
    figure.text(
      (i + 0.5) / len(column_titles),
      1 - title_height / total_height / 2,
      title,
      ha="center",
      va="center",
      # As large as the column allows, at most 11 points.
      fontsize=min(11, column_width / 9),
    )
  canvas.save(figure, path)


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
  figure = canvas.new_figure(150 * columns + 250, 160 * len(rows))
  grid = figure.subplots(len(rows), columns, squeeze=False)
  for axes_row, (title, images) in zip(grid, rows.items(), strict=True):
    for axes, image in zip(axes_row, images, strict=True):
      axes.imshow(canvas.to_rgb(image), interpolation="nearest")
      axes.set(xticks=[], yticks=[])
    axes_row[0].set_ylabel(
      textwrap.fill(title, 20), rotation=0, ha="right", va="center"
    )
  for axes, title in zip(grid[0], column_titles, strict=True):
    axes.set_title(title)
  figure.tight_layout()
  canvas.save(figure, path)
