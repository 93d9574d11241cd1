"""A SavedModel gives the model's own numbers where its code is not at hand."""

import os
import subprocess
import sys

import helpers
import numpy as np
import pytest
import tensorflow as tf

from iodine import checkpoints, segmentation

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
assert {*model.signatures} == {
  "segment", "segment_uint8", "serving_default", "decode"}
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
  segmenter = segmentation.Segmenter.from_checkpoint(checkpoint, CONFIG)
  names = {*segmentation.Segmentation._fields} - {"image", "region", "source"}
  for i, image in enumerate(images):
    here = segmenter(image)
    for name in names:
      # The same operations in another graph.
      found = there[f"segment/3/{name}"][i]
      helpers.assert_near(found, getattr(here, name), 1e-5)
  model = helpers.tiny_model({"data.image_dim": [8, 6]})
  model.initialize(SHAPE)
  checkpoints.restore(checkpoint, model=model)
  params, x_dist = model.decode(tf.constant(z))
  expected = {
    "image": x_dist.mean()[:, 0],
    "masks": tf.nn.softmax(params.mask[..., 0], axis=1),
    "components": params.pixel,
  }
  for name, value in expected.items():
    helpers.assert_near(there[f"decode/2/{name}"], value, 1e-5)
  outputs = {f"segment/3/{name}" for name in names}
  outputs |= {f"decode/2/{name}" for name in expected}
  assert outputs == {name for name in there if "/1/" not in name}
  for name in outputs:
    # A batch's size changes nothing.
    one = there[name.replace("/2/", "/1/").replace("/3/", "/1/")]
    np.testing.assert_array_equal(one, there[name][:1])


def test_samples_decode_to_the_reconstruction_that_came_with_them(exported):
  image = np.random.default_rng(1).uniform(size=SHAPE).astype(np.float32)
  loaded = tf.saved_model.load(exported)
  there = loaded.segment(image[None])
  again = loaded.decode(there["latents"])
  np.testing.assert_array_equal(again["image"], there["reconstruction"])
  np.testing.assert_array_equal(again["masks"], there["masks"])


def test_bytes_and_floats_of_an_image_give_the_same(exported):
  loaded = tf.saved_model.load(exported)
  image = helpers.noise([2, *SHAPE])
  image[0, 0, 0] = [0, 128, 255]
  unit = image.astype(np.float32) / np.float32(255)
  expected = loaded.segment(unit)
  call = loaded.signatures
  for found in (
    loaded.segment(image),
    loaded.segment(image / 255),  # float64
    call["segment"](image=tf.constant(unit)),
    call["serving_default"](image=tf.constant(unit)),
    call["segment_uint8"](image=tf.constant(image)),
  ):
    tf.nest.map_structure(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("name", ["segment", "serving_default"])
def test_floats_from_0_to_255_are_an_error(exported, name):
  call = tf.saved_model.load(exported).signatures[name]
  unit = np.full([2, *SHAPE], 0.5, np.float32)
  unit[1, 7, 5, 2] = 1.5
  call(image=tf.constant(unit))
  sentence = r"give uint8, or divide it by 255; its largest number is\] \[{}\]"
  for value, shown in ((1.75, r"1\.75"), (255, "255"), (np.nan, "nan")):
    unit[1, 7, 5, 2] = value
    with pytest.raises(
      tf.errors.InvalidArgumentError, match=sentence.format(shown)
    ):
      call(image=tf.constant(unit))


@pytest.mark.parametrize(
  "updates, part",
  [
    ([], "`output` is not set"),
    (["output=FULL"], "no mark in it says"),
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
