"""CLEVR-like scenes: spheres, cubes and cylinders on a grey floor.

The features are those of the public clevr_with_masks files; the pictures are
only like them, drawn by `ray_casting` instead of Blender.

Glossary: L = 11 entities (entity 0 is the background; entities that a scene
lacks come last and are zero throughout), images 240 x 320 pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from iodine.synthetic import ray_casting

HEIGHT, WIDTH = 240, 320
NUM_ENTITIES = 11
MIN_OBJECTS, MAX_OBJECTS = 3, 10

# Codes of the factors that are stored as bytes; 0 is background or absent.
# The public files do not name theirs: the order here is that of CLEVR's own
# generator, so a table of values means something only within one kind of file.
SIZES = {1: "large", 2: "small"}
MATERIALS = {1: "rubber", 2: "metal"}
SHAPES = {
  ray_casting.CUBE: "cube",
  ray_casting.SPHERE: "sphere",
  ray_casting.CYLINDER: "cylinder",
}
COLORS = {
  1: "gray",
  2: "red",
  3: "blue",
  4: "green",
  5: "brown",
  6: "purple",
  7: "cyan",
  8: "yellow",
}
# CLEVR's colours, by code - 1.
COLOR_VALUES = np.array(
  [
    [87, 87, 87],
    [173, 35, 35],
    [42, 75, 215],
    [29, 105, 20],
    [129, 74, 25],
    [129, 38, 192],
    [41, 208, 208],
    [255, 238, 51],
  ]
)
# In units of the world, by code - 1: the radius of spheres and cylinders, and
# of the circle around a cube's base.
RADII = np.array([0.7, 0.35])

# What training sees of the image.
CROP_ROWS = slice(29, 221)
CROP_COLUMNS = slice(64, 256)
# Pixels that each object must show within the crop.
MIN_VISIBLE = 100
# Least distance between the circles around two objects.
MIN_GAP = 0.25
# Objects stand on -FLOOR <= x, y <= FLOOR.
FLOOR = 3.0

# As in CLEVR's Blender scene, as are the amounts of jitter.
_CAMERA_POSITION = np.array([7.48, -6.51, 5.34])
_CAMERA_TARGET = np.array([0.0, 0.0, 0.4])
_CAMERA_JITTER = 0.5
_FOCAL = 350.0
_LIGHTS = (
  ray_casting.Light(np.array([6.4, -2.9, 8.2]), 0.55, True),
  ray_casting.Light(np.array([-4.7, -4.0, 6.0]), 0.25, True),
  ray_casting.Light(np.array([-1.1, 6.6, 5.8]), 0.15, False),
)
_LIGHT_JITTER = 1.0
_PLACEMENT_TRIES = 50


class _Objects(NamedTuple):
  """The factors of n objects.

  Attributes:
    size: [n] codes, as are the next three.
    material: [n].
    shape: [n].
    color: [n].
    rotation: [n] in degrees, as CLEVR has it.
    position: [n, 3].
  """

  size: np.ndarray
  material: np.ndarray
  shape: np.ndarray
  color: np.ndarray
  rotation: np.ndarray
  position: np.ndarray


def make_scene(rng: np.random.Generator) -> dict[str, np.ndarray]:
  """Draws a scene of 3 to 10 objects that stand apart and can be seen.

  Args:
    rng: where the randomness comes from.

  Returns:
    image [240, 320, 3] and mask [11, 240, 320, 1] (the pixels that show, 0 or
    255) as uint8; x, y, z (units of the world), rotation (degrees) and
    visibility [11] and pixel_coords [11, 3] (pixel column, pixel row, depth)
    as float32; size, material, shape and color [11] as uint8 codes.
  """
  count = int(rng.integers(MIN_OBJECTS, MAX_OBJECTS, endpoint=True))
  camera = _draw_camera(rng)
  lights = [
    light._replace(position=light.position + _jitter(rng, _LIGHT_JITTER))
    for light in _LIGHTS
  ]
  while True:
    objects = _draw_objects(rng, camera, count)
    if objects is None:
      continue
    solids = _solids(objects)
    hits = ray_casting.trace(camera, solids)
    crop = hits.owner[CROP_ROWS, CROP_COLUMNS]
    shown = np.bincount(crop.ravel(), minlength=count + 1)[1:]
    if shown.min() >= MIN_VISIBLE:
      break
  entities = np.arange(NUM_ENTITIES)[:, np.newaxis, np.newaxis]
  mask = (hits.owner == entities) * np.uint8(255)
  return {
    "image": ray_casting.shade(camera, lights, solids, hits),
    "mask": mask[..., np.newaxis],
    **_factors(objects, camera),
  }


def _draw_camera(rng: np.random.Generator) -> ray_casting.Camera:
  """Draws the camera near where CLEVR has it."""
  return ray_casting.look_at(
    _CAMERA_POSITION + _jitter(rng, _CAMERA_JITTER),
    _CAMERA_TARGET,
    _FOCAL,
    HEIGHT,
    WIDTH,
  )


def _jitter(rng: np.random.Generator, amount: float) -> np.ndarray:
  """Draws a displacement [3]."""
  return rng.uniform(-amount, amount, 3)


def _draw_objects(
  rng: np.random.Generator, camera: ray_casting.Camera, count: int
) -> _Objects | None:
  """Draws objects; None if one finds no room beside those before it."""
  size = rng.integers(1, len(SIZES), count, endpoint=True)
  shape = rng.integers(1, len(SHAPES), count, endpoint=True)
  radius = RADII[size - 1]
  position = np.zeros((count, 3))
  position[:, 2] = _half_height(size, shape)
  for index in range(count):
    for _ in range(_PLACEMENT_TRIES):
      position[index, :2] = rng.uniform(-FLOOR, FLOOR, 2)
      apart = position[:index, :2] - position[index, :2]
      gaps = np.hypot(*apart.T) - radius[:index] - radius[index]
      if (gaps >= MIN_GAP).all() and _in_crop(camera, position[index]):
        break
    else:
      return None
  return _Objects(
    size=size,
    material=rng.integers(1, len(MATERIALS), count, endpoint=True),
    shape=shape,
    color=rng.integers(1, len(COLORS), count, endpoint=True),
    rotation=rng.uniform(0, 360, count),
    position=position,
  )


def _half_height(size: np.ndarray, shape: np.ndarray) -> np.ndarray:
  """Returns half the height of objects; their lowest point is at z = 0."""
  radius = RADII[size - 1]
  return np.where(shape == ray_casting.CUBE, radius / np.sqrt(2), radius)


def _in_crop(camera: ray_casting.Camera, position: np.ndarray) -> bool:
  """Says whether a point [3] of the world falls into the crop."""
  column, row, _ = ray_casting.project(camera, position[np.newaxis])[0]
  return (
    CROP_ROWS.start <= row < CROP_ROWS.stop
    and CROP_COLUMNS.start <= column < CROP_COLUMNS.stop
  )


def _solids(objects: _Objects) -> list[ray_casting.Solid]:
  """Returns what the ray caster has to draw."""
  half_heights = _half_height(objects.size, objects.shape)
  return [
    ray_casting.Solid(
      kind=int(objects.shape[index]),
      center=objects.position[index],
      radius=float(half_heights[index]),
      angle=float(np.deg2rad(objects.rotation[index])),
      color=COLOR_VALUES[objects.color[index] - 1] / 255,
      metal=MATERIALS[int(objects.material[index])] == "metal",
    )
    for index in range(len(objects.size))
  ]


def _factors(
  objects: _Objects, camera: ray_casting.Camera
) -> dict[str, np.ndarray]:
  """Returns the factors, with the background and absent entities as zeros."""
  pixel_coords = ray_casting.project(camera, objects.position)
  # As CLEVR, which stores whole pixels.
  pixel_coords[:, :2] = np.round(pixel_coords[:, :2])
  count = len(objects.size)

  def padded(values: np.ndarray, dtype: type) -> np.ndarray:
    result = np.zeros((NUM_ENTITIES, *values.shape[1:]), dtype)
    result[1 : count + 1] = values
    return result

  visibility = padded(np.ones(count), np.float32)
  visibility[0] = 1
  return {
    "x": padded(objects.position[:, 0], np.float32),
    "y": padded(objects.position[:, 1], np.float32),
    "z": padded(objects.position[:, 2], np.float32),
    "rotation": padded(objects.rotation, np.float32),
    "pixel_coords": padded(pixel_coords, np.float32),
    "size": padded(objects.size, np.uint8),
    "material": padded(objects.material, np.uint8),
    "shape": padded(objects.shape, np.uint8),
    "color": padded(objects.color, np.uint8),
    "visibility": visibility,
  }
