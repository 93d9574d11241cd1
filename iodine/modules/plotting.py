"""Pictures, from NumPy arrays with matplotlib; no TensorFlow here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
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
  height, width, channels = image.shape
  if channels == 1:
    image = np.repeat(image, 3, axis=-1)
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
  axes.imshow(np.clip(image, 0.0, 1.0), interpolation="nearest", aspect="auto")
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
