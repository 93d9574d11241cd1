"""Multi-dSprites: squares, ellipses and hearts that occlude each other.

Glossary: L entities (entity 0 is the background), images 64 x 64 pixels, C
colour channels. Entities that a scene lacks come last and are zero throughout.
"""

from __future__ import annotations

import numpy as np

from iodine.synthetic import entities

SIZE = 64
SHAPES = {1: "square", 2: "ellipse", 3: "heart"}  # 0: background, absent.
SCALES = np.linspace(0.5, 1.0, 6, dtype=np.float32)  # Those of dSprites.

# At scale 1 a sprite just fits a circle of this radius in pixels. Its centre
# keeps that distance from the border: x = 0 is column 16, x = 1 column 48.
RADIUS = 16.0
_ELLIPSE_ASPECT = 0.55
# The smallest circle around the heart (x^2 + y^2 - 1)^3 = x^2 y^3 has this
# radius and its centre at (0, _HEART_CENTER).
_HEART_EXTENT = 1.25
_HEART_CENTER = 0.25

# A scene in which a sprite shows less of itself than this is drawn anew.
MIN_VISIBLE_SHARE = 0.1


def sprite_cover(
  shape: int, x: float, y: float, orientation: float, scale: float
) -> np.ndarray:
  """Returns the pixels that a sprite covers when nothing is in front of it.

  Args:
    shape: a key of `SHAPES`.
    x: horizontal position in [0, 1].
    y: vertical position in [0, 1], growing downwards.
    orientation: clockwise rotation in radians.
    scale: size, at most 1 for the sprite to stay within the image.

  Returns:
    [64, 64] bool.
  """
  centers = np.arange(SIZE, dtype=np.float32) + 0.5
  span = SIZE - 2 * RADIUS
  right = ((centers - RADIUS - span * x) / (RADIUS * scale))[np.newaxis, :]
  down = ((centers - RADIUS - span * y) / (RADIUS * scale))[:, np.newaxis]
  return is_inside(shape, right, down, orientation)


def is_inside(
  shape: int, right: np.ndarray, down: np.ndarray, orientation: float
) -> np.ndarray:
  """Returns which points lie within a sprite.

  Args:
    shape: a key of `SHAPES`.
    right: horizontal distance from the sprite's centre, [1, W] or [H, W]; the
      sprite just fits a circle of radius 1.
    down: vertical distance, growing downwards, [H, 1] or [H, W].
    orientation: clockwise rotation in radians.

  Returns:
    [H, W] bool.
  """
  cos, sin = np.cos(orientation), np.sin(orientation)
  u = cos * right + sin * down
  v = cos * down - sin * right
  if shape == 1:
    return np.maximum(np.abs(u), np.abs(v)) <= np.sqrt(0.5)
  if shape == 2:
    return u**2 + (v / _ELLIPSE_ASPECT) ** 2 <= 1
  # Rows count downwards, the formula's y upwards.
  u2, v = (_HEART_EXTENT * u) ** 2, _HEART_CENTER - _HEART_EXTENT * v
  v2 = v * v
  ring = u2 + v2 - 1
  return ring * ring * ring <= u2 * v2 * v


def colored_on_grayscale(rng: np.random.Generator) -> entities.Scene:
  """Draws 2 to 5 coloured sprites on grey; see `_make_scene` (L = 6, C = 3)."""
  return _make_scene(rng, 6, (2, 5), np.repeat(rng.random(1), 3))


def colored_on_colored(rng: np.random.Generator) -> entities.Scene:
  """Draws 1 to 4 coloured sprites on a colour (L = 5, C = 3)."""
  return _make_scene(rng, 5, (1, 4), rng.random(3))


def binarized(rng: np.random.Generator) -> entities.Scene:
  """Draws 2 to 3 white sprites on black (L = 4, C = 1)."""
  return _make_scene(rng, 4, (2, 3), np.zeros(1), white=True)


# The names are those of the public variants.
VARIANTS = (colored_on_grayscale, colored_on_colored, binarized)


def _make_scene(
  rng: np.random.Generator,
  num_entities: int,
  count_range: tuple[int, int],
  background: np.ndarray,
  white: bool = False,
) -> entities.Scene:
  """Draws a scene.

  Args:
    rng: where the randomness comes from.
    num_entities: L.
    count_range: fewest and most sprites.
    background: [C] colour in [0, 1].
    white: whether sprites are white rather than of any colour.

  Returns:
    image [64, 64, C] and mask [64, 64, L, 1] (the pixels that show, 0 or 255)
    as uint8; x and y (in [0, 1]), shape (a key of `SHAPES`), visibility,
    orientation (radians), scale [L] and color [L, C] (in [0, 1]) as float32.
  """
  count = int(rng.integers(*count_range, endpoint=True))
  while True:
    drawn = {
      "shape": rng.integers(1, len(SHAPES), count, endpoint=True),
      "x": rng.random(count),
      "y": rng.random(count),
      "orientation": rng.uniform(0, 2 * np.pi, count),
      "scale": rng.choice(SCALES, count),
    }
    sprites = {
      name: values.astype(np.float32) for name, values in drawn.items()
    }
    each = zip(*(values.tolist() for values in sprites.values()), strict=True)
    covers = np.stack([sprite_cover(*sprite) for sprite in each])
    owner = entities.owners(covers)
    shares = entities.shown(owner, count) / covers.sum(axis=(1, 2))
    if shares.min() >= MIN_VISIBLE_SHARE:
      break
  shape = (count, len(background))
  color = entities.pad(
    np.ones(shape) if white else rng.random(shape), num_entities
  )
  color[0] = background
  return {
    "image": np.round(255 * color).astype(np.uint8)[owner],
    "mask": np.moveaxis(entities.masks(owner, num_entities), 0, 2),
    "color": color,
    **{name: entities.pad(v, num_entities) for name, v in sprites.items()},
    "visibility": entities.visibility(count, num_entities),
  }
