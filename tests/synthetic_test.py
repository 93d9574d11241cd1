"""Tests of the generators in `iodine.synthetic`."""

import dataclasses
import itertools

import helpers
import numpy as np
import pytest
import tensorflow as tf

from iodine.readers import examples, layouts
from iodine.synthetic import (
  DATASETS,
  clevr,
  multi_dsprites,
  ray_casting,
  records,
  tetrominoes,
  write_dataset,
)

_LAYOUTS = {
  layout.generator_name: layout
  for layout in layouts.LAYOUTS
  if layout.generator_name and layout.num_frames is None
}
_NAMES = list(_LAYOUTS)
_DSPRITES = [name for name in _NAMES if "dsprites" in name]
_COUNTS = {  # Fewest and most objects.
  "tetrominoes": (3, 3),
  "multi_dsprites_colored_on_grayscale": (2, 5),
  "multi_dsprites_colored_on_colored": (1, 4),
  "multi_dsprites_binarized": (2, 3),
  "clevr": (3, 10),
}


def _scenes(name, num_scenes, seed=0):
  make_scene = DATASETS[name].make_scene
  return [
    make_scene(np.random.default_rng([seed, i])) for i in range(num_scenes)
  ]


def _parse(record, name):
  """Reads a record as it is stored."""
  layout = dataclasses.replace(_LAYOUTS[name], entities_last=False)
  scene = examples.parse(record, layout)
  return {key: value.numpy() for key, value in scene.items()}


def _masks(scene, name):
  """Returns the masks [L, H, W] as booleans."""
  mask = scene["mask"][..., 0] > 0
  return np.moveaxis(mask, -1, 0) if name in _DSPRITES else mask


def _real_scenes():
  path = str(helpers.REAL_SCENES)
  dataset = tf.data.TFRecordDataset(path, compression_type="GZIP")
  return [(r.numpy(), _parse(r, "tetrominoes")) for r in dataset]


@helpers.needs_real_scenes
def test_real_tetrominoes_are_rendered_and_serialized_to_the_byte():
  scenes = _real_scenes()
  assert len(scenes) == 10
  for record, scene in scenes:
    factors = {key: scene[key] for key in ["shape", "x", "y", "color"]}
    image, mask = tetrominoes.render(**factors)
    np.testing.assert_array_equal(image, scene["image"])
    np.testing.assert_array_equal(mask, scene["mask"])
    # Maps have no order in protobuf, so compare the messages, not the bytes.
    ours, theirs = records.serialize(scene), record
    assert len(ours) == len(theirs)
    parse = tf.train.Example.FromString
    assert parse(ours) == parse(theirs)


def _group_statistics(scenes):
  """Returns statistics of Tetrominoes in groups of ten scenes, by name.

  Args:
    scenes: 10 * G scenes.

  Returns:
    dict of [G]. Positions and distances are in pixels.
  """

  def stacked(key):
    return np.stack([scene[key] for scene in scenes])

  def grouped(values):
    return values.reshape(len(scenes) // 10, -1)

  def unevenness(codes, count):  # Chi-squared against equal shares.
    found = (grouped(codes)[..., np.newaxis] == np.arange(1, count + 1)).sum(1)
    return ((found - 30 / count) ** 2).sum(axis=1) / (30 / count)

  mask = stacked("mask")[:, 1:, ..., 0] > 0
  covered = mask.sum(axis=(1, 2, 3))
  padded = np.pad(mask, [(0, 0), (0, 0), (1, 1), (1, 1)])
  near = mask | padded[..., 2:, 1:-1] | padded[..., :-2, 1:-1]
  near |= padded[..., 1:-1, 2:] | padded[..., 1:-1, :-2]
  pixels = np.arange(tetrominoes.SIZE)
  centers = (
    np.stack([mask.sum(axis=3) @ pixels, mask.sum(axis=2) @ pixels], axis=-1)
    / mask.sum(axis=(2, 3))[..., np.newaxis]
  )
  at_border = mask[..., [0, -1], :].any(axis=(2, 3))
  at_border |= mask[..., [0, -1]].any(axis=(2, 3))

  corners = np.stack([stacked("x"), stacked("y")], axis=-1)[:, 1:]
  shape = stacked("shape")[:, 1:]
  color = stacked("color")[:, 1:] @ np.array([1, 2, 4])  # 1 to 6
  one, other = np.array([*itertools.combinations(range(3), 2)]).T
  touch = (near[:, one] & mask[:, other]).any(axis=(2, 3))
  alike = color[:, one] == color[:, other]
  distance = np.linalg.norm(centers[:, one] - centers[:, other], axis=-1)
  return {
    "top row, mean": grouped(corners[..., 0]).mean(axis=1),
    "top row, spread": grouped(corners[..., 0]).std(axis=1),
    "left column, mean": grouped(corners[..., 1]).mean(axis=1),
    "left column, spread": grouped(corners[..., 1]).std(axis=1),
    "rows and columns divisible by 5": grouped(corners % 5 == 0).sum(axis=1),
    "objects at the border": grouped(at_border).sum(axis=1),
    "distance of centres, mean": grouped(distance).mean(axis=1),
    "distance of centres, smallest": grouped(distance).min(axis=1),
    "pairs that touch": grouped(touch).sum(axis=1),
    "pairs of one colour": grouped(alike).sum(axis=1),
    "pairs of one colour that touch": grouped(touch & alike).sum(axis=1),
    "pairs of one shape": grouped(shape[:, one] == shape[:, other]).sum(axis=1),
    "unevenness of the colours": unevenness(color, 6),
    "unevenness of the shapes": unevenness(shape, 19),
    "brightness": grouped(stacked("image").mean(axis=(1, 2, 3))).mean(axis=1),
    "covered pixels": grouped(covered).mean(axis=1),
  }


@helpers.needs_real_scenes
def test_real_tetrominoes_are_as_ten_generated_ones():
  real, generated = (
    _group_statistics(scenes)
    for scenes in (
      [scene for _, scene in _real_scenes()],
      _scenes("tetrominoes", 3000, seed=2),
    )
  )
  for name, values in generated.items():
    low, high = np.quantile(values, [0.005, 0.995])
    assert low <= real[name][0] <= high, (name, real[name][0], low, high)


def test_shapes_are_the_nineteen_tetrominoes():
  turned = set()
  for flip, turns in itertools.product([1, -1], range(4)):
    for code in [2, 3, 11, 15, 19]:  # I, L, Z, T, O
      cells = np.rot90(tetrominoes.SHAPES[code][:, ::flip], turns)
      turned.add((cells.shape, cells.tobytes()))
  ours = {(c.shape, c.tobytes()) for c in tetrominoes.SHAPES.values()}
  assert ours == turned
  assert list(tetrominoes.SHAPES) == list(range(1, 20))


@pytest.mark.parametrize("name", _NAMES)
def test_layout(name, tmp_path):
  path = tmp_path / "some/folder/scenes.tfrecords"
  write_dataset(name, path, 2, seed=5, num_workers=1)
  found = list(tf.data.TFRecordDataset(str(path), compression_type="GZIP"))
  features = dict(_LAYOUTS[name].features)
  if name == "clevr":  # The public files hold these, too.
    features |= dict.fromkeys("xyz", features["rotation"])
    features["material"] = features["shape"]
  for record, scene in zip(found, _scenes(name, 2, seed=5), strict=True):
    example = tf.train.Example.FromString(record.numpy())
    assert set(example.features.feature) == set(scene) == set(features)
    for key, (shape, dtype, _) in features.items():
      assert (scene[key].shape, scene[key].dtype) == (shape, dtype)
    for key, value in _parse(record, name).items():
      np.testing.assert_array_equal(value, scene[key])


@pytest.mark.parametrize("name", _NAMES)
def test_masks_partition_the_image_as_visibility_and_factors_say(name):
  fewest, most = _COUNTS[name]
  scenes = _scenes(name, 6 if name == "clevr" else 40)
  assert len({scene["image"].tobytes() for scene in scenes}) == len(scenes)
  for scene in scenes:
    masks = _masks(scene, name)
    assert set(np.unique(scene["mask"])) == {0, 255}
    assert (masks.sum(axis=0) == 1).all()
    present = scene["visibility"] == 1
    assert set(np.unique(scene["visibility"])) <= {0, 1}
    assert present[0]
    assert fewest <= present[1:].sum() <= most
    np.testing.assert_array_equal(masks.any(axis=(1, 2)), present)
    # Code 0 is for the background and what is absent.
    np.testing.assert_array_equal(scene["shape"][1:] > 0, present[1:])
    for key in set(scene) - {"image", "mask"}:
      assert not scene[key][~present].any()
      if key not in ("visibility", "color"):
        assert not scene[key][0].any()


def test_tetrominoes_are_whole_and_apart():
  shapes, colors = set(), set()
  for scene in _scenes("tetrominoes", 100):
    areas = (scene["mask"] > 0).sum(axis=(1, 2, 3))
    assert areas.tolist() == [925, 100, 100, 100]
    shapes |= set(scene["shape"][1:].tolist())
    colors |= {tuple(color) for color in scene["color"][1:].tolist()}
    for entity in range(1, 4):
      rows, columns = np.nonzero(scene["mask"][entity, ..., 0])
      # FIDELITY: x is the row, as in the public files.
      assert rows.min() == scene["x"][entity]
      assert columns.min() == scene["y"][entity]
  # 300 draws: the chance that one of 19 is missing is below 2e-6.
  assert shapes == set(range(1, 20))
  assert colors == set(map(tuple, tetrominoes.COLORS.tolist()))


@pytest.mark.parametrize("name", _DSPRITES)
def test_later_sprites_occlude_earlier_ones(name):
  occlusions = 0
  for scene in _scenes(name, 40):
    masks = _masks(scene, name)
    owner = np.zeros((64, 64), int)
    for entity in range(1, int(scene["visibility"].sum())):
      cover = multi_dsprites.sprite_cover(
        int(scene["shape"][entity]),
        *(scene[k][entity] for k in ["x", "y", "orientation", "scale"]),
      )
      occlusions += (owner[cover] > 0).any()
      owner[cover] = entity
      assert masks[entity].sum() >= 0.1 * cover.sum()
      assert 0 <= scene["orientation"][entity] < 2 * np.pi
      assert scene["scale"][entity] in multi_dsprites.SCALES
    np.testing.assert_array_equal(masks.argmax(axis=0), owner)
    color = np.round(255 * scene["color"]).astype(np.uint8)
    np.testing.assert_array_equal(scene["image"], color[owner])
    for key in ["x", "y", "color"]:
      assert (scene[key] >= 0).all() and (scene[key] <= 1).all()
    if "grayscale" in name:
      assert len(set(scene["color"][0])) == 1
    if "binarized" in name:
      assert set(np.unique(scene["image"])) == {0, 255}
  assert occlusions


@pytest.mark.parametrize("shape", multi_dsprites.SHAPES)
@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_sprites_stay_inside_and_where_they_are_said_to_be(shape, corner):
  x, y = corner
  angles = np.linspace(0, 2 * np.pi, 12)
  covers = [multi_dsprites.sprite_cover(shape, x, y, a, 1.0) for a in angles]
  for cover in covers:
    rows, columns = np.nonzero(cover)
    # A heart's centre of mass is off by 0.6 pixels; half a pixel is raster.
    np.testing.assert_allclose(columns.mean() + 0.5, 16 + 32 * x, atol=1.1)
    np.testing.assert_allclose(rows.mean() + 0.5, 16 + 32 * y, atol=1.1)
  # A sprite cut off at the border would lose area; 6% is the pixel raster's.
  areas = [cover.sum() for cover in covers]
  np.testing.assert_allclose(areas, np.mean(areas), rtol=0.06)


def test_clevr_objects_are_apart_and_visible_where_their_factors_say():
  sizes = {"color": 9, "shape": 4, "size": 3, "material": 3}  # of the regressor
  tables = (clevr.COLORS, clevr.SHAPES, clevr.SIZES, clevr.MATERIALS)
  assert [len(table) + 1 for table in tables] == list(sizes.values())
  hits = 0
  for scene in _scenes("clevr", 6):
    count = int(scene["visibility"].sum()) - 1
    crop = scene["mask"][1 : count + 1, 29:221, 64:256] > 0
    assert crop.sum(axis=(1, 2, 3)).min() >= 100
    radius = np.array([0, 0.7, 0.35])[scene["size"]]
    ground = np.stack([scene["x"], scene["y"]], axis=1)
    for a, b in itertools.combinations(range(1, count + 1), 2):
      gap = np.linalg.norm(ground[a] - ground[b]) - radius[a] - radius[b]
      assert gap >= 0.25 - 1e-5  # float32
    for key, size in sizes.items():
      codes = scene[key][1 : count + 1]
      assert codes.min() >= 1 and codes.max() < size
    coords = scene["pixel_coords"]
    owner = scene["mask"][..., 0].argmax(axis=0)
    for entity in range(1, count + 1):
      seen = owner[int(coords[entity, 1]), int(coords[entity, 0])]
      # The middle of an object is covered by itself or by what is nearer.
      assert seen > 0
      assert coords[seen, 2] <= coords[entity, 2]
      hits += seen == entity
  assert hits


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_ray_caster_hits_solids_where_geometry_says(kind):
  # Independent of the ray caster's unit coordinates: every point that it
  # returns lies on the surface, and on the ray of its pixel.
  camera = ray_casting.look_at(
    np.array([4.0, -3.0, 3.0]), np.zeros(3), 100.0, (60, 80)
  )
  center, radius, angle = np.array([0.3, 0.2, 0.8]), 0.8, 0.5
  solid = ray_casting.Solid(kind, center, radius, angle, np.ones(3), False)
  found = ray_casting.trace(camera, [solid])
  hit = found.owner == 1
  offset = found.point[hit] - center
  along = np.abs(offset[:, 0] * np.cos(angle) + offset[:, 1] * np.sin(angle))
  across = np.abs(offset[:, 1] * np.cos(angle) - offset[:, 0] * np.sin(angle))
  up = np.abs(offset[:, 2])
  reach = {
    ray_casting.CUBE: np.maximum(np.maximum(along, across), up),
    ray_casting.SPHERE: np.linalg.norm(offset, axis=1),
    ray_casting.CYLINDER: np.maximum(np.hypot(along, across), up),
  }[kind]
  assert hit.sum() > 100 and not hit.all()
  np.testing.assert_allclose(reach, radius, atol=1e-5)  # float32
  np.testing.assert_allclose(found.point[~hit][:, 2], 0, atol=1e-4)  # float32
  pixels = ray_casting.project(camera, found.point.reshape(-1, 3))[:, :2]
  middles = np.stack(np.meshgrid(np.arange(80), np.arange(60)), axis=-1) + 0.5
  np.testing.assert_allclose(pixels, middles.reshape(-1, 2), atol=1e-3)  # same


def test_same_seed_gives_same_bytes_in_any_number_of_processes(tmp_path):
  one, two, other = (tmp_path / name for name in ["one", "two", "other"])
  write_dataset("tetrominoes", one, 35, seed=3, num_workers=1)
  write_dataset("tetrominoes", two, 35, seed=3, num_workers=2)
  write_dataset("tetrominoes", other, 35, seed=4)
  assert one.read_bytes() == two.read_bytes()
  assert one.read_bytes() != other.read_bytes()
