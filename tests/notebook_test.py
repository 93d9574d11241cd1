"""notebooks/Eval.ipynb runs, and what is committed of it is what it gives."""

import base64
import importlib.util
import io
import json
import os
import pathlib
import subprocess
import sys

import nbformat
import pytest
import refresh
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]

# Pictures that it shows, in their order.
KINDS = ["png"] * 2 + ["gif"] + ["png"] * 8

# What sliders do when they are moved: at both ends of each is another picture.
MOVE_SLIDERS = """
drawn, moved = [], []
show = lambda figure: drawn.append(canvas.pixels(figure))
for box in [x for x in Out.values() if isinstance(x, ipywidgets.interactive)]:
  *sliders, _ = box.children
  now = {slider.description: slider.value for slider in sliders}
  for slider in sliders:
    for end in (slider.min, slider.max):
      box.f(**{**now, slider.description: end})
    assert (drawn[-1] != drawn[-2]).any(), slider.description
    moved.append(slider.description)
print(*moved)
"""


def code_cells(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def committed():
  return nbformat.read(refresh.PATH, as_version=4)


@pytest.fixture(scope="module")
def executed(committed):
  """Run in its own folder, as Jupyter does, from what is committed."""
  notebook = nbformat.from_dict(committed)
  notebook.cells = [*notebook.cells, nbformat.v4.new_code_cell(MOVE_SLIDERS)]
  result = refresh.execute(notebook, refresh.PATH.parent)
  moved = result.cells.pop()
  assert moved.outputs[-1].text.split() == [
    "iteration",
    "slot",
    "latent",
    "change",
  ]
  return refresh.strip(result)


def pictures(notebook):
  return [
    (kind.removeprefix("image/"), base64.b64decode(content))
    for cell in code_cells(notebook)
    for output in cell.outputs
    for kind, content in output.get("data", {}).items()
    if kind.startswith("image/")
  ]


def lines(notebook):
  """What is printed, without the numbers that rounding may change."""
  return [
    output.text
    for cell in code_cells(notebook)
    for output in cell.outputs
    if output.output_type == "stream" and "ARI" not in output.text
  ]


def test_it_runs_and_what_is_committed_is_what_it_gives(committed, executed):
  nbformat.validate(executed)
  assert refresh.strip(committed) == committed
  for old, new in zip(committed.cells, executed.cells, strict=True):
    assert old.source == new.source
  for notebook in (committed, executed):
    numbers = [cell.execution_count for cell in code_cells(notebook)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert [kind for kind, _ in pictures(notebook)] == KINDS
  for (_, old), (_, new) in zip(
    pictures(committed), pictures(executed), strict=True
  ):
    images = [Image.open(io.BytesIO(content)) for content in (old, new)]
    assert min(images[1].size) > 150
    assert len(images[1].convert("RGB").getcolors(2**24)) > 100
    # Not byte by byte: fonts and rounding differ between machines. Sizes do by
    # a few pixels where letters are wider.
    assert images[0].size == pytest.approx(images[1].size, abs=20)
  assert lines(committed) == lines(executed)


def test_what_is_committed_is_small_and_tells_nothing_of_a_machine(committed):
  assert refresh.PATH.stat().st_size < 3e6
  without_images = refresh.strip(committed)
  for cell in code_cells(without_images):
    for output in cell.outputs:
      assert output.output_type in ("stream", "display_data", "execute_result")
      for kind in [k for k in output.get("data", {}) if "image" in k]:
        del output.data[kind]
  text = json.dumps(without_images)
  home = os.path.expanduser("~")
  for word in (str(ROOT), f"{home}/", "/tmp/", "/home/", "Warning"):
    assert word not in text
  assert sum(cell.cell_type == "markdown" for cell in committed.cells) >= 10


def test_it_installs_the_project_where_it_is_not(
  committed, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, "path", [*sys.path])
  monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
  ran, there = [], importlib.util.find_spec("iodine")
  monkeypatch.setattr(
    importlib.util, "find_spec", lambda name: there if ran else None
  )
  monkeypatch.setattr(subprocess, "run", lambda x, check: ran.append(x[1:]))
  first = code_cells(committed)[0].source
  with pytest.raises(AssertionError, match="what to install in `PROJECT`"):
    exec(first, {})
  namespace = {}
  exec(first.replace('PROJECT = ""', 'PROJECT = "git+there"'), namespace)
  pip = ["-m", "pip", "install", "--quiet"]
  pinned = (ROOT / "requirements-shapeguard.txt").read_text().splitlines()[-1]
  assert ran == [
    [*pip, "git+there", "ipywidgets"],
    [*pip, "--no-deps", pinned],
  ]
  assert (namespace["CHECKPOINT"] / "config.json").exists()


def test_it_starts_in_the_repository_as_well(committed, monkeypatch):
  monkeypatch.chdir(ROOT)
  monkeypatch.setattr(sys, "path", [*sys.path])
  monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
  namespace = {}
  exec(code_cells(committed)[0].source, namespace)
  folder = namespace["CHECKPOINT"]
  assert folder.is_relative_to(ROOT)
  # All that a training leaves, small, with paths that mean something here.
  config = json.loads((folder / "config.json").read_text())
  assert not os.path.isabs(config["data"]["path"])
  assert not os.path.isabs(config["checkpoint_dir"])
  assert sum(path.stat().st_size for path in folder.iterdir()) < 5e6
