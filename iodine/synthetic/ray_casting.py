"""A small ray caster: solids on a floor under point lights, in NumPy.

Glossary: N rays or points, H x W pixels, S solids. World coordinates have z
upwards and the floor at z = 0. Each solid is a unit solid (a cube of edge 2, a
ball of radius 1, an upright cylinder of radius 1 and height 2) that is
scaled, turned about z and moved; intersections are computed in those unit
coordinates. Rays are not normalized: seen from the camera, their parameter is
the depth along the optical axis.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CUBE, SPHERE, CYLINDER = 1, 2, 3

_UNIT_CORNERS = np.array(list(itertools.product([-1.0, 1.0], repeat=3)))

# Normals bend this sharply towards the neighbouring face, which looks like
# a bevelled edge; an even number.
_EDGE_SHARPNESS = 16

_FLOOR_COLOR = np.array([0.60, 0.59, 0.58], np.float32)
_AMBIENT = 0.42


class Camera(NamedTuple):
  """A pinhole camera.

  Attributes:
    position: [3].
    axes: [3, 3], the unit vectors right, down and forward, in rows.
    focal: focal length in pixels.
    shape: (H, W).
  """

  position: np.ndarray
  axes: np.ndarray
  focal: float
  shape: tuple[int, int]


class Solid(NamedTuple):
  """One object.

  Attributes:
    kind: CUBE, SPHERE or CYLINDER.
    center: [3].
    radius: half the height (and for a cube half the edge).
    angle: rotation about z in radians.
    color: [3] in [0, 1].
    metal: metal rather than rubber.
  """

  kind: int
  center: np.ndarray
  radius: float
  angle: float
  color: np.ndarray
  metal: bool


class Light(NamedTuple):
  """A point light; `power` is the diffuse brightness it gives."""

  position: np.ndarray
  power: float
  casts_shadow: bool


class Hits(NamedTuple):
  """What the camera sees.

  Attributes:
    owner: [H, W] int, 0 the floor, s + 1 solid s.
    point: [H, W, 3] float32, the point of the world that shows.
    normal: [H, W, 3] float32, the unit normal there.
  """

  owner: np.ndarray
  point: np.ndarray
  normal: np.ndarray


def look_at(
  position: np.ndarray,
  target: np.ndarray,
  focal: float,
  shape: tuple[int, int],
) -> Camera:
  """Returns a camera at `position` [3], upright, that looks at `target` [3]."""
  forward = _unit(target - position)
  right = _unit(np.cross(forward, [0.0, 0.0, 1.0]))
  down = np.cross(forward, right)
  return Camera(position, np.stack([right, down, forward]), focal, shape)


def project(camera: Camera, points: np.ndarray) -> np.ndarray:
  """Projects points [N, 3]; returns pixel column, pixel row, depth [N, 3]."""
  seen = (points - camera.position) @ camera.axes.T
  middle = np.array(camera.shape)[::-1] / 2
  seen[:, :2] = middle + camera.focal * seen[:, :2] / seen[:, 2:]
  return seen


def trace(camera: Camera, solids: Sequence[Solid]) -> Hits:
  """Finds what shows at each pixel; nearer solids hide farther ones."""
  rays = _rays(camera)
  origin = camera.position.astype(np.float32)
  # The camera looks down steeply enough for all rays to meet the floor.
  depth = -origin[2] / rays[..., 2]
  owner = np.zeros(depth.shape, np.int64)
  normal = np.zeros_like(rays)
  normal[..., 2] = 1
  for number, solid in enumerate(solids, start=1):
    box = _bounding_box(camera, _corners(solid))
    start, directions = _to_unit(solid, origin, rays[box])
    enter, leave = _span(solid.kind, start, directions)
    nearest = (enter < leave) & (enter > 0) & (enter < depth[box])
    enter, directions = enter[nearest], directions[nearest]
    depth[box][nearest] = enter
    owner[box][nearest] = number
    unit_points = start + enter[:, None] * directions
    normal[box][nearest] = _normals(solid, unit_points)
  point = origin + depth[..., None] * rays
  return Hits(owner, point, normal)


def shade(
  camera: Camera,
  lights: Sequence[Light],
  solids: Sequence[Solid],
  hits: Hits,
) -> np.ndarray:
  """Colours what `trace` found; returns [H, W, 3] uint8."""
  albedo = np.stack([_FLOOR_COLOR, *(solid.color for solid in solids)])
  base = albedo.astype(np.float32)[hits.owner]
  metal = np.array([False, *(solid.metal for solid in solids)])[hits.owner]
  is_solid = hits.owner > 0
  view = _unit(camera.position.astype(np.float32) - hits.point)
  # Undersides see less of the sky.
  diffuse = np.float32(_AMBIENT) * (0.75 + 0.25 * hits.normal[..., 2])
  glare = np.zeros(np.count_nonzero(is_solid), np.float32)
  exponent = np.where(metal, 120.0, 14.0)[is_solid].astype(np.float32)
  strength = np.where(metal, 1.0, 0.14)[is_solid].astype(np.float32)
  for light in lights:
    direction = _unit(light.position.astype(np.float32) - hits.point)
    lit = np.maximum(_dot(hits.normal, direction), 0)
    if light.casts_shadow:
      lit *= ~_shadow(camera, light, solids, hits)
    diffuse += light.power * lit
    half = _unit(direction[is_solid] + view[is_solid])
    facing = np.maximum(_dot(hits.normal[is_solid], half), 0)
    shows = lit[is_solid] > 0
    glare += light.power * strength * shows * facing**exponent
  color = base * diffuse[..., None]
  room = _reflected(hits.normal[metal], view[metal])
  tint = 0.15 + 0.85 * base[metal]
  color[metal] = 0.55 * color[metal] + 0.55 * tint * room[:, None]
  color[is_solid] += glare[:, None]
  return np.round(255 * np.clip(color, 0, 1)).astype(np.uint8)


def _reflected(normal: np.ndarray, view: np.ndarray) -> np.ndarray:
  """Returns how bright the room is that metal reflects, [N]."""
  upward = 2 * _dot(normal, view) * normal[:, 2] - view[:, 2]
  # A mid-grey floor below, above it dark walls and a bright ceiling.
  return np.where(upward < 0, 0.5 + 0.3 * upward, 0.25 + 1.1 * upward**2)


def _shadow(
  camera: Camera, light: Light, solids: Sequence[Solid], hits: Hits
) -> np.ndarray:
  """Returns [H, W]: whether a solid is between the light and the point."""
  shadow = np.zeros(hits.owner.shape, bool)
  for number, solid in enumerate(solids, start=1):
    corners = _corners(solid)
    # All that the solid can darken lies between it and its shadow.
    reach = light.position[2] / (light.position[2] - corners[:, 2:])
    ends = light.position + reach * (corners - light.position)
    box = _bounding_box(camera, np.concatenate([corners, ends]))
    # A convex solid shades itself by its normals.
    others = hits.owner[box] != number
    points = hits.point[box][others]
    toward = light.position.astype(np.float32) - points
    start, directions = _to_unit(solid, points, toward)
    enter, leave = _span(solid.kind, start, directions)
    blocked = (enter < leave) & (leave > 1e-3) & (enter < 1)
    shadow[box][others] |= blocked
  return shadow


def _rays(camera: Camera) -> np.ndarray:
  """Returns the direction for each pixel's middle, [H, W, 3] float32."""
  rows, columns = (
    (np.arange(size) + 0.5 - size / 2) / camera.focal for size in camera.shape
  )
  right, down, forward = camera.axes
  rays = forward + columns[:, None] * right + rows[:, None, None] * down
  return rays.astype(np.float32)


def _span(
  kind: int, start: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns where rays enter and leave a unit solid; enter < leave where so.

  Args:
    kind: of the solid.
    start: [N, 3] or [3], the rays' origins.
    directions: [N, 3].
  """
  if kind == SPHERE:
    return _round_span(start, directions)
  # Solids are convex: a ray is inside one while it is inside all its sides.
  flat = slice(2, 3) if kind == CYLINDER else slice(0, 3)
  steep = np.where(np.abs(directions) < 1e-9, np.float32(1e-9), directions)
  near = (-1 - start[..., flat]) / steep[..., flat]
  far = (1 - start[..., flat]) / steep[..., flat]
  enter = np.minimum(near, far).max(axis=-1)
  leave = np.maximum(near, far).min(axis=-1)
  if kind == CYLINDER:
    enter_side, leave_side = _round_span(start[..., :2], directions[..., :2])
    enter = np.maximum(enter, enter_side)
    leave = np.minimum(leave, leave_side)
  return enter, leave


def _round_span(
  start: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Does the same for the unit ball, or in two dimensions the unit disc.

  Both are nan where a ray misses it.
  """
  a = _dot(directions, directions)
  b = _dot(directions, start)
  c = _dot(start, start) - 1
  with np.errstate(invalid="ignore"):
    root = np.sqrt(b * b - a * c)
  return (-b - root) / a, (-b + root) / a


def _normals(solid: Solid, unit_points: np.ndarray) -> np.ndarray:
  """Returns the unit normals [N, 3] in the world at points on a unit solid."""
  normals = unit_points.copy()
  if solid.kind == CUBE:
    normals *= unit_points**_EDGE_SHARPNESS
  elif solid.kind == CYLINDER:
    across = unit_points[:, :2]
    normals[:, :2] *= _dot(across, across)[:, None] ** (_EDGE_SHARPNESS // 2)
    normals[:, 2] *= unit_points[:, 2] ** _EDGE_SHARPNESS
  return _unit(normals @ _turn(solid).T)


def _turn(solid: Solid) -> np.ndarray:
  """Returns the rotation [3, 3] from unit coordinates to the world's."""
  cos, sin = np.cos(solid.angle), np.sin(solid.angle)
  return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float32)


def _to_unit(
  solid: Solid, origins: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Takes rays of the world, both [..., 3], to unit coordinates."""
  scaled_turn = _turn(solid) / np.float32(solid.radius)
  origins = origins - solid.center.astype(np.float32)
  return origins @ scaled_turn, directions @ scaled_turn


def _corners(solid: Solid) -> np.ndarray:
  """Returns the corners [8, 3] of the box around a solid."""
  return solid.center + solid.radius * _UNIT_CORNERS @ _turn(solid).T


def _bounding_box(camera: Camera, points: np.ndarray) -> tuple[slice, slice]:
  """Returns the rows and columns of the image that points [N, 3] span."""
  pixels = project(camera, points)[:, :2]
  limits = np.array(camera.shape)[::-1]
  low = np.clip(np.floor(pixels.min(axis=0)), 0, limits).astype(int)
  high = np.clip(np.ceil(pixels.max(axis=0)) + 1, 0, limits).astype(int)
  return slice(low[1], high[1]), slice(low[0], high[0])


def _unit(vectors: np.ndarray) -> np.ndarray:
  """Scales vectors [..., 3] to length 1."""
  return vectors / np.sqrt(_dot(vectors, vectors))[..., None]


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Returns the scalar products along the last axis."""
  return np.einsum("...i,...i->...", a, b)
