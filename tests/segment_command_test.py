"""`segment` as users run it: its files, metrics and sentences."""

import json
import os
import shutil

import helpers
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from iodine import building, errors, files, segmentation
from iodine.commands import segment as segment_command
from iodine.drawing import palette

SEED = 3
CONFIG = helpers.tiny_config({"data.image_dim": [8, 8], "seed": SEED})
OPTIONS = [
  *(f"{key}={value}" for key, value in helpers.TINY.items()),
  *("data.image_dim=[8,8]", f"seed={SEED}"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  tf.random.set_seed(0)  # a module's fixture is made before it is set
  folder = tmp_path_factory.mktemp("run")
  helpers.save_checkpoint(folder, CONFIG)
  return str(folder)


def noise(shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def photos(tmp_path, monkeypatch):
  """Four images of several kinds, two of one name; the folder is entered."""
  monkeypatch.chdir(tmp_path)
  os.makedirs("photos/sub")
  shapes = {"sub/dog.png": (20, 20, 4), "cat.png": (8, 8, 3)}
  shapes |= {"cat.jpg": (30, 17, 3), "cat_1.png": (5, 9)}
  for i, (name, shape) in enumerate(shapes.items()):
    PIL.Image.fromarray(noise(shape, i)).save(f"photos/{name}")
  return tmp_path


def segment(checkpoint, *options):
  helpers.run_main(
    *("segment", "with", "tetrominoes", *OPTIONS),
    *(f"checkpoint_dir={checkpoint}", *options),
  )


def all_files(folder):
  return sorted(
    os.path.relpath(os.path.join(parent, name), folder)
    for parent, _, names in os.walk(folder)
    for name in names
  )


def test_every_image_gets_its_folder(checkpoint, photos, capsys):
  segment(
    checkpoint,
    "images=['photos','photos/sub/dog.png']",
    "json_path=metrics.json",
  )
  lines = capsys.readouterr().out.splitlines()
  assert not any("replaced" in x or "skipped" in x for x in lines)
  # Those called alike are numbered, but for the name that another one has.
  expected = {
    "photos/cat.jpg": "segments/cat_2",
    "photos/cat.png": "segments/cat_3",
    "photos/cat_1.png": "segments/cat_1",
    "photos/sub/dog.png": "segments/dog",
  }
  metrics = json.loads((photos / "metrics.json").read_text())
  assert metrics["seed"] == SEED
  assert {x["image"]: x["folder"] for x in metrics["images"]} == expected
  assert sorted(os.listdir("segments")) == ["cat_1", "cat_2", "cat_3", "dog"]
  segmenter = segmentation.Segmenter.from_checkpoint(checkpoint, CONFIG)
  for i, (image, folder) in enumerate(expected.items()):
    assert any(x.startswith(f"{image} -> {folder}: slot") for x in lines)
    found = segmenter(image)
    _check_files(folder, found)
    assert metrics["images"][i]["active_slots"] == [
      k + 1 for k in found.active_slots()
    ]
    error = np.mean((found.image - found.reconstruction).astype(float) ** 2)
    np.testing.assert_allclose(
      metrics["images"][i]["mse"], error, rtol=1e-5
    )  # float32 differences

  # A second run replaces what the first one wrote, to the bit the same.
  (photos / "segments/dog/slot_9.png").write_bytes(b"")  # of more slots
  content = (photos / "segments/dog/overlay.png").read_bytes()
  os.rename("segments", "photos/sub/segments")
  (photos / "photos/sub/old.heic").touch()
  # What a result is made of is not a photo.
  segment(checkpoint, "images=photos/sub", "output=photos/sub/segments/")
  os.rename("photos/sub/segments", "segments")
  out = capsys.readouterr().out
  assert (
    "skipped: 1 .heic\n" in out and "results of before are replaced: 1" in out
  )
  assert "slot_9.png" not in os.listdir("segments/dog")
  assert (photos / "segments/dog/overlay.png").read_bytes() == content


def test_a_batch_size_changes_nothing_but_the_speed(
  checkpoint, photos, capsys, monkeypatch
):
  monkeypatch.setattr(segment_command, "_READ_AHEAD", 1)  # or one by one
  trained = "model.refinement_batch_size=4"
  segment(checkpoint, "images=photos", "output=one", trained)
  options = ["images=photos", "output=three", "segment.batch_size=3"]
  segment(checkpoint, *options, trained)
  assert "4/4" in capsys.readouterr().err
  assert all_files("one") == all_files("three")
  for name in ("cat_1", "cat_2", "cat_3", "dog"):
    one, three = (
      np.load(f"{folder}/{name}/segmentation.npz")
      for folder in ("one", "three")
    )
    for part in one:
      np.testing.assert_allclose(three[part], one[part], atol=2e-4)


def test_a_photo_is_decoded_once_and_a_mask_as_large(
  checkpoint, photos, monkeypatch
):
  opened, original = [], PIL.Image.open
  monkeypatch.setattr(
    PIL.Image, "open", lambda *a, **b: opened.append(a[0]) or original(*a, **b)
  )
  segment(checkpoint, "images=photos/cat.jpg")
  assert opened == ["photos/cat.jpg"]
  full = PIL.Image.open("segments/cat/mask_full.png")
  assert full.size == PIL.Image.open("photos/cat.jpg").size == (17, 30)
  labels = np.asarray(full)
  # The model's images are squares.
  seen = np.zeros([30, 17], bool)
  seen[6:23] = True
  np.testing.assert_array_equal(labels == 255, ~seen)
  found = np.load("segments/cat/segmentation.npz")
  small = found["masks"].argmax(axis=0)
  assert set(np.unique(labels[seen])) <= set(np.unique(small))
  # In the middle of a pixel of the model nothing is between two slots.
  assert labels[6, 0] == small[0, 0]
  palette_full = full.getpalette()[: 3 * len(found["masks"])]
  mask = PIL.Image.open("segments/cat/mask.png")
  assert palette_full == mask.getpalette()[: len(palette_full)]


def _check_files(folder, found):
  """Compares all files with the segmentation that they are of."""
  slots = [f"slot_{k + 1}.png" for k in found.active_slots()]
  assert sorted(os.listdir(folder)) == [
    *(files.MARK, "mask.png", "mask_full.png", "overlay.png"),
    *("overview.png", "segmentation.npz", *slots),
  ]
  saved = np.load(f"{folder}/segmentation.npz")
  assert {*saved, "source"} == {*found._fields}
  for name in saved:
    np.testing.assert_array_equal(saved[name], getattr(found, name))
  mask = PIL.Image.open(f"{folder}/mask.png")
  assert mask.mode == "P"
  np.testing.assert_array_equal(mask, found.labels())
  colors = 255 * palette.slot_colors(len(found.masks))
  for k in found.active_slots():
    row, column = np.argwhere(found.labels() == k)[0]
    color = np.asarray(mask.convert("RGB"))[row, column]
    np.testing.assert_allclose(color, colors[k], atol=0.5)  # 8 bits
  overlay = PIL.Image.open(f"{folder}/overlay.png")
  assert 512 <= max(overlay.size) < 600
  # Image, reconstruction, mask and 3 slots.
  assert max(PIL.Image.open(f"{folder}/overview.png").size) > 6 * 130


def half_and_half(height=8, width=8):
  """Slot 0 has the left half of an image, slot 2 the right; slot 1 nothing."""
  masks = np.zeros([3, height, width], np.float32)
  masks[0, :, : width // 2] = 1.0
  masks[2, :, width // 2 :] = 1.0
  image = np.random.default_rng(0).uniform(size=[height, width, 3])
  image = image.astype(np.float32)
  zeros = np.zeros([3, 2], np.float32)
  return segmentation.Segmentation(
    **{"masks": masks, "components": np.repeat(image[None], 3, axis=0)},
    **{"image": image, "reconstruction": image, "latents": zeros},
    **{"latents_mean": zeros, "latents_std": zeros + 1},
    region=((0, height), (0, width)),
  )


def test_pictures_are_as_large_as_the_region_of_the_original(tmp_path):
  found = half_and_half()._replace(region=((10, 50), (0, 40)))
  original = noise([60, 40, 1]) / np.float32(255)
  segmentation.write(str(tmp_path), found, original)
  slots = sorted(x for x in os.listdir(tmp_path) if x.startswith("slot"))
  assert slots == ["slot_1.png", "slot_3.png"]
  cutout = np.asarray(PIL.Image.open(tmp_path / "slot_1.png"))
  assert cutout.shape == (40, 40, 4)
  for channel in range(3):  # of a grey image
    np.testing.assert_array_equal(cutout[..., channel], noise([60, 40])[10:50])
  # Mask pixel i was sampled at 5 i; between 3 and 4 the mask falls to zero.
  expected = np.clip(1 - (np.arange(40) / 5 - 3), 0, 1)
  np.testing.assert_allclose(
    cutout[..., 3], np.tile(255 * expected, (40, 1)), atol=0.51
  )  # 8 bits


def test_overlays_are_tinted_and_have_borders():
  found = half_and_half()
  pixels = np.full([8, 8, 3], 0.5, np.float32)
  overlay = np.asarray(segmentation.overlay(found, pixels)) / 255
  assert overlay.shape == (512, 512, 3)
  grey, _, blue = np.rint(255 * palette.slot_colors(3)).astype(float) / 255
  # Of 0.5, about half of the slot's colour.
  left, right = overlay[100, 100], overlay[100, 400]
  assert right.argmax() == blue.argmax()
  assert 0.5 < left.min() == left.max() < 0.8
  # The border is where the halves meet, in both colours.
  np.testing.assert_array_equal(overlay[100, 255], grey)
  np.testing.assert_array_equal(overlay[100, 256], blue)
  is_border = (overlay[100] == grey).all(-1) | (overlay[100] == blue).all(-1)
  assert 2 <= is_border.sum() <= 8
  assert is_border[250:262].sum() == is_border.sum()


@pytest.mark.parametrize(
  "options, part",
  [
    ([], "`images` is None: give"),
    (["images=nowhere.png"], "`images` is `nowhere.png`, where"),
    (["images=text.png"], "`text.png` is not an image (PNG,"),
    (["images=['photos','cut.png']"], "`cut.png` is not an image (PNG,"),
    (["images=photos", "films=photos"], "both set"),
    (["films=nowhere"], "`films` is `nowhere`"),
    (
      ["images=photos", "segment.batch_size=2"]
      + ["model.refinement_batch_size=None"],
      "`segment.batch_size` is 2",
    ),
    (["images=photos", "output=alike"], "no mark in it says"),
    (["images=alike/cat_2", "output=alike"], "no mark in it says"),
    (["images=own/mask/mask.png", "output=own"], "holds `own/mask/mask.png`"),
    (["images=photos", "n_z=5"], "does not fit this configuration"),
    (["images=photos", "json_path=photos"], "`photos` is not a file"),
  ],
)
def test_errors_leave_everything_as_it_was(
  capsys, checkpoint, photos, options, part
):
  for name in ("alike/cat_2", "alike/mask", "own/mask"):
    os.makedirs(name)
    shutil.copy("photos/cat.png", f"{name}/mask.png")
  (photos / "own/mask" / files.MARK).touch()
  (photos / "text.png").write_text("a text")
  good = (photos / "photos/cat.png").read_bytes()
  (photos / "cut.png").write_bytes(good[: len(good) // 2])
  before = all_files(photos)
  message = helpers.fails_with_sentence(
    capsys,
    *("segment", "with", "tetrominoes", *OPTIONS),
    *(f"checkpoint_dir={checkpoint}", *options),
  )
  assert part in message
  assert all_files(photos) == before
  assert not os.path.exists("segments")


# ----------------------------------------------------------------------- films

NUM_FRAMES = 5  # the model has been trained on three
SEQUENTIAL = {"data.image_dim": [8, 8], "seed": SEED, "model.sequential": True}


@pytest.fixture(scope="module")
def film():
  return noise([NUM_FRAMES, 12, 16, 3])


def test_a_film_gets_a_folder(film, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  helpers.save_checkpoint("run", helpers.tiny_config(SEQUENTIAL))
  os.mkdir("frames")
  for number, frame in enumerate(film):
    PIL.Image.fromarray(frame).save(f"frames/{number}.png")
  for _ in range(2):  # a second time it replaces the first
    segment(
      *("run", "model.sequential=True", "films=frames"), "json_path=found.json"
    )
  assert "frames -> segments/frames: slot" in capsys.readouterr().out
  names = [f"mask_{t:03}.png" for t in range(NUM_FRAMES)]
  assert sorted(os.listdir("segments/frames")) == [
    *(files.MARK, "film.gif", *names, "segmentation.npz"),
  ]
  saved = np.load("segments/frames/segmentation.npz")
  labels = saved["masks"].argmax(axis=1)
  for number, name in enumerate(names):
    mask = np.asarray(PIL.Image.open(f"segments/frames/{name}"))
    np.testing.assert_array_equal(mask, labels[number])
  with PIL.Image.open("segments/frames/film.gif") as gif:
    assert gif.n_frames == NUM_FRAMES
    # Under titles, with gaps.
    assert gif.height >= 256 + 30 and gif.width == 3 * (gif.height - 30)
  # The slot of the largest area in all frames comes first.
  areas = np.bincount(labels.ravel(), minlength=3)
  assert areas[0] == areas.max()
  with open("found.json") as file:
    (entry,) = json.load(file)["films"]
  assert entry["film"] == "frames" and entry["mse"] > 0


def test_iterations_see_the_frames(film):
  config = helpers.tiny_config(SEQUENTIAL)["model"]
  short, model = (
    building.build({**config, "num_iters": num_iters})
    for num_iters in (2, NUM_FRAMES - 1)
  )
  for each in (short, model):
    each.initialize((8, 8, 3))
  helpers.perturb(model)
  for mine, other in zip(short.variables, model.variables, strict=True):
    mine.assign(other)
  found = segmentation.Segmenter(short, (8, 8, 3), SEED)(film)
  assert short.num_iters == 2  # as it was
  assert found.masks.shape == (NUM_FRAMES, 3, 8, 8)
  frames = tf.constant(found.image[None])
  estimates, _ = model.encode(frames, seed=tf.constant([SEED, 0], tf.int64))
  orders = set()
  for t, estimate in enumerate(estimates):
    recons = estimate.x_dist.mean()[0, 0]
    helpers.assert_near(found.reconstruction[t], recons, 1e-4)
    # In another order, but one for the whole film.
    order = [
      int(np.argmin(np.abs(estimate.z[0].numpy() - latent).sum(axis=-1)))
      for latent in found.latents[t]
    ]
    orders.add(tuple(order))
  assert len(orders) == 1 and sorted(*orders) == [0, 1, 2]


def test_a_model_of_stills_is_refused(film):
  model = helpers.tiny_model({"data.image_dim": [8, 8]})
  model.initialize((8, 8, 3))
  segmenter = segmentation.Segmenter(model, (8, 8, 3))
  with pytest.raises(errors.UserError, match="trained on stills"):
    segmenter.segment([film])
  assert len(segmenter(film)) == len(film)  # an array of stills
