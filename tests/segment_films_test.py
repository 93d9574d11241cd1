"""Films, decomposed: a slot is the same thing in all frames."""

import json
import os

import helpers
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from iodine import building, errors, files, segmentation

SEED = 3
UPDATES = {
  "data.image_dim": [8, 8],
  "seed": SEED,
  "model.sequential": True,
  "num_iters": 2,
}
NUM_FRAMES = 5  # the model has been trained on three


@pytest.fixture(scope="module")
def film():
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, [NUM_FRAMES, 12, 16, 3], dtype=np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  folder = tmp_path_factory.mktemp("run")
  config = helpers.tiny_config(UPDATES)
  helpers.save_checkpoint(folder, config)
  (folder / "config.json").write_text(json.dumps(config))
  return str(folder)


def run(checkpoint, *options):
  helpers.run_main("segment", "with", f"checkpoint_dir={checkpoint}", *options)


def test_a_film_gets_a_folder(checkpoint, film, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  os.mkdir("frames")
  frames = list(map(PIL.Image.fromarray, film))
  for number, frame in enumerate(frames):
    frame.save(f"frames/{number}.png")
  for _ in range(2):  # a second time it replaces the first
    run(checkpoint, "films=frames", "json_path=found.json")
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
    assert gif.height >= 256 and gif.width == 3 * gif.height
  # The slot of the largest area in all frames comes first.
  areas = np.bincount(labels.ravel(), minlength=3)
  assert areas[0] == areas.max()
  with open("found.json") as file:
    (entry,) = json.load(file)["films"]
  assert entry["film"] == "frames" and entry["mse"] > 0


def test_iterations_see_the_frames(film):
  model = building.build(
    helpers.tiny_config({**UPDATES, "num_iters": NUM_FRAMES - 1})["model"]
  )
  model.initialize((8, 8, 3))
  helpers.perturb(model)
  frames = film / np.float32(255)
  found = segmentation.FilmSegmenter(model, (8, 8, 3), SEED)(frames)
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


def test_a_model_of_stills_is_refused():
  model = helpers.tiny_model({"data.image_dim": [8, 8]})
  model.initialize((8, 8, 3))
  with pytest.raises(errors.UserError, match="trained on stills"):
    segmentation.FilmSegmenter(model, (8, 8, 3))


@pytest.mark.parametrize(
  "options, part",
  [
    (["films=nowhere"], "`films` is `nowhere`"),
    (["films=2024"], "quote a name that reads as a number"),
    (["films=a.gif", "images=a.png"], "both set"),
    (["images=a.png", "segment.batch_size=0"], "`segment.batch_size` is 0"),
  ],
)
def test_what_is_refused(
  checkpoint, options, part, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  PIL.Image.new("RGB", (9, 9)).save("a.png")
  PIL.Image.new("RGB", (9, 9)).save("a.gif")
  sentence = helpers.fails_with_sentence(
    capsys, "segment", "with", f"checkpoint_dir={checkpoint}", *options
  )
  assert part in sentence
  assert not os.path.exists("segments")
