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

import main
from iodine import building

ROOT = pathlib.Path(__file__).parents[1]

# What a newcomer reads, in this order; each goes on where the last one ended.
MANUAL = (
  "README.md",
  "docs/training.md",
  "docs/checkpoints.md",
  "docs/segmenting.md",
)
PAGES = sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))

SMALLER = {
  "train": [
    *("batch_size=2", "num_iters=1", "stop_after_steps=1"),
    *("data.shuffle_buffer=2", "save_summaries_steps=1"),
  ],
  "benchmark": [
    *("batch_size=1", "num_iters=1", "data.shuffle_buffer=2"),
    *("benchmark.steps=1", "benchmark.warmup=0", "benchmark.parts=['input']"),
  ],
  "make_data": ["num_scenes=24"],
  "export_savedmodel": ["num_iters=1"],
  "segment": ["num_iters=1"],
  "evaluate": ["batch_size=2", "num_iters=1", "evaluation.num_scenes=3"],
  "report": [
    *("batch_size=2", "num_iters=1", "evaluation.num_scenes=3"),
    *("plot.scenes=[]", "plot.num_scenes_for_map=2"),
  ],
  "plot": [
    *("batch_size=2", "num_iters=1"),
    *("plot.scenes=[1]", "plot.num_scenes_for_map=2"),
  ],
}
# Large images are not what the commands are about.
SMALLER_IMAGES = {
  "multi_dsprites": ["data.image_dim=[16,16]"],
  "clevr6": ["data.image_dim=[16,16]"],
}


def blocks(language, name="README.md"):
  text = (ROOT / name).read_text()
  return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(name="README.md"):
  return [line for b in blocks("sh", name) for line in b.splitlines() if line]


def python_main(line):
  """Runs one `python main.py ...` line, made smaller."""
  main.ex.run_commandline(smaller_words(shlex.split(line)[1:]))


def smaller_words(words):
  """Returns a command, from its script on, made smaller."""
  command = words[1] if words[1] in main.ex.commands else "train"
  generates = words[-1] == command or (
    {"laptop", "minutes", "moving_sprites"} & set(words)
  )
  if "with" not in words:
    words.append("with")
  words += SMALLER.get(command, [])
  if generates:
    words += ["num_scenes=24"]
  for config, smaller in SMALLER_IMAGES.items():
    if config in words and command in ("train", "benchmark"):
      words += smaller
  return words


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.fixture
def mongo(monkeypatch):
  """A MongoDB server in memory."""
  mongomock.gridfs.enable_gridfs_integration()
  client = mongomock.MongoClient()
  monkeypatch.setattr(pymongo, "MongoClient", lambda *_, **__: client)
  return client


def photograph():
  os.mkdir("photos")
  PIL.Image.new("RGB", (50, 40), "green").save("photos/scene.png")


def test_the_readme_from_top_to_bottom(empty_folder):
  lines = [x for x in commands() if x.startswith("python main.py")]
  photograph()
  for line in sorted(lines, key=lambda x: " make_data " not in x):
    python_main(line)
  assert os.path.exists("iodine/checkpoints/tetrominoes_1/report.html")
  assert os.path.exists("evaluation.json")
  assert os.path.exists("segments/scene/overlay.png")
  namespace = {}
  (segment,) = blocks("python")
  exec(segment, namespace)
  assert namespace["labels"].shape == (35, 35)


@pytest.mark.slow
def test_the_manual_from_top_to_bottom(empty_folder, mongo):
  # What stands on several pages runs once.
  every = list(dict.fromkeys(x for page in MANUAL for x in commands(page)))
  lines = [x for x in every if x.startswith("python main.py")]
  generate = [x for x in lines if " make_data " in x]
  assert len(generate) == 3
  photograph()
  # What the README says to do where nothing is downloaded comes first.
  for line in generate + [x for x in lines if x not in generate]:
    python_main(line)
  assert sorted(os.listdir(empty_folder)) == [
    "evaluation.json",
    "iodine",
    "multi_object_datasets",
    "photos",
    "runs",
    "sacred_runs",
    "saved_model",
    "segments",
    "tf1",
  ]
  assert sorted(os.listdir("runs")) == [
    *("data", "laptop_1", "pretrained", "tetrominoes_1"),
  ]
  folder = "iodine/checkpoints/tetrominoes_1"
  assert os.path.exists(f"{folder}/pictures/overview.png")
  assert os.path.exists(f"{folder}/report.html")
  assert os.path.exists("sacred_runs/1/run.json")
  (recorded,) = mongo["iodine"]["runs"].find()
  assert recorded["status"] == "COMPLETED"

  assert os.path.exists("segments/scene/overlay.png")
  namespace = {}
  (segment,) = blocks("python")
  exec(segment, namespace)
  assert namespace["labels"].shape == (35, 35)
  (evaluate,) = blocks("python", "docs/checkpoints.md")
  exec(evaluate, namespace)
  assert namespace["info"]["outputs"]["recons"].shape[2:] == (1, 35, 35, 3)
  again, load = blocks("python", "docs/segmenting.md")
  assert again == segment
  exec(load, namespace)
  assert namespace["again"]["image"].shape == (2, 35, 35, 3)

  (line,) = [x for x in every if x.startswith("tensorboard ")]
  inspected = subprocess.run(
    [sys.executable, "-m", "tensorboard.main", *line.split()[1:], "--inspect"],
    capture_output=True,
    text=True,
    check=True,
  )
  assert "loss/total" in inspected.stdout


@pytest.mark.slow
def test_docs_results(empty_folder):
  lines = commands("docs/results.md")
  for line in sorted(lines, key=lambda x: " make_data " not in x):
    if line.startswith("cp -r "):
      source, target = shlex.split(line)[2:]
      shutil.copytree(ROOT / source, target)
    else:
      python_main(line)
  assert sorted(os.listdir("runs")) == [
    *("data", "laptop_1", "laptop_sprites_1", "moving_sprites_1", "pretrained"),
    *("tetrominoes_1", "tetrominoes_on"),
  ]
  assert os.path.exists("iodine/checkpoints/tetrominoes_1/ckpt-1.index")


def test_docs_data(empty_folder):
  for line in commands("docs/data.md"):
    python_main(line)
  assert os.listdir(empty_folder / "multi_object_datasets")


def test_docs_own_data(empty_folder):
  lines = commands("docs/own_data.md")
  assert len(lines) == 5
  for line in lines:
    words = smaller_words(shlex.split(line)[1:])
    if "own" in words:  # of which a hundred are held out
      words += ["data.train=[8,None]", "data.test=[0,8]"]
    main.ex.run_commandline(words)
  assert len(list(pathlib.Path("photos").glob("*.png"))) == 48
  assert os.path.exists("runs/own_1/report.html")
  assert len(os.listdir("segments")) == 24


def test_docs_comparing(empty_folder):
  golden = ROOT / "tests/golden/tiny_clevr"
  np.savez("reference.npz", **np.load(golden / "info.npz"))
  case = json.loads((golden / "case.json").read_text())
  updates = [f"{k}={v}" for k, v in case["config_updates"].items()]
  for line in commands("docs/comparing.md"):
    words = shlex.split(line.replace("CHECKPOINT", str(golden)))[1:]
    main.ex.run_commandline(words + updates)
  assert json.loads(pathlib.Path("comparison.json").read_text())["passed"]
  assert os.path.exists("tf1/model.ckpt.index")


@pytest.mark.slow
def test_docs_evaluation(empty_folder):
  tiny = [f"{key}={value}" for key, value in helpers.TINY.items()]
  tiny += ["batch_size=2", "data.image_dim=[8,8]", "evaluation.num_scenes=3"]
  tiny += ["num_iters=1"]
  smaller = {
    "tetrominoes": [*tiny, "evaluation.seeds=2"],
    "clevr6": [
      *(*tiny, "data.train=[0,1]", "data.test=[1,None]"),
      *("evaluation.num_components=[2,3]", "evaluation.num_iters=2"),
    ],
  }
  for name in smaller:
    config = main.get_config((name,), helpers.TINY)
    folder = pathlib.Path(f"iodine/checkpoints/{name}_1")
    helpers.save_checkpoint(folder, config)
    (folder / "config.json").write_text(json.dumps(config))
    python_main(
      f"python main.py make_data with {name} data_dir=multi_object_datasets "
      "seed=0"
    )
  shown = ["evaluate", "plot", "report"]
  lines = commands("docs/evaluation.md")
  # These show the trained model; the README has them, too.
  assert lines[:3] == [f"python main.py {command}" for command in shown]
  assert set(lines[:3]) <= set(commands())
  for line in lines[3:]:
    words = shlex.split(line)[1:]
    (name,) = [name for name in smaller if name in line]
    smaller_plot = ["plot.num_scenes_for_map=2"] if "plot" in words else []
    main.ex.run_commandline([*words, *smaller[name], *smaller_plot])
  folder = "iodine/checkpoints/tetrominoes_1"
  assert os.path.exists(f"{folder}/plots/metrics.png")
  assert os.path.exists("evaluation.csv")
  assert os.path.exists("report.html")
  metrics = json.loads(pathlib.Path("generalisation.json").read_text())
  assert [g["num_components"] for g in metrics["generalisation"]] == [2, 3]

  config = helpers.tiny_config(
    {"data.image_dim": [8, 8], "batch_size": 2, "num_iters": 1}
  )
  model = building.build(config["model"])
  model.initialize((8, 8, 3))
  data = {**config["data"], "test": [0, 3]}
  namespace = {"model": model, "dataset": building.build(data)}
  (code,) = blocks("python", "docs/evaluation.md")
  exec(code, namespace)
  assert namespace["result"].num_scenes == 3


@pytest.mark.slow
def test_docs_installing(empty_folder):
  text = (ROOT / "docs/installing.md").read_text()
  (shapeguard,) = [
    line
    for line in (ROOT / "requirements-shapeguard.txt").read_text().splitlines()
    if not line.startswith("#")
  ]
  lines = commands("docs/installing.md")
  installing = ["pip install .", f"pip install --no-deps {shapeguard}"]
  assert lines[:2] == installing
  for extra in re.findall(r"\.\[(\w+)\]", text):
    assert re.search(rf"\b{extra}\b", (ROOT / "pyproject.toml").read_text())
  for line in lines[2:]:
    python, option, *words = shlex.split(line)
    assert (python, option) == ("python", "-m")
    subprocess.run(
      [sys.executable, "-m", *smaller_words(words)],
      env={**os.environ, "PYTHONPATH": str(ROOT)},
      check=True,
    )
  assert os.path.exists("runs/pretrained")

  photograph()
  config = main.get_config(("tetrominoes",), helpers.TINY)
  folder = pathlib.Path("iodine/checkpoints/tetrominoes_1")
  helpers.save_checkpoint(folder, config, image_shape=(35, 35, 3))
  (folder / "config.json").write_text(json.dumps(config))
  namespace = {}
  (code,) = blocks("python", "docs/installing.md")
  exec(code, namespace)
  assert namespace["labels"].shape == (35, 35)
  assert namespace["config"]["n_z"] == helpers.TINY["n_z"]


@pytest.mark.slow
def test_docs_performance(empty_folder):
  for line in commands("docs/performance.md"):
    python_main(line)
  assert os.path.exists("benchmark.json")


def test_no_command_is_left_out():
  for page in MANUAL:
    for line in commands(page):
      assert line.startswith(("python main.py ", "tensorboard ", "make ")), line


def test_make_knows_the_commands():
  lines = [x for x in commands() if x.startswith("make ")]
  assert lines == ["make run", "make test"]
  for target in ("run", "test", "lint", "format", "clean"):
    subprocess.run(
      ["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True
    )


def test_links_lead_somewhere():
  for page in ("README.md", *PAGES):
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)]*)\)", (ROOT / page).read_text()):
      if not target.startswith("http"):
        path = target.partition("#")[0]
        assert (folder / path).exists(), f"{page}: {target}"


def test_pages_name_files_that_exist():
  for page in ("README.md", *PAGES):
    text = (ROOT / page).read_text()
    pattern = r"`((?:iodine|configs|tests|docs|notebooks)/[\w/.]*)`"
    for name in re.findall(pattern, text):
      assert (ROOT / name).exists(), f"{page}: {name}"


def test_every_page_is_reached_from_the_readme():
  text = (ROOT / "README.md").read_text()
  for page in PAGES:
    found = page in text or any(
      f"]({page.removeprefix('docs/')}" in (ROOT / other).read_text()
      for other in PAGES
    )
    assert found, page


def test_the_readme_is_short():
  assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_fidelity_page_names_files_that_exist():
  text = (ROOT / "docs/fidelity.md").read_text()
  for name in set(re.findall(r"`(\w+_test\.py)`", text)):
    assert (ROOT / "tests" / name).exists(), name


def test_every_promise_of_the_reliability_page_has_a_test():
  lines = (ROOT / "docs/reliability.md").read_text().splitlines()
  rows = [line for line in lines if line.count("|") == 5]
  promises = [x for x in rows if not x.startswith(("| event |", "| --- |"))]
  assert len(promises) > 20
  for row in promises:
    tests = row.split("|")[4]
    files = re.findall(r"`(\w+_test\.py)`: ((?:`test_\w+`(?:, )?)+)", tests)
    assert files, f"no test: {row}"
    for file, names in files:
      text = (ROOT / "tests" / file).read_text()
      for name in re.findall(r"\w+", names):
        assert f"def {name}(" in text, f"{file} has no {name}"


@pytest.mark.slow
def test_make_run_in_a_fresh_clone(tmp_path):
  clone = tmp_path / "clone"
  subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
  environment = {**os.environ, "PYTHON": sys.executable}
  for out in ("", "already there"):
    result = subprocess.run(
      [shutil.which("make"), "run", f"VENV={sys.prefix}"],
      cwd=clone,
      env=environment,
      capture_output=True,
      text=True,
      check=True,
    )
    assert out in result.stdout
    assert "pictures:     runs/quick/pictures/overview.png" in result.stdout
  assert (clone / "runs/quick/pictures/overview.png").exists()
