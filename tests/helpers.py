"""What several tests share: tiny models, random scenes, comparisons."""

import os
import pathlib

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import main
from iodine import building, checkpoints, training
from iodine.commands import make_data
from iodine.synthetic import records

GOLDEN = pathlib.Path(__file__).parent / "golden"
REAL_SCENES = (
  pathlib.Path(__file__).parents[2] / "shared/data/tetrominoes_mini.tfrecords"
)
needs_real_scenes = pytest.mark.skipif(
  not REAL_SCENES.exists(), reason=f"there are no real scenes: {REAL_SCENES}"
)

TINY = {
  "n_z": 3,
  "num_components": 3,
  "num_iters": 2,
  "model.decoder.pixel_decoder.cnn_opt.output_channels": [4, None],
  "model.decoder.pixel_decoder.cnn_opt.kernel_shapes": [3],
  "model.refinement_core.encoder_net.cnn_opt.output_channels": [4],
  "model.refinement_core.encoder_net.cnn_opt.kernel_shapes": [3],
  "model.refinement_core.encoder_net.mlp_opt.output_sizes": [6],
}

# The same at the command line, for scenes of 8 x 8 pixels.
TINY_OPTIONS = [
  *(f"{key}={value}" for key, value in TINY.items()),
  *("batch_size=3", "data.image_dim=[8,8]", "seed=3"),
]


def tiny_config(updates=None, replace=None):
  """The config of Tetrominoes with a model of few channels.

  Args:
    updates: dotted config updates.
    replace: {dotted path under `model`: value} put in place of what is there,
      where updates would be merged into it.
  """
  config = main.get_config(("tetrominoes",), {**TINY, **(updates or {})})
  for path, value in (replace or {}).items():
    *parents, last = path.split(".")
    entry = config["model"]
    for key in parents:
      entry = entry[key]
    entry[last] = value
  return config


def tiny_model(updates=None, replace=None, image_shape=None):
  """A tiny model, freshly built; with its variables where a shape is given."""
  model = building.build(tiny_config(updates, replace)["model"])
  if image_shape is not None:
    model.initialize(image_shape)
  return model


def build_both(config, image_shape=(8, 8, 3)):
  """The model and the optimizer of a config, with their variables."""
  model = building.build(config["model"])
  model.initialize(image_shape)
  optimizer = building.build(config["optimizer"])
  optimizer.initialize(model.trainable_variables)
  return model, optimizer


def save_checkpoint(folder, config, image_shape=(8, 8, 3), step=0):
  """Saves the model of a config, slightly perturbed, as after `step` steps."""
  model, optimizer = build_both(config, image_shape)
  perturb(model)
  optimizer.global_step.assign(step)
  checkpoints.CheckpointStore(str(folder), model, optimizer).save()


class Run:
  """A tiny model with its optimizer, step and checkpoints."""

  def __init__(self, folder, seed=0, updates=None, **step_options):
    tf.random.set_seed(seed)
    self.model, self.optimizer = build_both(tiny_config(updates))
    self.store = checkpoints.CheckpointStore(
      str(folder), self.model, self.optimizer
    )
    self.step = training.compile_step(
      self.model, self.optimizer, seed, **step_options
    )


def steps_of(step, batches):
  """What `training.train` calls, from a function of one batch.

  Args:
    step: from a batch to its scalars.
    batches: an iterator of batches, or None for a step that needs none.
  """

  def make_steps(num_steps):
    rows = [step(next(batches)) for _ in range(int(num_steps))]
    return {name: tf.stack([row[name] for row in rows]) for name in rows[0]}

  return make_steps


def make_batch(
  batch_size=2,
  size=(8, 8),
  channels=3,
  frames=1,
  num_entities=4,
  seed=0,
  binary=False,
):
  """Random scenes; the last entity of the first one is invisible."""
  rng = np.random.default_rng(seed)
  height, width = size
  shape = [batch_size, frames, height, width, channels]
  image = rng.uniform(size=shape)
  if binary:
    image = np.round(image)
  visible = np.ones([batch_size, num_entities])
  visible[0, -1] = 0.0
  owner = rng.integers(
    0, visible.sum(1).astype(int)[:, None, None, None], shape[:-1]
  )
  mask = np.eye(num_entities)[owner]  # [B, T, H, W, L]
  data = {
    "image": image,
    "mask": np.moveaxis(mask, -1, 2)[..., None],
    "visibility": visible,
    "factors": {
      "position": rng.uniform(size=[batch_size, num_entities, 2]),
      "color": rng.uniform(size=[batch_size, num_entities, 3]),
      "shape": rng.integers(0, 20, [batch_size, num_entities, 1]),
    },
  }
  return tf.nest.map_structure(lambda x: tf.constant(x, tf.float32), data)


def event_values(folder):
  """What the event files of a folder hold: {(tag, step): value}."""
  values = {}
  for path in pathlib.Path(folder).glob("events*"):
    for raw in tf.data.TFRecordDataset(str(path)):
      event = tf.compat.v1.Event.FromString(raw.numpy())
      values.update({(v.tag, event.step): v for v in event.summary.value})
  return values


def make_scenes(folder, num_scenes):
  """The path of Tetrominoes scenes that are written there."""
  config = main.get_config(("tetrominoes",))["data"]
  return make_data.make_data(config, str(folder), num_scenes, seed=0)


def training_words(scenes, folder, **updates):
  """The command line of a tiny training."""
  updates = {
    **TINY,
    **{"batch_size": 2, "data.image_dim": [8, 8], "seed": 3},
    **{"data.path": scenes, "checkpoint_dir": folder, **updates},
  }
  words = [f"{key}={value}" for key, value in updates.items()]
  return ["with", "tetrominoes", *words]


def write_records(path, scenes, compression="GZIP"):
  """Writes scenes (or raw bytes) as TFRecord file, returns its path."""
  with tf.io.TFRecordWriter(str(path), compression) as writer:
    for scene in scenes:
      is_raw = isinstance(scene, bytes)
      writer.write(scene if is_raw else records.serialize(scene))
  return str(path)


def numbered_scene(index, visible=4):
  """A Tetrominoes scene that is recognised by its first `shape` value."""
  scene = {
    "image": np.full((35, 35, 3), index, np.uint8),
    "mask": np.zeros((4, 35, 35, 1), np.uint8),
    "visibility": np.float32([1] * visible + [0] * (4 - visible)),
    "color": np.zeros((4, 3), np.float32),
  }
  for name in ("x", "y", "shape"):
    scene[name] = np.full([4], index, np.float32)
  return scene


def noise(shape, largest=255, seed=0):
  """Random bytes."""
  generator = np.random.default_rng(seed)
  return generator.integers(0, largest + 1, shape, dtype=np.uint8)


def save_image(path, pixels, mode=None, **options):
  """Saves an array as Pillow does, in a folder that is made."""
  os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
  image = PIL.Image.fromarray(pixels)
  (image.convert(mode) if mode else image).save(path, **options)
  return str(path)


def checkpoint_tensors(prefix):
  """The tensors of a checkpoint, without what counts how often it was saved."""
  reader = tf.train.load_checkpoint(str(prefix))
  return {
    name: reader.get_tensor(name)
    for name in reader.get_variable_to_shape_map()
    if "OBJECT_GRAPH" not in name and "save_counter" not in name
  }


def run_main(*arguments):
  """Runs `python main.py ARGUMENTS` in this process."""
  return main.ex.run_commandline(["main.py", *map(str, arguments)])


def fails_with_sentence(capsys, *arguments):
  """The sentence with which the command ends; it has no traceback."""
  with pytest.raises(SystemExit) as info:
    run_main(*arguments)
  assert info.value.code == 1
  captured = capsys.readouterr()
  assert "Traceback" not in captured.err + captured.out
  (line,) = [x for x in captured.err.splitlines() if x.startswith("error: ")]
  return line


# Of a config that trains on films.
SMALL_FILMS = [
  *("n_z=3", "num_components=3", "num_iters=1", "batch_size=2"),
  "model.decoder.pixel_decoder.cnn_opt.output_channels=[4,None]",
  "model.refinement_core.encoder_net.cnn_opt.output_channels=[4]",
  *("data.image_dim=[16,16]", "stop_after_steps=2", "save_images_steps=2"),
]


def use_films(folder, image_size=16):
  """Evaluates, draws, reports and segments with a run of films."""
  run = f"checkpoint_dir={folder}/run_1"
  small = ["evaluation.num_scenes=2", "plot.num_scenes_for_map=2"]
  run_main("evaluate", "with", run, *small, f"json_path={folder}/e.json")
  run_main("plot", "with", run, *small, "plot.scenes=[0]")
  run_main("report", "with", run, *small, f"output={folder}/r.html")
  frames = [
    PIL.Image.fromarray(noise((image_size, image_size, 3), seed=i))
    for i in range(2)
  ]
  frames[0].save(f"{folder}/film.gif", save_all=True, append_images=frames[1:])
  run_main(
    *("segment", "with", run, f"films={folder}/film.gif"),
    f"output={folder}/segments",
  )
  assert os.listdir(f"{folder}/segments")
  for name in ("e.json", "r.html", "run_1/plots"):
    assert os.path.exists(f"{folder}/{name}"), name


def perturb(module, seed=0, stddev=0.1):
  """Adds noise to all variables, so that no bias or offset is trivial."""
  rng = np.random.default_rng(seed)
  for variable in module.trainable_variables:
    noise = rng.normal(scale=stddev, size=variable.shape)
    variable.assign_add(noise.astype(np.float32))


def assert_same_bits(first, second):
  """Compares variables or arrays, in lists or by name."""
  tf.nest.map_structure(np.testing.assert_array_equal, first, second)


def assert_near(actual, expected, relative=1e-5):
  """Compares within a fraction of the largest expected magnitude."""
  actual, expected = np.asarray(actual), np.asarray(expected)
  assert actual.shape == expected.shape
  assert np.all(np.isfinite(expected)), "the expectation is not finite"
  bound = relative * max(np.max(np.abs(expected), initial=0.0), 1e-6)
  np.testing.assert_allclose(actual, expected, rtol=0.0, atol=bound)


def assert_shows(axes, expected, atol=0.0):
  """The axes of a picture show an array."""
  (image,) = axes.images
  np.testing.assert_allclose(image.get_array(), expected, rtol=0, atol=atol)


def convolve(x, w, stride=1):
  """SAME-padded convolution [N, H, W, C] * [k, k, C, D] in plain NumPy."""
  num, height, width, _ = x.shape
  k = w.shape[0]
  sizes = [-(-n // stride) for n in (height, width)]
  pads = [
    max((out - 1) * stride + k - n, 0)
    for out, n in zip(sizes, (height, width), strict=True)
  ]
  before_after = [(p // 2, p - p // 2) for p in pads]
  padded = np.pad(x, [(0, 0), *before_after, (0, 0)])
  result = np.zeros([num, *sizes, w.shape[-1]])
  for i in range(sizes[0]):
    for j in range(sizes[1]):
      a, b = i * stride, j * stride
      patch = padded[:, a : a + k, b : b + k]
      result[:, i, j] = np.einsum("nhwc,hwcd->nd", patch, w)
  return result


def sigmoid(x):
  return 1.0 / (1.0 + np.exp(-x))


def elu(x):
  return np.where(x > 0, x, np.expm1(np.minimum(x, 0.0)))


def log_softmax(x, axis=-1):
  shifted = x - x.max(axis, keepdims=True)
  return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


def background_first(masks):
  """The slots of one image as they are numbered, by counting pixels.

  Args:
    masks: [K, H, W, 1].
  """
  owners = np.argmax(np.asarray(masks)[..., 0], axis=0)
  areas = [np.sum(owners == k) for k in range(len(masks))]
  first = areas.index(max(areas))
  return [first, *(k for k in range(len(masks)) if k != first)]


def final_segmentation(info):
  """What a segmentation of the first image has to be, from `model.eval`."""
  outputs, latent = info["outputs"], info["latent"]
  order = background_first(outputs["pred_mask"][0, -1])
  return {
    "masks": np.asarray(outputs["pred_mask"])[0, -1, order, ..., 0],
    "components": np.asarray(outputs["components"])[0, -1, order],
    "reconstruction": outputs["recons"][0, -1, 0],
    "latents": np.asarray(latent["z"])[0, -1, order],
    "latents_mean": np.asarray(latent["z_mean"])[0, -1, order],
    "latents_std": np.asarray(latent["z_std"])[0, -1, order],
  }
