"""CLEVR-like scenes: spheres, cubes and cylinders on a grey floor.

The features are those of the public clevr_with_masks files; the pictures are
only like them, drawn by `ray_casting` instead of Blender.

Glossary: L = 11 entities (entity 0 is the background; entities that a scene
lacks come last and are zero throughout), images 240 x 320 pixels.
"""

from __future__ import annotations

import numpy as np

from iodine.synthetic import entities, ray_casting

HEIGHT, WIDTH = 240, 320
NUM_ENTITIES = 11
MIN_OBJECTS, MAX_OBJECTS = 3, 10

# Factors that are stored as bytes: codes count from 1 in this order, 0 is
# background or absent. The public files do not name theirs: the order here is
# that of CLEVR's own generator, so a table of values means something only
# within one kind of file.
#
# Sizes in units of the world: the radius of spheres and cylinders, and of the
# circle around a cube's base.
SIZES = {"large": 0.7, "small": 0.35}
MATERIALS = ("rubber", "metal")
SHAPES = ("cube", "sphere", "cylinder")  # as the kinds of `ray_casting`
COLORS = {
  "gray": (87, 87, 87),
  "red": (173, 35, 35),
  "blue": (42, 75, 215),
  "green": (29, 105, 20),
  "brown": (129, 74, 25),
  "purple": (129, 38, 192),
  "cyan": (41, 208, 208),
  "yellow": (255, 238, 51),
}

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


def make_scene(rng: np.random.Generator) -> entities.Scene:
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
  camera = ray_casting.look_at(
    _CAMERA_POSITION + _jitter(rng, _CAMERA_JITTER),
    _CAMERA_TARGET,
    _FOCAL,
    (HEIGHT, WIDTH),
  )
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
    in_crop = hits.owner[CROP_ROWS, CROP_COLUMNS]
    if entities.shown(in_crop, count).min() >= MIN_VISIBLE:
      break
  image = ray_casting.shade(camera, lights, solids, hits)
  mask = entities.masks(hits.owner, NUM_ENTITIES)
  factors = {k: entities.pad(v, NUM_ENTITIES) for k, v in objects.items()}
  visibility = entities.visibility(count, NUM_ENTITIES)
  return {"image": image, "mask": mask, **factors, "visibility": visibility}


def _jitter(rng: np.random.Generator, amount: float) -> np.ndarray:
  """Draws a displacement [3]."""
  return rng.uniform(-amount, amount, 3)


def _draw_objects(
  rng: np.random.Generator, camera: ray_casting.Camera, count: int
) -> entities.Scene | None:
  """Draws the factors of objects; None if one finds no room beside others."""
  size = rng.integers(1, len(SIZES), count, endpoint=True)
  shape = rng.integers(1, len(SHAPES), count, endpoint=True)
  radius = np.array([*SIZES.values()])[size - 1]
  position = np.zeros((count, 3))
  # The lowest point is at z = 0.
  is_cube = shape == ray_casting.CUBE
  position[:, 2] = np.where(is_cube, radius / np.sqrt(2), radius)
  for index in range(count):
    for _ in range(_PLACEMENT_TRIES):
      position[index, :2] = rng.uniform(-FLOOR, FLOOR, 2)
      apart = position[:index, :2] - position[index, :2]
      gaps = np.hypot(*apart.T) - radius[:index] - radius[index]
      if (gaps >= MIN_GAP).all() and _in_crop(camera, position[index]):
        break
    else:
      return None
  material = rng.integers(1, len(MATERIALS), count, endpoint=True)
  color = rng.integers(1, len(COLORS), count, endpoint=True)
  rotation = rng.uniform(0, 360, count)
  pixel_coords = ray_casting.project(camera, position)
  # As CLEVR, which stores whole pixels.
  pixel_coords[:, :2] = np.round(pixel_coords[:, :2])
  x, y, z = position.T
  codes = {"size": size, "material": material, "shape": shape, "color": color}
  return {
    **{"x": x, "y": y, "z": z, "rotation": rotation},
    "pixel_coords": pixel_coords,
    **{name: values.astype(np.uint8) for name, values in codes.items()},
  }


def _in_crop(camera: ray_casting.Camera, position: np.ndarray) -> bool:
  """Says whether a point [3] of the world falls into the crop."""
  column, row, _ = ray_casting.project(camera, position[None])[0]
  return (
    CROP_ROWS.start <= row < CROP_ROWS.stop
    and CROP_COLUMNS.start <= column < CROP_COLUMNS.stop
  )


def _solids(objects: entities.Scene) -> list[ray_casting.Solid]:
  """Returns what the ray caster has to draw."""
  colors = np.array([*COLORS.values()]) / 255
  centers = np.stack([objects[axis] for axis in "xyz"], axis=1)
  return [
    ray_casting.Solid(
      kind=int(objects["shape"][i]),
      center=center,
      radius=float(center[2]),
      angle=float(np.deg2rad(objects["rotation"][i])),
      color=colors[objects["color"][i] - 1],
      metal=MATERIALS[objects["material"][i] - 1] == "metal",
    )
    for i, center in enumerate(centers)
  ]
