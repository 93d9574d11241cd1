"""What is in the pictures of latents."""

import numpy as np
import pytest
from helpers import assert_shows
from matplotlib import colors as mpl_colors

from iodine.drawing import latent_plots, palette

H, W, C = 6, 9, 3


@pytest.mark.parametrize("shape", [(50, 5), (3, 8), (4, 1)])
def test_principal_components_are_those_of_the_covariance(shape):
  points = np.random.default_rng(0).normal(size=shape) * np.arange(
    1, shape[1] + 1
  )
  points += 7.0
  found, shares = latent_plots.principal_components(points)
  covariance = np.atleast_2d(np.cov(points.T))
  values, vectors = np.linalg.eigh(covariance)
  for i in range(min(2, shape[1])):
    direction = vectors[:, -1 - i]
    direction *= np.sign(direction[np.abs(direction).argmax()])
    expected = (points - points.mean(0)) @ direction
    np.testing.assert_allclose(found[:, i], expected, atol=1e-9)  # float64
    np.testing.assert_allclose(shares[i], values[-1 - i] / values.sum())
  if shape[1] == 1:
    np.testing.assert_array_equal(found[:, 1], 0.0)
    assert shares[1] == 0.0


@pytest.mark.parametrize("points", [np.zeros([0, 4]), np.ones([3, 4])])
def test_points_that_do_not_differ_have_no_direction(points):
  found, shares = latent_plots.principal_components(points)
  np.testing.assert_array_equal(found, np.zeros([len(points), 2]))
  np.testing.assert_array_equal(shares, [0.0, 0.0])


def make_objects(num=30):
  rng = np.random.default_rng(1)
  factors = {
    "color": rng.uniform(size=[num, 3]),
    "shape": rng.integers(0, 4, [num, 1]),
    "orientation": rng.uniform(-10, 10, size=[num, 1]),
    "position": rng.integers(0, 9, [num, 2]),
    "age": rng.integers(0, 4, [num, 1]),
  }
  return rng.normal(size=[num, 6]), factors


def test_every_factor_has_its_panel_over_the_same_map():
  latents, factors = make_objects()
  figure = latent_plots.latents_plot(
    latents,
    factors,
    {"color": "scalar", "orientation": "angle", "age": "scalar"},
  )
  titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
  positions = ["position 1", "position 2"]
  assert titles == ["color", "shape", "orientation", *positions, "age"]
  points, shares = latent_plots.principal_components(latents)
  panels = {axes.get_title(): axes for axes in figure.axes}
  label = panels["shape"].get_xlabel()
  assert label == f"component 1 ({shares[0]:.0%} of variance)"

  # A colour is shown as it is.
  (drawn,) = panels["color"].collections
  np.testing.assert_array_equal(drawn.get_offsets(), points)
  np.testing.assert_allclose(drawn.get_facecolors()[:, :3], factors["color"])

  # Every class has its points, a colour of its own, and its legend.
  groups = panels["shape"].collections
  legend = panels["shape"].get_legend().get_texts()
  assert [x.get_text() for x in legend] == ["0", "1", "2", "3"]
  for value, group in enumerate(groups):
    chosen = factors["shape"][:, 0] == value
    np.testing.assert_array_equal(group.get_offsets(), points[chosen])
  assert len({tuple(g.get_facecolors()[0]) for g in groups}) == 4

  # Nineteen classes differ in their marks, too.
  many = {"shape": np.arange(19)[:, None]}
  (axes,) = latent_plots.latents_plot(latents[:19], many).axes
  colors = [tuple(drawn.get_facecolors()[0]) for drawn in axes.collections]
  marks = [x.get_paths()[0].vertices.tobytes() for x in axes.collections]
  assert len({*zip(colors, marks, strict=True)}) == 19
  assert (len({*colors}), len({*marks})) == (7, 3)

  # Angles are equal after a full turn, and so are the ends of the colours.
  (drawn,) = panels["orientation"].collections
  turned = np.mod(factors["orientation"][:, 0], 2 * np.pi)
  np.testing.assert_array_equal(drawn.get_array(), turned)
  assert drawn.get_clim() == (0.0, 2 * np.pi)
  ends = drawn.get_cmap()([0.0, 1.0])
  np.testing.assert_allclose(ends[0], ends[1], atol=0.02)  # as twilight has it

  # Pairs of whole numbers are no classes, nor is what the kinds say is none.
  (drawn,) = panels["age"].collections
  np.testing.assert_array_equal(drawn.get_array(), factors["age"][:, 0])
  for i in range(2):
    (drawn,) = panels[f"position {i + 1}"].collections
    np.testing.assert_array_equal(drawn.get_array(), factors["position"][:, i])


def test_objects_without_factors_have_a_map():
  latents, factors = make_objects()
  for none in ({}, {name: values[:0] for name, values in factors.items()}):
    figure = latent_plots.latents_plot(latents, none)
    assert [axes.get_title() for axes in figure.axes] == ["objects"]
  figure = latent_plots.latents_plot(latents[:0], none)
  (drawn,) = figure.axes[0].collections
  assert len(drawn.get_offsets()) == 0


def test_a_traversal_shows_the_arrays():
  rng = np.random.default_rng(0)
  rows, values = 2, np.array([-1.0, 0.5, 3.0])
  traversal = latent_plots.Traversal(
    slot=2,
    num_slots=4,
    latents=np.array([7, 3]),
    kl=np.array([2.25, 1.0]),
    values=values,
    inferred=np.array([0.4, -1.2]),
    recons=rng.uniform(size=[rows, 4, H, W, C]),
    components=rng.uniform(size=[rows, 4, H, W, C]),
    masks=rng.uniform(size=[rows, 4, H, W, 1]),
  )
  figure = latent_plots.traversal_plot(traversal, masked=False)
  axes = iter(figure.axes)
  for r in range(rows):
    for images in (traversal.components, traversal.recons):
      frame = next(axes)
      assert_shows(frame, images[r, 0])
      np.testing.assert_allclose(
        frame.spines["top"].get_edgecolor()[:3], palette.slot_colors(4)[2]
      )
      assert frame.get_title() == ("inferred" if r == 0 else "")
      for v, title in enumerate(("-1", "+0.5", "+3"), start=1):
        tile = next(axes)
        assert_shows(tile, images[r, v])
        assert tile.get_title() == (title if r == 0 else "")
  assert not list(axes)
  written = [text.get_text() for text in figure.texts]
  assert written[:2] == [
    "latent 7, is +0.4\nKL 2.2 nats",
    "latent 3, is -1.2\nKL 1.0 nats",
  ]
  assert written[2].startswith("slot 3 by itself")

  # As a film it goes through the values and back, all latents in a row.
  frames = latent_plots.traversal_frames(traversal)
  heads = [figure.texts[-1].get_text() for figure in frames]
  assert [x[:5] for x in heads] == ["-1.00", "+0.50", "+3.00", "+0.50", "-1.00"]
  for figure, v in zip(frames, [1, 2, 3, 2, 1], strict=True):
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["latent 7", "latent 3", "", ""]
    for r in range(rows):
      assert_shows(figure.axes[r], traversal.recons[r, v])
      part = traversal.components[r, v], traversal.masks[r, v]
      assert_shows(figure.axes[rows + r], palette.cut_out(*part))


def test_samples_stand_beside_their_masks():
  rng = np.random.default_rng(0)
  images = rng.uniform(size=[6, H, W, 1])
  masks = rng.dirichlet(np.ones(3), [6, H, W]).transpose(0, 3, 1, 2)[..., None]
  figure = latent_plots.samples_plot(images, masks)
  assert len(figure.axes) == 12
  names = ("#cccccc", "#e69f00", "#56b4e9")
  for i in range(6):
    sample, mask = figure.axes[2 * i : 2 * i + 2]
    assert_shows(sample, np.repeat(images[i], 3, -1))
    mixed = sum(
      m * np.array(mpl_colors.to_rgb(c))
      for m, c in zip(masks[i], names, strict=True)
    )
    assert_shows(mask, mixed, atol=1e-6)  # float32
    assert sample.get_position().y0 == mask.get_position().y0
