"""Whatever is given, the answer is a result or a sentence.

Random configs and damaged files: no error but a `UserError`, nothing that takes
for ever, nothing touched but the folder for results. The examples are the same
every time.
"""

import contextlib
import gzip
import hashlib
import io
import json
import shutil
import signal
import tempfile

import h5py
import helpers
import hypothesis
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from hypothesis import strategies as st

import main
from iodine import (
  building,
  checkpoints,
  config_files,
  errors,
  synthetic,
  training,
)
from iodine.commands import common
from iodine.modules import data
from iodine.readers import arrays as array_files
from iodine.readers import films, image_files

SECONDS = 60  # that an example may take, on a machine that does other things
pytestmark = pytest.mark.slow


class TooLong(BaseException):
  """Nobody catches this one by mistake."""


def fuzzed(max_examples):
  """Runs a test on so many examples, which are the same every time."""
  return hypothesis.settings(
    max_examples=max_examples,
    derandomize=True,
    deadline=None,  # `guarded` has one
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    # To shrink an example costs as much as to find one.
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
  )


@contextlib.contextmanager
def guarded(seconds=SECONDS):
  """Ends an example that hangs, or a command, in whatever way.

  An error that is a UserError is an answer; all others go on.
  """

  def end(number, frame):
    raise TooLong(f"more than {seconds} seconds")

  previous = signal.signal(signal.SIGALRM, end)
  signal.alarm(seconds)
  try:
    with contextlib.suppress(errors.UserError):
      yield
  finally:
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture
def place(given, tmp_path, monkeypatch):
  """An empty folder for results, the current one; what is given stays."""

  def hashes():
    files = [path for path in given.rglob("*") if path.is_file()]
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

  before = hashes()
  results = tmp_path / "results"
  results.mkdir()
  monkeypatch.chdir(results)
  monkeypatch.setattr(tempfile, "tempdir", str(results))
  yield results
  assert [path.name for path in tmp_path.iterdir()] == ["results"]
  assert hashes() == before


@pytest.fixture(scope="module")
def given(tmp_path_factory):
  """Scenes, a checkpoint with its config, images, arrays: all sound."""
  folder = tmp_path_factory.mktemp("given")
  synthetic.write_dataset("tetrominoes", str(folder / "scenes"), 3, 0)
  updates = {"data.image_dim": [8, 8], "batch_size": 2, "num_iters": 1}
  config = helpers.tiny_config({**updates, "data.path": str(folder / "scenes")})
  helpers.save_checkpoint(folder / "run", config)
  (folder / "run/config.json").write_text(json.dumps(config))
  rng = np.random.default_rng(0)
  np.savez(
    folder / "own.npz",
    image=rng.integers(0, 256, [4, 8, 8, 3]).astype(np.uint8),
    mask=rng.integers(0, 3, [4, 8, 8]).astype(np.uint8),
    visibility=np.ones([4, 3], np.uint8),
  )
  return folder


# --------------------------------------------------------------------- damage

KINDS = ("flip", "insert", "remove", "cut", "repeat", "blank")
damages = st.lists(
  st.tuples(
    st.sampled_from(KINDS),
    st.floats(0, 1, exclude_max=True),
    st.binary(min_size=1, max_size=9),
  ),
  min_size=1,
  max_size=4,
)


def damage(content, changes):
  """Returns bytes with some changes at some places, from 0 to 1."""
  content = bytearray(content)
  for kind, where, some in changes:
    at, size = int(where * len(content)), len(some)
    if kind == "flip":
      for i, byte in enumerate(some[: len(content) - at]):
        content[at + i] ^= byte
    elif kind == "insert":
      content[at:at] = some
    elif kind == "remove":
      del content[at : at + size * size]
    elif kind == "cut":
      del content[at:]
    elif kind == "repeat":
      content[at:at] = content[at : at + 100 * size]
    else:
      content[at : at + size] = bytes(len(content[at : at + size]))
  return bytes(content)


# -------------------------------------------------------------------- records


def read_scenes(dataset):
  """Reads the first batches of a data set; all have to be images."""
  for _, batch in zip(range(4), dataset.batches("test"), strict=False):
    image = np.asarray(batch["image"])
    assert np.isfinite(image).all()
    assert image.min() >= 0.0 and image.max() <= 1.0


@fuzzed(150)
@hypothesis.given(
  level=st.sampled_from(["file", "inflated", "record"]), changes=damages
)
def test_damaged_records(place, given, level, changes):
  path, content = place / "scenes", (given / "scenes").read_bytes()
  if level == "file":
    path.write_bytes(damage(content, changes))
  elif level == "inflated":
    path.write_bytes(gzip.compress(damage(gzip.decompress(content), changes)))
  else:
    scenes = tf.data.TFRecordDataset(str(given / "scenes"), "GZIP")
    first, second, *others = scenes.as_numpy_iterator()
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
      for payload in (first, damage(second, changes), *others):
        writer.write(payload)
  with guarded():
    config = helpers.tiny_config({"data.path": str(path), "batch_size": 2})
    read_scenes(building.build(config["data"]))


# --------------------------------------------------------------------- arrays

dtypes = st.sampled_from(
  ["u1", "i2", "i8", "f2", "f4", "f8", "?", "c8", "U3", "M8[s]", "O", ">f4"]
)
shapes = st.lists(st.sampled_from([0, 1, 2, 3, 4, 8]), max_size=6)


@st.composite
def arrays(draw):
  """Arrays of all kinds, of numbers that scenes do not have, too."""
  dtype, shape = np.dtype(draw(dtypes)), draw(shapes)
  value = draw(st.sampled_from([0, 1, 2, 255, -1, np.nan, np.inf, 1e38, 2**40]))
  with np.errstate(all="ignore"):
    return np.full(shape, value).astype(dtype)


@fuzzed(400)
@hypothesis.given(
  parts=st.dictionaries(
    st.sampled_from(["image", "mask", "visibility", "factors/color", "other"]),
    arrays(),
    max_size=3,
  ),
  changes=st.none() | damages,
)
def test_arrays(place, given, parts, changes):
  with np.load(given / "own.npz") as sound:
    parts = {**sound, **parts}
  path = place / "own.npz"
  np.savez(path, **parts)
  if changes is not None:
    path.write_bytes(damage(path.read_bytes(), changes))
  with guarded():
    read_scenes(data.Arrays(path=str(path), batch_size=2))


# --------------------------------------------------------------------- images

MODES = ("RGB", "L", "P", "RGBA", "I;16", "1", "CMYK")
FORMATS = {"png": "PNG", "jpg": "JPEG", "gif": "GIF", "tif": "TIFF"}
names = st.text("ab [](){}?*\\'\"$%&;~#é\n\t", min_size=1, max_size=6).filter(
  lambda name: name.strip()
)


@fuzzed(800)
@hypothesis.given(
  mode=st.sampled_from(MODES),
  suffix=st.sampled_from(sorted(FORMATS)),
  name=names,
  changes=st.none() | damages,
)
def test_images(place, mode, suffix, name, changes):
  pixels = np.random.default_rng(0).integers(0, 256, [9, 7, 3]).astype(np.uint8)
  image = PIL.Image.fromarray(pixels)
  with contextlib.suppress(ValueError):
    image = image.convert(mode)
  buffer = io.BytesIO()
  try:
    image.save(buffer, FORMATS[suffix])
  except (OSError, ValueError):  # a format that has no such mode
    image.convert("RGB").save(buffer, FORMATS[suffix])
  content = buffer.getvalue()
  path = place / f"x{name}.{suffix}"
  path.write_bytes(content if changes is None else damage(content, changes))
  assert image_files.find(str(path)) == [str(path)]
  (film,) = films.find("films", str(path))
  for read in (lambda: image_files.read(path), lambda: films.read(film)):
    with guarded():
      found = read()
      assert found.dtype == np.float32
      assert found.min() >= 0.0 and found.max() <= 1.0
  path.unlink()


# ---------------------------------------------------------------- checkpoints

FILES = ("checkpoint", "ckpt-0.index", "ckpt-0.data-00000-of-00001")


@fuzzed(200)
@hypothesis.given(
  name=st.sampled_from((*FILES, "config.json")), changes=damages
)
def test_damaged_checkpoints(place, given, name, changes):
  run = place / "run"
  shutil.rmtree(run, ignore_errors=True)
  shutil.copytree(given / "run", run)
  (run / name).write_bytes(damage((run / name).read_bytes(), changes))
  with guarded():
    model, _ = checkpoints.restore_model(str(run))
    for variable in model.variables:
      assert np.isfinite(variable.numpy()).all()


# ------------------------------------------------------------ many of a kind


def random_damage(rng, content):
  """Returns bytes with one to four changes."""
  changes = [
    (rng.choice(KINDS), rng.random(), rng.bytes(rng.integers(1, 10)))
    for _ in range(rng.integers(1, 5))
  ]
  return damage(content, changes)


def encoded(image, suffix):
  buffer = io.BytesIO()
  many = {"save_all": True, "append_images": [image.rotate(180)] * 2}
  image.save(buffer, FORMATS[suffix], **(many if suffix == "gif" else {}))
  return buffer.getvalue()


def sound_images():
  """Yields names, contents and readers of images and films."""
  pixels = np.random.default_rng(0).integers(1, 256, [9, 7, 3]).astype(np.uint8)
  for suffix in FORMATS:
    for mode in ("RGB", "L", "P"):
      image = PIL.Image.fromarray(pixels)
      # Of no black in a palette.
      image = image.quantize() if mode == "P" else image.convert(mode)
      if (suffix, mode) != ("jpg", "P"):
        yield f"a.{suffix}", encoded(image, suffix), read_film
  image = PIL.Image.fromarray(pixels).resize((600, 520))
  yield "a.jpg", encoded(image, "jpg"), read_photograph


def read_film(path):
  (film,) = films.find("films", path)
  return films.read(film)


def read_photograph(path):
  return image_files.read(path, image_files.Framing((8, 8), None, False))


def sound_arrays():
  rng = np.random.default_rng(0)
  parts = {
    "image": rng.integers(1, 256, [4, 8, 8, 3]).astype(np.uint8),
    "mask": rng.integers(0, 3, [4, 8, 8]).astype(np.uint8),
    "visibility": np.ones([4, 3], np.uint8),
  }
  for save in (np.savez, np.savez_compressed):
    buffer = io.BytesIO()
    save(buffer, **parts)
    yield "own.npz", buffer.getvalue(), read_arrays
  for options in ({}, {"chunks": True, "compression": "gzip"}):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
      for name, array in parts.items():
        file.create_dataset(name, data=array, **options)
    yield "own.h5", buffer.getvalue(), read_arrays


def read_arrays(path):
  framing = image_files.Framing(None, None, False)
  masks = array_files.Masks(None, None, (0,))
  source = array_files.ArraySource(path, None, framing, None, 1, masks)
  return source.read(np.arange(source.num_scenes))["image"]


def read_records(path):
  options = {"batch_size": 3, "image_dim": [8, 8], "shuffle_buffer": None}
  (batch, *_) = data.Tetrominoes(path=path, **options).batches("test")
  return batch["image"].numpy()


def read_checkpoint(path):
  opened = checkpoints.open_checkpoint(path.rpartition(".")[0])
  return np.concatenate(
    [np.ravel(x) for x in opened.tensors.values() if np.ndim(x)], dtype=float
  )


@pytest.mark.parametrize(
  "kind, number",
  [
    *(("images", 11000), ("arrays", 7000)),
    *(("records", 1000), ("checkpoints", 1000)),
  ],
)
def test_damaged_files_are_read_or_refused(place, given, kind, number):
  """None gives zeros in the place of what it was."""
  sound = {
    "images": lambda: list(sound_images()),
    "arrays": lambda: list(sound_arrays()),
    "records": lambda: [
      ("scenes", (given / "scenes").read_bytes(), read_records)
    ],
    "checkpoints": lambda: [
      (name, (given / "run" / name).read_bytes(), read_checkpoint)
      for name in FILES[1:]
    ],
  }[kind]()
  if kind == "checkpoints":
    shutil.copytree(given / "run", place, dirs_exist_ok=True)
  rng, refused = np.random.default_rng(0), 0
  for i in range(number):
    name, content, read = sound[i % len(sound)]
    path = place / name
    path.unlink(missing_ok=True)  # HDF5 may still have the file before open
    path.write_bytes(random_damage(rng, content))
    found = None
    with guarded():
      found = read(str(path))
    refused += found is None
    assert found is None or found.any(), i
    path.write_bytes(content)
  assert number / 10 < refused < number


# -------------------------------------------------------------------- configs

# Of which any value but a path is a mistake, and any path is all right.
PATHS = ("checkpoint_dir", "path", "data_dir", "output", "cache")


def entries():
  """Returns the dotted paths of a config, as they are and misspelt."""
  config = main.get_config(("tetrominoes",))
  known = [
    path
    for path, _ in config_files.leaves(config)
    if path.rpartition(".")[2] not in PATHS and not path.startswith("data.")
  ]
  parts = sorted({path.rpartition(".")[0] for path in known} - {""})
  options = ("train", "test", "image_dim", "grayscale", "shuffle_buffer")
  options += ("crop_region", "max_num_objects", "batch_size", "constructor")
  unknown = ["n_zz", "model.decoder.x", "optimizer.learn_rate"]
  return [*known, *parts, *(f"data.{name}" for name in options), *unknown]


odd = [2**31, 2**70, -(2**63), 10**9, 1e38, 1e-300, -0.0, None, True, False]
odd += ["elu", "auto", "float16", "nan", "\0", "", "os.getpid"]
texts = st.text("ab:.[]{}'\"=, \n\té", max_size=6)
scalars = st.sampled_from(odd) | st.integers(-2, 6) | st.floats() | texts
keys = st.sampled_from(["constructor", "name", "replace", "x"])
values = st.recursive(
  scalars,
  lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner),
  max_leaves=4,
)
updates = st.dictionaries(
  st.deferred(lambda: st.sampled_from(entries())),
  values,
  min_size=1,
  max_size=2,
  # Sacred cannot put an entry below a number.
).filter(
  lambda found: (
    not any(inner.startswith(f"{outer}.") for inner in found for outer in found)
  )
)


SOUND = {
  **helpers.TINY,
  **{"data.path": "scenes", "data.image_dim": [8, 8], "batch_size": 2},
  **{"num_iters": 1, "data.shuffle_buffer": 2},
  **{"stop_after_steps": 1, "checkpoint_dir": "run"},
}


@fuzzed(600)
@hypothesis.given(changes=updates)
def test_configs_are_built_or_refused(place, given, changes):
  shutil.copy(given / "scenes", place)
  with guarded():
    # Without the entries of what is no dict any more.
    above = tuple(f"{path}." for path in changes)
    sound = {k: v for k, v in SOUND.items() if not k.startswith(above)}
    config = main.get_config(("tetrominoes",), {**sound, **changes})
    training.plan(config)
    shape = common.build_dataset(config["data"], config["seed"]).image_shape
    model = common.build_model(config["model"], shape)
    common.build_optimizer(config["optimizer"], model)


@fuzzed(40)
@hypothesis.given(changes=updates)
def test_commands_end_with_a_result_or_a_sentence(place, given, changes):
  shutil.copy(given / "scenes", place)
  # The later one of two counts.
  words = [f"{path}={value!r}" for path, value in {**SOUND, **changes}.items()]
  words = [word for word in words if "\0" not in word]
  said = io.StringIO()
  with (
    contextlib.redirect_stdout(said),
    contextlib.redirect_stderr(said),
    guarded(),
  ):
    try:
      helpers.run_main("with", "tetrominoes", *words)
    except SystemExit as end:
      assert end.code == 1
      (_,) = [x for x in said.getvalue().splitlines() if x.startswith("error:")]
      assert "Traceback" not in said.getvalue()
