"""Values that make no sense, in configs and in data, end in a sentence."""

import copy
import json
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import zlib

import h5py
import helpers
import numpy as np
import pytest
import sacred
import tensorflow as tf

import main
from iodine import (
  building,
  errors,
  files,
  optimizers,
  segmentation,
  validation,
)
from iodine.checkpoints import finding
from iodine.commands import common, experiment
from iodine.modules import data, datasets
from iodine.readers import arrays, films, image_sets, opening, validity
from iodine.synthetic import records

ROOT = pathlib.Path(__file__).parents[1]


# ------------------------------------------------------------ configs


@pytest.mark.parametrize(
  "value",
  [math.inf, -math.inf, math.nan, 2**63, -(2**63) - 1, "a\0b", "\udcff", b"a"],
)
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"y": [1, x]}])
def test_what_json_does_not_hold_is_refused(value, wrap):
  with pytest.raises(errors.UserError, match="`x"):
    validation.check_storable("x", wrap(value))


def test_what_json_holds_is_not_refused():
  for value in (2**63 - 1, -(2**63), 1e308, 0.0, "Ä", "", None, True, [], {}):
    validation.check_storable("x", value)


def takes(
  whole: int = 1,
  number: float = 1.0,
  flag: bool = True,
  text: str | None = None,
  sizes: list[int] = (),
  part: data.Images | None = None,
  options: dict | None = None,
):
  """A function whose arguments have kinds."""


@pytest.mark.parametrize(
  ("name", "value", "need"),
  [
    ("whole", 1.0, "give a whole number"),
    ("whole", True, "give a whole number"),
    ("number", "1", "give a number"),
    ("number", math.inf, "give a number"),
    ("number", 1e39, "give a number"),  # not in float32
    ("flag", "abc", "give True or False"),
    ("text", 5, "give text or None; quote a name .*`o.text='\"5\"'`"),
    ("sizes", 3, "give a list, each entry a whole number"),
    ("sizes", [3, "a"], "give a list, each entry a whole number"),
    ("options", [1], "give a dict or None"),
  ],
)
def test_arguments_are_checked_by_their_annotations(name, value, need):
  with pytest.raises(errors.UserError, match=rf"`o\.{name}` is .*{need}"):
    validation.check_kinds("o", {name: value}, takes)


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("whole", np.int64(2)),
    ("number", 1),
    ("text", pathlib.Path("a")),
    ("sizes", (1, 2)),
    ("part", "left to the function"),
    ("unknown", object()),
  ],
)
def test_arguments_that_make_sense_are_not_refused(name, value):
  validation.check_kinds("o", {name: value}, takes)


def entries_of(config, path=()):
  """The paths of all arguments of all constructors in a config."""
  for key in {**config, **dict.fromkeys(arguments_of(config))}:
    yield (*path, key)
    if isinstance(config.get(key), dict):
      yield from entries_of(config[key], (*path, key))


def arguments_of(config):
  if "constructor" not in config:
    return ()
  return validation.parameters(building.resolve(config["constructor"]))


@pytest.mark.parametrize("part", ["model", "optimizer", "data"])
def test_every_entry_of_every_part_refuses_what_makes_no_sense(part):
  config = helpers.tiny_config()[part]
  paths = list(entries_of(config))
  assert len(paths) > 10
  for path in paths:
    for value in (math.inf, "a\0b", {"x": [2**70]}):
      wrong = copy.deepcopy(config)
      place = wrong
      for key in path[:-1]:
        place = place[key]
      place[path[-1]] = value
      with pytest.raises(errors.UserError):
        building.build(wrong, part)


@pytest.mark.parametrize(
  "arguments", [{"beta1": 1}, {"beta1": 1.0}, {"beta2": 2}, {"beta2": -0.1}]
)
def test_betas_below_one(arguments):
  (name,) = arguments
  with pytest.raises(errors.UserError, match=f"`{name}` .* below 1"):
    optimizers.Adam(0.1, **arguments)


@pytest.mark.parametrize(
  ("updates", "place"),
  [
    (["optimizer=5"], "`optimizer` is 5"),
    (["segment=5"], "`segment` is 5"),
    (["stop_after_steps=1e999"], "`stop_after_steps` is inf"),
    ([f"num_scenes={2**70}"], "`num_scenes` is 1180591620717411303424"),
    (["seed=True"], "`seed` is True"),
    (["n_z={1,2}"], "set is not JSON serializable"),
    (["seed=1", "seed.x=2"], "the updates of the config cannot be read"),
  ],
)
def test_updates_that_make_no_sense(capsys, updates, place):
  sentence = helpers.fails_with_sentence(
    capsys, "print_config", "with", "tetrominoes", *updates
  )
  assert place in sentence


@pytest.mark.parametrize(
  ("content", "need"),
  [
    ("[1, 2]", "has a list in the place of a dict"),
    ('{"model": [1], "data": 3}', "`model` is \\[1\\]|`data` is 3"),
    ('{"n_z": NaN}', "`n_z` is nan"),
    ('{"": 1}', "an entry is called ''"),
    ("{", "cannot be read"),
  ],
)
def test_files_in_place_of_named_configs(capsys, tmp_path, content, need):
  path = tmp_path / "config.json"
  path.write_text(content)
  sentence = helpers.fails_with_sentence(capsys, "print_config", "with", path)
  assert re.search(need, sentence), sentence


def test_what_is_no_file_in_place_of_a_named_config(capsys, tmp_path):
  os.mkfifo(tmp_path / "fifo.json")
  for path in (tmp_path, tmp_path / "fifo.json", "/dev/zero"):
    line = helpers.fails_with_sentence(capsys, "print_config", "with", path)
    assert f"`{path}` is not a " in line and "JSON file" in line


def test_json_has_null_for_what_it_does_not_hold(tmp_path):
  path = tmp_path / "a.json"
  files.write_json(path, {"a": [math.nan, 1.5, (math.inf,)], "b": {"c": 2}})
  assert json.loads(path.read_text()) == {
    "a": [None, 1.5, [None]],
    "b": {"c": 2},
  }


def test_what_sacred_records_is_json(tmp_path):
  ex = experiment.Experiment("values", save_git_info=False)
  ex.config(main.importlib.import_module("iodine.configs.base").defaults)
  ex.observers.append(sacred.observers.FileStorageObserver(tmp_path))

  @ex.main
  def log():
    ex.log_scalar("x", math.nan, 1)
    return {"mean": math.nan}

  ex.run()

  def refuse(name):
    raise AssertionError(f"{name} is no JSON")

  read = {
    path.name: json.loads(path.read_text(), parse_constant=refuse)
    for path in (tmp_path / "1").glob("*.json")
  }
  assert read["metrics.json"]["x"]["values"] == [None]
  assert read["run.json"]["result"] == {"mean": None}


@pytest.mark.parametrize("seed", ["x", None, [1], 2**70, -1, math.inf])
def test_a_seed_of_a_config_is_checked(seed):
  with pytest.raises(errors.UserError, match="`seed` is "):
    segmentation.Segmenter(None, (8, 8, 3), seed)


def test_a_seed_beside_a_checkpoint_is_checked(tmp_path, capsys):
  helpers.save_checkpoint(tmp_path / "run", helpers.tiny_config())
  config = json.loads(json.dumps(helpers.tiny_config()))
  (tmp_path / "run/config.json").write_text(
    json.dumps({**config, "seed": math.inf})
  )
  sentence = helpers.fails_with_sentence(
    capsys, "load_checkpoint", "with", f"checkpoint_dir={tmp_path}/run"
  )
  assert "in the config beside the checkpoint `seed` is inf" in sentence


# ------------------------------------------------------------ signals


def test_closed_streams_lead_to_nowhere():
  code = (
    "import os; from iodine.commands import experiment; os.closerange(0, 3);"
    "experiment._open_streams(); assert os.open('/dev/null', 0) == 3"
  )
  subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_signal_waits_for_an_import():
  done = []
  with (
    pytest.raises(KeyboardInterrupt) as info,
    experiment.filtered_native_output(),
  ):
    os.kill(os.getpid(), signal.SIGINT)
    done.append(True)
  assert done and info.value.args == (signal.SIGINT,)


def test_a_signal_in_the_first_imports_is_one_line(tmp_path):
  # Sacred is imported first, here with Ctrl-C.
  (tmp_path / "sacred.py").write_text(
    "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nsignal.pause()"
  )
  result = subprocess.run(
    [sys.executable, ROOT / "main.py"],
    env={**os.environ, "PYTHONPATH": str(tmp_path)},
    capture_output=True,
    text=True,
  )
  assert (result.returncode, result.stderr) == (130, "interrupted\n")


# ------------------------------------------------------------ files


def test_pipes_are_not_waited_for(tmp_path):
  pipe = tmp_path / "a.gif"
  os.mkfifo(pipe)
  path = str(pipe)
  for read in (
    lambda: data.Tetrominoes(path=path, batch_size=1)("test"),
    lambda: image_sets.find_scenes(path, None),
    lambda: image_sets.find_clips(path, None, 1),
    lambda: image_sets.find_clips(str(tmp_path), None, 1),
    lambda: films.read_film(path),
    lambda: arrays.open_file(path),
  ):
    with pytest.raises(errors.UserError, match=r"a\.gif"):
      read()
  os.mkfifo(tmp_path / "checkpoint")
  assert finding.state(str(tmp_path)) == []


@pytest.mark.skipif(
  not os.path.exists("/proc/self/mem"), reason="this system has no /proc"
)
def test_files_that_fail_when_they_are_read():
  with pytest.raises(errors.UserError, match="/proc/self/mem` cannot be read"):
    arrays.open_file("/proc/self/mem")


# ------------------------------------------------------------ data

MAPPING = [
  ["position", 2, "scalar"],
  ["color", 3, "scalar"],
  ["shape", 20, "categorical"],
]
SIZE = (4, 4)


def scene(number=0, **changes):
  """A tiny scene in the layout of Tetrominoes; changes are (entity, value)."""
  rng = np.random.default_rng(number)
  floats = {
    name: rng.uniform(1, 3, [4]).astype(np.float32)
    for name in ("x", "y", "shape")
  }
  features = {
    "image": rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8),
    "mask": np.full((4, *SIZE, 1), 255, np.uint8),
    "visibility": np.array([1, 1, 1, 0], np.float32),
    "color": rng.uniform(size=[4, 3]).astype(np.float32),
    **floats,
  }
  for name, (entity, value) in changes.items():
    features[name][entity] = value
  return features


def tetrominoes(path, **options):
  options = {"batch_size": 2, "shuffle_buffer": None, **options}
  return data.Tetrominoes(
    path=str(path), image_dim=SIZE, stored_dim=SIZE, **options
  )


def read_all(dataset, mapping=MAPPING):
  dataset.expect(mapping)
  return sum(len(batch["image"]) for batch in dataset.batches("test"))


UNSOUND = {
  "color": (1, math.nan),
  "visibility": (2, math.inf),
  "x": (3, 1e38),
  "shape": (2, 20.0),
}


@pytest.mark.parametrize(
  ("name", "compression"), [*((name, "") for name in UNSOUND), ("x", "GZIP")]
)
def test_records_with_numbers_that_no_loss_can_take(
  tmp_path, name, compression
):
  path = tmp_path / "a.tfrecords"
  scenes = [scene(i) for i in range(5)]
  scenes[3] = scene(3, **{name: UNSOUND[name]})
  records.write(path, scenes, compression)
  field = {"x": "position"}.get(name, name)
  with pytest.raises(
    errors.UserError,
    match=rf"^record 3 of `{path}` has .* in `{field}`.* mend the data",
  ):
    read_all(tetrominoes(path))
  # Where nothing is made of it, it does no harm.
  assert read_all(tetrominoes(path), None) == 5
  assert read_all(tetrominoes(path, test=[0, 3])) == 3


def test_classes_of_what_is_not_visible_are_anything(tmp_path):
  records.write(tmp_path / "a", [scene(shape=(3, 99.0))], "")
  assert read_all(tetrominoes(tmp_path / "a")) == 1


def test_a_training_is_told_of_the_second_of_two_files(tmp_path):
  for name in "ab":
    unsound = {"shape": (1, -2.0)} if name == "b" else {}
    records.write(tmp_path / name, [scene(1), scene(**unsound)], "")
  dataset = tetrominoes(tmp_path / "?", shuffle_buffer=4)
  dataset.expect(MAPPING)
  with (
    pytest.raises(
      errors.UserError,
      match=f"^record 1 of `{tmp_path}/b` has the class -2 in `shape`.*0 to 19",
    ),
    dataset.explained_errors("train"),
  ):
    list(dataset("train", compact=True).take(4))


def test_what_a_cache_has_kept_is_told_where_it_comes_from(tmp_path):
  path = tmp_path / "a.tfrecords"
  records.write(path, [scene(i) for i in range(3)], "")
  cached = tetrominoes(path, cache=str(tmp_path / "cache"))
  assert read_all(cached) == 3
  # That of the cache alone is wrong.
  kept = tmp_path / "cache/test/factors_color.npy"
  values = np.load(kept)
  values[2] = math.nan
  np.save(kept, values)
  with pytest.raises(
    errors.UserError, match=r"^scene 2 of `.*cache/test` has nan in `color`"
  ):
    read_all(cached)
  records.write(path, [scene(color=(0, math.nan)), scene()], "")
  cached = tetrominoes(path, cache=str(tmp_path / "other"))
  with pytest.raises(errors.UserError, match=f"^record 0 of `{path}` has nan"):
    read_all(cached)


@pytest.mark.parametrize(
  ("name", "suffix"), [("color", "h5"), ("visibility", "npz"), ("image", "npz")]
)
def test_arrays_with_numbers_that_no_loss_can_take(tmp_path, name, suffix):
  rng = np.random.default_rng(0)
  content = {
    "image": rng.uniform(size=[4, *SIZE, 3]).astype(np.float32),
    "mask": rng.integers(0, 3, [4, *SIZE]),
    "visibility": np.ones([4, 3], np.float32),
    "factors/color": rng.uniform(size=[4, 3, 3]).astype(np.float32),
  }
  key = "factors/color" if name == "color" else name
  content[key].reshape(4, -1)[2, 1] = math.nan
  path = tmp_path / f"a.{suffix}"
  if suffix == "npz":
    np.savez(path, **content)
  else:
    with h5py.File(path, "w") as file:
      file.update(content)
  dataset = data.Arrays(path=str(path), batch_size=2, image_dim=SIZE)
  with pytest.raises(errors.UserError, match=rf"scene 2.*`{path}`.* nan") as e:
    read_all(dataset)
  assert f"`{name}`" in str(e.value)


def test_images_of_others_are_checked(tmp_path):
  batch = {"image": tf.fill([2, 1, 2, 2, 3], 1e38), "factors": {}}
  assert not validity.all_valid(batch, ())
  batch["image"] = tf.zeros([2, 1, 2, 2, 3])
  assert validity.all_valid(batch, ())


def test_commands_have_scenes_checked_for_their_model():
  config = helpers.tiny_config()
  dataset = common.build_dataset(config["data"], 0, config["model"])
  assert isinstance(dataset, datasets.SceneDataset)
  names = [name for name, _, _ in dataset._regressed]
  assert names == ["position", "color", "shape"]
  # What is no mapping is left to the model.
  for mapping in (None, 5, "abc", [[1, 2, 3], ["a", 0, "scalar"], "abc"]):
    dataset.expect(mapping)
    assert not dataset._regressed


def test_a_compressed_file_that_ends_between_two_records(tmp_path):
  records.write(tmp_path / "plain", [scene(i) for i in range(4)], "")
  content = (tmp_path / "plain").read_bytes()
  deflate = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
  half = len(content) // 2
  head = deflate.compress(content[:half]) + deflate.flush(zlib.Z_FULL_FLUSH)
  whole = head + deflate.compress(content[half:]) + deflate.flush()

  def read(written, *others):
    path = tmp_path / f"{len(written)}.tfrecords"
    path.write_bytes(written)
    paths = [str(path), *others]
    options = {"image_dim": SIZE, "stored_dim": SIZE, "batch_size": 4}
    return read_all(data.Tetrominoes(path=paths, **options))

  assert read(whole) == 4
  assert read(whole * 2) == 8  # as `cat a.gz b.gz` makes it
  assert opening._is_whole(b"/dev/null", 0, 0)
  for cut in (head, whole[:-1]):
    for others in ((), (str(tmp_path / "plain"),)):
      number = 2 if cut == head else 4
      with pytest.raises(
        errors.UserError,
        match=rf"{len(cut)}.tfrecords` is truncated .* record {number}",
      ):
        read(cut, *others)
