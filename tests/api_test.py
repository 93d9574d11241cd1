"""The public list, and the examples in its docstrings."""

import doctest
import inspect
import io
import re
import signal
import sys

import h5py
import helpers
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import iodine
from iodine import building, errors
from iodine.modules.iodine import IODINE


class _IfTold(doctest.OutputChecker):
  """Compares what is printed only where an example shows something."""

  def check_output(self, want, got, flags):
    *_, last = got.splitlines() or [""]
    return not want or super().check_output(want, f"{last}\n", flags)


def run_example(name):
  """Runs the example of a public name."""
  text = inspect.getdoc(getattr(iodine, name))
  given = {"iodine": iodine, "np": np}
  test = doctest.DocTestParser().get_doctest(text, given, name, None, 0)
  assert test.examples, f"`{name}` has no example"
  flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
  runner = doctest.DocTestRunner(_IfTold(), optionflags=flags)
  report = []
  runner.run(test, out=report.append, clear_globs=False)
  assert not runner.failures, "".join(report)


def test_examples(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(building, "_trusted", [])
  for name in "ab":
    helpers.save_image(f"{name}.png", helpers.noise((9, 12, 3)))
  with h5py.File("latents.h5", "w") as file:
    file["mean"] = np.zeros([2, 3, 4])
    file.attrs["made_from"] = ""
  # The others use the run that it makes.
  for name in sorted(iodine.__all__, key=lambda x: x != "train"):
    run_example(name)


def test_the_public_list():
  public = ["__all__", "__version__", *iodine.__all__]
  assert dir(iodine) == sorted(public)
  assert sorted(iodine.__all__) == iodine.__all__
  given = {name for name in vars(iodine) if not name.startswith("_")}
  loaded = {name for name in given if f"iodine.{name}" in sys.modules}
  assert given - loaded <= set(iodine.__all__)
  for name in iodine.__all__:
    text = inspect.getdoc(getattr(iodine, name))
    assert "Example:" in text, name
    if name not in ("load_config", "trust"):
      assert re.search(r"\[.*[A-Z], ", text), f"`{name}` tells no shape"


def test_methods_are_seen_as_they_are_written():
  methods = dict(inspect.getmembers(IODINE, inspect.isfunction))
  own = {k: m for k, m in methods.items() if k in vars(IODINE) and k[0] != "_"}
  assert {"decode", "encode", "eval", "initialize"} <= own.keys()
  for name, method in own.items():
    signature = inspect.signature(method)
    assert "kwargs" not in signature.parameters, name
    assert inspect.getdoc(method), name
    assert method.__qualname__ == f"IODINE.{name}"
  model = helpers.tiny_model(image_shape=(8, 8, 3))
  assert list(inspect.signature(model.decode).parameters) == ["z"]
  # They are in the scopes of their modules even so.
  decode = tf.function(lambda z: model.decode(z).image, autograph=False)
  graph = decode.get_concrete_function(tf.zeros([1, 3, 3])).graph
  names = [x.name for x in graph.get_operations() if x.type == "Conv2D"]
  assert names == ["broadcast_conv/conv_net_2d/conv2d/Conv2D"]


@pytest.fixture(scope="module")
def model():
  tf.random.set_seed(0)
  model = helpers.tiny_model({"model.refinement_batch_size": 2})
  model.initialize((8, 8, 3))
  helpers.perturb(model)
  return model


def test_decompose(model):
  images = helpers.noise([3, 8, 8, 3])
  found = iodine.decompose(model, images, seed=3, batch_size=2)
  segmenter = iodine.Segmenter(model, (8, 8, 3), seed=3)
  one_by_one = [segmenter(image) for image in images]
  for i, expected in enumerate(one_by_one):
    for name in ("masks", "components", "latents_std", "image"):
      part = getattr(found, name)[i]
      helpers.assert_near(part, getattr(expected, name), 1e-4)
  single = iodine.decompose(model, images[1] / 255.0, seed=3)
  assert single.masks.shape == (3, 8, 8)
  np.testing.assert_array_equal(single.latents, one_by_one[1].latents)
  other = iodine.decompose(model, images[1], seed=4)
  assert np.abs(other.latents - single.latents).max() > 0.01
  # What was decoded, is again, from arrays of any kind; and changed.
  again = model.decode(found.latents.astype(np.float64))
  helpers.assert_near(again.image, found.reconstruction)
  helpers.assert_near(again.masks, found.masks)
  helpers.assert_near(again.components, found.components)
  changed = found.latents.copy()
  changed[0, 1, 0] += 2.0
  difference = np.abs(model.decode(changed).image - again.image)
  assert difference[0].max() > 1e-3 and not difference[1:].any()
  params, x_dist = again
  assert params.mask.shape == (3, 3, 8, 8, 1) and x_dist.event_shape == (3,)


def test_decompose_sees_changes_of_the_model(model):
  image = helpers.noise([8, 8, 3])
  before = iodine.decompose(model, image)
  try:
    model.num_iters = 0
    guess = iodine.decompose(model, image)
  finally:
    model.num_iters = 2
  helpers.assert_same_bits(
    iodine.decompose(model, image).latents, before.latents
  )
  assert np.abs(guess.latents - before.latents).max() > 1e-3
  # Images are all that is needed for `eval`, too.
  info = model.eval({"image": image[None, None] / np.float32(255)})
  assert info["outputs"]["recons"].shape == (1, 3, 1, 8, 8, 3)


def test_results_are_a_line_and_a_picture(model):
  found = iodine.decompose(model, helpers.noise([6, 8, 8, 3]))
  assert repr(found) == "Segmentation of 6 images: 3 slots, 8 x 8"
  one = found.at(2)
  assert repr(one) == "Segmentation of an image: 3 slots, 8 x 8"
  np.testing.assert_array_equal(one.masks, found.masks[2])
  small, large = (
    PIL.Image.open(io.BytesIO(each._repr_png_())) for each in (one, found)
  )
  assert large.size == (small.width, 4 * small.height)
  assert large.crop((0, 2 * small.height, small.width, 3 * small.height))
  third = np.asarray(large)[2 * small.height : 3 * small.height]
  np.testing.assert_array_equal(third, np.asarray(small.convert("RGB")))


def config_of(folder, **updates):
  return helpers.tiny_config(
    {
      **{"batch_size": 2, "data.image_dim": [8, 8], "seed": 3},
      **{"checkpoint_dir": f"{folder}/run", "save_summaries_steps": 1},
      **updates,
    }
  )


def test_a_training_is_that_of_the_command(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  images = helpers.noise([20, 8, 8, 3])
  np.save("images.npy", images)
  heard = {}
  config = config_of(".", validate_every=2)
  outcome = iodine.train(config, images, 2, heard.__setitem__)
  assert (outcome.step, outcome.interrupted_by) == (2, None)
  assert repr(outcome) == "Training up to step 2: ./run_1/ckpt-2"
  assert list(heard) == [1, 2] and "validation/total" in heard[2]
  helpers.run_main(
    *("with", "tetrominoes", *helpers.TINY_OPTIONS, "batch_size=2"),
    *("data.constructor=iodine.modules.data.Arrays", "data.path=images.npy"),
    *("data.held_out=100", "validate_every=2", "stop_after_steps=2"),
    *("model.refinement_batch_size=2", "checkpoint_dir=run"),
  )
  mine, other = map(
    helpers.checkpoint_tensors, ("run_1/ckpt-2", "run_2/ckpt-2")
  )
  helpers.assert_same_bits(mine, other)
  # The model at hand is that of the checkpoint, from which it is restored.
  restored, config = iodine.restore("run_1")
  expected = iodine.decompose(restored, images[:2])
  helpers.assert_same_bits(
    iodine.decompose(outcome.model, images[:2]).masks, expected.masks
  )
  assert iodine.segment(images[0], "run_1").masks.shape == (3, 8, 8)
  # It is trained further, in place, and stopped from within.
  before = restored.trainable_variables[0].numpy()

  def stop(step, scalars):
    signal.raise_signal(signal.SIGINT)

  config = {**config, "checkpoint_dir": "further", "validate_every": None}
  scenes = {"image": images, "mask": images[..., 0] // 128}
  stopped = iodine.train(restored, scenes, 9, stop, config)
  assert (stopped.step, stopped.interrupted_by) == (1, signal.SIGINT)
  assert stopped.model is restored
  assert np.any(restored.trainable_variables[0].numpy() != before)
  assert list(heard) == [1, 2]  # who heard of one training is not told more
  result = iodine.evaluate(stopped.model, scenes, num_scenes=4)
  same = iodine.evaluate({**config, "checkpoint_dir": "further_1"}, scenes, 4)
  assert result.num_scenes == 4 and "ari_nobg" in result.metrics
  assert result.metrics["mse"] == same.metrics["mse"]
  assert repr(result).startswith("Evaluation of 4 scenes: ari")
  assert "<pre>4 scenes" in result._repr_html_()
  # Of a data set its `data.test`; and a run that is done is only restored.
  dataset = iodine.build({**config["data"], "path": "images.npy"})
  assert iodine.evaluate("run_1", dataset).num_scenes == 2
  done = {**config, "checkpoint_dir": "run_1", "continue_run": True}
  outcome = iodine.train(done, images, 2)
  helpers.assert_same_bits(
    iodine.decompose(outcome.model, images[:2]).masks, expected.masks
  )


@pytest.mark.parametrize(
  "call, sentence",
  [
    (lambda m: iodine.train(m, helpers.noise([4, 8, 8, 3])), "give `config=`"),
    (lambda m: iodine.train(config_of("."), steps=0), "`steps` is 0"),
    (
      lambda m: iodine.train(config_of("."), "images.npy"),
      "`image` of `an arr",
    ),
    (lambda m: iodine.train({}, np.zeros([4, 8, 8, 3])), "no `data`"),
    (lambda m: iodine.evaluate(m), "give `data`, too"),
    (lambda m: iodine.evaluate("no/run"), "no checkpoint at `no/run`"),
    (lambda m: iodine.decompose(m, np.zeros([8, 8, 7])), "is not an image"),
    (lambda m: iodine.decompose(m, 255.0 + np.zeros([8, 8, 3])), "give uint8"),
  ],
)
def test_mistakes_are_sentences(call, sentence, model):
  with pytest.raises(errors.UserError, match=re.escape(sentence)):
    call(model)
