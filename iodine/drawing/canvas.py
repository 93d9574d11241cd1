"""What all pictures are drawn with: tiles, titles, files; no TensorFlow here.

Figures are made without pyplot, so that they need no display and are not kept
in memory by anybody else.
"""

from __future__ import annotations

import contextlib
import contextvars
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import imageio.v3 as iio
import matplotlib
import numpy as np
from matplotlib import cm, image, text, ticker
from matplotlib.axes import Axes
from matplotlib.backends import backend_agg
from matplotlib.figure import Figure

from iodine import files
from iodine.drawing import palette

# What colours stand for: matplotlib's norm and cmap.
Scale = dict[str, Any]


class Style(NamedTuple):
  """How figures are drawn and written.

  Attributes:
    format: of files: png, pdf or svg.
    dpi: pixels an inch.
    is_paper: whether figures are as wide as columns of a paper (3.25 and 6.75
      inches), their letters have 8 points, and captions say what titles would.
  """

  format: str = "png"
  dpi: int = 100
  is_paper: bool = False


_STYLE: contextvars.ContextVar[Style] = contextvars.ContextVar("style")
# Letters stay letters, which can be searched and edited.
_VECTOR = {"pdf.fonttype": 42, "svg.fonttype": "none"}
_COLUMN, _PAGE = 325, 675  # widths on paper, in hundredths of an inch
_LETTERS = 8  # on paper, in points

# In pixels of the screen, hundredths of an inch: between tiles, above a tile
# with a title, beside tiles with a colour bar, for a letter.
_GAP, _TITLE, _BAR, _LETTER = 8, 30, 50, 8
# A tile is so large, or smaller, so that a row fits on a screen.
_TILE, _SCREEN = 140, 1400


@contextlib.contextmanager
def styled(options: Mapping[str, Any]) -> Iterator[None]:
  """Draws and writes figures as format, dpi and style of `plot` say."""
  is_paper = options["style"] == "paper"
  dpi = options["dpi"] or (300 if is_paper else Style().dpi)
  token = _STYLE.set(Style(options["format"], dpi, is_paper))
  try:
    yield
  finally:
    _STYLE.reset(token)


def style() -> Style:
  """Returns how figures are drawn and written at present."""
  return _STYLE.get(Style())


def new_figure(width: float, height: float) -> Figure:
  """Makes a figure of that many pixels on a screen, at 100 an inch.

  On paper it is one or two columns wide, and of the same proportions.
  """
  scale = _width(width) / width / 100
  return Figure(figsize=(width * scale, height * scale), dpi=style().dpi)


def new_chart(
  width: float, height: float, rows: int, columns: int, **options: Any
) -> tuple[Figure, np.ndarray]:
  """Makes a figure, see there, and its axes [rows, columns].

  Lines have the palette's dark colours; further options are those of
  `Figure.subplots`.
  """
  figure = new_figure(width, height)
  figure.set_layout_engine("constrained")
  grid = figure.subplots(rows, columns, squeeze=False, **options)
  for axes in grid.flat:
    axes.set_prop_cycle(color=palette.LINES)
  return figure, grid


def _width(width: float) -> float:
  """Returns the width of what is that wide on a screen."""
  on_paper = _COLUMN if width <= 600 else _PAGE
  return on_paper if style().is_paper else width


def tile_size(image_shape: Sequence[int], target: int) -> tuple[int, int]:
  """Returns height and width of a tile: about `target`, a whole zoom."""
  largest = max(image_shape[:2])
  zoom = max(1, round(target / largest))
  shrink = max(1, round(largest / target))
  height, width = (zoom * size // shrink for size in image_shape[:2])
  return height, width


class Tile(NamedTuple):
  """An image with its title and frame in the colour of its slot.

  Attributes:
    image: [H, W, 1 or 3], cut to [0, 1], or [H, W] values.
    title: stands above it, unless the tile above has the same.
    color: RGB; None for a plain title and a thin frame.
    scale: what the colours of values stand for.
  """

  image: np.ndarray
  title: str = ""
  color: np.ndarray | None = None
  scale: Scale | None = None


class Row(NamedTuple):
  """Tiles side by side.

  Attributes:
    tiles: None leaves a place empty.
    label: to their left.
    scale: the colour bar to their right; None for none.
  """

  tiles: Sequence[Tile | None]
  label: str = ""
  scale: Scale | None = None


def make_row(
  images: Iterable[np.ndarray],
  titles: Iterable[str] = (),
  label: str = "",
  colors: Iterable[np.ndarray] = (),
  scale: Scale | None = None,
) -> Row:
  """Makes a row of tiles, those without titles or colours included."""
  tiles = [
    Tile(pixels, title or "", color, scale)
    for pixels, title, color in itertools.zip_longest(images, titles, colors)
  ]
  return Row(tiles, label, scale)


class Tiles:
  """A figure of rows of tiles, on whole pixels.

  Nearest-neighbour pictures stay even so, which a layout by fractions of the
  figure would not give. On paper the tiles take what letters leave of a column.
  """

  def __init__(
    self,
    rows: Sequence[Row],
    heads: Mapping[int, str] | None = None,
    further: Mapping[str, int] | None = None,
  ):
    """Draws the rows.

    Args:
      rows: from the top.
      heads: what stands above everything, by the column where it begins.
      further: labels and heights, in pixels, of empty rows below.
    """
    further = further or {}
    drawn = [tile for row in rows for tile in row.tiles if tile]
    self.columns = max(len(row.tiles) for row in rows)
    target = min(_TILE, _SCREEN // self.columns)
    size = np.array(tile_size(drawn[0].image.shape, target), float)
    lines = [line for row in rows for line in row.label.split("\n")]
    lines += [f"{label}   " for label in further]
    self._left = _GAP + _LETTER * max(map(len, lines)) + 2 * _GAP * any(lines)
    right = _BAR if any(row.scale for row in rows) else _GAP
    rest = self._left + right + (self.columns - 1) * _GAP
    self._width = _width(rest + self.columns * size[1])
    size *= (self._width - rest) / (self.columns * size[1])
    self._step = size[1] + _GAP
    titles = list(_without_repeats(rows))
    above = [
      _TITLE if any(each) else 2 * _GAP if row.scale else _GAP
      for row, each in zip(rows, titles, strict=True)
    ]
    above[0] += 22 * bool(heads)
    self._heights = [size[0]] * len(rows) + list(further.values())
    above += [2 * _GAP + 4] * len(further)
    self._tops = np.cumsum(above) + np.cumsum([0, *self._heights[:-1]])
    self._height = self._tops[-1] + self._heights[-1] + _GAP
    self.figure = new_figure(self._width, self._height)
    for i, label in enumerate([*(row.label for row in rows), *further]):
      # There are numbers beside the latter.
      self._write(i, label, 2 * _GAP if i < len(rows) else 5 * _GAP)
    for i, row in enumerate(rows):
      letters = self._letters(titles[i])
      for column, tile in enumerate(row.tiles):
        if tile is not None:
          axes = self.add(i, column)
          self._show(axes, tile, titles[i][column], letters)
      if row.scale is not None:
        self.add_color_bar(i, len(row.tiles), row.scale)
    for column, head in (heads or {}).items():
      x, y = self._left + column * self._step, self._height - 5
      self._text(x, y, head, ha="left", va="top")

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
    bins = min(4, max(1, self._heights[row] // 18))
    axes.yaxis.set_major_locator(ticker.MaxNLocator(bins, min_n_ticks=1))

  def _write(self, row: int, label: str, gap: int) -> None:
    middle = self._height - self._tops[row] - self._heights[row] / 2
    self._text(self._left - gap, middle, label, ha="right", va="center")

  def _letters(self, titles: Sequence[str]) -> float:
    """Returns in what size no title of a row reaches into another."""
    pairs = zip(titles, titles[1:], strict=False)
    most = max((len(one + other) + 1 for one, other in pairs), default=1)
    return 9.0 * min(1.0, 2 * self._step / (_LETTER * most))

  def _text(self, x: float, y: float, words: str, **options: Any) -> None:
    place = (x / self._width, y / self._height)
    self.figure.text(*place, words, fontsize=9, **options)

  def _show(self, axes: Axes, tile: Tile, title: str, size: float) -> None:
    values = tile.image
    shown = to_rgb(values) if values.ndim == 3 else values
    axes.imshow(shown, aspect="auto", **(tile.scale or {}))
    letters: dict[str, Any] = {}
    frame: dict[str, Any] = {"linewidth": 0.5}
    if tile.color is not None:
      letters = patch(tile.color, 1.5)
      width = 1.5 if style().is_paper else 2.5
      frame = {"linewidth": width, "edgecolor": tuple(tile.color)}
    for spine in axes.spines.values():
      spine.set(**frame)
    if title:
      axes.set_title(title, fontsize=size, pad=5, **letters)

  def _axes(self, row: int, column: int, width: float) -> Axes:
    left = self._left + column * self._step
    bottom = self._height - self._tops[row] - self._heights[row]
    width, height = width / self._width, self._heights[row] / self._height
    return self.figure.add_axes(
      (left / self._width, bottom / self._height, width, height)
    )


def _without_repeats(rows: Sequence[Row]) -> Iterator[list[str]]:
  """Yields the titles of each row; empty where they stand further above."""
  last: dict[int, str] = {}
  for row in rows:
    titles = [tile.title if tile else "" for tile in row.tiles]
    yield ["" if last.get(i) == x else x for i, x in enumerate(titles)]
    last.update((i, title) for i, title in enumerate(titles) if title)


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


def save(figure: Figure, stem: str) -> str:
  """Writes a figure in the present format, at once or not at all.

  Args:
    figure: which.
    stem: the path without the suffix.

  Returns:
    The path.
  """
  path = f"{stem}.{style().format}"
  files.write(path, encode(figure))
  return path


def encode(figure: Figure, kind: str | None = None, scale: int = 1) -> bytes:
  """Returns a figure as a file.

  Letters and lines of PDF and SVG are vectors, images have their own pixels.

  Args:
    figure: which.
    kind: png, pdf or svg; None: the present one.
    scale: how many times as fine a PNG is.
  """
  content, kind = io.BytesIO(), kind or style().format
  _finish(figure)
  if kind != "png":
    for each in figure.findobj(image.AxesImage):
      each.set_interpolation("none")
  with matplotlib.rc_context(_VECTOR):
    figure.savefig(content, format=kind, dpi=scale * figure.dpi)
  return content.getvalue()


def png(figure: Figure, scale: int = 1) -> bytes:
  """Encodes a figure as PNG, its lines and letters so many times as fine."""
  return encode(figure, "png", scale)


def _finish(figure: Figure) -> None:
  """Makes letters small enough for paper."""
  if style().is_paper:
    for each in figure.findobj(text.Text):
      each.set_fontsize(min(_LETTERS, each.get_fontsize()))
    for axes in figure.axes:
      axes.tick_params(labelsize=_LETTERS)


def gif(figures: Sequence[Figure], milliseconds: int = 700) -> bytes:
  """Encodes figures of one size as a GIF that repeats, slowly at the end."""
  durations = [*(len(figures) - 1) * [milliseconds], 3 * milliseconds]
  frames = [pixels(figure) for figure in figures]
  return iio.imwrite(
    "<bytes>", frames, extension=".gif", duration=durations, loop=0
  )


def mp4(figures: Sequence[Figure], milliseconds: int = 700) -> bytes:
  """Encodes figures of one size as a video, for which imageio needs PyAV."""
  frames = [pixels(figure) for figure in figures]
  # Of even sizes, as videos are.
  frames = [x[: len(x) // 2 * 2, : x.shape[1] // 2 * 2] for x in frames]
  options: Any = {"codec": "libx264", "fps": 1000 // milliseconds}
  return iio.imwrite(
    "<bytes>", frames, extension=".mp4", plugin="pyav", **options
  )


def headings(titles: Sequence[str], width: int) -> np.ndarray:
  """Draws titles side by side, as high as those of tiles.

  Args:
    titles: each in the middle of its share of the width.
    width: in pixels.

  Returns:
    [height, width, 3] uint8, white around the letters.
  """
  figure = new_figure(width, _TITLE)
  for i, title in enumerate(titles):
    place = ((i + 0.5) / len(titles), 0.5)
    figure.text(*place, title, ha="center", va="center", fontsize=9)
  return pixels(figure)


def pixels(figure: Figure) -> np.ndarray:
  """Returns what a figure looks like: [height, width, 3] uint8."""
  _finish(figure)
  drawn = backend_agg.FigureCanvasAgg(figure)
  drawn.draw()
  return np.array(drawn.buffer_rgba())[..., :3]
