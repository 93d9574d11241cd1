"""Any set of runs in one table, and two of them scene by scene."""

import csv
import json
import math

import helpers
import numpy as np
import PIL.Image
import pytest

import main
from iodine.commands import evaluate
from iodine.studies import gather

ROWS = {
  "run_1": {"model.kl_weight": 1.0, "seed": 3},
  "run_2": {"model.kl_weight": 1.0, "seed": 4},
  "run_3": {"model.kl_weight": 2.0, "seed": 3},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory, five_scenes):
  """A sweep of three runs, whose models differ."""
  root = tmp_path_factory.mktemp("runs") / "my_sweep"
  for i, (name, row) in enumerate(ROWS.items()):
    updates = {"data.path": five_scenes, "data.image_dim": [8, 8], **row}
    config = helpers.tiny_config({**updates, "batch_size": 3})
    helpers.save_checkpoint(root / name, config, step=100 + i)
    (root / name / "config.json").write_text(json.dumps(config))
  (root / "run_1.log").touch()  # as `sweep` leaves them
  return root


def by_hand(folder, path, *options):
  """What `evaluate` writes of a run."""
  place = f"checkpoint_dir={folder}"
  pictures = f"results_dir={path.parent}"
  helpers.run_main("evaluate", "with", place, f"json_path={path}", pictures)
  return json.loads(path.read_text())


@pytest.fixture(scope="module")
def gathered(root, tmp_path_factory):
  output = tmp_path_factory.mktemp("gathered")
  run = helpers.run_main(
    *("gather", "with", f"runs={root}", f"output={output}", "plot.scenes=[0,4]")
  )
  return output, run.result


def test_the_table_is_of_evaluations_by_hand(
  root, gathered, tmp_path, monkeypatch, capsys
):
  output, result = gathered
  first, second = (
    by_hand(root / name, tmp_path / f"{name}.json")
    for name in ("run_1", "run_2")
  )
  row = result["model.kl_weight=1.0"]
  assert list(result)[1] == "model.kl_weight=2.0" and row["n"] == 2
  for name in gather.METRICS:
    pair = [x[name]["mean"] for x in (first, second)]
    assert row[f"{name}_mean"] == np.mean(pair)
    assert row[f"{name}_deviation"] == np.std(pair, ddof=1)
  kept = list((root / "run_1/evaluations").glob("ckpt-100-*.json"))
  (found,) = [json.loads(path.read_text()) for path in kept]
  assert found["per_iteration"] == first["per_iteration"]
  # What was evaluated is not evaluated again, under other entries it is.
  measured = []
  monkeypatch.setattr(evaluate, "measure", lambda *x: measured.append(x))
  place = [f"output={tmp_path}/again", "plot.scenes=[]"]
  again = helpers.run_main("gather", "with", f"runs={root}", *place).result
  assert again == result and not measured
  with pytest.raises(SystemExit):
    helpers.run_main(
      *("gather", "with", f"runs={root}", *place, "evaluation.num_scenes=2")
    )
  assert len(measured) == 1


def test_files_are_there(root, gathered):
  output, result = gathered
  names = ["scenes.png", "table.csv", "table.md", "table.tex"]
  assert sorted(path.name for path in output.iterdir()) == names
  assert np.std(np.asarray(PIL.Image.open(output / "scenes.png"))) > 10
  with open(output / "table.csv", newline="") as file:
    rows = list(csv.DictReader(file))
  assert float(rows[0]["ari_mean"]) == result[rows[0]["runs"]]["ari_mean"]
  assert rows[0]["folders"] == f"{root}/run_1 {root}/run_2"
  assert rows[1]["ari_deviation"] == ""
  markdown = (output / "table.md").read_text()
  assert "| model.kl_weight=1.0 | 2 " in markdown and " ± " in markdown
  latex = (output / "table.tex").read_text()
  assert r"\toprule" in latex and r"kl\_weight=1.0" in latex
  assert r" $\pm$ " in latex and "±" not in latex


def test_differences_of_two_are_paired(root, gathered, tmp_path, capsys):
  words = [f"runs=[{root}/run_1,{root}/run_3]", f"output={tmp_path}"]
  helpers.run_main("gather", "with", *words, "plot.scenes=[]")
  out = capsys.readouterr().out
  assert f"{root}/run_3" in out and "the first minus the second" in out
  first, second = (
    json.loads(path.read_text())["scenes"]["mse"]
    for name in ("run_1", "run_3")
    for path in (root / name / "evaluations").iterdir()
  )
  each = np.subtract(first, second)
  assert np.any(each != 0)
  with open(tmp_path / "differences.csv", newline="") as file:
    (found,) = [x for x in csv.DictReader(file) if x["metric"] == "mse"]
  assert float(found["difference"]) == pytest.approx(np.mean(each), rel=1e-12)
  error = np.std(each, ddof=1) / math.sqrt(5)
  assert float(found["standard error"]) == pytest.approx(error, rel=1e-12)
  assert float(found[f"{root}/run_3"]) == pytest.approx(np.mean(second))
  # Scenes without a value of both do not count.
  some = gather.paired([1.0, None, 3.0], [0.0, 1.0, 1.0])
  assert some == [2.0, 0.5, 1.5, pytest.approx(0.5), 2]


@pytest.mark.parametrize(
  "words, part",
  [
    (["gather", "with", "seed=0"], "`runs` is None: give a path, or a list"),
    (["gather", "with", "runs=/no/such"], "no checkpoint of a run at `/no/su"),
    (["gather", "with", "runs=/no/*"], "no checkpoint of a run at `/no/*`"),
  ],
)
def test_mistakes(root, capsys, words, part):
  words = [word.replace("{root}", str(root)) for word in words]
  assert part in helpers.fails_with_sentence(capsys, *words)


def test_other_scenes_are_not_compared(root, capsys, tmp_path):
  path = tmp_path / "run"
  path.mkdir()
  for file in (root / "run_1").glob("c*"):
    (path / file.name).write_bytes(file.read_bytes())
  config = json.loads((path / "config.json").read_text())
  config["data"]["test"] = [0, 4]
  (path / "config.json").write_text(json.dumps(config))
  words = [f"runs=[{root}/run_1,{path}]", f"output={tmp_path}/out"]
  helpers.run_main("gather", "with", *words, "plot.scenes=[]")
  out = capsys.readouterr().out
  assert "not compared scene by scene" in out and "data.test" in out
  assert not (tmp_path / "out/differences.csv").exists()


def test_runs_are_found(root):
  three = [f"{root}/run_{i}" for i in (1, 2, 3)]
  assert gather.find(str(root)) == three == gather.find(f"{root}/run_*")
  assert gather.find(f"['{root}/run_2', {root}]") == [
    three[1],
    three[0],
    three[2],
  ]
  assert gather.find(f"{root.parent}/*") == three
  one = f"{root}/run_1/ckpt-100"
  assert gather.find([one, f"{root}/run_1/"]) == [one, three[0]]


def made_of(seed=0, **updates):
  config = helpers.tiny_config({"seed": seed, **updates})
  found = {"ari": {"mean": 0.5}}
  return gather.Evaluated(f"runs/{seed}", "runs/x", config, found, [])


def test_groups_are_what_differs_but_the_seed():
  same = gather.group([made_of(0), made_of(1)], "tiny")
  assert {k: len(v) for k, v in same.items()} == {"tiny": 2}
  # What follows from another entry tells nothing.
  runs = [made_of(0), made_of(1, n_z=4), made_of(2, n_z=4)]
  groups = gather.group(runs, "tiny")
  assert {k: len(v) for k, v in groups.items()} == {"n_z=3": 1, "n_z=4": 2}
  runs.append(made_of(1, **{"n_z": 4, "model.kl_weight": 2.0}))
  assert len(gather.group(runs, "tiny")) == 3


def test_the_paper_stands_beside_its_own_model():
  theirs = main.get_config(("tetrominoes",))
  minutes = main.get_config(("tetrominoes", "minutes"))
  assert not gather.differ(minutes, theirs, ignored=gather.RECIPE)
  other = main.get_config(("tetrominoes",), {"num_components": 5})
  for config in (other, main.get_config(("quick",))):
    assert gather.differ(config, theirs, ignored=gather.RECIPE)


def test_curves_with_a_band(tmp_path):
  from iodine.drawing import canvas, charts

  noisy = np.random.default_rng(0).normal(size=[4, 60])
  curves = [
    [(10 * t, float(v)) for t, v in enumerate(x + i)]
    for i, x in enumerate(noisy)
  ]
  panels = {"total": {"a": curves[:2], "b": curves[3:]}, "ari": {"a": curves}}
  figure = charts.groups_plot(panels, {"total": "loss", "ari": "ARI"})
  left, right = figure.axes
  assert (left.get_title(), right.get_title()) == ("loss", "ARI")
  # A band ends where ARI does.
  (band,) = right.collections
  assert band.get_paths()[0].vertices[:, 1].max() == 1.0
  assert [len(x.collections) for x in (left, right)] == [1, 1]
  assert left.lines[0].get_xdata()[-1] == 590
  assert [t.get_text() for t in figure.legends[0].texts] == [
    "a (n = 2)",
    "b (n = 1)",
  ]
  path = canvas.save(figure, str(tmp_path / "curves"))
  assert path == str(tmp_path / "curves.png")


def test_an_object_has_one_colour_whoever_finds_it():
  from iodine.drawing import plotting

  true_mask = np.zeros([1, 1, 3, 8, 8, 1])
  true_mask[0, 0, 0], true_mask[0, 0, 1, :3], true_mask[0, 0, 2, 5:] = 1, 1, 1
  true_mask[0, 0, 0] -= true_mask[0, 0, 1] + true_mask[0, 0, 2]

  def mask_of(order, data):
    outputs = {"recons": np.zeros([1, 1, 1, 8, 8, 3])}
    outputs["pred_mask"] = true_mask[:, :, order]
    outputs["components"] = np.zeros([1, 1, 3, 8, 8, 3])
    info = {"data": {"image": np.zeros([1, 1, 8, 8, 3]), **data}}
    tiles = plotting.compared_tiles([{**info, "outputs": outputs}] * 2)
    titles = [tile.title for tile in tiles]
    assert titles == ["image", "reconstruction", "mask"] * 2
    return tiles[2].image

  first = mask_of([0, 1, 2], {"true_mask": true_mask})
  assert len(np.unique(first.reshape(-1, 3), axis=0)) == 3
  helpers.assert_same_bits(mask_of([0, 2, 1], {"true_mask": true_mask}), first)
  assert np.any(mask_of([0, 2, 1], {}) != mask_of([0, 1, 2], {}))
