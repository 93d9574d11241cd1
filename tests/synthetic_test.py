"""Tests of the generators in `iodine.synthetic`."""

import ast
import functools
import itertools
import os
import pathlib
import subprocess
import sys

import helpers
import numpy as np
import pytest
import tensorflow as tf

from iodine import errors
from iodine.synthetic import (
  DATASETS,
  clevr,
  multi_dsprites,
  ray_casting,
  records,
  registry,
  tetrominoes,
  write_dataset,
  writer,
)

# Every feature's shape; the dtypes follow: uint8 where listed below.
_LAYOUTS = {
  "tetrominoes": {
    "image": (35, 35, 3),
    "mask": (4, 35, 35, 1),
    **dict.fromkeys(["x", "y", "shape", "visibility"], (4,)),
    "color": (4, 3),
  },
  **{
    name: {
      "image": (64, 64, channels),
      "mask": (64, 64, entities, 1),
      **dict.fromkeys(
        ["x", "y", "shape", "visibility", "orientation", "scale"], (entities,)
      ),
      "color": (entities, channels),
    }
    for name, entities, channels in [
      ("multi_dsprites", 6, 3),
      ("multi_dsprites_colored_on_colored", 5, 3),
      ("multi_dsprites_binarized", 4, 1),
    ]
  },
  "clevr6": {
    "image": (240, 320, 3),
    "mask": (11, 240, 320, 1),
    **dict.fromkeys(["x", "y", "z", "rotation", "visibility"], (11,)),
    "pixel_coords": (11, 3),
    **dict.fromkeys(["size", "material", "shape", "color"], (11,)),
  },
}
_BYTES = {"image", "mask"}
_CLEVR_BYTES = _BYTES | {"size", "material", "shape", "color"}

_NAMES = list(_LAYOUTS)
_DSPRITES = [name for name in _NAMES if "dsprites" in name]
_COUNTS = {  # Fewest and most objects.
  "tetrominoes": (3, 3),
  "multi_dsprites": (2, 5),
  "multi_dsprites_colored_on_colored": (1, 4),
  "multi_dsprites_binarized": (2, 3),
  "clevr6": (3, 10),
}


def _scenes(name, num_scenes, seed=0):
  make_scene = DATASETS[name].make_scene
  return [
    make_scene(np.random.default_rng([seed, i])) for i in range(num_scenes)
  ]


def _num_scenes(name):
  return 6 if name == "clevr6" else 40


def _parse(record, name):
  """Reads a record as the public reader does."""
  uint8 = _CLEVR_BYTES if name == "clevr6" else _BYTES
  features = {
    key: tf.io.FixedLenFeature(shape, tf.string if key in uint8 else tf.float32)
    for key, shape in _LAYOUTS[name].items()
  }
  parsed = tf.io.parse_single_example(record, features)
  return {
    key: tf.squeeze(tf.io.decode_raw(value, tf.uint8), axis=-1).numpy()
    if value.dtype == tf.string
    else value.numpy()
    for key, value in parsed.items()
  }


def _masks(scene, name):
  """Returns the masks [L, H, W] as booleans."""
  mask = scene["mask"][..., 0] > 0
  return np.moveaxis(mask, -1, 0) if name in _DSPRITES else mask


def _real_scenes():
  path = str(helpers.REAL_SCENES)
  dataset = tf.data.TFRecordDataset(path, compression_type="GZIP")
  return [(r.numpy(), _parse(r, "tetrominoes")) for r in dataset]


@helpers.needs_real_scenes
def test_real_tetrominoes_are_rendered_to_the_byte():
  scenes = [scene for _, scene in _real_scenes()]
  assert len(scenes) == 10
  for scene in scenes:
    factors = {key: scene[key] for key in ["shape", "x", "y", "color"]}
    image, mask = tetrominoes.render(**factors)
    np.testing.assert_array_equal(image, scene["image"])
    np.testing.assert_array_equal(mask, scene["mask"])


@helpers.needs_real_scenes
def test_real_tetrominoes_are_serialized_alike():
  # Maps have no order in protobuf, so compare the messages, not the bytes.
  for record, scene in _real_scenes():
    ours = records.serialize(scene)
    assert len(ours) == len(record)
    assert tf.train.Example.FromString(ours) == tf.train.Example.FromString(
      record
    )


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
  path = tmp_path / "some/folder" / DATASETS[name].file_name
  write_dataset(name, path, 2, seed=5, num_workers=1)
  assert path.read_bytes()[:2] == b"\x1f\x8b"
  dataset = tf.data.TFRecordDataset(str(path), compression_type="GZIP")
  found = list(dataset)
  assert len(found) == 2
  for record, scene in zip(found, _scenes(name, 2, seed=5), strict=True):
    example = tf.train.Example.FromString(record.numpy())
    assert set(example.features.feature) == set(_LAYOUTS[name])
    parsed = _parse(record, name)
    assert set(scene) == set(_LAYOUTS[name])
    for key, shape in _LAYOUTS[name].items():
      uint8 = key in (_CLEVR_BYTES if name == "clevr6" else _BYTES)
      assert scene[key].shape == shape
      assert scene[key].dtype == (np.uint8 if uint8 else np.float32)
      np.testing.assert_array_equal(parsed[key], scene[key])


@pytest.mark.parametrize("name", _NAMES)
def test_masks_partition_the_image(name):
  for scene in _scenes(name, _num_scenes(name)):
    assert set(np.unique(scene["mask"])) == {0, 255}
    assert (_masks(scene, name).sum(axis=0) == 1).all()


@pytest.mark.parametrize("name", _NAMES)
def test_visibility_agrees_with_masks_and_factors(name):
  fewest, most = _COUNTS[name]
  for scene in _scenes(name, _num_scenes(name)):
    present = scene["visibility"] == 1
    assert set(np.unique(scene["visibility"])) <= {0, 1}
    assert present[0]
    assert fewest <= present[1:].sum() <= most
    np.testing.assert_array_equal(_masks(scene, name).any(axis=(1, 2)), present)
    # Code 0 is for the background and what is absent.
    np.testing.assert_array_equal(scene["shape"][1:] > 0, present[1:])
    for key in set(scene) - {"image", "mask"}:
      assert not scene[key][~present].any()
      if key not in ("visibility", "color"):
        assert not scene[key][0].any()


@pytest.mark.parametrize("name", _NAMES)
def test_scenes_vary(name):
  scenes = _scenes(name, 3) + _scenes(name, 3, seed=1)
  assert len({scene["image"].tobytes() for scene in scenes}) == 6


def test_tetrominoes_are_whole_and_apart():
  shapes, colors = set(), set()
  for scene in _scenes("tetrominoes", 100):
    areas = (scene["mask"] > 0).sum(axis=(1, 2, 3))
    assert areas.tolist() == [925, 100, 100, 100]
    shapes |= set(scene["shape"][1:].tolist())
    colors |= {tuple(color) for color in scene["color"][1:].tolist()}
  # 300 draws: the chance that one of 19 is missing is below 2e-6.
  assert shapes == set(range(1, 20))
  assert colors == set(map(tuple, tetrominoes.COLORS.tolist()))


def test_x_is_the_row_of_a_tetromino():
  # FIDELITY: as in the public files.
  scene = _scenes("tetrominoes", 1)[0]
  for entity in range(1, 4):
    rows, columns = np.nonzero(scene["mask"][entity, ..., 0])
    assert rows.min() == scene["x"][entity]
    assert columns.min() == scene["y"][entity]


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
    np.testing.assert_array_equal(masks.argmax(axis=0), owner)
    color = np.round(255 * scene["color"]).astype(np.uint8)
    np.testing.assert_array_equal(scene["image"], color[owner])
  assert occlusions


@pytest.mark.parametrize("name", _DSPRITES)
def test_factors_of_sprites_are_in_range(name):
  for scene in _scenes(name, 40):
    present = scene["visibility"] == 1
    for key in ["x", "y", "color"]:
      assert (scene[key] >= 0).all() and (scene[key] <= 1).all()
    sprites = {key: scene[key][present][1:] for key in ["orientation", "scale"]}
    assert (sprites["orientation"] >= 0).all()
    assert (sprites["orientation"] < 2 * np.pi).all()
    assert np.isin(sprites["scale"], multi_dsprites.SCALES).all()
    if name == "multi_dsprites":  # The background is grey.
      assert len(set(scene["color"][0])) == 1
    if name == "multi_dsprites_binarized":
      assert set(np.unique(scene["image"])) == {0, 255}


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


def test_clevr_objects_are_apart_and_visible():
  for scene in _scenes("clevr6", 6):
    count = int(scene["visibility"].sum()) - 1
    crop = scene["mask"][1 : count + 1, 29:221, 64:256] > 0
    assert crop.sum(axis=(1, 2, 3)).min() >= 100
    radius = np.array([0, 0.7, 0.35])[scene["size"]]
    ground = np.stack([scene["x"], scene["y"]], axis=1)
    for a, b in itertools.combinations(range(1, count + 1), 2):
      gap = np.linalg.norm(ground[a] - ground[b]) - radius[a] - radius[b]
      assert gap >= 0.25 - 1e-5  # float32


def test_clevr_codes_fit_the_factor_regressor():
  sizes = {"color": 9, "shape": 4, "size": 3, "material": 3}
  for scene in _scenes("clevr6", 6):
    present = scene["visibility"][1:] == 1
    for key, size in sizes.items():
      codes = scene[key][1:][present]
      assert codes.min() >= 1 and codes.max() < size
  for table in [clevr.SIZES, clevr.MATERIALS, clevr.SHAPES, clevr.COLORS]:
    assert list(table) == list(range(1, len(table) + 1))
  assert len(clevr.COLOR_VALUES) == len(clevr.COLORS)


def test_clevr_pixel_coords_point_at_the_nearest_object():
  hits = 0
  for scene in _scenes("clevr6", 6):
    coords = scene["pixel_coords"]
    owner = scene["mask"][..., 0].argmax(axis=0)
    for entity in range(1, int(scene["visibility"].sum())):
      seen = owner[int(coords[entity, 1]), int(coords[entity, 0])]
      # The middle of an object is covered by itself or by what is nearer.
      assert seen > 0
      assert coords[seen, 2] <= coords[entity, 2]
      hits += seen == entity
  assert hits


@pytest.mark.parametrize("kind", clevr.SHAPES)
def test_ray_caster_hits_solids_where_geometry_says(kind):
  # Independent of the ray caster's unit coordinates: every point that it
  # returns lies on the surface, and on the ray of its pixel.
  camera = ray_casting.look_at(
    np.array([4.0, -3.0, 3.0]), np.zeros(3), 100.0, 60, 80
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


def test_uncompressed_and_readable_by_all_that_the_umask_allows(tmp_path):
  path, other = tmp_path / "plain", tmp_path / "other"
  write_dataset("tetrominoes", path, 2, seed=0, compression=None)
  assert len(list(tf.data.TFRecordDataset(str(path)))) == 2
  other.touch()
  assert path.stat().st_mode == other.stat().st_mode


def test_progress_counts_every_scene(tmp_path):
  calls = []

  def progress(done, total):
    calls.append((done, total))

  write_dataset("tetrominoes", tmp_path / "file", 3, 0, progress=progress)
  assert calls == [(1, 3), (2, 3), (3, 3)]


def test_aliases_mean_the_same_dataset():
  public = "multi_dsprites_colored_on_grayscale"
  assert DATASETS[public] is DATASETS["multi_dsprites"]
  assert DATASETS["clevr"] is DATASETS["clevr6"]


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"name": "tetris"}, "'tetris'.*tetrominoes"),
    ({"num_scenes": 0}, "`num_scenes` is 0.*at least 1"),
    ({"num_scenes": 1e3}, "`num_scenes` is 1000.0.*whole number"),
    ({"seed": -1}, "`seed` is -1.*at least 0"),
    ({"num_workers": 0}, "`num_workers` is 0.*at least 1"),
    ({"compression": "ZIP"}, "`compression` is 'ZIP'.*'GZIP'"),
  ],
)
def test_unusable_arguments(arguments, message, tmp_path):
  path = tmp_path / "folder/file"
  defaults = {"name": "tetrominoes", "path": path, "num_scenes": 1, "seed": 0}
  with pytest.raises(errors.UserError, match=message):
    write_dataset(**{**defaults, **arguments})
  assert not path.parent.exists()


def test_unwritable_paths(tmp_path):
  (tmp_path / "file").touch()
  for path in [tmp_path / "file/below", tmp_path]:
    sentence = "cannot create the folder|is not the path of a file: give one"
    with pytest.raises(errors.UserError, match=sentence):
      write_dataset("tetrominoes", path, 1, seed=0)
  assert [path.name for path in tmp_path.iterdir()] == ["file"]


def _failing(monkeypatch, make_scene):
  dataset = DATASETS["tetrominoes"]._replace(make_scene=make_scene)
  monkeypatch.setitem(registry.DATASETS, "failing", dataset)


@pytest.mark.parametrize("error", [RuntimeError, OSError, KeyboardInterrupt])
def test_failure_leaves_the_older_file_alone(error, tmp_path, monkeypatch):
  calls = itertools.count()

  def make_scene(rng):
    if next(calls) == 3:
      raise error("on purpose")
    return tetrominoes.make_scene(rng)

  _failing(monkeypatch, make_scene)
  path = tmp_path / "file"
  path.write_text("older")
  with pytest.raises(error, match="on purpose"):
    write_dataset("failing", path, 5, seed=0)
  assert path.read_text() == "older"
  assert list(tmp_path.iterdir()) == [path]


def test_failure_in_a_worker_arrives(tmp_path, monkeypatch):
  # ast.literal_eval stands in for a generator that raises: it is quick to
  # import, and cannot make anything of a random generator.
  _failing(monkeypatch, ast.literal_eval)
  with pytest.raises(ValueError, match="malformed"):
    write_dataset("failing", tmp_path / "file", 20, seed=0, num_workers=2)
  assert not list(tmp_path.iterdir())


def test_death_of_a_worker_is_explained(tmp_path, monkeypatch):
  death = functools.partial(os._exit, 1)
  monkeypatch.setattr(writer, "_follow_parent", death)
  with pytest.raises(errors.UserError, match="died.*num_workers=1"):
    write_dataset("tetrominoes", tmp_path / "file", 9, seed=0, num_workers=2)
  assert not list(tmp_path.iterdir())


def test_serialize_rejects_other_dtypes():
  with pytest.raises(TypeError, match="`x` is float64"):
    records.serialize({"x": np.zeros(2)})


def test_importing_the_package_leaves_tensorflow_out():
  code = "import sys, iodine.synthetic; sys.exit('tensorflow' in sys.modules)"
  root = pathlib.Path(__file__).parents[1]
  subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
