"""What is in the pictures of scenes, and that it can be read."""

import io
import itertools

import numpy as np
import pytest
from helpers import assert_shows
from PIL import Image

from iodine.drawing import canvas, palette, plotting

B, T, H, W = 2, 3, 6, 9


def make_info(num_slots=4, num_entities=3, channels=3, frames=1, seed=0):
  """Random arrays of the shapes that `IODINE.eval` gives."""
  rng = np.random.default_rng(seed)
  slots = [B, T, num_slots, H, W]
  logits = rng.normal(size=[*slots, 1])
  odds = np.exp(logits)
  owner = rng.integers(0, num_entities, [B, frames, H, W])
  spatial = {
    "image": rng.uniform(size=[B, T, 1, H, W, channels]),
    "mask": logits,
    "pred_mask": odds / odds.sum(2, keepdims=True),
    "components": rng.uniform(size=[*slots, channels]),
    "dcomponents": rng.normal(size=[*slots, channels]),
    "coordinates": rng.uniform(-1, 1, size=[B, T, 1, H, W, 8]),
  }
  return {
    "data": {
      "image": rng.uniform(size=[B, frames, H, W, channels]),
      "true_mask": np.moveaxis(np.eye(num_entities)[owner], -1, 2)[..., None],
    },
    "inputs": {
      "spatial": spatial,
      "flat": {"zp": rng.normal(size=[B, T, num_slots, 10])},
    },
    "outputs": {
      # Beyond [0, 1], as means of a logistic distribution can be.
      "recons": rng.uniform(-0.5, 1.5, size=[B, T, 1, H, W, channels]),
      "pred_mask": spatial["pred_mask"],
      "pred_mask_logits": logits,
      "components": rng.uniform(-0.5, 1.5, size=[*slots, channels]),
    },
  }


def shown(axes):
  """The array that axes show."""
  (image,) = axes.images
  return np.asarray(image.get_array())


def one_hot(owner, number):
  """Masks [number, H, W, 1] of what has each pixel."""
  return np.moveaxis(np.eye(number)[owner], -1, 0)[..., None]


def as_shown(image):
  return np.clip(image, 0, 1) * np.ones(3)


def cut_out(images, masks):
  """Images over squares of one pixel, white and light grey."""
  board = 1 - 0.12 * (np.indices([H, W]).sum(axis=0) % 2)[..., None]
  return masks * as_shown(images) + (1 - masks) * board


def patch_color(axes):
  """The colour behind a title; None for a plain one."""
  patch = axes.title.get_bbox_patch()
  return None if patch is None else patch.get_facecolor()[:3]


def assert_legible(figure):
  """No text reaches beyond the figure or over another one."""
  canvas.pixels(figure)
  width, height = figure.canvas.get_width_height()
  written = list(figure.texts)
  for axes in figure.axes:
    written.append(axes.title)
    low, high = sorted(axes.get_ylim())
    ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    written += [label for tick, label in ticks if low <= tick <= high]
  boxes = {x: x.get_window_extent() for x in written if x.get_text().strip()}
  assert boxes
  for text, box in boxes.items():
    inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width
    assert inside and box.y1 <= height, text.get_text()
  for (one, a), (other, b) in itertools.combinations(boxes.items(), 2):
    apart = a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0
    assert apart, (one.get_text(), other.get_text())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scene, iteration", [(0, -1), (1, 1)])
def test_example_shows_the_arrays(channels, scene, iteration):
  info = make_info(channels=channels)
  figure = plotting.example_plot(info, scene, iteration)
  outputs = info["outputs"]
  masks = outputs["pred_mask"][scene, iteration]
  titles = [axes.get_title() for axes in figure.axes]
  slots = [f"slot {k}" for k in range(1, 5)]
  assert titles == ["image", "reconstruction", "mask", *slots]
  expected = [
    info["data"]["image"][scene, 0],
    outputs["recons"][scene, iteration, 0],
    sum(masks[k] * palette.slot_colors(4)[k] for k in range(4)),
    *cut_out(outputs["components"][scene, iteration], masks),
  ]
  for axes, image in zip(figure.axes, expected, strict=True):
    # Floating-point rounding of the sum over slots.
    assert_shows(axes, as_shown(image), atol=1e-6)
  plain = plotting.example_plot(info, scene, iteration, masked=False)
  component = outputs["components"][scene, iteration, 0]
  assert_shows(plain.axes[3], as_shown(component))


def test_a_sequence_shows_the_frame_of_the_iteration():
  info = make_info(frames=T)
  for t in range(T):
    figure = plotting.example_plot(info, 1, t)
    assert_shows(figure.axes[0], info["data"]["image"][1, t])
  last = plotting.iterations_plot(info, 1).axes[0]
  assert_shows(last, info["data"]["image"][1, -1])


@pytest.mark.parametrize("style", ["screen", "paper"])
@pytest.mark.parametrize("num_slots", [2, 7, 11])
def test_pictures_are_legible_and_have_the_slots_colors(num_slots, style):
  info = make_info(num_slots, num_entities=num_slots + 2)
  scenes = {0: info, 10: info}
  expected = palette.slot_colors(num_slots)
  options = {"format": "png", "dpi": None, "style": style}
  with canvas.styled(options):
    figures = [
      plotting.example_plot(info),
      plotting.iterations_plot(info),
      plotting.inputs_plot(info),
      plotting.overview_plot(scenes),
    ]
    for figure in [*figures, plotting.sequence_plot(scenes)]:
      assert_legible(figure)
      assert style == "screen" or figure.get_figwidth() == 6.75
  for figure in figures:
    titled = {axes.get_title(): axes for axes in figure.axes}
    for k in range(num_slots):
      axes = titled[f"slot {k + 1}"]
      np.testing.assert_allclose(patch_color(axes), expected[k])
      frame = axes.spines["left"].get_edgecolor()
      np.testing.assert_allclose(frame[:3], expected[k])
    assert patch_color(figure.axes[0]) is None


def test_chosen_iterations_have_rows_and_columns():
  info = make_info()
  figure = plotting.iterations_plot(info, iterations=[0, 2])
  written = [text.get_text() for text in figure.texts]
  logits = "mask logits"
  assert written == ["truth", "iteration 0", logits, "iteration 2", logits]
  outputs, image = info["outputs"], info["data"]["image"][0, 0]
  figure = plotting.sequence_plot({4: info}, [0, 2])
  names = ("image", "reconstruction", "mask")
  assert [x.get_text() for x in figure.texts] == [
    f"scene 4, {name}" for name in names
  ]
  titles = [axes.get_title() for axes in figure.axes]
  assert titles == ["iteration 0", "iteration 2", *4 * [""]]
  for axes in figure.axes[:2]:
    assert_shows(axes, image)
  for axes, t in zip(figure.axes[2:4], [0, 2], strict=True):
    assert_shows(axes, as_shown(outputs["recons"][0, t, 0]))


def test_iterations_show_the_arrays():
  info = make_info()
  figure = plotting.iterations_plot(info, 1)
  outputs = {k: v[1] for k, v in info["outputs"].items()}
  axes = iter(figure.axes[2 + 3 :])  # after image, mask and three entities
  for t in range(T):
    assert_shows(next(axes), as_shown(outputs["recons"][t, 0]))
    mixed = np.einsum(
      "khw,kc->hwc", outputs["pred_mask"][t, ..., 0], palette.slot_colors(4)
    )
    assert_shows(next(axes), mixed, atol=1e-6)  # rounding
    for k in range(4):
      masks = outputs["pred_mask"][t, k]
      expected = cut_out(outputs["components"][t, k], masks)
      assert_shows(next(axes), expected, atol=1e-6)  # rounding
    for k in range(4):
      logits = next(axes)
      assert_shows(logits, outputs["pred_mask_logits"][t, k, ..., 0])
      # One scale for all iterations, which the colour bars show.
      low, high = logits.images[0].get_clim()
      assert low == outputs["pred_mask_logits"].min()
      assert high == outputs["pred_mask_logits"].max()
    np.testing.assert_allclose(next(axes).get_ylim(), (low, high))
  assert not list(axes)


def test_true_entities_stand_above_their_slots_in_their_colors():
  info = make_info(num_slots=3, num_entities=5)
  # Slot 2 has entity 1, slot 0 has entity 2; entity 4 has no pixels.
  owner = np.repeat([[0, 1, 2, 3, 3, 3]], W, axis=0).T
  slot_of = np.array([1, 2, 0, 1, 1])
  info["data"]["true_mask"][0, 0] = one_hot(owner, 5)
  info["outputs"]["pred_mask"][0, -1] = one_hot(slot_of[owner], 3)
  figure = plotting.iterations_plot(info)
  titled = {axes.get_title(): axes for axes in figure.axes}
  left = {name: axes.get_position().x0 for name, axes in titled.items()}
  assert left["object 1"] == left["slot 3"]
  assert left["object 2"] == left["slot 1"]
  # Slot 2 has more of entity 3 than of the background, which is left over.
  assert left["object 3"] == left["slot 2"]
  assert left["background"] > left["slot 3"]
  assert "object 4" not in titled
  slots = palette.slot_colors(3)
  np.testing.assert_allclose(patch_color(titled["object 1"]), slots[2])
  grey = patch_color(titled["background"])
  assert grey[0] == grey[1] == grey[2]
  mask = shown(titled["true mask"])
  np.testing.assert_allclose(mask[1, 0], slots[2])
  np.testing.assert_allclose(mask[0, 0], grey)
  image = info["data"]["image"][0, 0]
  expected = cut_out(image, (owner == 1)[..., None])
  assert_shows(titled["object 1"], expected, atol=1e-6)  # float32


def test_inputs_show_the_arrays_with_color_bars():
  info = make_info()
  figure = plotting.inputs_plot(info, 1, 2)
  spatial = {k: v[1, 2] for k, v in info["inputs"]["spatial"].items()}
  axes = iter(figure.axes)

  def bar():
    low, high = next(axes).get_ylim()
    return low, high

  image = next(axes)
  assert_shows(image, spatial["image"][0])
  assert bar() == (0.0, 1.0)
  for c in range(8):
    assert_shows(next(axes), spatial["coordinates"][0, ..., c])
  bar()
  for name in ("mask", "pred_mask"):
    for k in range(4):
      tile = next(axes)
      assert_shows(tile, spatial[name][k, ..., 0])
    largest = np.percentile(np.abs(spatial[name]), 99.5)
    low = -largest if name == "mask" else 0.0
    np.testing.assert_allclose(tile.images[0].get_clim(), (low, largest))
    np.testing.assert_allclose(bar(), (low, largest))
  for k in range(4):
    assert_shows(next(axes), spatial["components"][k])
  bar()
  for k in range(4):
    tile = shown(next(axes))
    largest = np.percentile(np.abs(spatial["dcomponents"]), 99.5)
    expected = np.clip(0.5 + spatial["dcomponents"][k] / largest / 2, 0, 1)
    np.testing.assert_allclose(tile, expected, atol=1e-12)  # float64
  np.testing.assert_allclose(bar(), (-largest, largest))
  zp = info["inputs"]["flat"]["zp"][1, 2]
  flat = next(axes)
  assert_shows(flat, zp)
  assert [x.get_text() for x in flat.get_yticklabels()] == list("1234")
  bar()
  assert not list(axes)
  written = {text.get_text() for text in figure.texts}
  assert written == {*spatial, "zp", "inputs from iteration 1 to 2"}


def test_pixel_parameters_that_are_no_colors_have_a_row_each():
  info = make_info()
  parameters = np.random.default_rng(1).normal(size=[B, T, 4, H, W, 6])
  info["inputs"] = {"spatial": {"components": parameters}, "flat": {}}
  figure = plotting.inputs_plot(info)
  written = [text.get_text() for text in figure.texts]
  assert written[:6] == [f"components {c + 1}" for c in range(6)]
  second = figure.axes[5]  # after four tiles and a bar
  assert_shows(second, parameters[0, -1, 0, ..., 1])


@pytest.mark.parametrize("iteration", [0, T, -T, -T - 1])
def test_there_are_inputs_from_the_first_refinement_on(iteration):
  with pytest.raises(ValueError, match="no refinement led to iteration"):
    plotting.inputs_plot(make_info(), 0, iteration)


def test_the_animation_has_a_frame_for_each_iteration():
  figures = plotting.refinement_frames(make_info())
  frames, durations = [], []
  with Image.open(io.BytesIO(canvas.gif(figures))) as gif:
    assert gif.n_frames == T and gif.info["loop"] == 0
    for t in range(T):
      gif.seek(t)
      frames.append(np.array(gif.convert("RGB"), float))
      durations.append(gif.info["duration"])
  assert durations == [700, 700, 2100]
  for t, frame in enumerate(frames):
    image, iteration = (axes.title for axes in figures[t].axes[:2])
    assert iteration.get_text() == f"iteration {t} of {T - 1}"
    assert iteration.get_fontsize() == image.get_fontsize()
    expected = canvas.pixels(figures[t]).astype(float)
    # 256 colours a frame.
    assert np.abs(frame - expected).mean() < 4.0
    for other in frames[:t]:
      assert np.abs(frame - other).mean() > 4.0
