"""What a stranger's files may do: nothing but to be read."""

import json
import os
import pathlib
import pickle
import sys

import helpers
import PIL.Image
import pytest

import iodine
import main
from iodine import building, config_files, errors
from iodine.ops import memory
from iodine.readers import image_files

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
  for call, arguments in (
    (iodine.load_config, ["downloaded/config.json"]),
    (iodine.segment, ["photo.png", "downloaded"]),
    (iodine.Segmenter.from_checkpoint, ["downloaded"]),
  ):
    with pytest.raises(errors.UserError, match="config.json` names "):
      call(*arguments)
  fails = helpers.fails_with_sentence
  for words in ("checkpoint_dir=downloaded", "downloaded/config.json"):
    sentence = fails(capsys, "load_checkpoint", "with", words)
    assert "`downloaded/config.json` names " in sentence
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
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif"])
def test_the_limit_can_be_raised(tmp_path, monkeypatch, suffix, times):
  path = str(tmp_path / f"large.{suffix}")
  PIL.Image.new("RGB", (40, 30)).save(path)
  read = image_files.read
  monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", int(40 * 30 / times))
  with pytest.raises(errors.UserError, match="has more than .* pixels: make"):
    read(path)
  for limit in (40 * 30, None):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", limit)
    assert read(path).shape[-3:] == (30, 40, 3)


def test_a_million_slots_are_refused(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(memory, "available", lambda: 16 * 10**9)
  PIL.Image.new("RGB", (40, 40)).save(tmp_path / "photo.png")
  words = ("segment", "with", f"images={tmp_path}", f"output={tmp_path}/out")
  sentence = helpers.fails_with_sentence(capsys, *words, "num_components=1e6")
  assert "`num_components` 1000000 for 1 images of 35 x 35 pixels" in sentence
  assert " GB of memory at least, and here are 16 GB" in sentence


def test_the_memory_of_a_container(tmp_path, monkeypatch):
  limit = tmp_path / "memory.max"
  monkeypatch.setattr(memory, "_LIMITS", (str(tmp_path / "none"), str(limit)))
  machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  for text, expected in (("max\n", machine), ("2000000000\n", 2 * 10**9)):
    limit.write_text(text)
    assert memory.available() == expected


@pytest.mark.parametrize("name", ["clevr6", "multi_dsprites", "tetrominoes"])
def test_what_works_is_not_refused(monkeypatch, name):
  monkeypatch.setattr(memory, "available", lambda: 16 * 10**9)
  config = main.get_config((name,))
  image_shape = building.build(config["data"]).image_shape
  building.build(config["model"]).initialize(image_shape, 256)
