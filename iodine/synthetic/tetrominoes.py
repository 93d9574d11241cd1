"""Tetrominoes: three tetrominoes on black, as the public files have them.

Glossary: L = 4 entities (entity 0 is the background), images 35 x 35 pixels,
every tetromino made of four bevelled blocks of 5 x 5 pixels.
"""

from __future__ import annotations

import itertools

import numpy as np

SIZE = 35
BLOCK = 5
NUM_SHAPES = 3

# Cells of the shapes by their code. Read off scenes of the public file, but
# for 1, 4 and 8: those do not occur in the scenes at hand, and are what is
# left of the 19 tetrominoes (counting rotations and reflections).
SHAPES: dict[int, np.ndarray] = {
  code: np.array([[int(cell) for cell in row] for row in rows.split("/")], bool)
  for code, rows in {
    1: "1111",
    2: "1/1/1/1",
    3: "111/100",
    4: "100/111",
    5: "001/111",
    6: "111/001",
    7: "11/01/01",
    8: "01/01/11",
    9: "11/10/10",
    10: "10/10/11",
    11: "110/011",
    12: "011/110",
    13: "01/11/10",
    14: "10/11/01",
    15: "010/111",
    16: "111/010",
    17: "01/11/01",
    18: "10/11/10",
    19: "11/11",
  }.items()
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

# Per code the pixels that the shape covers, and their brightness: [h, w].
_COVERS = {
  code: np.kron(cells, np.ones((BLOCK, BLOCK), bool))
  for code, cells in SHAPES.items()
}
_SHADES = {
  code: np.kron(cells.astype(np.uint8), BEVEL) for code, cells in SHAPES.items()
}

# Heights and widths in pixels, [19, 2], by code - 1.
_EXTENTS = np.array([cover.shape for cover in _COVERS.values()])


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
  image = np.zeros((SIZE, SIZE, 3), np.uint8)
  mask = np.zeros((len(shape), SIZE, SIZE, 1), np.uint8)
  mask[0] = 255
  for entity in range(1, len(shape)):
    covers = _COVERS[int(shape[entity])]
    shades = _SHADES[int(shape[entity])]
    # FIDELITY: `x` counts rows and `y` columns in the public files.
    top, left = int(x[entity]), int(y[entity])
    rows = slice(top, top + covers.shape[0])
    columns = slice(left, left + covers.shape[1])
    channels = color[entity].astype(np.uint8)
    # Shapes do not overlap, so where one is 0 it must leave the others be.
    image[rows, columns] += shades[..., np.newaxis] * channels
    mask[entity, rows, columns, 0] = covers * np.uint8(255)
    mask[0, rows, columns, 0][covers] = 0
  return image, mask


def make_scene(rng: np.random.Generator) -> dict[str, np.ndarray]:
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
    corners = rng.integers(0, SIZE - _EXTENTS[shape - 1] + 1)
    if not _overlap(shape, corners):
      break
  colors = COLORS[rng.integers(0, len(COLORS), NUM_SHAPES)]

  def with_background(values: np.ndarray) -> np.ndarray:
    background = np.zeros_like(values[:1])
    return np.concatenate([background, values]).astype(np.float32)

  factors = {
    "shape": with_background(shape),
    "x": with_background(corners[:, 0]),
    "y": with_background(corners[:, 1]),
    "color": with_background(colors),
  }
  image, mask = render(**factors)
  visibility = np.ones(NUM_SHAPES + 1, np.float32)
  return {"image": image, "mask": mask, "visibility": visibility, **factors}


def _overlap(shape: np.ndarray, corners: np.ndarray) -> bool:
  """Says whether any two shapes (codes [n], corners [n, 2]) share a pixel."""
  pieces = [
    (_COVERS[code], top, left)
    for code, (top, left) in zip(shape.tolist(), corners.tolist(), strict=True)
  ]
  for one, other in itertools.combinations(pieces, 2):
    (a, a_top, a_left), (b, b_top, b_left) = one, other
    top, left = max(a_top, b_top), max(a_left, b_left)
    bottom = min(a_top + a.shape[0], b_top + b.shape[0])
    right = min(a_left + a.shape[1], b_left + b.shape[1])
    if top >= bottom or left >= right:
      continue
    shared_a = a[top - a_top : bottom - a_top, left - a_left : right - a_left]
    shared_b = b[top - b_top : bottom - b_top, left - b_left : right - b_left]
    if (shared_a & shared_b).any():
      return True
  return False
