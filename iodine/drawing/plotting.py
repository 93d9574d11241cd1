"""Pictures of scenes, from NumPy arrays with matplotlib; no TensorFlow here.

The plots take `info`, what `IODINE.eval` returns with NumPy arrays in place of
tensors (`evaluation.to_numpy`), and the number of a scene in that batch.

Dimensions: B scenes, T iterations + 1, K slots, L true entities, H W C image.
Source: the original's `iodine/modules/plotting.py` and notebook.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colors
from matplotlib.figure import Figure

from iodine.drawing import canvas, palette

Info = Mapping[str, Any]
_Tile = tuple[np.ndarray, str, np.ndarray | None]  # see `canvas.show`

# Tiles are about so many pixels, and rows of at most so many tiles fit on a
# screen.
_TILE = 140
_SMALL_TILE = 105
_WIDE = 10

# Refinement inputs whose three channels are those of an image.
_COLORED = ("image", "components", "dcomponents")


def example_plot(
  info: Info,
  scene: int = 0,
  iteration: int = -1,
  mask_components: bool = True,
) -> Figure:
  """Draws image, reconstruction, mask and components of one scene.

  Args:
    info: see the top of the file.
    scene: which of the batch.
    iteration: from 0 (before any refinement); negative ones from the end.
    mask_components: whether components are multiplied by their masks. They add
      up to the reconstruction then.
  """
  image = _frame(info["data"]["image"][scene], iteration, info)
  outputs = {name: values[scene] for name, values in info["outputs"].items()}
  estimate = _estimate(outputs, iteration, mask_components)
  tiles = [(image, "image", None), *estimate]
  rows = -(-len(tiles) // 8)
  columns = -(-len(tiles) // rows)
  tile = canvas.tile_size(image.shape, _TILE)
  grid = canvas.Tiles(columns, tile, [tile[0]] * rows, [30] * rows)
  for i, shown in enumerate(tiles):
    canvas.show(grid.add(*divmod(i, columns)), *shown)
  return grid.figure


def _estimate(
  outputs: Info, iteration: int, mask_components: bool
) -> list[_Tile]:
  """Returns reconstruction, mask and components of a scene's iteration."""
  masks = outputs["pred_mask"][iteration]
  components = outputs["components"][iteration]
  if mask_components:
    components = components * masks
  slots = palette.slot_colors(len(masks))
  return [
    (outputs["recons"][iteration, 0], "reconstruction", None),
    (palette.mix(masks, slots), "mask", None),
    *((x, f"slot {k + 1}", slots[k]) for k, x in enumerate(components)),
  ]


def refinement_frames(info: Info, scene: int = 0) -> list[Figure]:
  """Draws `example_plot` once for each iteration, to be animated."""
  last = info["outputs"]["recons"].shape[1] - 1
  frames = [example_plot(info, scene, t) for t in range(last + 1)]
  for t, figure in enumerate(frames):
    axes = figure.axes[1]
    axes.set_title(f"iteration {t} of {last}", fontsize=9, pad=5)
  return frames


def iterations_plot(
  info: Info, scene: int = 0, mask_components: bool = True
) -> Figure:
  """Draws all iterations of one scene, below the truth.

  The first row has the image and, where there are masks, its true mask, and the
  true entities, each above the slot that overlaps it most and in that slot's
  colour; what is left over is grey and to the right. Below come reconstruction,
  mask and components of every iteration, and the mask logits of its slots.

  Args:
    info: see the top of the file.
    scene: which of the batch.
    mask_components: as for `example_plot`.
  """
  outputs = {name: values[scene] for name, values in info["outputs"].items()}
  num_steps, num_slots = outputs["pred_mask"].shape[:2]
  truth = _truth(info, scene)
  columns = 1 + max([1 + num_slots, *truth])
  tile = _fitting_tile(info, columns)
  grid = canvas.Tiles(
    columns,
    tile,
    heights=[tile[0]] * (1 + 2 * num_steps),
    above=[30, 40, 4, *[14, 4] * (num_steps - 1)],
    margins=(95, 50),
  )
  if len(truth) > 1:
    grid.write(0, "truth")
  for column, shown in truth.items():
    canvas.show(grid.add(0, column), *shown)
  slots = palette.slot_colors(num_slots)
  logits = outputs["pred_mask_logits"][..., 0]
  scale = _scale(logits.min(), logits.max(), "viridis")
  for t in range(num_steps):
    row = 1 + 2 * t
    grid.write(row, f"iteration {t}")
    grid.write(row + 1, "mask logits")
    estimate = _estimate(outputs, t, mask_components)
    for column, (image, title, color) in enumerate(estimate):
      # Titles in the first of the rows only.
      canvas.show(grid.add(row, column), image, title if t == 0 else "", color)
    for k in range(num_slots):
      canvas.show(grid.add(row + 1, 2 + k), logits[t, k], "", slots[k], scale)
    grid.add_color_bar(row + 1, 2 + num_slots, scale)
  return grid.figure


def side_by_side_plot(runs: Sequence[tuple[str, Sequence[Info]]]) -> Figure:
  """Draws the same scenes as several models decompose them, a row a model.

  What is found of an object has its colour in the true mask, in every row.

  Args:
    runs: of each model its title, and what it makes of the scenes, each as from
      `IODINE.eval` with B = 1.
  """
  (_, first), *_ = runs
  image = _frame(first[0]["data"]["image"][0], -1, first[0])
  tile = canvas.tile_size(image.shape, _SMALL_TILE)
  room = 24 + 7 * max(len(title) for title, _ in runs)
  grid = canvas.Tiles(
    2 * len(first),
    tile,
    heights=[tile[0]] * (1 + len(runs)),
    above=[30, 40, *[8] * (len(runs) - 1)],
    margins=(max(95, room), 8),
  )
  grid.write(0, "truth")
  for i, info in enumerate(first):
    image = _frame(info["data"]["image"][0], -1, info)
    canvas.show(grid.add(0, 2 * i), image, "image")
    if "true_mask" in info["data"]:
      true_mask = _frame(info["data"]["true_mask"][0], -1, info)
      mixed = palette.mix(true_mask, palette.slot_colors(len(true_mask)))
      canvas.show(grid.add(0, 2 * i + 1), mixed, "true mask")
  for row, (title, infos) in enumerate(runs, 1):
    grid.write(row, title)
    for i, info in enumerate(infos):
      shown = info["outputs"]["recons"][0, -1, 0]
      mixed = palette.mix(info["outputs"]["pred_mask"][0, -1], _matched(info))
      titles = ("reconstruction", "mask") if row == 1 else ("", "")
      canvas.show(grid.add(row, 2 * i), shown, titles[0])
      canvas.show(grid.add(row, 2 * i + 1), mixed, titles[1])
  return grid.figure


def _matched(info: Info) -> np.ndarray:
  """Returns colours of the slots [K, 3], those of the entities they overlap."""
  pred_mask = info["outputs"]["pred_mask"][0, -1]
  if "true_mask" not in info["data"]:
    return palette.slot_colors(len(pred_mask))
  true_mask = _frame(info["data"]["true_mask"][0], -1, info)
  slots = palette.match_entities(true_mask, pred_mask)
  entities = np.full(len(pred_mask), -1)
  entities[slots[slots >= 0]] = np.flatnonzero(slots >= 0)
  return palette.entity_colors(entities, len(true_mask))


def _truth(info: Info, scene: int) -> dict[int, _Tile]:
  """Returns the first row of `iterations_plot`, by column."""
  image = _frame(info["data"]["image"][scene], -1, info)
  row: dict[int, _Tile] = {0: (image, "image", None)}
  if "true_mask" not in info["data"]:
    return row
  true_mask = _frame(info["data"]["true_mask"][scene], -1, info)
  pred_mask = info["outputs"]["pred_mask"][scene, -1]
  slots = palette.match_entities(true_mask, pred_mask)
  entity_colors = palette.entity_colors(slots, len(pred_mask))
  row[1] = (palette.mix(true_mask, entity_colors), "true mask", None)
  free = itertools.count(2 + len(pred_mask))
  for number in np.flatnonzero(true_mask.any(axis=(1, 2, 3))):
    column = 2 + slots[number] if slots[number] >= 0 else next(free)
    title = f"object {number}" if number else "background"
    masked = image * true_mask[number]
    row[int(column)] = (masked, title, entity_colors[number])
  return row


def _frame(frames: np.ndarray, iteration: int, info: Info) -> np.ndarray:
  """Returns the frame that an iteration sees: its own, or the only one."""
  num_steps = info["outputs"]["recons"].shape[1]
  return frames[min(iteration % num_steps, len(frames) - 1)]


def _fitting_tile(info: Info, columns: int) -> tuple[int, int]:
  """Returns the size of tiles of which so many stand in a row."""
  target = _TILE if columns <= _WIDE else _SMALL_TILE
  return canvas.tile_size(info["outputs"]["recons"].shape[3:5], target)


class _InputRow(NamedTuple):
  """One row of `inputs_plot`.

  Attributes:
    title: stands to its left.
    tiles: [slots or channels, H, W] or [1 or slots, H, W, 3].
    per_slot: whether the tiles are those of the slots.
    scale: what the colours stand for.
  """

  title: str
  tiles: np.ndarray
  per_slot: bool
  scale: canvas.Scale


def inputs_plot(info: Info, scene: int = 0, iteration: int = -1) -> Figure:
  """Draws every refinement input of one iteration, with colour bars.

  Inputs that the slots share come first, with a tile for each channel, then
  those that every slot has by itself, then the flat ones as one line a slot.
  They are shown as the refinement network gets them, with layer norm. Colours
  end at the 99.5th percentile of an input.

  Args:
    info: see the top of the file.
    scene: which of the batch.
    iteration: the one that they led to, from 1; negative ones from the end.

  Raises:
    ValueError: if nothing led to that iteration, or it does not exist.
  """
  num_steps, num_slots = info["outputs"]["pred_mask"].shape[1:3]
  t = iteration + num_steps if iteration < 0 else iteration
  if not 0 < t < num_steps:
    raise ValueError(
      f"no refinement led to iteration {iteration}: give 1 to {num_steps - 1}"
    )
  rows: list[_InputRow] = []
  for name, values in info["inputs"]["spatial"].items():
    # There may be no coordinates.
    rows += _input_rows(name, values[scene, t]) if values.size else []
  rows.sort(key=lambda row: row.per_slot)
  flat = {k: v[scene, t] for k, v in info["inputs"]["flat"].items()}
  columns = max([num_slots, *(len(row.tiles) for row in rows)])
  tile = _fitting_tile(info, columns)
  first = next((i for i, row in enumerate(rows) if row.per_slot), -1)
  above = [30 if i in (0, first) else 12 for i in range(len(rows))]
  grid = canvas.Tiles(
    columns,
    tile,
    heights=[tile[0]] * len(rows) + [16 * num_slots] * len(flat),
    above=above + [20] * len(flat),
    margins=(125, 50),
  )
  for i, row in enumerate(rows):
    _draw_input(grid, i, row, titled=i == first)
  for i, (name, values) in enumerate(flat.items(), start=len(rows)):
    _draw_flat_input(grid, i, columns, name, values)
  grid.figure.axes[0].set_title(
    f"inputs from iteration {t - 1} to {t}", fontsize=10, loc="left"
  )
  return grid.figure


def _input_rows(name: str, values: np.ndarray) -> list[_InputRow]:
  """Returns the rows of one input [K or 1, H, W, channels]."""
  per_slot, channels = len(values) > 1, values.shape[-1]
  scale = _fitting_scale(values)
  if channels == 3 and name in _COLORED:
    scale = _scale(0.0, 1.0, "gray")
    if name == "dcomponents":
      # Grey stands for zero.
      scale = _scale(-_limit(values), _limit(values), "gray")
      values = scale["norm"](values).data
    return [_InputRow(name, values, per_slot, scale)]
  if not per_slot:
    return [_InputRow(name, np.moveaxis(values[0], -1, 0), False, scale)]
  titles = [f"{name} {c + 1}" for c in range(channels)]
  return [
    _InputRow(title, values[..., c], True, scale)
    for c, title in enumerate(titles if channels > 1 else [name])
  ]


def _scale(low: float, high: float, cmap: str) -> canvas.Scale:
  return {"norm": colors.Normalize(low, high), "cmap": cmap}


def _fitting_scale(values: np.ndarray) -> canvas.Scale:
  """Returns the colours of values; white is zero if there are two signs."""
  if (values < 0).any():
    return _scale(-_limit(values), _limit(values), "RdBu_r")
  return _scale(0.0, _limit(values), "viridis")


def _limit(values: np.ndarray) -> float:
  """Returns the end of the scale, which one value in 200 may exceed.

  A few large ones, as gradients have, would leave the others without colour.
  """
  sizes = np.abs(values)
  return float(np.percentile(sizes, 99.5) or sizes.max()) or 1.0


def _draw_input(
  grid: canvas.Tiles, place: int, row: _InputRow, titled: bool
) -> None:
  grid.write(place, row.title)
  slots = palette.slot_colors(len(row.tiles))
  for i, values in enumerate(row.tiles):
    axes = grid.add(place, i)
    title = f"slot {i + 1}" if titled else ""
    color = slots[i] if row.per_slot else None
    canvas.show(axes, values, title, color, row.scale)
  grid.add_color_bar(place, len(row.tiles), row.scale)


def _draw_flat_input(
  grid: canvas.Tiles, place: int, columns: int, name: str, values: np.ndarray
) -> None:
  """Draws one flat input [K, features]: a line a slot."""
  grid.write(place, name, further=20)
  scale = _fitting_scale(values)
  axes = grid.add(place, 0, columns)
  axes.imshow(values, aspect="auto", **scale)
  numbers = [str(k + 1) for k in range(len(values))]
  axes.set_yticks(range(len(values)), numbers, fontsize=8)
  slots = palette.slot_colors(len(values))
  for label, color in zip(axes.get_yticklabels(), slots, strict=True):
    label.set(**canvas.patch(color, 1.0))
  grid.add_color_bar(place, columns, scale)
