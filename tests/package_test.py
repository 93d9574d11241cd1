"""What `import iodine` offers, and what a wheel needs."""

import importlib
import os
import pathlib
import platform
import re
import subprocess
import sys

import numpy as np
import pytest

import iodine
import main
from iodine import errors, pretrained

ROOT = pathlib.Path(__file__).parents[1]


def _python(*arguments, cwd):
  return subprocess.run(
    [sys.executable, *arguments],
    cwd=cwd,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
  )


def test_all_that_is_offered_is_there():
  for name in iodine.__all__:
    assert callable(getattr(iodine, name)), name
  with pytest.raises(AttributeError, match="no attribute `segmen`"):
    iodine.segmen  # noqa: B018


def test_the_import_does_not_start_tensorflow(tmp_path):
  code = (
    "import sys, iodine; iodine.segment; print({'numpy'} & set(sys.modules))"
  )
  code += "; iodine.load_config('quick'); "
  code += "print({'tensorflow', 'configs', 'main'} & set(sys.modules))"
  assert _python("-c", code, cwd=tmp_path).stdout == "set()\n" * 2


@pytest.mark.parametrize("given", [None, "0"])
def test_onednn_is_on_unless_told(tmp_path, monkeypatch, given):
  name = "TF_ENABLE_ONEDNN_OPTS"
  monkeypatch.delenv(name, raising=False)
  if given is not None:
    monkeypatch.setenv(name, given)
  code = f"import iodine, os; print(os.environ.get({name!r}))"
  is_x86 = platform.machine() in ("x86_64", "AMD64")
  expected = given or ("1" if is_x86 else None)
  assert _python("-c", code, cwd=tmp_path).stdout == f"{expected}\n"


@pytest.mark.parametrize(
  "path", ["tests/conftest.py", "notebooks/Eval.ipynb", "docs/draw_results.py"]
)
def test_the_package_is_imported_before_tensorflow(path):
  text = (ROOT / path).read_text()
  ours = re.search(r"^\W*(import|from) iodine", text, re.M)
  theirs = re.search(r"^\W*import tensorflow", text, re.M)
  assert ours and (not theirs or ours.start() < theirs.start())


def test_load_config():
  config = iodine.load_config("tetrominoes", {"n_z": 8, "seed": 0})
  assert config == main.get_config(("tetrominoes",), {"n_z": 8, "seed": 0})
  names = ["tetrominoes", "minutes", "pretrained"]
  seed = {"seed": 0}
  assert iodine.load_config(names, seed) == main.get_config(names, seed)
  with pytest.raises(errors.UserError, match="no named config `tetris`"):
    iodine.load_config("tetris")


def test_build_and_restore():
  model, config = iodine.restore(pretrained.TETROMINOES)
  fresh = iodine.build(config["model"])
  assert type(model) is type(fresh)
  fresh.initialize((35, 35, 3))
  pairs = zip(model.trainable_variables, fresh.trainable_variables, strict=True)
  assert any(np.any(a.numpy() != b.numpy()) for a, b in pairs)
  same, given = iodine.restore(pretrained.TETROMINOES, config)
  assert given == config
  image = np.full([35, 35, 3], 0.5, np.float32)
  found, expected = (
    iodine.Segmenter(m, (35, 35, 3), seed=1)(image) for m in (same, model)
  )
  np.testing.assert_array_equal(found.masks, expected.masks)


def test_the_module_runs_the_commands_of_main(tmp_path):
  result = _python(
    "-m", "iodine", "print_config", "with", "n_z=5", cwd=tmp_path
  )
  assert result.returncode == 0
  assert "n_z = 5" in result.stdout


def test_a_wheel_has_everything():
  tomllib = pytest.importorskip("tomllib")  # new in Python 3.11
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())
  hatch = project["tool"]["hatch"]
  included = hatch["build"]["targets"]["wheel"]["force-include"]
  assert included == {"configs": "iodine/configs", "main.py": "iodine/main.py"}
  hook = hatch["metadata"]["hooks"]["requirements_txt"]
  files = [*hook["files"], *sum(hook["optional-dependencies"].values(), [])]
  for file in [*files, *project["project"]["license-files"]]:
    assert (ROOT / file).is_file()
  pages = ("report/report.html.jinja", "report/scene.js", "explore/page.html")
  for file in ("py.typed", *pages, "pretrained"):
    assert (ROOT / "iodine" / file).exists()
  assert "Copyright 2019 DeepMind Technologies Limited" in (
    (ROOT / "NOTICE").read_text()
  )


def test_the_experiment_of_the_package_is_that_of_main():
  module = importlib.import_module("iodine.main")
  assert module.__file__ == main.__file__
  assert module.ex.commands.keys() == main.ex.commands.keys()


PLATFORMS = {
  "x86_64-unknown-linux-gnu": ("3.10", "3.13"),
  "aarch64-unknown-linux-gnu": ("3.10", "3.13"),
  "x86_64-pc-windows-msvc": ("3.10", "3.13"),
  "aarch64-apple-darwin": ("3.10", "3.13"),
  # Of the last TensorFlow for these, 2.16.
  "x86_64-apple-darwin": ("3.10", "3.12"),
}


@pytest.mark.slow
@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_versions_that_are_pinned_exist_everywhere(platform, tmp_path):
  names = ("requirements", "requirements-dev", "requirements-mongo")
  for version in PLATFORMS[platform]:
    command = [
      *(sys.executable, "-m", "uv", "pip", "compile", "--only-binary", ":all:"),
      *("--no-binary", "promise"),  # of which there is a source alone
      *(f"{name}.txt" for name in names),
      *("-c", "constraints.txt", "-o", str(tmp_path / "found.txt")),
      *("--python-platform", platform, "--python-version", version),
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_two_commands_run_on_the_oldest_and_the_newest_python():
  text = (ROOT / ".github/workflows/ci.yml").read_text()
  assert re.findall("run: (make .*)", text) == ["make run", "make test"]
  oldest, newest = re.findall(r'"(3\.\d+)"', text)
  project = (ROOT / "pyproject.toml").read_text()
  above = f"3.{int(newest[2:]) + 1}"
  assert f'requires-python = ">={oldest},<{above}"' in project


def test_the_citation_names_the_paper():
  text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
  assert text.startswith("cff-version: 1.2.0\n")
  assert "value: arXiv:1903.00450" in text and text.count("given-names") == 9
