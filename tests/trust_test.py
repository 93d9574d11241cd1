"""What a stranger's files may do: nothing but to be read."""

import gzip
import json
import os
import pathlib
import pickle
import shutil
import struct
import sys
import zlib

import h5py
import helpers
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import iodine
import main
from iodine import (
  building,
  config_files,
  errors,
  memory,
  training,
)
from iodine.modules import data
from iodine.readers import films, image_files, opening, streams

PRETRAINED = pathlib.Path(iodine.__file__).parent / "pretrained/tetrominoes"
# What this file is run by has to leave alone, and what it would leave.
EVIL = "import pathlib\npathlib.Path('owned').touch()\nprint('owned')\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """A folder with the files of a stranger, which Python can import."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(str(tmp_path))
  (tmp_path / "evil.py").write_text(EVIL)
  monkeypatch.delitem(sys.modules, "evil", raising=False)
  place = tmp_path / "downloaded"
  place.mkdir()
  for file in PRETRAINED.iterdir():
    (place / file.name).symlink_to(file)
  (place / "config.json").unlink()
  return tmp_path


def write(path, entry=None, value=None):
  """Writes the config of a model with one entry put in place of another."""
  config = json.loads((PRETRAINED / "config.json").read_text())
  if entry is not None:
    *parents, last = entry.split(".")
    place = config
    for key in parents:
      place = place[key]
    place[last] = value
  pathlib.Path(path).write_text(json.dumps(config))
  return config


def touched():
  return pathlib.Path("owned").exists() or "evil" in sys.modules


PARTS = [
  ("model.decoder", {"constructor": "os.system", "command": "touch owned"}),
  ("model.coord_type", {"constructor": "evil.Thing"}),
  ("optimizer.nothing_of_it", [[{"constructor": "evil.Thing"}]]),
  ("data.path", {"constructor": "iodine.modules.data.os.system"}),
  (
    "stages",
    [{"until": 1, "model": {"decoder.constructor": "evil.Thing"}}],
  ),
  (
    "model.output_dist",
    {"constructor": "iodine.modules.iodine.tf.io.gfile.remove", "path": "a"},
  ),
  ("model.latent_dist", {"constructor": {"constructor": "evil.Thing"}}),
  ("model.latent_dist", {"constructor": ["evil.Thing"]}),
  ("model.latent_dist", {"constructor": "iodine.files.write_json"}),
  ("model.latent_dist", {"constructor": "iodine.building._construct"}),
  ("model.latent_dist", {"constructor": "iodine.modules.utils.get_act_func"}),
  ("model.latent_dist", {"constructor": "iodine.modules.data.Any"}),
  # `iodine` looks for modules beside itself, too.
  ("model.latent_dist", {"constructor": "iodine.downloaded.evil.Thing"}),
  ("model.inputs", ["image", "evil.function"]),
  ("model.preprocess", "evil.function"),
  ("model.stop_gradients", ["evil.function"]),
  ("evaluation.metrics", ["os.getcwd"]),
]


@pytest.mark.parametrize("entry, value", PARTS)
def test_a_config_beside_a_checkpoint_names_only_what_there_is(
  folder, capsys, entry, value
):
  write("downloaded/config.json", entry, value)
  with pytest.raises(errors.UserError) as error:
    iodine.restore("downloaded")
  assert str(error.value).startswith("`downloaded/config.json` names ")
  assert f"`{entry}" in str(error.value)
  with pytest.raises(errors.UserError):
    iodine.load_config("downloaded/config.json")
  fails = helpers.fails_with_sentence
  for words in ("checkpoint_dir=downloaded", "downloaded/config.json"):
    sentence = fails(capsys, "load_checkpoint", "with", words)
    assert "`downloaded/config.json` names " in sentence
  assert not touched()


def test_segment_reads_the_same_config(folder):
  write("downloaded/config.json", *PARTS[0])
  for call in (iodine.segment, iodine.Segmenter.from_checkpoint):
    arguments = ("photo.png",) if call is iodine.segment else ()
    with pytest.raises(errors.UserError, match="'os.system'"):
      call(*arguments, "downloaded")
  assert not touched()


class Executed:
  def __reduce__(self):
    return exec, (EVIL,)


@pytest.mark.parametrize("name", ["x.pickle", "x.yaml", "x"])
def test_only_json_is_read(folder, capsys, name):
  (folder / name).write_bytes(pickle.dumps(Executed()))
  sentence = helpers.fails_with_sentence(capsys, "print_config", "with", name)
  assert f"`{name}` is not a config file: give a JSON file" in sentence
  assert not touched()


@pytest.mark.parametrize(
  "content, part",
  [
    ("[1]", "a list is not a dict of entries"),
    ("{", "cannot be read"),
    ("[" * 100_000, "cannot be read"),
    ('{"model": {"py/reduce": [{"py/function": "os.system"}]}}', "Invalid key"),
    ('{"n.z": 1}', "`x.json` is not a config"),
    ('{"seed": 1e400}', "`seed` of `x.json` is inf"),
    ('{"n_z": {"x": 1}}', "`n_z` of `x.json` is {"),
  ],
)
def test_what_is_not_a_config(folder, capsys, content, part):
  (folder / "x.json").write_text(content)
  fails = helpers.fails_with_sentence
  assert part in fails(capsys, "print_config", "with", "x.json")


@pytest.mark.parametrize(
  "command, entry, value",
  [
    ("print_config", "json_path", "precious"),
    ("print_config", "evaluation.scenes_csv", "precious"),
    ("print_config", "data.cache", "precious"),
    ("print_config", "generated_path", "runs/data/../../other"),
    ("print_config", "continue_run", True),
    ("make_data", "data.path", "precious"),
    ("report", "checkpoint_dir", "precious"),
  ],
)
def test_a_file_does_not_say_where_to_write(
  folder, capsys, command, entry, value
):
  (folder / "precious").write_text("mine")
  config = write("x.json", entry, value)
  sentence = helpers.fails_with_sentence(capsys, command, "with", "x.json")
  assert f"`x.json` has `{entry}` {value!r}" in sentence
  assert (folder / "precious").read_text() == "mine"
  named = main.get_config(("x.json",), {entry: value})
  assert config_files.get(named, entry) == value
  stripped = config_files.for_another_call(config)
  gone = config_files.get(stripped, entry) is None
  assert gone == (command != "make_data")


def test_what_a_call_names_is_trusted_in_that_call():
  name = f"{__name__}.Executed"
  updates = {"model.latent_dist": {"constructor": name}}
  named = main.get_config(("tetrominoes",), updates)
  assert named["model"]["latent_dist"]["constructor"] == name
  with pytest.raises(errors.UserError, match=f"names '{name}'"):
    building.check_trusted(named, "it")


def test_trust_ends_with_the_call(folder, capsys, monkeypatch):
  monkeypatch.syspath_prepend(str(folder))
  (folder / "mine.py").write_text(
    "from shutil import rmtree\nclass Thing: pass\nthing = Thing()\n"
  )
  fails = helpers.fails_with_sentence
  for entry in ("model.latent_dist.constructor", "model.inputs"):
    value = "mine.Thing" if "constructor" in entry else ["mine.thing"]
    write("x.json", entry, value)
    sentence = fails(capsys, "print_config", "with", "x.json")
    assert "is not a class of this project and would be run" in sentence
    assert "add `--trust mine." in sentence
    for flag in ("mine", "other,mine", "mine.Thing,mine.thing"):
      helpers.run_main("print_config", "--trust", flag, "with", "x.json")
    assert "mine.T" in capsys.readouterr().out.replace("mine.t", "mine.T")
    fails(capsys, "print_config", "--trust", "min", "with", "x.json")
    fails(capsys, "print_config", "with", "x.json")
  # What a trusted module has imported is somebody else's.
  write("x.json", "model.latent_dist.constructor", "mine.rmtree")
  sentence = fails(capsys, "print_config", "-T", "mine", "with", "x.json")
  assert "add `--trust mine.rmtree`" in sentence
  assert "dotted path" in fails(
    capsys, "print_config", "--trust", "a b", "with", "x.json"
  )


def test_trust_in_python(monkeypatch):
  monkeypatch.setattr(building, "_trusted", [])
  config = {"a": [{"constructor": f"{__name__}.Executed"}]}
  with pytest.raises(errors.UserError, match=r"`a\[0\].constructor`"):
    building.check_trusted(config, "it")
  iodine.trust(__name__)
  building.check_trusted(config, "it")
  for name in ("", "a b", "a.", None, 5):
    with pytest.raises(errors.UserError, match="`trust` is "):
      iodine.trust(name)


def test_an_image_that_unpacks_to_much_more(tmp_path, capsys):
  path = tmp_path / "bomb.png"
  PIL.Image.new("1", (13_000, 13_000)).save(path)
  assert path.stat().st_size < 30_000
  sentence = (
    f"`{path}` has more than 89,478,485 pixels: make it smaller, or raise the "
    "limit by the environment variable `IODINE_MAX_IMAGE_PIXELS`, in Python by "
    "`PIL.Image.MAX_IMAGE_PIXELS`"
  )
  for read in (iodine.segment, image_files.read, image_files.read_labels):
    with pytest.raises(errors.UserError) as error:
      read(path)
    assert str(error.value) == sentence
  fails = helpers.fails_with_sentence
  assert fails(capsys, "segment", "with", f"images={path}").endswith(sentence)


@pytest.mark.parametrize("times", [1.5, 3])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif", "gif"])
def test_the_limit_can_be_raised(tmp_path, monkeypatch, suffix, times):
  path = str(tmp_path / f"large.{suffix}")
  PIL.Image.new("RGB", (40, 30)).save(path)
  read = films.read_film if suffix == "gif" else image_files.read
  monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", int(40 * 30 / times))
  with pytest.raises(errors.UserError, match="has more than .* pixels: make"):
    read(path)
  for limit in (40 * 30, None):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", limit)
    assert read(path).shape[-3:] == (30, 40, 3)


def test_a_tile_larger_than_its_image(tmp_path, monkeypatch):
  path = str(tmp_path / "tile.tif")
  # Width, height, bits, no compression, grey, samples; the tile's width,
  # height, place and size.
  tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 277: 1}
  tags |= {322: 4096, 323: 4096, 324: 8, 325: 64}
  entries = [struct.pack("<HHII", tag, 4, 1, v) for tag, v in tags.items()]
  pathlib.Path(path).write_bytes(
    struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    + b"".join(entries)
    + bytes(4)
  )
  monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 4096 * 4095)
  with pytest.raises(errors.UserError, match="has more than"):
    image_files.read(path)


def test_a_film_of_many_frames(tmp_path, monkeypatch):
  path = str(tmp_path / "film.gif")
  frames = [PIL.Image.new("L", (16, 16), 9 * i) for i in range(20)]
  frames[0].save(path, save_all=True, append_images=frames[1:])
  assert films.read_film(path).shape == (20, 16, 16, 3)
  monkeypatch.setattr(memory, "available", lambda: 100_000)
  with pytest.raises(errors.UserError) as error:
    films.read_film(path)
  assert str(error.value) == (
    f"20 frames of `{path}` would take 0 GB of memory at least, and here are 0 "
    "GB: cut it into shorter films, or make it smaller"
  )
  assert len(films.read(path, [0, 7])) == 2


def test_arrays_that_unpack_to_much_more(tmp_path, monkeypatch):
  path = str(tmp_path / "scenes.h5")
  with h5py.File(path, "w") as file:
    file.create_dataset(
      "image", (2, 100_000, 100_000, 3), np.uint8, chunks=True
    )
  assert pathlib.Path(path).stat().st_size < 10_000
  with pytest.raises(errors.UserError, match="has more than .* pixels"):
    data.Arrays(path=path, batch_size=1).image_shape  # noqa: B018
  with h5py.File(path, "w") as file:
    chunks = (2000, 1000, 1000)
    file.create_dataset("image", (2000, 1000, 1000), np.uint8, chunks=chunks)
  with pytest.raises(errors.UserError, match="in chunks of 2,000,000,000 byte"):
    data.Arrays(path=path, batch_size=1).image_shape  # noqa: B018
  with h5py.File(path, "w") as file:
    file.create_dataset("image", (10**13, 8, 8, 3), np.uint8, chunks=True)
  with pytest.raises(errors.UserError, match="would take .* GB of memory"):
    data.Arrays(path=path, batch_size=1).image_shape  # noqa: B018
  with h5py.File(path, "w") as file:
    options = {"chunks": (1, 32, 32, 3), "compression": "gzip"}
    file.create_dataset("image", (5, 32, 32, 3), np.uint8, **options)
    packed = zlib.compress(bytes(200_000_000))
    file["image"].id.write_direct_chunk((3, 0, 0, 0), packed)
  with pytest.raises(errors.UserError, match="for 3,072, so it is broken"):
    data.Arrays(path=path, batch_size=1).image_shape  # noqa: B018
  path = str(tmp_path / "scenes.npz")
  np.savez_compressed(path, image=np.zeros([20, 64, 64, 3], np.uint8))
  assert data.Arrays(path=path, batch_size=1).image_shape == (64, 64, 3)
  usage = shutil.disk_usage(tmp_path)._replace(free=200_000)
  monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
  with pytest.raises(errors.UserError, match="unpacks to 245,.* has room for"):
    data.Arrays(path=path, batch_size=1).image_shape  # noqa: B018


def write_records(path, lengths, opener=open, checksum=None, content=True):
  """Writes records of zeros, with checksums of their lengths."""
  with opener(path, "wb") as file:
    for length in lengths:
      size = struct.pack("<Q", length)
      file.write(size)
      file.write(struct.pack("<I", checksum or opening._checksum(size)))
      file.write(bytes(min(length, 30_000_000) + 4) if content else b"")


@pytest.mark.parametrize("opener", [open, gzip.open])
@pytest.mark.parametrize("length", [30_000_000, 2**45, 2**63])
def test_records_longer_than_any_scene(tmp_path, opener, length):
  path = str(tmp_path / "scenes.tfrecords")
  for lengths in ([length], [1000, 20_000, length]):
    # TensorFlow would take so much before it misses a byte.
    write_records(path, lengths, opener, content=len(lengths) > 1)
    with pytest.raises(errors.UserError) as error:
      next(data.Tetrominoes(path=path, batch_size=1).batches())
    assert str(error.value) == (
      f"record {len(lengths) - 1} of `{path}` has {length:,} bytes, many times "
      "more than a scene takes: check the path, or download or write it again"
    )


def test_events_that_say_they_are_endless(tmp_path):
  path = tmp_path / "events.out.tfevents.1.endless"
  write_records(path, [2**45], content=False)
  writer = training.SummaryWriter(str(tmp_path))
  writer.scalars(3, {"loss": 2.0})
  assert training.read_scalars(str(tmp_path), ["loss"]) == {"loss": [(3, 2.0)]}


def test_a_length_with_a_wrong_checksum_is_a_broken_file(tmp_path):
  path = str(tmp_path / "scenes.tfrecords")
  write_records(path, [2**45], checksum=7, content=False)
  with pytest.raises(errors.UserError, match="is not a TFRecord file, or is"):
    next(data.Tetrominoes(path=path, batch_size=1).batches())


def test_the_checksum_is_that_of_the_files(tmp_path):
  path = str(tmp_path / "scenes.tfrecords")
  with tf.io.TFRecordWriter(path) as writer:
    writer.write(b"some bytes")
  written = pathlib.Path(path).read_bytes()
  assert struct.unpack("<I", written[8:12])[0] == opening._checksum(written[:8])
  assert struct.unpack("<I", written[22:])[0] == opening._checksum(
    b"some bytes"
  )


@helpers.needs_real_scenes
def test_the_shuffle_buffer_is_no_larger_than_the_file(monkeypatch):
  path = str(helpers.REAL_SCENES)
  sizes = []
  shuffle = streams.shuffle

  def spy(scenes, buffer_size, *args):
    sizes.append(buffer_size)
    return shuffle(scenes, buffer_size, *args)

  monkeypatch.setattr(streams, "shuffle", spy)
  for wanted in (10**9, 1000):
    dataset = data.Tetrominoes(path=path, batch_size=2, shuffle_buffer=wanted)
    assert next(dataset.batches())["image"].shape[0] == 2
  assert sizes == [10_000, 1000]


SIZES = [
  ("num_components=1000000", "`num_components` 1000000 for 1 images of 35 x"),
  ("n_z=1000000000", "`n_z` 1000000000 for `num_components` 4 would"),
  ("num_iters=1000000000", "`num_iters` 1000000000 would take 1,048,576 GB"),
  ("batch_size=1000000000", "`batch_size` 1000000000 of 35 x 35 pixels would"),
  ("data.image_dim=[100000,100000]", "of 100000 x 100000 pixels would take"),
  ("segment.batch_size=1000000000", "`segment.batch_size` 1000000000 would"),
]


@pytest.mark.parametrize("update, part", SIZES)
def test_sizes_that_no_machine_holds(tmp_path, capsys, update, part):
  photo = tmp_path / "photo.png"
  PIL.Image.new("RGB", (40, 40)).save(photo)
  words = ("segment", "with", f"images={photo}", f"output={tmp_path}/out")
  sentence = helpers.fails_with_sentence(capsys, *words, update)
  assert part in sentence and " of memory at least, and here are " in sentence


def test_a_batch_that_no_machine_holds():
  model = helpers.tiny_model()
  batch = tf.TensorSpec([10**9, 1, 8, 8, 3], tf.float32)
  encode = tf.function(lambda x: model.encode(x)[0][-1].z, autograph=False)
  with pytest.raises(errors.UserError, match="for 1000000000 images of 8 x 8"):
    encode.get_concrete_function(batch)


def test_num_scenes_that_no_disk_holds(tmp_path, capsys):
  sentence = helpers.fails_with_sentence(
    *(capsys, "make_data", "with", "tetrominoes", "num_scenes=1000000000000"),
    f"data_dir={tmp_path}/deep/down",
  )
  assert f"`num_scenes` is 1000000000000, and `{tmp_path}` has room" in sentence


def test_the_memory_of_a_container(tmp_path, monkeypatch):
  limit = tmp_path / "memory.max"
  monkeypatch.setattr(memory, "_LIMITS", (str(tmp_path / "none"), str(limit)))
  monkeypatch.setattr(memory.nvidia, "is_there", lambda: False)
  machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  for text, expected in (
    ("max\n", machine),
    ("2000000000\n", 2 * 10**9),
    ("9223372036854771712\n", machine),
  ):
    limit.write_text(text)
    assert memory.available.__wrapped__() == expected
  monkeypatch.setattr(memory.nvidia, "is_there", lambda: True)
  limit.write_text("2000000000\n")
  assert memory.available.__wrapped__() == 2**39
  memory.require(2**30, "it", "lower it")


def test_what_works_is_not_refused(monkeypatch):
  monkeypatch.setattr(memory, "available", lambda: 16 * 10**9)
  for name in ("clevr6", "multi_dsprites", "tetrominoes"):
    config = main.get_config((name,), {"batch_size": 256})
    height, width, channels = building.build(config["data"]).image_shape
    model = building.build(config["model"])
    model._require_memory(256, (height, width, channels))
