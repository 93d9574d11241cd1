"""Pictures of scenes, from NumPy arrays with matplotlib; no TensorFlow here.

The plots take `info`, what `IODINE.eval` returns with NumPy arrays in place of
tensors (`evaluation.to_numpy`), and the number of a scene in that batch.

Dimensions: B scenes, T iterations + 1, K slots, L true entities, H W C image.
Source: the original's `iodine/modules/plotting.py` and notebook.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colors
from matplotlib.figure import Figure

from iodine.drawing import canvas, palette
from iodine.drawing.canvas import Row, Tile

Info = Mapping[str, Any]
# Scenes by their numbers, each as from `IODINE.eval` with B = 1.
Scenes = Mapping[int, Info]

# In a row without labels.
_MOST_TILES = 8

# Refinement inputs whose three channels are those of an image.
_COLORED = ("image", "components", "dcomponents")


def example_plot(
  info: Info, scene: int = 0, iteration: int = -1, masked: bool = True
) -> Figure:
  """Draws image, reconstruction, mask and components of one scene.

  Args:
    info: see the top of the file.
    scene: which of the batch.
    iteration: from 0 (before any refinement); negative ones from the end.
    masked: whether components are cut out by their masks; else they are whole.
  """
  tiles = _scene_tiles(info, scene, iteration, masked)
  columns = -(-len(tiles) // -(-len(tiles) // _MOST_TILES))
  starts = range(0, len(tiles), columns)
  return canvas.Tiles([Row(tiles[i : i + columns]) for i in starts]).figure


def overview_plot(scenes: Scenes, masked: bool = True) -> Figure:
  """Draws what `example_plot` does, a row a scene."""
  rows = [
    Row(_scene_tiles(info, 0, -1, masked), f"scene {number}")
    for number, info in scenes.items()
  ]
  return canvas.Tiles(rows).figure


def sequence_plot(
  scenes: Scenes, iterations: Sequence[int] | None = None
) -> Figure:
  """Draws image, reconstruction and mask of scenes, a column an iteration.

  Args:
    scenes: which.
    iterations: from 0; None for all.
  """
  rows: dict[str, list[Tile]] = {}
  for number, info in scenes.items():
    for t in _iterations(info, iterations):
      for tile in _scene_tiles(info, 0, t)[:3]:
        label = f"scene {number}, {tile.title}"
        titled = tile._replace(title=f"iteration {t}")
        rows.setdefault(label, []).append(titled)
  return canvas.Tiles([Row(x, label) for label, x in rows.items()]).figure


def _iterations(info: Info, chosen: Sequence[int] | None) -> Sequence[int]:
  return chosen or range(info["outputs"]["recons"].shape[1])


def _scene_tiles(
  info: Info, scene: int, iteration: int, masked: bool = True
) -> list[Tile]:
  """Returns image, reconstruction, mask and components of an iteration."""
  image = _frame(info["data"]["image"][scene], iteration, info)
  outputs, at = info["outputs"], (scene, iteration)
  masks, components = outputs["pred_mask"][at], outputs["components"][at]
  if masked:
    components = palette.cut_out(components, masks)
  slots = palette.slot_colors(len(masks))
  return [
    Tile(image, "image"),
    Tile(outputs["recons"][at][0], "reconstruction"),
    Tile(palette.mix(masks, slots), "mask"),
    *(Tile(x, f"slot {k + 1}", slots[k]) for k, x in enumerate(components)),
  ]


def refinement_frames(
  info: Info, scene: int = 0, masked: bool = True
) -> list[Figure]:
  """Draws `example_plot` once for each iteration, to be animated."""
  last = info["outputs"]["recons"].shape[1] - 1
  frames = [example_plot(info, scene, t, masked) for t in range(last + 1)]
  for t, figure in enumerate(frames):
    figure.axes[1].title.set_text(f"iteration {t} of {last}")
  return frames


def iterations_plot(
  info: Info,
  scene: int = 0,
  masked: bool = True,
  iterations: Sequence[int] | None = None,
) -> Figure:
  """Draws the iterations of one scene, below the truth.

  The first row has the image and, where there are masks, its true mask, and the
  true entities, each above the slot that overlaps it most and in that slot's
  colour; what is left over is grey and to the right. Below come reconstruction,
  mask and components of every iteration, and the mask logits of its slots.

  Args:
    info: see the top of the file.
    scene: which of the batch.
    masked: as for `example_plot`.
    iterations: from 0; None for all.
  """
  logits = info["outputs"]["pred_mask_logits"][scene, ..., 0]
  slots = palette.slot_colors(logits.shape[1])
  scale = _scale(logits.min(), logits.max(), "viridis")
  truth = _truth(info, scene)
  rows = [Row(truth, "truth" if len(truth) > 1 else "")]
  for t in _iterations(info, iterations):
    _, *estimate = _scene_tiles(info, scene, t, masked)
    rows.append(Row(estimate, f"iteration {t}"))
    row = canvas.make_row(logits[t], (), "mask logits", slots, scale)
    rows.append(row._replace(tiles=[None, None, *row.tiles]))
  return canvas.Tiles(rows).figure


def compared_tiles(infos: Iterable[Info]) -> list[Tile]:
  """Returns image, reconstruction and mask of each scene.

  What is found of an object has the same colour whichever model finds it.

  Args:
    infos: of the scenes, each as from `IODINE.eval` with B = 1.
  """
  tiles = []
  for info in infos:
    image, reconstruction, mask, *_ = _scene_tiles(info, 0, -1)
    if "true_mask" in info["data"]:
      pred_mask = info["outputs"]["pred_mask"][0, -1]
      true_mask = _frame(info["data"]["true_mask"][0], -1, info)
      entities = palette.match_entities(pred_mask, true_mask)
      colors = palette.entity_colors(entities, len(true_mask))
      mask = Tile(palette.mix(pred_mask, colors), "mask")
    tiles += [image, reconstruction, mask]
  return tiles


def _truth(info: Info, scene: int) -> list[Tile | None]:
  """Returns the first row of `iterations_plot`."""
  row = [Tile(_frame(info["data"]["image"][scene], -1, info), "image")]
  if "true_mask" not in info["data"]:
    return [*row]
  true_mask = _frame(info["data"]["true_mask"][scene], -1, info)
  pred_mask = info["outputs"]["pred_mask"][scene, -1]
  slots = palette.match_entities(true_mask, pred_mask)
  entity_colors = palette.entity_colors(slots, len(pred_mask))
  places: dict[int, Tile] = {}
  free = itertools.count(len(pred_mask))
  for number in np.flatnonzero(true_mask.any(axis=(1, 2, 3))):
    title = f"object {number}" if number else "background"
    seen = palette.cut_out(row[0].image, true_mask[number])
    place = slots[number] if slots[number] >= 0 else next(free)
    places[int(place)] = Tile(seen, title, entity_colors[number])
  row.append(Tile(palette.mix(true_mask, entity_colors), "true mask"))
  return [*row, *(places.get(i) for i in range(max(places, default=-1) + 1))]


def _frame(frames: np.ndarray, iteration: int, info: Info) -> np.ndarray:
  """Returns the frame that an iteration sees: its own, or the only one."""
  num_steps = info["outputs"]["recons"].shape[1]
  return frames[min(iteration % num_steps, len(frames) - 1)]


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
  rows: list[Row] = []
  for name, values in info["inputs"]["spatial"].items():
    # There may be no coordinates.
    rows += _input_rows(name, values[scene, t]) if values.size else []
  # Those of the slots have titles, see `_input_rows`.
  rows.sort(key=lambda row: any(tile and tile.title for tile in row.tiles))
  flat = {k: v[scene, t] for k, v in info["inputs"]["flat"].items()}
  head = f"inputs from iteration {t - 1} to {t}"
  heads = {} if canvas.style().is_paper else {0: head}
  grid = canvas.Tiles(rows, heads, dict.fromkeys(flat, 16 * num_slots))
  for place, values in enumerate(flat.values(), start=len(rows)):
    _draw_flat_input(grid, place, values)
  return grid.figure


def _input_rows(name: str, values: np.ndarray) -> list[Row]:
  """Returns the rows of one input [K or 1, H, W, channels]."""
  per_slot, channels = len(values) > 1, values.shape[-1]
  scale = _fitting_scale(values)
  if channels == 3 and name in _COLORED:
    scale = _scale(0.0, 1.0, "gray")
    if name == "dcomponents":
      # Grey stands for zero.
      scale = _scale(-_limit(values), _limit(values), "gray")
      values = scale["norm"](values).data
    parts = {name: values}
  elif not per_slot:
    parts = {name: np.moveaxis(values[0], -1, 0)}
  else:
    numbers = [f" {c + 1}" for c in range(channels)] if channels > 1 else [""]
    parts = {f"{name}{x}": values[..., c] for c, x in enumerate(numbers)}
  slots = palette.slot_colors(len(values) * per_slot)
  names = [f"slot {k + 1}" for k in range(len(slots))]
  return [
    canvas.make_row(images, names, label, slots, scale)
    for label, images in parts.items()
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


def _draw_flat_input(
  grid: canvas.Tiles, place: int, values: np.ndarray
) -> None:
  """Draws one flat input [K, features]: a line a slot."""
  scale = _fitting_scale(values)
  axes = grid.add(place, 0, grid.columns)
  axes.imshow(values, aspect="auto", **scale)
  numbers = [str(k + 1) for k in range(len(values))]
  axes.set_yticks(range(len(values)), numbers, fontsize=8)
  slots = palette.slot_colors(len(values))
  for label, color in zip(axes.get_yticklabels(), slots, strict=True):
    label.set(**canvas.patch(color, 1.0))
  grid.add_color_bar(place, grid.columns, scale)
