"""What docs/tracking.md shows runs, and says the same numbers everywhere."""

import json
import pathlib
import subprocess
import sys

import helpers
import pytest
import readme_test

from iodine import training
from iodine.training import loop

PAGE = "docs/tracking.md"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """A folder where the first command of the page and its script were run."""
  folder = tmp_path_factory.mktemp("tracked")
  scenes = helpers.make_scenes(folder, 4)
  small = {"stop_after_steps": 2, "save_summaries_steps": 1}
  small |= {"validate_every": 2, "validate_scenes": 2, "data.test": [0, 2]}
  small |= {"data.train": [2, 4], "data.shuffle_buffer": 2}
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    patch.setattr(loop, "_hearing", [])
    first = readme_test.commands(PAGE)[0]
    assert first == "python main.py -F sacred_runs with tetrominoes"
    place = "iodine/checkpoints/tetrominoes"
    _, _, *words = helpers.training_words(scenes, place, **small)
    helpers.run_main(*first.split()[2:], *words)
    (script,) = [x for x in scripts() if "on_report" in x]
    updates = {**helpers.TINY, "batch_size": 2, "data.image_dim": [8, 8]}
    updates |= {"seed": 3, "data.path": scenes, **small}
    exec(script.replace('{"seed": 0}', repr(updates)), {})
  return folder


def scripts():
  return readme_test.blocks("python", PAGE)


def test_a_tracker_hears_what_tensorboard_gets(made, monkeypatch):
  monkeypatch.chdir(made)
  script = scripts()[0]
  names = {}
  exec(script, names)
  curves = names["curves"]
  assert {"loss/total", "debug/learning_rate", "validation/mse"} <= {*curves}
  assert [step for step, _ in curves["loss/total"]] == [1, 2]
  lines = pathlib.Path("reports.jsonl").read_text().splitlines()
  reports = list(map(json.loads, lines))
  assert [report["step"] for report in reports] == [1, 2, 2]
  for name, points in curves.items():
    said = [(r["step"], r[name]) for r in reports if name in r]
    assert [step for step, _ in said] == [step for step, _ in points]
    if name != "debug/images_per_second":
      # TensorBoard stores float32.
      assert dict(said) == pytest.approx(dict(points), rel=1e-6), name
  read = training.read_scalars(
    "iodine/checkpoints/tetrominoes_1", ["loss/total"]
  )
  assert read["loss/total"] == curves["loss/total"]


def test_sacred_records_output_and_metrics(made):
  record = made / "sacred_runs/1"
  assert "step 2/2" in (record / "cout.txt").read_text()
  metrics = json.loads((record / "metrics.json").read_text())
  assert {"loss", "ari_nobg", "validation/mse"} <= metrics.keys()


def test_tensorboard_finds_the_run(made):
  (line,) = [x for x in readme_test.commands(PAGE) if x[:6] == "tensor"]
  command = [sys.executable, "-m", "tensorboard.main", *line.split()[1:]]
  shown = subprocess.check_output([*command, "--inspect"], cwd=made, text=True)
  assert "loss/total" in shown


def test_an_error_of_a_tracker_is_not_hidden(monkeypatch):
  monkeypatch.setattr(loop, "_hearing", [])

  @training.on_report
  def fail(step, scalars):
    raise OSError(f"no network at step {step}: {scalars}")

  with pytest.raises(OSError, match="no network at step 3: {'a': 1.0}"):
    training.tell(3, {"a": 1.0})


def test_the_page_is_short():
  assert len(pathlib.Path(readme_test.ROOT, PAGE).read_text().split()) <= 500
