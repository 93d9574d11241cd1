"""Pictures of latents, from NumPy arrays; no TensorFlow here.

`pictures` computes what they show.

Dimensions: N samples or objects, R latents, V values, K slots, H W C image,
Z latent size.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iodine.drawing import canvas, palette
from iodine.drawing.canvas import Row, Tile

_MAX_CLASSES = 20
_SCENE = "the whole scene"
_SAMPLES = 8  # tiles in a row
# Of classes; each but the first has all colours again.
_MARKERS = "osD^vPX"


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
    components: [R, 1 + V, H, W, C] the slot's.
    masks: [R, 1 + V, H, W, 1] its mask.
  """

  slot: int
  num_slots: int
  latents: np.ndarray
  kl: np.ndarray
  values: np.ndarray
  inferred: np.ndarray
  recons: np.ndarray
  components: np.ndarray
  masks: np.ndarray


def traversal_plot(traversal: Traversal, masked: bool = True) -> Figure:
  """Draws a row for each latent: the slot by itself, and the whole scene.

  Both halves begin with the slot as inferred, the same in all rows; a latent
  takes the values above the columns.

  Args:
    traversal: which.
    masked: whether the slot is cut out by its mask; else it is whole.
  """
  titles = ["inferred", *(f"{value:+g}" for value in traversal.values)]
  colors = palette.slot_colors(traversal.num_slots)[[traversal.slot]]
  rows, slot = [], _slot(traversal, masked)
  for r, latent in enumerate(traversal.latents):
    left, right = (
      canvas.make_row(images[r], titles, colors=colors).tiles
      for images in (slot, traversal.recons)
    )
    label = f"latent {latent}, is {traversal.inferred[r]:+.1f}\n"
    label += f"KL {traversal.kl[r]:.1f} nats"
    rows.append(Row([*left, None, *right], label))
  unit = "; latents set to so many standard deviations of the prior"
  unit = "" if canvas.style().is_paper else unit
  heads = {0: f"{_name(traversal)}{unit}", len(titles) + 1: f"{_SCENE}{unit}"}
  return canvas.Tiles(rows, heads).figure


def traversal_frames(traversal: Traversal, masked: bool = True) -> list[Figure]:
  """Draws the changes as the frames of a film, all latents in a row.

  The film goes through the values and back.

  Args:
    traversal: which; what was inferred is left out.
    masked: as for `traversal_plot`.
  """
  names = [f"latent {latent}" for latent in traversal.latents]
  frames, slot = [], _slot(traversal, masked)
  for v, value in enumerate(traversal.values, start=1):
    rows = [
      canvas.make_row(traversal.recons[:, v], names, _SCENE),
      canvas.make_row(slot[:, v], names, _name(traversal)),
    ]
    heads = {0: f"{value:+.2f} σ of the prior"}
    frames.append(canvas.Tiles(rows, heads).figure)
  return frames + frames[-2::-1]


def _name(traversal: Traversal) -> str:
  return f"slot {traversal.slot + 1} by itself"


def _slot(traversal: Traversal, masked: bool) -> np.ndarray:
  """Returns what is shown of the slot: [R, 1 + V, H, W, C]."""
  if masked:
    return palette.cut_out(traversal.components, traversal.masks)
  return traversal.components


def samples_plot(images: np.ndarray, masks: np.ndarray) -> Figure:
  """Images from the prior, each beside its mask, on a grid.

  Args:
    images: [N, H, W, C].
    masks: [N, K, H, W, 1].
  """
  mixed = palette.mix(masks, palette.slot_colors(masks.shape[1]))
  tiles = [
    tile
    for image, mask in zip(images, mixed, strict=True)
    for tile in (Tile(image, "sample"), Tile(mask, "mask"))
  ]
  starts = range(0, len(tiles), _SAMPLES)
  return canvas.Tiles([Row(tiles[i : i + _SAMPLES]) for i in starts]).figure


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
  figure, grid = canvas.new_chart(480 * columns, 400 * rows, rows, columns)
  for axes in grid.flat[len(panels) :]:
    axes.remove()
  for axes, (title, values, kind) in zip(grid.flat, panels, strict=False):
    _draw_panel(axes, points, values, kind)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(f"component 1 ({shares[0]:.0%} of variance)", fontsize=9)
    axes.set_ylabel(f"component 2 ({shares[1]:.0%})", fontsize=9)
    axes.tick_params(labelsize=8)
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
    marks = itertools.product(_MARKERS, palette.slot_colors(8)[1:])
    for value, (marker, color) in zip(
      classes, itertools.cycle(marks), strict=False
    ):
      style |= {"marker": marker, "color": [color], "label": f"{value:g}"}
      axes.scatter(x[values == value], y[values == value], **style)
    axes.legend(
      fontsize=8,
      ncols=-(-len(classes) // 10),
      loc="upper left",
      bbox_to_anchor=(1.0, 1.02),
      handletextpad=0.2,
      columnspacing=0.5,
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
    place.tick_params(labelsize=8)
