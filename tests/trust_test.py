"""What a stranger's files may do: nothing but to be read."""

import importlib
import inspect
import json
import pathlib
import pickle
import pkgutil
import sys

import helpers
import pytest
import sonnet as snt

import iodine
import main
from iodine import building, config_files, errors, modules, optimizers
from iodine.modules import datasets, networks

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
  # `iodine` looks for modules beside itself, too.
  ("model.latent_dist", {"constructor": "iodine.downloaded.evil.Thing"}),
  ("model.inputs", ["image", "evil.function"]),
  ("model.preprocess", "evil.function"),
  ("model.stop_gradients", [["evil.function"]]),
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
    with pytest.raises(errors.UserError, match="`os.system`"):
      call(*arguments, "downloaded")
  assert not touched()


class Executed:
  def __reduce__(self):
    return exec, (EVIL,)


@pytest.mark.parametrize("name", ["x.pickle", "x.yaml", "x.py", "x", "x.JSON"])
def test_only_json_is_read(folder, capsys, name):
  (folder / name).write_bytes(pickle.dumps(Executed()))
  sentence = helpers.fails_with_sentence(capsys, "print_config", "with", name)
  assert f"`{name}` is not a config file: give a JSON file" in sentence
  assert not touched()


@pytest.mark.parametrize(
  "content, part",
  [
    ("[1]", "has a list in the place of a dict"),
    ("{", "cannot be read"),
    ("[" * 100_000, "cannot be read"),
    ('{"seed": {"py/reduce": [{"py/function": "os.system"}]}}', "Invalid key"),
  ],
)
def test_what_is_not_a_config(folder, capsys, content, part):
  (folder / "x.json").write_text(content)
  fails = helpers.fails_with_sentence
  sentence = fails(capsys, "print_config", "with", "x.json")
  assert part in sentence
  (folder / "folder.json").mkdir()
  sentence = fails(capsys, "print_config", "with", "folder.json")
  assert "`folder.json` is not a file" in sentence


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
  stripped = config_files.without_writing_entries(config)
  gone = config_files.get(stripped, entry) is None
  assert gone == (command == "print_config")


def test_what_a_call_names_is_trusted_in_that_call():
  name = f"{__name__}.Executed"
  updates = {"model.latent_dist": {"constructor": name}}
  named = main.get_config(("tetrominoes",), updates)
  assert named["model"]["latent_dist"]["constructor"] == name
  with pytest.raises(errors.UserError, match="names `"):
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
    assert sentence.endswith(
      "which is not a part of this project and would be run: if you know that "
      "code, add `--trust mine` to the command, or in Python call "
      '`iodine.trust("mine")` before'
    )
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


def test_what_is_registered_is_what_there_is():
  names = [module.name for module in pkgutil.iter_modules(modules.__path__)]
  places = [importlib.import_module(f"iodine.modules.{n}") for n in names]
  found = set()
  for place in [*places, optimizers]:
    for name, kind in inspect.getmembers(place, inspect.isclass):
      is_ours = kind.__module__ == place.__name__ and not name.startswith("_")
      kinds = (snt.Module, datasets.SceneDataset)
      is_part = issubclass(kind, kinds) or name == "ExponentialDecay"
      if is_ours and is_part and not inspect.isabstract(kind):
        found.add(f"{place.__name__}.{name}")
  # What only subclasses are made of.
  found -= {
    "iodine.modules.data.IODINEDataset",
    "iodine.modules.distributions.DistributionModule",
    f"{networks.__name__}.PixelDecoder",
  }
  assert found == building.REGISTERED
