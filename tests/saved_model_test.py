"""A SavedModel gives the model's own numbers where its code is not at hand."""

import os
import subprocess
import sys

import helpers
import numpy as np
import pytest
import tensorflow as tf

from iodine import building, checkpoints, segmentation

SEED = 3
CONFIG = helpers.tiny_config({"data.image_dim": [8, 6], "seed": SEED})
SHAPE = (8, 6, 3)

# What a user of the file runs; nothing of this project, nor what it needs
# beside TensorFlow, can be imported there.
ELSEWHERE = """
import sys

class Blocker:
  def find_spec(self, name, path=None, target=None):
    blocked = ("iodine", "main", "configs", "sonnet", "tensorflow_probability",
               "tree", "shapeguard", "sacred")
    if name.partition(".")[0] in blocked:
      raise ModuleNotFoundError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
import numpy as np
import tensorflow as tf

folder, inputs, outputs = sys.argv[1:]
model = tf.saved_model.load(folder)
assert set(model.signatures) == {"segment", "decode"}
given, results = np.load(inputs), {}
for size in (1, 3):
  found = model.signatures["segment"](image=tf.constant(given["image"][:size]))
  results |= {f"segment/{size}/{k}": v.numpy() for k, v in found.items()}
for size in (1, 2):
  found = model.signatures["decode"](z=tf.constant(given["z"][:size]))
  results |= {f"decode/{size}/{k}": v.numpy() for k, v in found.items()}
found = model.segment(given["image"])  # the same without a signature
np.testing.assert_array_equal(found["masks"], results["segment/3/masks"])
assert model.segment(given["image"][:0])["masks"].shape == (0, 3, 8, 6)
for name in ("iodine", "sonnet", "tensorflow_probability"):
  assert name not in sys.modules
np.savez(outputs, **results)
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  tf.random.set_seed(0)  # a module's fixture is made before it is set
  folder = tmp_path_factory.mktemp("run")
  helpers.save_checkpoint(folder, CONFIG, SHAPE)
  return str(folder)


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
  """The folder that the command wrote; it was there and empty."""
  folder = tmp_path_factory.mktemp("exported")
  options = [f"{key}={value}" for key, value in helpers.TINY.items()]
  helpers.run_main(
    *("export_savedmodel", "with", "tetrominoes", *options, f"seed={SEED}"),
    *("data.image_dim=[8,6]", f"checkpoint_dir={checkpoint}"),
    f"output={folder}/new/model",
  )
  assert os.listdir(folder / "new") == ["model"]
  return str(folder / "new/model")


def test_it_runs_without_this_project(checkpoint, exported, tmp_path):
  rng = np.random.default_rng(0)
  images = rng.uniform(size=[3, *SHAPE]).astype(np.float32)
  z = rng.normal(size=[2, 3, 3]).astype(np.float32)
  np.savez(tmp_path / "inputs.npz", image=images, z=z)
  subprocess.run(
    [
      *(sys.executable, "-c", ELSEWHERE, exported),
      *(f"{tmp_path}/inputs.npz", f"{tmp_path}/outputs.npz"),
    ],
    cwd=tmp_path,
    env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    check=True,
  )
  there = np.load(tmp_path / "outputs.npz")

  # The model itself, an image at a time, by other code than that of export.
  trained = {"refinement_batch_size": CONFIG["batch_size"]}
  model = building.build({**CONFIG["model"], **trained})
  model.initialize(SHAPE)
  checkpoints.restore(checkpoint, model=model)
  batch = helpers.make_batch(batch_size=1, size=SHAPE[:2])
  for i, image in enumerate(images):
    batch["image"] = tf.constant(image)[None, None]
    info = model.eval(
      batch, seed=tf.constant([SEED, 0], tf.int64), update=False
    )
    expected = helpers.final_segmentation(info)
    assert {k for k in there if k.startswith("segment/3")} == {
      f"segment/3/{name}" for name in expected
    }
    for name, value in expected.items():
      # A graph and single operations round differently, over and over.
      helpers.assert_near(there[f"segment/3/{name}"][i], value, 1e-4)
  for name in expected:
    # A batch's size changes nothing.
    np.testing.assert_array_equal(
      there[f"segment/1/{name}"], there[f"segment/3/{name}"][:1]
    )
  params, x_dist = model.decode(tf.constant(z))
  masks = tf.nn.softmax(params.mask[..., 0], axis=1)
  expected = {
    "image": x_dist.mean()[:, 0],
    "masks": masks,
    "components": params.pixel,
  }
  for name, value in expected.items():
    helpers.assert_near(there[f"decode/2/{name}"], value, 1e-5)
    np.testing.assert_array_equal(
      there[f"decode/1/{name}"], there[f"decode/2/{name}"][:1]
    )


def test_it_is_what_the_segmenter_gives(checkpoint, exported):
  image = np.random.default_rng(1).uniform(size=SHAPE).astype(np.float32)
  loaded = tf.saved_model.load(exported)
  there = loaded.segment(image[None])
  here = segmentation.Segmenter.from_checkpoint(checkpoint, CONFIG)(image)
  for name, value in there.items():
    # The same operations in another graph.
    helpers.assert_near(value[0], getattr(here, name), 1e-5)
  # Samples decode to the reconstruction that came with them.
  again = loaded.decode(there["latents"])
  np.testing.assert_array_equal(again["image"], there["reconstruction"])
  np.testing.assert_array_equal(again["masks"], there["masks"])


@pytest.mark.parametrize(
  "updates, part",
  [
    ([], "`output` is not set"),
    (["output=FULL"], "no mark in it says"),
    (["output=/proc/no/such"], "cannot write `/proc/no"),
    (["output=NEW", "checkpoint_dir=/no/such"], "no checkpoint at `/no/such`"),
    (["output=NEW", "n_z=5"], "does not fit this configuration"),
  ],
)
def test_errors_leave_everything_as_it_was(
  capsys, checkpoint, tmp_path, updates, part
):
  (tmp_path / "full").mkdir()
  (tmp_path / "full/file").write_text("precious")
  options = [f"{key}={value}" for key, value in helpers.TINY.items()]
  for name in ("full", "new"):
    updates = [x.replace(name.upper(), str(tmp_path / name)) for x in updates]
  message = helpers.fails_with_sentence(
    capsys,
    *("export_savedmodel", "with", "tetrominoes", *options),
    *("data.image_dim=[8,6]", f"checkpoint_dir={checkpoint}", *updates),
  )
  assert part in message
  assert os.listdir(tmp_path) == ["full"]
  assert (tmp_path / "full/file").read_text() == "precious"
