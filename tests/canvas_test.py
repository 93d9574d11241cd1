"""Figures as files: formats, widths on paper, letters."""

import importlib.util
import io
import re

import imageio.v3 as iio
import numpy as np
import PIL.Image
import pytest
from matplotlib import text

from iodine.drawing import canvas, charts, latent_plots

H, W = 6, 9
MEANS = {name: np.linspace(0.1, 0.9, 4) for name in ("ari", "mse", "kl")}
TITLES = {"ari": "ARI", "mse": "squared error", "kl": "KL, sum [nats]"}


def styled(style="screen", format="png", dpi=None):
  return canvas.styled({"style": style, "format": format, "dpi": dpi})


def make_tiles(columns=7):
  pixels = np.random.default_rng(0).uniform(size=[H, W, 3])
  tiles = [canvas.Tile(pixels, f"slot {k}") for k in range(columns)]
  return canvas.Tiles([canvas.Row(tiles, "truth")]).figure


def make_chart():
  return charts.evaluation_plot(MEANS, MEANS, TITLES, 9)


@pytest.mark.parametrize(
  "make, inches",
  [
    (make_tiles, 6.75),
    (lambda: make_tiles(3), 3.25),
    (make_chart, 6.75),
    (lambda: charts.importance_plot(np.eye(3), list("abc")), 3.25),
  ],
)
def test_on_paper_figures_are_as_wide_as_columns(make, inches):
  with styled("paper"):
    figure = make()
    image = PIL.Image.open(io.BytesIO(canvas.encode(figure)))
  assert figure.get_figwidth() == pytest.approx(inches)
  assert image.width == pytest.approx(300 * inches, abs=1)
  written = [x for x in figure.findobj(text.Text) if x.get_text()]
  assert {x.get_fontsize() for x in written} == {8.0}
  assert all(x.get_fontfamily() == ["sans-serif"] for x in written)
  assert figure.get_suptitle() == ""


def test_charts_on_paper_have_no_titles():
  with styled("paper"):
    figure = make_chart()
  assert [axes.get_title() for axes in figure.axes] == ["", "", ""]
  assert [axes.get_ylabel() for axes in figure.axes] == [*TITLES.values()]
  # The style ends with its block.
  assert make_chart().axes[0].get_title() == "ARI"


def test_pixels_an_inch():
  with styled(dpi=200):
    image = PIL.Image.open(io.BytesIO(canvas.encode(make_tiles())))
  with PIL.Image.open(io.BytesIO(canvas.encode(make_tiles()))) as plain:
    assert image.size == tuple(2 * size for size in plain.size)


def test_vectors_have_letters_and_the_images_own_pixels(tmp_path):
  with styled(format="pdf"):
    path = canvas.save(make_tiles(), str(tmp_path / "tiles"))
  assert path.endswith("tiles.pdf")
  pdf = (tmp_path / "tiles.pdf").read_bytes()
  sizes = re.findall(rb"/Image /Width (\d+) /Height (\d+)", pdf)
  assert sizes == 7 * [(b"9", b"6")]
  assert b"/FontFile2" in pdf  # TrueType, as journals want it
  with styled(format="svg"):
    svg = canvas.encode(make_tiles()).decode()
  assert len(re.findall("<image", svg)) == 7
  for word in ("truth", "slot 0", "slot 6"):
    assert f">{word}</text>" in svg


def test_letters_of_narrow_tiles_do_not_touch():
  with styled("paper"):
    traversal = latent_plots.Traversal(
      slot=0,
      num_slots=2,
      latents=np.array([0]),
      kl=np.array([1.0]),
      values=np.arange(-3.0, 4.0),
      inferred=np.array([0.5]),
      recons=np.zeros([1, 8, H, H, 3]),
      components=np.zeros([1, 8, H, H, 3]),
      masks=np.zeros([1, 8, H, H, 1]),
    )
    figure = latent_plots.traversal_plot(traversal)
    canvas.pixels(figure)
  titles = [axes.title for axes in figure.axes if axes.get_title()]
  boxes = sorted(title.get_window_extent().extents.tolist() for title in titles)
  for (_, _, right, _), (left, *_) in zip(boxes, boxes[1:], strict=False):
    assert right < left


@pytest.mark.skipif(
  importlib.util.find_spec("av") is None, reason="PyAV is not installed"
)
def test_a_film_is_a_video():
  frames = [make_tiles(columns) for columns in (3, 3, 3)]
  video = canvas.mp4(frames, 80)
  shape = canvas.pixels(frames[0]).shape
  read = iio.imread(video, extension=".mp4", plugin="pyav")
  assert read.shape == (3, shape[0] // 2 * 2, shape[1] // 2 * 2, 3)
