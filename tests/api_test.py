"""The public list, and the examples in its docstrings."""

import doctest
import inspect

import helpers
import numpy as np
import pytest

import iodine
from iodine import building

NAMES = sorted(set(iodine.__all__))


class _IfTold(doctest.OutputChecker):
  """Compares what is printed only where an example shows something."""

  def check_output(self, want, got, flags):
    *_, last = got.splitlines() or [""]
    return not want or super().check_output(want, f"{last}\n", flags)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Two images and a file of latents; `train` makes the run of the others."""
  import h5py

  folder = tmp_path_factory.mktemp("examples")
  for name in "ab":
    helpers.save_image(f"{folder}/{name}.png", helpers.noise((9, 12, 3)))
  with h5py.File(folder / "latents.h5", "w") as file:
    file["mean"] = np.zeros([2, 3, 4])
    file.attrs["made_from"] = ""
  return folder


@pytest.fixture
def there(folder, monkeypatch):
  monkeypatch.chdir(folder)
  monkeypatch.setattr(building, "_trusted", [])


def run_example(name):
  """Runs the example of a public name; returns the names it made."""
  text = inspect.getdoc(getattr(iodine, name))
  given = {"iodine": iodine, "np": np}
  test = doctest.DocTestParser().get_doctest(text, given, name, None, 0)
  assert test.examples, f"`{name}` has no example"
  flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
  runner = doctest.DocTestRunner(_IfTold(), optionflags=flags)
  report = []
  runner.run(test, out=report.append, clear_globs=False)
  assert not runner.failures, "".join(report)
  return test.globs


@pytest.mark.parametrize("name", ["train", *(set(NAMES) - {"train"})])
def test_examples(name, there):
  run_example(name)
