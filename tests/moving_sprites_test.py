"""Tests of films of moving sprites."""

import colorsys
import itertools

import numpy as np
import pytest

from iodine.synthetic import DATASETS, moving_sprites, multi_dsprites


@pytest.fixture(scope="module")
def films():
  make_film = DATASETS["moving_sprites"].make_scene
  return [make_film(np.random.default_rng([0, i])) for i in range(60)]


def test_layout(films):
  expected = {
    "image": ((10, 24, 24, 3), "uint8"),
    "mask": ((10, 24, 24), "uint8"),
    "visibility": ((4,), "float32"),
    "color": ((4, 3), "float32"),
    "shape": ((4, 1), "float32"),
    "scale": ((4, 1), "float32"),
  }
  for film in films:
    assert {k: (v.shape, v.dtype.name) for k, v in film.items()} == expected
  counts = {int(film["visibility"].sum()) for film in films}
  assert counts == {2, 3, 4}  # the background counts
  assert len({film["image"].tobytes() for film in films}) == len(films)


def test_labels_say_whose_colour_shows_in_every_frame(films):
  for film in films:
    colors = np.round(255 * film["color"]).astype(np.uint8)
    np.testing.assert_array_equal(film["image"], colors[film["mask"]])
    present = film["visibility"] == 1
    np.testing.assert_array_equal(
      np.unique(film["mask"][0]), np.flatnonzero(present)
    )
    assert np.isin(film["mask"], np.flatnonzero(present)).all()
    assert np.isin(film["shape"][present][1:], [*multi_dsprites.SHAPES]).all()
    assert np.isin(film["scale"][present][1:], moving_sprites.SCALES).all()
    for name in ("color", "shape", "scale"):
      assert not film[name][~present].any()
    # Objects stand out against the background, which is grey.
    assert (film["color"][present][1:].max(axis=1) >= 0.7).all()
    assert len(set(film["color"][0])) == 1 and film["color"][0, 0] <= 0.2
    hues = [colorsys.rgb_to_hsv(*c)[0] for c in film["color"][present][1:]]
    for one, other in itertools.combinations(hues, 2):
      distance = abs(one - other)
      assert min(distance, 1 - distance) > 0.16


def test_sprites_go_straight_on_and_bounce_off_the_border():
  kind = moving_sprites.KIND
  low, high = kind.radius, kind.size - kind.radius
  bounces = 0
  for seed in range(20):
    places = moving_sprites.paths(np.random.default_rng(seed), 3)
    assert places.shape == (10, 3, 2)
    assert (places >= low).all() and (places <= high).all()
    steps = np.diff(places, axis=0)
    # An axis keeps its speed except where it touches a border in between.
    speed = np.abs(steps).max(axis=0)
    slower = ~np.isclose(np.abs(steps), speed)
    nearest = np.minimum(places - low, high - places)
    touches = np.minimum(nearest[:-1], nearest[1:]) < speed
    assert not (slower & ~touches).any()
    # Another direction is due to a border, too.
    turns = (steps[:-1] * steps[1:] < 0) & ~(slower[:-1] | slower[1:])
    assert (nearest[1:-1][turns] < speed.max()).all()
    bounces += (slower | touches).any()
    total = np.linalg.norm(speed, axis=1)
    least, most = moving_sprites.SPEEDS
    assert (total >= least - 1e-9).all() and (total <= most + 1e-9).all()
  assert bounces


def test_sprites_pass_in_front_of_each_other(films):
  # What is hidden in one frame shows again in another: areas of one sprite.
  hidden = 0
  for film in films:
    for entity in range(1, int(film["visibility"].sum())):
      areas = (film["mask"] == entity).sum(axis=(1, 2))
      hidden += areas.min() < 0.6 * areas.max()
  assert hidden > 5
