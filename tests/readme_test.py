"""Every command of the README and of the pages in docs/ runs.

They run as they stand there, in the order they stand there, in an empty folder,
with `SMALLER` appended so that it does not take days.
"""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import helpers
import mongomock
import mongomock.gridfs
import numpy as np
import PIL.Image
import pymongo
import pytest
from werkzeug import serving

import iodine
import main

ROOT = pathlib.Path(__file__).parents[1]

# What a newcomer reads, in this order; each goes on where the last one ended.
MANUAL = ["README.md"]
MANUAL += [f"docs/{x}.md" for x in ("training", "checkpoints", "segmenting")]
PAGES = sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))
SLOW = pytest.mark.slow
ALL = pytest.mark.parametrize("page", ["README.md", *PAGES])
# Pages that say why something can be believed. The others begin with a command.
REASONS = ("comparing", "fidelity", "performance", "reliability", "results")

# What makes any command quick; large images are not what commands are about.
SMALLER = (
  "batch_size=2 num_iters=1 num_scenes=24 stop_after_steps=1 "
  "save_summaries_steps=1 data.shuffle_buffer=2 benchmark.steps=1 "
  "benchmark.warmup=0 benchmark.parts=['input'] evaluation.num_scenes=3 "
  "plot.scenes=[1] plot.num_scenes_for_map=2"
)


def text_of(page):
  return (ROOT / page).read_text()


def blocks(language, page="README.md"):
  return re.findall(rf"```{language}\n(.*?)```", text_of(page), re.DOTALL)


def commands(page="README.md"):
  """Returns the commands of a page; of a shell's loop those of each value."""
  found = []
  for block in blocks("sh", page):
    loop = re.fullmatch(r"for (\w+) in (.*); do\n  (.*)\ndone\n", block)
    if loop:
      name, values, line = loop.groups()
      found += [line.replace(f"${name}", value) for value in values.split()]
    else:
      found += [line for line in block.splitlines() if line]
  return found


def run_python(page, **names):
  """Runs the Python of a page, its last block; returns the names it made."""
  exec(blocks("python", page)[-1], names)
  return names


def python_main(line):
  """Runs one `python main.py ...` line, made smaller."""
  main.ex.run_commandline(smaller_words(shlex.split(line)[1:]))


def run_page(page):
  """Runs the commands of a page, those first that make data."""
  for line in sorted(commands(page), key=lambda x: " make_data " not in x):
    if line.startswith("cp -r "):
      source, target = shlex.split(line)[2:]
      shutil.copytree(ROOT / source, target)
    elif line.startswith("python main.py"):
      python_main(line)


def smaller_words(words):
  """Returns a command, from its script on, made smaller."""
  words += [*(() if "with" in words else ("with",)), *SMALLER.split()]
  words = [re.sub(r"^(plot.iterations)=.*", r"\1=[0,1]", x) for x in words]
  if {"own", "quick"} & {*words}:  # of which many are held out
    words += ["data.train=[8,None]", "data.test=[0,8]"]
  if {"encode", "probe"} & {*words}:  # a probe needs some objects
    words.append("evaluation.num_scenes=24")
  if "explore" in words:
    words.append("explore.port=0")
  if {"multi_dsprites", "clevr6"} & {*words} and words[1] != "make_data":
    words.append("data.image_dim=[16,16]")
  return words


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  # A page that is served ends at once.
  server = serving.BaseWSGIServer
  monkeypatch.setattr(server, "serve_forever", server.server_close)
  return tmp_path


@pytest.fixture
def photograph(empty_folder):
  os.mkdir("photos")
  PIL.Image.new("RGB", (50, 40), "green").save("photos/scene.png")


def test_the_readme_from_top_to_bottom(photograph):
  run_page("README.md")
  assert os.path.exists("iodine/checkpoints/tetrominoes_1/report.html")
  assert os.path.exists("evaluation.json")
  assert os.path.exists("segments/scene/overlay.png")
  assert run_python("README.md")["labels"].shape == (35, 35)


@SLOW
def test_the_manual_from_top_to_bottom(empty_folder, photograph, monkeypatch):
  mongomock.gridfs.enable_gridfs_integration()
  mongo = mongomock.MongoClient()
  monkeypatch.setattr(pymongo, "MongoClient", lambda *_, **__: mongo)
  # What stands on several pages runs once.
  every = list(dict.fromkeys(x for page in MANUAL for x in commands(page)))
  for line in every:
    assert line.startswith(("python main.py ", "tensorboard ", "make ")), line
  lines = [x for x in every if x.startswith("python main.py")]
  # What the README says to do where nothing is downloaded comes first.
  for line in sorted(lines, key=lambda x: " make_data " not in x):
    python_main(line)
  made = "evaluation.json iodine multi_object_datasets photos runs sacred_runs"
  made += " saved_model segments tf1"
  assert sorted(os.listdir(empty_folder)) == made.split()
  assert os.path.exists("sacred_runs/1/run.json")
  (recorded,) = mongo["iodine"]["runs"].find()
  assert recorded["status"] == "COMPLETED"

  info = run_python("docs/checkpoints.md")["info"]
  assert info["outputs"]["recons"].shape[2:] == (1, 35, 35, 3)
  assert blocks("python", "docs/segmenting.md")[0] == blocks("python")[0]
  again = run_python("docs/segmenting.md")["again"]
  assert again["image"].shape == (2, 35, 35, 3)

  (line,) = [x for x in every if x.startswith("tensorboard ")]
  inspect = ["tensorboard.main", *line.split()[1:], "--inspect"]
  shown = subprocess.check_output([sys.executable, "-m", *inspect], text=True)
  assert "loss/total" in shown


def save_tiny(name, image_shape=(8, 8, 3)):
  """Saves a tiny model of a named config, with its config beside it."""
  dim = {"data.image_dim": list(image_shape[:2])}
  config = main.get_config((name,), {**helpers.TINY, **dim})
  folder = pathlib.Path(f"iodine/checkpoints/{name}_1")
  helpers.save_checkpoint(folder, config, image_shape=image_shape)
  (folder / "config.json").write_text(json.dumps(config))


# Of each page something that its commands make.
MADE = {
  "explore": "runs/data/tetrominoes_24_of_seed_2.tfrecords",
  "masks": "runs/own_1/config.json",
  "data": "multi_object_datasets photos/scene_00023.mask.png",
  "own_data": "runs/own_1/report.html segments/scene_00023/overlay.png",
  "scaling": "runs/laptop_1/config.json",
}
MADE_SLOWLY = {
  "studies": "runs/quick/gathered/scenes.png runs/quick/run_3/config.json "
  "runs/rates/sweep.json runs/pair/differences.csv",
  "performance": "benchmark.json bench_1.json bench_8.json",
  "figures": "runs/pretrained/plots/scene_1_iterations.pdf "
  "runs/pretrained/plots/scene_1_traversal_film.gif",
  "results": "runs/laptop_sprites_1 runs/moving_sprites_1 runs/tetrominoes_on "
  "runs/pretrained iodine/checkpoints/tetrominoes_1/ckpt-1.index",
}
_slowly = [pytest.param(*x, marks=SLOW) for x in MADE_SLOWLY.items()]


@pytest.mark.parametrize("page, made", [*MADE.items(), *_slowly])
def test_a_page_from_top_to_bottom(page, made, empty_folder):
  run_page(f"docs/{page}.md")
  for path in made.split():
    assert os.path.exists(path), path
  if page == "figures":
    assert os.path.exists(run_python("docs/figures.md")["path"])


@SLOW
def test_docs_evaluation(empty_folder):
  for name in ("tetrominoes", "clevr6"):
    save_tiny(name)
    to = "data_dir=multi_object_datasets seed=0"
    python_main(f"python main.py make_data with {name} {to}")
  run_page("docs/evaluation.md")
  assert os.path.exists("iodine/checkpoints/tetrominoes_1/plots/metrics.png")
  assert os.path.exists("evaluation.csv")
  assert os.path.exists("report.html")
  metrics = json.loads(pathlib.Path("generalisation.json").read_text())
  slots = [entry["num_components"] for entry in metrics["generalisation"]]
  assert slots == [7, 9, 11]
  model, config = iodine.restore("iodine/checkpoints/tetrominoes_1")
  dataset = iodine.build({**config["data"], "test": [0, 3]})
  made = run_python("docs/evaluation.md", model=model, dataset=dataset)
  assert made["result"].num_scenes == 3


def test_docs_comparing(empty_folder):
  shutil.copytree(ROOT / "tests/golden", "tests/golden")
  golden = ROOT / "tests/golden/tiny_clevr"
  np.savez("reference.npz", **np.load(golden / "info.npz"))
  case = json.loads((golden / "case.json").read_text())
  updates = [f"{k}={v}" for k, v in case["config_updates"].items()]
  for line in commands("docs/comparing.md"):
    words = shlex.split(line.replace("CHECKPOINT", str(golden)))[1:]
    is_named = "CHECKPOINT" not in line
    main.ex.run_commandline(words + ([] if is_named else updates))
  assert json.loads(pathlib.Path("comparison.json").read_text())["passed"]
  assert os.path.exists("tf1/model.ckpt.index")


def test_docs_python(empty_folder, monkeypatch):
  np.save("images.npy", helpers.noise((24, 20, 20, 3)))
  load, few = iodine.load_config, {"num_iters": 1, "channels": 4, "stages": []}
  few |= {"batch_size": 4, "save_summaries_steps": 1, "validate_every": 1}
  monkeypatch.setattr(
    iodine, "load_config", lambda name, updates: load(name, {**few, **updates})
  )
  assert commands("docs/python.md") == ["python mine.py"]
  text = "".join(blocks("python", "docs/python.md"))
  for longer in (r"steps=\d+", r"(?<=patience=)\d+", r"(?<=take\()\d+"):
    text = re.sub(longer, lambda x: "steps=2" if "=" in x[0] else "1", text)
  made = {}
  exec(text, made)
  assert made["outcome"].step == 2
  assert made["changed"].shape == (16, 16, 3)
  assert PIL.Image.open("changed.png").size == (256, 256)
  assert np.isfinite(made["result"].metrics["mse"].mean)
  assert np.isfinite(made["scalars"]["loss/total"])
  steps = [f"runs/mine_{n}/ckpt-2.index" for n in (1, 2)]
  assert all(map(os.path.exists, [*steps, "loop/ckpt.index"]))
  # That of the callback was ended at the second validation, or before.
  assert os.path.exists("runs/mine_3/config.json")


@SLOW
def test_docs_installing(photograph):
  shapeguard = text_of("requirements-shapeguard.txt").splitlines()[-1]
  lines = commands("docs/installing.md")
  assert lines[:2] == ["pip install .", f"pip install --no-deps {shapeguard}"]
  for extra in re.findall(r"\.\[(\w+)\]", text_of("docs/installing.md")):
    assert re.search(rf"\b{extra}\b", text_of("pyproject.toml"))
  environment = {**os.environ, "PYTHONPATH": str(ROOT)}
  for line in lines[2:]:
    words = smaller_words(shlex.split(line.removeprefix("python -m ")))
    line = [sys.executable, "-m", *words]
    subprocess.run(line, env=environment, check=True)
  assert os.path.exists("runs/pretrained")
  save_tiny("tetrominoes", image_shape=(35, 35, 3))
  made = run_python("docs/installing.md")
  assert made["labels"].shape == (35, 35)
  assert made["config"]["n_z"] == helpers.TINY["n_z"]


def test_make_knows_the_commands():
  lines = [x for x in commands() if x.startswith("make ")]
  assert lines == ["make run", "make test"]
  for target in ("run", "test", "lint", "format", "clean"):
    subprocess.check_output(["make", "--dry-run", target], cwd=ROOT)


def anchors(page):
  """Returns what GitHub makes of the headings of a page."""
  headings = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
  plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
  return [heading.replace(" ", "-") for heading in plain]


@ALL
def test_what_a_page_names_is_there(page):
  for target in re.findall(r"\]\(([^)]*)\)", text_of(page)):
    if not target.startswith("http"):
      path, _, anchor = target.partition("#")
      linked = (ROOT / page).parent / path
      assert linked.exists(), target
      assert not anchor or anchor in anchors(linked), target
  pattern = r"`((?:iodine|configs|tests|docs|notebooks)/[\w/.]*)`"
  tests = re.findall(r"`(\w+_test\.py)`", text_of(page))
  for name in [f"tests/{x}" for x in tests] + re.findall(
    pattern, text_of(page)
  ):
    assert (ROOT / name).exists(), name


@ALL
def test_a_shell_takes_what_a_page_shows(page):
  """Values with brackets are quoted: zsh takes others for patterns."""
  text = text_of(page)
  lines = re.findall(r"^ *(?:\w+=\S+ )*(?:python|srun) .*$", text, re.MULTILINE)
  updates = re.findall(r"`((?:python |[\w.]+=)[^`\n]*)`", text)
  for line in lines + updates:
    bare = re.sub(r"'[^']*'|\"[^\"]*\"", "", line)
    assert not re.search(r"[\[\]*?]", bare), line


def test_every_page_is_reached_from_the_readme():
  reached = ["README.md"]
  for page in reached:
    names = re.findall(r"\]\((?:docs/)?(\w+\.md)", text_of(page))
    reached += [x for n in names if (x := f"docs/{n}") not in reached]
  assert sorted(set(reached) - {"README.md"}) == PAGES


def test_pages_are_short():
  assert len(text_of("README.md").splitlines()) <= 150
  for page in PAGES:
    text = text_of(page)
    is_reason = pathlib.Path(page).stem in REASONS
    is_printed = page == "docs/config.md"  # as long as there are entries
    most = 2000 if is_printed else 1500 if is_reason else 900
    assert len(text.split()) <= most, page
    if not is_reason:
      assert re.match(r"# .*\n(\n[^\n#`]+\n)?\n```sh\n", text), page


def test_every_promise_of_the_reliability_page_has_a_test():
  lines = text_of("docs/reliability.md").splitlines()
  rows = [line for line in lines if line.count("|") == 5][2:]
  assert 15 < len(rows) <= 25
  for row in rows:
    tests = row.split("|")[4]
    assert re.match(r" `\w+_test\.py`", tests), f"no test: {row}"
    for file, names in re.findall(r"`(\w+_test\.py)`([^;]*)", tests):
      for name in re.findall(r"`(test_\w+)`", names):
        assert f"def {name}(" in text_of(f"tests/{file}"), f"{file}: {name}"


@SLOW
def test_make_run_in_a_fresh_clone(tmp_path):
  subprocess.run(["git", "clone", "--quiet", ROOT, tmp_path], check=True)
  make = ["make", "run", f"VENV={sys.prefix}", f"PYTHON={sys.executable}"]
  for out in ("", "already there"):
    shown = subprocess.check_output(make, cwd=tmp_path, text=True)
    assert out in shown
    assert "pictures:     runs/quick/pictures/overview.png" in shown
  assert (tmp_path / "runs/quick/pictures/overview.png").exists()
