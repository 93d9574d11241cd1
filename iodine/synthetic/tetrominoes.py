"""Tetrominoes: three tetrominoes on black, as the public files have them.

Glossary: L = 4 entities (entity 0 is the background), images 35 x 35 pixels,
every tetromino made of four bevelled blocks of 5 x 5 pixels.
"""

from __future__ import annotations

import numpy as np

from iodine.synthetic import entities

SIZE = 35
NUM_SHAPES = 3

# Cells of the shapes by their code, from 1. Read off scenes of the public file,
# but for 1, 4 and 8: those do not occur in the scenes at hand, and are what is
# left of the 19 tetrominoes (counting rotations and reflections).
_ROWS = """
  1111 1/1/1/1
  111/100 100/111 001/111 111/001 11/01/01 01/01/11 11/10/10 10/10/11
  110/011 011/110 01/11/10 10/11/01
  010/111 111/010 01/11/01 10/11/10
  11/11
"""
SHAPES: dict[int, np.ndarray] = {
  code: np.array([list(row) for row in rows.split("/")]) == "1"
  for code, rows in enumerate(_ROWS.split(), start=1)
}

# Red, green, blue, yellow, magenta, cyan.
COLORS = np.array(
  [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]],
  np.float32,
)

# What a colour channel of 1 looks like in a block.
BEVEL = np.array(
  [
    [191, 255, 255, 255, 223],
    [127, 159, 159, 159, 191],
    [127, 159, 159, 159, 191],
    [127, 159, 159, 159, 191],
    [95, 63, 63, 63, 127],
  ],
  np.uint8,
)

# Brightness of the shapes by their code, [h, w]; 0 where they do not cover.
_SHADES = {
  code: np.kron(cells.astype(np.uint8), BEVEL) for code, cells in SHAPES.items()
}

# Heights and widths in pixels, [19, 2], by code - 1.
_EXTENTS = np.array([shades.shape for shades in _SHADES.values()])


def render(
  shape: np.ndarray, x: np.ndarray, y: np.ndarray, color: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Draws a scene from its factors.

  Args:
    shape: [L] codes, keys of `SHAPES`; entry 0 (the background) is ignored.
    x: [L] top row in pixels.
    y: [L] left column in pixels.
    color: [L, 3], 0 or 1.

  Returns:
    image [35, 35, 3] uint8 and mask [L, 35, 35, 1] uint8, 0 or 255.
  """
  blocks = _blocks(shape[1:], x[1:], y[1:])
  owner = entities.owners(blocks > 0)
  # Shapes do not overlap.
  brightness = blocks.max(axis=0)[..., None]
  image = brightness * color[owner].astype(np.uint8)
  return image, entities.masks(owner, len(shape))


def _blocks(shape: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Returns how bright each of n shapes is where it covers: [n, 35, 35]."""
  blocks = np.zeros((len(shape), SIZE, SIZE), np.uint8)
  # FIDELITY: `x` counts rows and `y` columns in the public files.
  for block, code, top, left in zip(
    blocks, shape.astype(int), x.astype(int), y.astype(int), strict=True
  ):
    height, width = _SHADES[code].shape
    block[top : top + height, left : left + width] = _SHADES[code]
  return blocks


def make_scene(rng: np.random.Generator) -> entities.Scene:
  """Draws a scene of three tetrominoes inside the image without overlap.

  Args:
    rng: where the randomness comes from.

  Returns:
    image [35, 35, 3] and mask [4, 35, 35, 1] as uint8; x, y, shape and
    visibility [4] and color [4, 3] as float32. x and y are the top row and
    the left column in pixels, shape a key of `SHAPES` (0: background).
  """
  while True:
    shape = rng.integers(1, len(SHAPES) + 1, NUM_SHAPES)
    # Any whole pixel where the shape fits: rows and columns, [3, 2].
    x, y = rng.integers(0, SIZE - _EXTENTS[shape - 1] + 1).T
    if np.count_nonzero(_blocks(shape, x, y), axis=0).max() == 1:
      break
  colors = COLORS[rng.integers(0, len(COLORS), NUM_SHAPES)]
  drawn = {"shape": shape, "x": x, "y": y, "color": colors}
  factors = {k: entities.pad(v, NUM_SHAPES + 1) for k, v in drawn.items()}
  image, mask = render(**factors)
  visibility = entities.visibility(NUM_SHAPES, NUM_SHAPES + 1)
  return {"image": image, "mask": mask, "visibility": visibility, **factors}
