"""Films of sprites that move, bounce off the border and pass each other.

Glossary: T frames, L entities (entity 0 is the background), images 24 x 24
pixels of 3 colour channels. Entities that a film lacks come last and are zero
throughout. The sprites are those of `multi_dsprites`, on dark grey.
"""

from __future__ import annotations

import colorsys
from typing import NamedTuple

import numpy as np

from iodine.synthetic import entities, multi_dsprites

SCALES = np.linspace(0.75, 1.0, 3, dtype=np.float32)
SPEEDS = (0.5, 1.5)  # pixels a frame
MAX_GRAY = 0.2  # of the background


class Kind(NamedTuple):
  """What all films of a kind have, those of this file or others.

  Attributes:
    size: rows and columns of a frame.
    num_frames: T.
    num_entities: L.
    radius: in pixels. At scale 1 a sprite just fits a circle of it. It bounces
      where that circle meets the border, whatever its own scale.
    min_visible_share: films are drawn anew where a sprite shows less of itself
      in the first frame. Later ones may hide it.
  """

  size: int = 24
  num_frames: int = 10
  num_entities: int = 4
  radius: float = 4.5
  min_visible_share: float = 0.75


KIND = Kind()


def make_film(rng: np.random.Generator) -> entities.Scene:
  """Draws a film of 1 to 3 sprites; later ones pass in front.

  Args:
    rng: where the randomness comes from.

  Returns:
    image [T, 24, 24, 3] uint8; mask [T, 24, 24] uint8, the number of the
    entity that shows, the same one in all frames; visibility [L], color [L, 3]
    (in [0, 1]), shape [L, 1] (a key of `multi_dsprites.SHAPES`) and scale
    [L, 1], all float32.
  """
  film, _ = draw(rng, KIND)
  return film


def draw(
  rng: np.random.Generator, kind: Kind
) -> tuple[entities.Scene, np.ndarray]:
  """Draws a film, see `make_film`, and returns where its sprites are.

  Args:
    rng: where the randomness comes from.
    kind: of the film.

  Returns:
    The film, and x and y of the sprites' centres in pixels [n, T, 2].
  """
  count = int(rng.integers(1, kind.num_entities))
  while True:
    shape = rng.integers(1, len(multi_dsprites.SHAPES), count, endpoint=True)
    scale = rng.choice(SCALES, count)
    orientation = rng.uniform(0, 2 * np.pi, count)
    places = paths(rng, count, kind).swapaxes(0, 1)
    sprites = zip(shape, places, orientation, scale, strict=True)
    covers = np.stack([_cover(kind, *sprite) for sprite in sprites])
    mask = entities.owners(covers)
    shares = entities.shown(mask[0], count) / covers[:, 0].sum(axis=(1, 2))
    if shares.min() >= kind.min_visible_share:
      break
  gray = rng.uniform(0, MAX_GRAY)
  color = entities.pad(_colors(rng, count), kind.num_entities)
  color[0] = gray
  film = {
    "image": np.round(255 * color).astype(np.uint8)[mask],
    "mask": mask,
    "visibility": entities.visibility(count, kind.num_entities),
    "color": color,
    "shape": entities.pad(shape[:, None], kind.num_entities),
    "scale": entities.pad(scale[:, None], kind.num_entities),
  }
  return film, places


def paths(
  rng: np.random.Generator, count: int, kind: Kind = KIND
) -> np.ndarray:
  """Draws where sprites are, which move straight on between the borders.

  Returns:
    [T, count, 2]: x and y of the centres in pixels, y growing downwards.
  """
  room = kind.size - 2 * kind.radius
  start = rng.uniform(0, room, (count, 2))
  angle = rng.uniform(0, 2 * np.pi, count)
  speed = rng.uniform(*SPEEDS, count)[:, None]
  velocity = speed * np.stack([np.cos(angle), np.sin(angle)], axis=1)
  straight = start + velocity * np.arange(kind.num_frames)[:, None, None]
  # Folded at the borders, which reflect.
  return kind.radius + room - np.abs(straight % (2 * room) - room)


def _cover(
  kind: Kind, shape: int, places: np.ndarray, orientation: float, scale: float
) -> np.ndarray:
  """Returns the pixels that a sprite at places [T, 2] covers, [T, H, W]."""
  centers = np.arange(kind.size) + 0.5
  offsets = (centers - places[:, :, None]) / (kind.radius * scale)
  x, y = offsets[:, 0, None, :], offsets[:, 1, :, None]
  return multi_dsprites.is_inside(shape, x, y, orientation)


def _colors(
  rng: np.random.Generator, count: int
) -> list[tuple[float, float, float]]:
  """Draws colours that stand out against dark grey, of hues that differ."""
  # At least a sixth of the circle apart where there are three.
  hues = rng.random() + (np.arange(count) + rng.uniform(0, 0.5, count)) / count
  lights = rng.uniform([0.5, 0.7], 1.0, (count, 2))
  return [
    colorsys.hsv_to_rgb(hue % 1, saturation, value)
    for hue, (saturation, value) in zip(hues, lights, strict=True)
  ]
