"""One file to share: packed, opened elsewhere, and refused where it is bad."""

import json
import os
import pathlib
import shutil
import stat
import struct
import subprocess
import sys
import zipfile

import helpers
import numpy as np
import pytest
import tensorflow as tf

import iodine
import main
from iodine import checkpoints, errors
from iodine.checkpoints import packed

ROOT = pathlib.Path(__file__).parents[1]
STEP = 7
INDEX = f"ckpt-{STEP}.index"
PICTURES = {"overview.png", "samples.png", "sequence.png"}
FILES = {"README.md", "config.json", "metrics.json", INDEX, *PICTURES}
FILES |= {f"ckpt-{STEP}.data-00000-of-00001", "checkpoint"}


@pytest.fixture(scope="module")
def run(tmp_path_factory, five_scenes):
  """The folder of a run of seven steps, whose Adam knows something."""
  folder = tmp_path_factory.mktemp("made") / "run"
  updates = {**helpers.TINY, "data.image_dim": [8, 8], "seed": 3}
  updates |= {"data.path": five_scenes, "batch_size": 2}
  config = main.get_config(("tetrominoes",), updates)
  model, optimizer = helpers.build_both(config)
  helpers.perturb(model)
  for variable in [*optimizer.m, *optimizer.v]:
    variable.assign(tf.ones_like(variable))
  optimizer.global_step.assign(STEP)
  checkpoints.CheckpointStore(str(folder), model, optimizer, seed=5).save()
  config = {**config, "json_path": "precious", "environment": {"device": "x"}}
  (folder / "config.json").write_text(json.dumps(config))
  return folder


def pack(folder, output, *words):
  helpers.run_main(
    "pack", "with", f"checkpoint_dir={folder}", f"output={output}", *words
  )
  return output


@pytest.fixture(scope="module")
def made(run):
  """The same run, packed."""
  return pack(run, run.parent / "model.zip")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  """Where packed models are unpacked, and an empty folder that is entered."""
  monkeypatch.setenv("IODINE_CACHE", str(tmp_path / "cache"))
  (tmp_path / "here").mkdir()
  monkeypatch.chdir(tmp_path / "here")
  return tmp_path / "cache"


def unpacked(cache):
  """The folders of unpacked models; nothing else is beside them."""
  names = list(cache.glob("*"))
  assert not any("." in path.name for path in names)
  return names


def test_what_is_in_it(made):
  with zipfile.ZipFile(made) as archive:
    assert set(archive.namelist()) == FILES
    read = {name: archive.read(name) for name in FILES}
  config = json.loads(read["config.json"])
  assert config["environment"] == {"device": "x"} and config["seed"] == 3
  metrics = json.loads(read["metrics.json"])
  assert (metrics["step"], metrics["num_scenes"]) == (STEP, 5)
  text = read["README.md"].decode()
  assert f"{metrics['ari_nobg']['mean']:.4f}" in text
  assert "checkpoint_dir=model.zip" in text and "Greff, Klaus" in text
  for name in PICTURES:
    assert read[name].startswith(b"\x89PNG")


def test_it_is_opened_in_another_folder(run, made, cache, capsys, monkeypatch):
  shutil.copy(made, "model.zip")
  model, config = iodine.restore("model.zip")
  expected, _ = iodine.restore(run)
  assert config["n_z"] == 3
  helpers.assert_same_bits(model.variables, expected.variables)
  image = helpers.noise((20, 20, 3))
  found, same = (iodine.segment(image, x) for x in ("model.zip", run))
  np.testing.assert_array_equal(found.masks, same.masks)
  np.testing.assert_array_equal(found.latents, same.latents)
  helpers.save_image("photo.png", image)
  said = {}
  for path in ("model.zip", run):
    capsys.readouterr()
    words = ["with", f"checkpoint_dir={path}"]
    helpers.run_main("evaluate", *words, f"json_path={cache}.json")
    helpers.run_main("load_checkpoint", *words)
    helpers.run_main("segment", *words, "images=photo.png", f"output=o_{path}")
    said[path] = json.loads(pathlib.Path(f"{cache}.json").read_text())
    out = capsys.readouterr().out
    assert f"global step: {STEP}\n" in out
  (folder,) = unpacked(cache)
  assert said["model.zip"].pop("checkpoint") == f"{folder}/ckpt-{STEP}"
  for each in said.values():
    for name in ("checkpoint", "config"):
      each.pop(name, None)
  assert said["model.zip"] == said[run]
  # Results are in the current folder, and none beside the unpacked checkpoint,
  # nor where those of the training went.
  assert not os.path.exists("precious")
  assert set(os.listdir(folder)) == FILES
  assert set(os.listdir("pictures")) == PICTURES
  assert os.path.exists("evaluation")
  # It is not unpacked again, so that a place that cannot be written is enough.
  monkeypatch.setattr(packed, "_read", None)
  iodine.restore("model.zip")


def test_it_is_gathered_beside_a_run(run, made, capsys):
  words = [f"runs=[{made},{run}]", "output=both", "plot.scenes=[]"]
  rows = helpers.run_main("gather", "with", *words).result
  (row,) = rows.values()
  assert row["n"] == 2 and row["mse_deviation"] == 0.0
  assert os.path.exists("both/differences.csv")
  assert os.path.exists("evaluations")  # of the packed one


def test_a_training_goes_on_from_it(run, made, capsys):
  for name, words in (("a", []), ("b", ["pack_optimizer=True"])):
    pack(run, f"{name}.zip", *words)
    model, optimizer = helpers.build_both(iodine.restore(run)[1])
    checkpoints.restore(f"{name}.zip", model, optimizer)
    assert int(optimizer.global_step) == STEP
    assert np.ravel(optimizer.m[0])[0] == len(words)
    assert float(optimizer.beta1_power) == np.float32(0.95)
    capsys.readouterr()
    helpers.run_main(
      "train",
      "with",
      "continue_run=True",
      f"checkpoint_dir={name}.zip",
      f"stop_after_steps={STEP + 1}",
    )
    out = capsys.readouterr().out
    assert f"ckpt-{STEP}\n" in out
    assert "the run's own seed 5 is used" in out
    opened = checkpoints.open_checkpoint(f"{name}_1")
    assert (opened.step, opened.seed) == (STEP + 1, 5)
  assert os.path.getsize("b.zip") > os.path.getsize("a.zip")


def test_one_of_the_original(run, five_scenes):
  words = ["tetrominoes", *helpers.TINY_OPTIONS, f"data.path={five_scenes}"]
  helpers.run_main(
    "export_tf1", "with", *words, f"checkpoint_dir={run}", "output=theirs/model"
  )
  pack("theirs/model", "model.zip", *words)
  expected, _ = iodine.restore(run)
  model, config = iodine.restore("model.zip")
  assert config["n_z"] == 3
  helpers.assert_same_bits(model.variables, expected.variables)
  opened = checkpoints.open_checkpoint("model.zip")
  assert (opened.step, opened.seed) == (STEP, 0)


# ------------------------------------------------------------------- refusals


def rewrite(made, path, change=lambda name, data: data, further=()):
  """Writes a packed model anew with other contents, and further files."""
  with zipfile.ZipFile(made) as old, zipfile.ZipFile(path, "w") as new:
    for name in old.namelist():
      data = change(name, old.read(name))
      if data is not None:
        new.writestr(name, data)
    for info in further:
      new.writestr(info, b"owned")
  return path


def refused(capsys, cache, part):
  """The file bad.zip is refused everywhere, and nothing of it is left."""
  for call in (iodine.restore, iodine.Segmenter.from_checkpoint):
    with pytest.raises(errors.UserError) as error:
      call("bad.zip")
    assert part in str(error.value) and "`bad.zip`" in str(error.value)
    assert "\n" not in str(error.value)
  words = ("evaluate", "with", "checkpoint_dir=bad.zip")
  assert part in helpers.fails_with_sentence(capsys, *words)
  assert not unpacked(cache)
  assert set(os.listdir()) == {"bad.zip"}


@pytest.mark.parametrize(
  "further",
  [
    *("../owned", "/owned", "a/../../owned", "folder/owned", "folder/"),
    *("..", ".iodine", "C:owned", "a\\owned"),
  ],
)
def test_names_that_lead_elsewhere(made, capsys, cache, further):
  rewrite(made, "bad.zip", further=[further])
  refused(capsys, cache, "but `pack` writes plain files of")


def test_a_link_is_a_file_like_any_other(made, cache):
  info = zipfile.ZipInfo("owned")
  info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
  rewrite(made, "bad.zip", further=[info])
  folder = pathlib.Path(packed.unpack("bad.zip"))
  assert not (folder / "owned").is_symlink()
  assert (folder / "owned").read_bytes() == b"owned"


def test_a_config_that_names_foreign_code(made, capsys, cache):
  def change(name, data):
    if name != "config.json":
      return data
    config = json.loads(data)
    config["model"]["decoder"] = {"constructor": "os.system", "command": "ls"}
    return json.dumps(config)

  rewrite(made, "bad.zip", change)
  refused(capsys, cache, "names 'os.system' in `model.decoder.constructor`")


@pytest.mark.parametrize(
  "content", [None, "[" * 100_000, "no JSON", b"\xff\xfe"]
)
def test_no_config(made, capsys, cache, content):
  rewrite(made, "bad.zip", lambda n, x: content if n == "config.json" else x)
  refused(capsys, cache, "is broken, fetch it again: ")


@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.9, 0.999])
def test_one_that_is_cut_off(made, capsys, cache, part):
  data = made.read_bytes()
  pathlib.Path("bad.zip").write_bytes(data[: int(part * len(data))])
  refused(capsys, cache, "is broken, fetch it again: ")


def test_flipped_bytes_are_a_sentence_or_nothing(made, cache):
  data = made.read_bytes()
  rng = np.random.default_rng(0)
  places = rng.integers(0, len(data), 60).tolist()
  places += range(len(data) - 500, len(data), 7)
  for place in places:
    other = bytearray(data)
    other[place] ^= 1 << int(rng.integers(8))
    pathlib.Path("bad.zip").write_bytes(other)
    said = errors.message_of(lambda: packed.unpack("bad.zip"))
    assert said is None or "`bad.zip`" in said
    for folder in unpacked(cache):
      assert said is None
      shutil.rmtree(folder)


def test_bombs(made, capsys, cache, monkeypatch):
  zeros = bytes(2**22)
  with zipfile.ZipFile("bad.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("zeros", zeros)
  monkeypatch.setattr(packed, "_MOST_BYTES", 2**20)
  refused(capsys, cache, "has 4 MB in ['zeros'], but `pack` writes plain files")
  # What says that it is smaller than it is, is not unpacked beyond that.
  with zipfile.ZipFile("bad.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("config.json", "{}")
    archive.writestr("zeros", zeros)
  data = bytearray(pathlib.Path("bad.zip").read_bytes())
  size = struct.pack("<L", len(zeros))
  while size in data:
    at = data.index(size)
    data[at : at + 4] = struct.pack("<L", 5)
  pathlib.Path("bad.zip").write_bytes(data)
  refused(capsys, cache, "is broken, fetch it again: Bad CRC-32 for file 'ze")


def test_what_was_interrupted_goes_on(made, cache, monkeypatch):
  replace = os.replace

  def interrupted(*paths):
    if os.path.basename(paths[1]) == "metrics.json":
      raise KeyboardInterrupt
    replace(*paths)

  shutil.copy(made, "model.zip")
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(os, "replace", interrupted)
    packed.unpack("model.zip")
  folder = packed.unpack("model.zip")
  assert unpacked(cache) == [pathlib.Path(folder)]
  assert set(os.listdir(folder)) == FILES


def test_several_processes_at_once(made, cache):
  code = (
    "import sys, iodine; from iodine.checkpoints import packed\n"
    "print(packed.unpack(sys.argv[1]))"
  )
  command = [sys.executable, "-c", code, str(made)]
  started = [
    subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    for _ in range(2)
  ]
  said = {process.communicate()[0].strip() for process in started}
  (folder,) = unpacked(cache)
  assert said == {str(folder)}
  assert set(os.listdir(folder)) == FILES


@pytest.mark.parametrize(
  "output, part",
  [
    (None, "`output` is None: give the name of a file that is not there yet"),
    ("model", "`output` is 'model'"),
    ("theirs.zip", "`output` is 'theirs.zip'"),
    ("ours.zip", "`output` is 'ours.zip'"),
  ],
)
def test_what_is_there_is_not_replaced(made, capsys, output, part):
  shutil.copy(made, "ours.zip")
  with zipfile.ZipFile("theirs.zip", "w") as archive:
    archive.writestr("thesis.txt", "mine")
  before = {name: os.path.getsize(name) for name in os.listdir()}
  words = ["checkpoint_dir=ours.zip", f"output={output}"]
  sentence = helpers.fails_with_sentence(capsys, "pack", "with", *words)
  assert part in sentence
  assert {name: os.path.getsize(name) for name in os.listdir()} == before
