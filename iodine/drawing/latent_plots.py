"""Pictures of latents, from NumPy arrays; no TensorFlow here.

`pictures` computes what they show.

Dimensions: N samples or objects, R latents, V values, K slots, H W C image,
Z latent size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iodine.drawing import canvas, palette

_TILE = 80
_MAX_CLASSES = 20


class Traversal(NamedTuple):
  """One slot's latents, changed one at a time.

  Attributes:
    slot: which of the K, from 0.
    num_slots: K.
    latents: [R] which of the Z, those of the highest KL first.
    kl: [R] their divergence from the prior (nats).
    values: [V] what they are set to, in standard deviations of the prior from
      its mean.
    inferred: [R] what they are in the scene, in the same unit.
    recons: [R, 1 + V, H, W, C] the whole scene, as inferred and then changed.
    components: [R, 1 + V, H, W, C] the slot's component times its mask.
  """

  slot: int
  num_slots: int
  latents: np.ndarray
  kl: np.ndarray
  values: np.ndarray
  inferred: np.ndarray
  recons: np.ndarray
  components: np.ndarray


def traversal_plot(traversal: Traversal) -> Figure:
  """Draws a row for each latent: the slot by itself, and the whole scene.

  Both halves begin with the slot as inferred, the same in all rows; a latent
  takes the values above the columns.
  """
  half = 1 + len(traversal.values)
  tile = canvas.tile_size(traversal.recons.shape[2:], _TILE)
  num_rows = len(traversal.latents)
  grid = canvas.Tiles(
    2 * half + 1,
    tile,
    heights=[tile[0]] * num_rows,
    above=[52, *[6] * (num_rows - 1)],
    margins=(130, 8),
  )
  for r in range(num_rows):
    grid.write(
      r,
      f"latent {traversal.latents[r]}, is {traversal.inferred[r]:+.1f}\n"
      f"KL {traversal.kl[r]:.1f} nats",
    )
  color = palette.slot_colors(traversal.num_slots)[traversal.slot]
  by_itself = f"slot {traversal.slot + 1} by itself"
  titles = ["inferred", *(f"{value:+g}" for value in traversal.values)]
  for start, text, images in (
    (0, by_itself, traversal.components),
    (half + 1, "the whole scene", traversal.recons),
  ):
    grid.head(
      start, f"{text}; latents set to so many standard deviations of the prior"
    )
    for r in range(num_rows):
      for i, image in enumerate(images[r]):
        title = titles[i] if r == 0 else ""
        axes = grid.add(r, start + i)
        canvas.show(axes, image, title, color if i == 0 else None)
  return grid.figure


def samples_plot(images: np.ndarray, masks: np.ndarray) -> Figure:
  """Images from the prior, each beside its mask, on a grid.

  Args:
    images: [N, H, W, C].
    masks: [N, K, H, W, 1].
  """
  columns = min(4, len(images))
  rows = -(-len(images) // columns)
  tile = canvas.tile_size(images.shape[1:], 130)
  mixed = palette.mix(masks, palette.slot_colors(masks.shape[1]))
  grid = canvas.Tiles(
    2 * columns, tile, [tile[0]] * rows, [30, *[8] * (rows - 1)]
  )
  for i, (image, mask) in enumerate(zip(images, mixed, strict=True)):
    row, column = divmod(i, columns)
    titles = ("sample", "mask") if row == 0 else ("", "")
    canvas.show(grid.add(row, 2 * column), image, titles[0])
    canvas.show(grid.add(row, 2 * column + 1), mask, titles[1])
  return grid.figure


def principal_components(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the two directions in which points differ most.

  The sign is such that the largest loading of a direction is positive.

  Args:
    points: [N, Z].

  Returns:
    [N, 2] coordinates, zero where points do not differ, and [2] the shares of
    the variance.
  """
  points = np.asarray(points, np.float64)
  centred = points - points.sum(axis=0) / max(1, len(points))
  # There are two directions, however few the points and their numbers.
  padded = np.pad(centred, (0, 2))
  _, lengths, directions = np.linalg.svd(padded, full_matrices=False)
  # What is left of equal points is rounding, and no direction.
  lengths[lengths < 1e-9 * lengths[0]] = 0.0
  directions[lengths == 0.0] = 0.0
  directions = directions[:2, :-2]
  largest = np.abs(directions).argmax(axis=1)
  signs = np.where(directions[np.arange(2), largest] < 0, -1.0, 1.0)
  total = np.sum(lengths**2) or 1.0
  return centred @ (signs[:, None] * directions).T, lengths[:2] ** 2 / total


def latents_plot(
  latents: np.ndarray,
  factors: Mapping[str, np.ndarray],
  kinds: Mapping[str, str] | None = None,
) -> Figure:
  """Draws object latents by their principal components, once a factor.

  Args:
    latents: [N, Z] of the slots that stand for N true objects.
    factors: {name: [N, n]} of those objects. Colours of three numbers are
      shown as they are, several numbers of another factor in a panel each.
    kinds: {name: "scalar", "categorical" or "angle" (in radians)}; a factor
      that is not in it is categorical if it is one whole number.
  """
  points, shares = principal_components(latents)
  panels = _panels(factors, kinds or {})
  rows = -(-len(panels) // 3)
  columns = -(-len(panels) // rows)
  width, height = 480 * columns, 400 * rows
  figure = canvas.new_figure(width, height)
  # Legends and colour bars stand between axes of the same size.
  figure.subplots_adjust(
    *(55 / width, 45 / height, 1 - 115 / width, 1 - 30 / height),
    wspace=170 / 310,
    hspace=75 / 325,
  )
  grid = figure.subplots(rows, columns, squeeze=False)
  for axes in grid.flat[len(panels) :]:
    axes.axis("off")
  for axes, (title, values, kind) in zip(grid.flat, panels, strict=False):
    _draw_panel(axes, points, values, kind)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(f"component 1 ({shares[0]:.0%} of variance)", fontsize=8)
    axes.set_ylabel(f"component 2 ({shares[1]:.0%})", fontsize=8)
    axes.tick_params(labelsize=7)
  return figure


def _panels(
  factors: Mapping[str, np.ndarray], kinds: Mapping[str, str]
) -> list[tuple[str, np.ndarray, str]]:
  """Returns title, values and kind, which may be `color` or `none`, too."""
  panels = []
  for name, values in factors.items():
    if not len(values):
      continue
    kind = kinds.get(name) or guess_kind(values)
    size = values.shape[1]
    if name in ("color", "colour") and size == 3 and kind == "scalar":
      panels.append((name, values, "color"))
      continue
    for i, column in enumerate(values.T, start=1):
      panels.append((name if size == 1 else f"{name} {i}", column, kind))
  # Objects without factors still have a map.
  return panels or [("objects", np.zeros(0), "none")]


def guess_kind(values: np.ndarray) -> str:
  """Returns whether values [N, n] are "categorical" or "scalar"."""
  whole = values.shape[1] == 1 and np.all(values == np.round(values))
  few = len(np.unique(values)) <= _MAX_CLASSES
  return "categorical" if whole and few else "scalar"


def _draw_panel(
  axes: Axes, points: np.ndarray, values: np.ndarray, kind: str
) -> None:
  style: dict[str, Any] = {"s": 26, "linewidths": 0.4, "edgecolors": "0.3"}
  x, y = points.T
  if kind == "none":
    axes.scatter(x, y, **style)
  elif kind == "color":
    axes.scatter(x, y, c=canvas.to_rgb(values), **style)
  elif kind == "categorical":
    classes = np.unique(values)
    for value, color in zip(classes, _class_colors(classes), strict=True):
      chosen = values == value
      label = f"{value:g}"
      axes.scatter(x[chosen], y[chosen], color=[color], label=label, **style)
    axes.legend(
      fontsize=7,
      ncols=-(-len(classes) // 10),
      loc="upper left",
      bbox_to_anchor=(1.0, 1.02),
      handletextpad=0.2,
    )
  else:
    norm, cmap = None, "viridis"
    if kind == "angle":
      # A cyclic map, since 0 and 2 pi are the same angle.
      norm, cmap = colors.Normalize(0.0, 2 * np.pi), "twilight"
      values = np.mod(values, 2 * np.pi)
    drawn = axes.scatter(x, y, c=values, cmap=cmap, norm=norm, **style)
    place = axes.inset_axes((1.03, 0.0, 0.04, 1.0))
    axes.figure.colorbar(drawn, cax=place)
    place.tick_params(labelsize=7)


def _class_colors(classes: Sequence[float]) -> np.ndarray:
  """Returns a discrete colour for each class: [classes, 3]."""
  for name, size in (("tab10", 10), ("tab20", 20)):
    if len(classes) <= size:
      return matplotlib.colormaps[name](np.arange(len(classes)))[:, :3]
  return palette.slot_colors(len(classes))
