"""What all pictures are drawn with: tiles, titles, files; no TensorFlow here.

Figures are made without pyplot, so that they need no display and are not kept
in memory by anybody else.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import imageio.v3 as iio
import numpy as np
from matplotlib import cm
from matplotlib.axes import Axes
from matplotlib.backends import backend_agg
from matplotlib.figure import Figure

from iodine import files
from iodine.drawing import palette

# What colours stand for: matplotlib's norm and cmap.
Scale = dict[str, Any]

_PIXELS_PER_INCH = 100

# Between tiles, in pixels.
_GAP = 8

_FRAME_MILLISECONDS = 700  # of GIFs


def new_figure(width: float, height: float) -> Figure:
  """Makes a figure of that many pixels."""
  inches = (width / _PIXELS_PER_INCH, height / _PIXELS_PER_INCH)
  return Figure(figsize=inches, dpi=_PIXELS_PER_INCH)


def tile_size(image_shape: Sequence[int], target: int) -> tuple[int, int]:
  """Returns height and width of a tile: about `target`, a whole zoom."""
  largest = max(image_shape[:2])
  zoom = max(1, round(target / largest))
  shrink = max(1, round(largest / target))
  height, width = (zoom * size // shrink for size in image_shape[:2])
  return height, width


class Tiles:
  """A figure of tiles in rows and columns, on whole pixels.

  Nearest-neighbour pictures stay even so, which a layout by fractions of the
  figure would not give.
  """

  def __init__(
    self,
    columns: int,
    tile: tuple[int, int],
    heights: Sequence[int],
    above: Sequence[int],
    margins: tuple[int, int] = (_GAP, _GAP),
  ):
    """Makes the figure.

    Args:
      columns: how many tiles fit into a row.
      tile: height and width of a tile, in pixels.
      heights: of every row, in pixels.
      above: room above every row, in pixels.
      margins: left and right of the tiles, in pixels.
    """
    self._step = tile[1] + _GAP
    self._heights, self._left = tuple(heights), margins[0]
    self._tops = np.cumsum(above) + np.cumsum([0, *heights[:-1]])
    self._width = sum(margins) + columns * self._step - _GAP
    self._height = int(self._tops[-1]) + heights[-1] + _GAP
    self.figure = new_figure(self._width, self._height)

  def add(self, row: int, column: int, columns: int = 1) -> Axes:
    """Adds axes without ticks on a tile, or on several side by side."""
    axes = self._axes(row, column, columns * self._step - _GAP)
    axes.set(xticks=[], yticks=[])
    return axes

  def add_color_bar(self, row: int, column: int, scale: Scale) -> None:
    """Adds a colour bar where the tile of that place would begin."""
    axes = self._axes(row, column, 10)
    self.figure.colorbar(cm.ScalarMappable(**scale), cax=axes)
    axes.tick_params(labelsize=7, length=2, pad=1)
    axes.locator_params(nbins=4)

  def write(self, row: int, text: str, further: int = 0) -> None:
    """Writes to the left of a row, some pixels further to the left."""
    middle = self._tops[row] + self._heights[row] / 2
    x = (self._left - _GAP - further) / self._width
    y = 1 - middle / self._height
    self.figure.text(x, y, text, ha="right", va="center", fontsize=9)

  def head(self, column: int, text: str) -> None:
    """Writes above everything, from a column on."""
    left = self._left + column * self._step
    x, y = left / self._width, 1 - 5 / self._height
    self.figure.text(x, y, text, ha="left", va="top", fontsize=10)

  def _axes(self, row: int, column: int, width: float) -> Axes:
    left = self._left + column * self._step
    bottom = self._height - self._tops[row] - self._heights[row]
    width, height = width / self._width, self._heights[row] / self._height
    return self.figure.add_axes(
      (left / self._width, bottom / self._height, width, height)
    )


def show(
  axes: Axes,
  image: np.ndarray,
  title: str = "",
  color: np.ndarray | None = None,
  scale: Scale | None = None,
) -> None:
  """Shows an image, with its title and frame in the colour of its slot.

  Args:
    axes: where.
    image: [H, W, 1 or 3], cut to [0, 1], or [H, W] values.
    title: stands above it.
    color: RGB; None for a plain title and a thin frame.
    scale: what the colours of values stand for.
  """
  shown = to_rgb(image) if image.ndim == 3 else image
  axes.imshow(shown, aspect="auto", **(scale or {}))
  style: dict[str, Any] = {}
  frame: dict[str, Any] = {"linewidth": 0.5}
  if color is not None:
    style = patch(color, 1.5)
    frame = {"linewidth": 2.5, "edgecolor": tuple(color)}
  for spine in axes.spines.values():
    spine.set(**frame)
  if title:
    axes.set_title(title, fontsize=9, pad=5, **style)


def patch(color: np.ndarray, pad: float) -> dict[str, Any]:
  """Returns the style of letters on a patch of a colour."""
  # Yellow letters on white could not be read.
  box = {"facecolor": color, "edgecolor": "none", "pad": pad}
  return {"color": palette.readable_on(color), "bbox": box}


def to_rgb(image: np.ndarray) -> np.ndarray:
  """Turns [..., 1 or 3] into [..., 3], cut to [0, 1]."""
  if image.shape[-1] == 1:
    image = np.repeat(image, 3, axis=-1)
  return np.clip(image, 0.0, 1.0)


def save(figure: Figure, path: str) -> None:
  """Writes a figure as PNG, at once or not at all."""
  files.write(path, png(figure))


def png(figure: Figure, scale: int = 1) -> bytes:
  """Encodes a figure as PNG, its lines and letters so many times as fine."""
  content = io.BytesIO()
  figure.savefig(content, format="png", dpi=scale * figure.dpi)
  return content.getvalue()


def gif(figures: Sequence[Figure]) -> bytes:
  """Encodes figures of one size as a GIF that repeats, slowly at the end."""
  milliseconds = [_FRAME_MILLISECONDS] * len(figures)
  milliseconds[-1] *= 3
  frames = [pixels(figure) for figure in figures]
  return iio.imwrite(
    "<bytes>", frames, extension=".gif", duration=milliseconds, loop=0
  )


def pixels(figure: Figure) -> np.ndarray:
  """Returns what a figure looks like: [height, width, 3] uint8."""
  drawn = backend_agg.FigureCanvasAgg(figure)
  drawn.draw()
  return np.array(drawn.buffer_rgba())[..., :3]
