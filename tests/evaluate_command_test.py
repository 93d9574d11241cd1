"""`evaluate` as users run it: its files, logs, curves and sentences."""

import csv
import json
import math
import os
import re

import helpers
import numpy as np
import pytest
import tensorflow as tf

from iodine import building, checkpoints, evaluation

STEP = 7


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  """The folder of a model of 3 slots and 2 refinements at step 7."""
  folder = str(tmp_path_factory.mktemp("run"))
  helpers.save_checkpoint(folder, helpers.tiny_config(), step=STEP)
  return folder


@pytest.fixture
def evaluate(five_scenes, checkpoint, tmp_path):
  """Runs the command with more options; returns what its JSON file says."""

  def run(*options, before=()):
    json_path = tmp_path / "evaluation.json"
    helpers.run_main(
      *("evaluate", *before, "with", "tetrominoes", *helpers.TINY_OPTIONS),
      *(f"data.path={five_scenes}", f"checkpoint_dir={checkpoint}"),
      *(f"json_path={json_path}", f"pictures_dir={tmp_path}/pictures"),
      *options,
    )
    found = json.loads(json_path.read_text())
    # What was evaluated; the rest are metrics.
    for name in ("checkpoint", "step", "version", "config"):
      assert found.pop(name)
    return found

  return run


def read_csv(path):
  with open(path, newline="", encoding="utf-8") as file:
    return list(csv.DictReader(file))


def test_files_and_logs_say_the_same(evaluate, checkpoint, tmp_path, capsys):
  metrics = evaluate(
    "evaluation.seeds=2",
    f"csv_path={tmp_path}/new/all.csv",
    f"evaluation.scenes_csv={tmp_path}/scenes.csv",
    before=("-F", tmp_path / "sacred"),
  )
  assert metrics["num_scenes"] == 5
  assert (metrics["num_components"], metrics["num_iters"]) == (3, 2)
  names = {name for name, value in metrics.items() if "mean" in str(value)}
  names -= {"per_iteration"}
  families = "kl/slot_1,kl/slot_2,kl/slot_3,accuracy/shape,r2/position,r2/color"
  catalogued = {
    m.name for m in evaluation.catalogue.STANDARD if "{}" not in m.name
  }
  catalogued -= {"video_ari", "video_ari_nobg"}  # of sequential models only
  assert names == catalogued | set(families.split(","))
  for name in names:
    keys = {"mean", "standard_error", "standard_deviation"}
    assert metrics[name].keys() == keys
  out = capsys.readouterr().out
  for name in names:
    (line,) = [x for x in out.splitlines() if x.startswith(f"{name} ")]
    assert f"{metrics[name]['mean']:.4f}" in line
  assert "training scalars factor/* are not:" in out

  rows = read_csv(tmp_path / "new/all.csv")
  assert len(rows) == 3 * (len(names) - 1) + 1
  for row in rows:
    if row["iteration"]:
      entry = metrics["per_iteration"][row["metric"]][int(row["iteration"])]
    else:
      entry = metrics[row["metric"]]
    assert row["num_components"] == "3"
    for key, value in entry.items():
      assert float(row[key]) == value

  rows = read_csv(tmp_path / "scenes.csv")
  assert [row["scene"] for row in rows] == list("01234")
  for name in ("ari", "msc", "recons"):
    values = [float(row[name]) for row in rows]
    assert np.mean(values) == pytest.approx(metrics[name]["mean"], rel=1e-12)
    error = np.std(values, ddof=1) / math.sqrt(5)
    assert error == pytest.approx(metrics[name]["standard_error"], rel=1e-6)

  logged = helpers.event_values(f"{checkpoint}/evaluation")
  assert logged.keys() == {(f"evaluation/{name}", STEP) for name in names}
  for name in names:
    value = float(tf.make_ndarray(logged[f"evaluation/{name}", STEP].tensor))
    # TensorBoard stores float32.
    assert value == pytest.approx(metrics[name]["mean"], rel=1e-6)

  sacred = json.loads((tmp_path / "sacred/1/metrics.json").read_text())
  assert sacred.keys() == {tag for tag, _ in logged}
  for name, entries in metrics["per_iteration"].items():
    metric = sacred[f"evaluation/{name}"]
    assert metric["steps"] == [0, 1, 2]
    assert metric["values"] == [entry["mean"] for entry in entries]


def test_other_numbers_of_slots_and_refinements(
  evaluate, five_scenes, checkpoint, tmp_path, capsys
):
  metrics = evaluate(
    "evaluation.num_components=[3,2]",
    "evaluation.num_iters=3",
    f"csv_path={tmp_path}/all.csv",
    *("plot.style=paper", "plot.format=pdf", "plot.iterations=[0,3]"),
  )
  assert "2 slots, 3 refinements" in capsys.readouterr().err
  three, two = metrics.pop("generalisation")
  assert three == metrics
  assert [g["num_components"] for g in (three, two)] == [3, 2]
  assert "kl/slot_3" in three
  assert "kl/slot_3" not in two
  assert len(two["per_iteration"]["mse"]) == 4
  rows = read_csv(tmp_path / "all.csv")
  slots = [row["num_components"] for row in rows if row["metric"] == "total"]
  assert slots == ["3", "2"]
  drawn = ("generalisation", "overview", "samples", "sequence")
  assert sorted(os.listdir(tmp_path / "pictures")) == [
    f"{name}.pdf" for name in drawn
  ]
  for name in drawn:
    pdf = (tmp_path / f"pictures/{name}.pdf").read_bytes()
    (width,) = re.findall(rb"/MediaBox \[ 0 0 ([0-9.]+) ", pdf)
    # Two columns wide but for three tiles and their labels.
    assert float(width) / 72 == (3.25 if name == "sequence" else 6.75)
  # The same metrics as of a model that was built with these numbers.
  updates = {"num_components": 2, "num_iters": 3, "batch_size": 3}
  updates["model.refinement_batch_size"] = 128  # that of the named config
  updates |= {"data.path": five_scenes, "data.image_dim": [8, 8]}
  config = helpers.tiny_config(updates)
  model = building.build(config["model"])
  model.initialize((8, 8, 3))
  checkpoints.restore(checkpoint, model=model)
  dataset = building.build(config["data"])
  direct = evaluation.evaluate(model, dataset.batches("test"), 3, seed=3)
  for name, summary in direct.metrics.items():
    # Only the last digits depend on the threads.
    near = pytest.approx(summary.mean, rel=1e-5, abs=1e-6)
    assert two[name]["mean"] == near


@pytest.mark.parametrize(
  "updates, part",
  [
    (["evaluation.num_components=[4,1]"], "`num_components` of at least 2"),
    (
      ["model.iter_loss_weight=[0,1,1]", "evaluation.num_iters=3"],
      "`iter_loss_weight` has 3 entries, and `num_iters` 3 needs 4",
    ),
    (["csv_path=new.csv", "evaluation.scenes_csv=new.csv"], "of its own"),
    (["evaluation.scenes_csv=/tmp"], "`/tmp` is not a file"),
    (["evaluation.metrics=['mypackage.purity']"], "`mypackage.purity`"),
    (["data.max_num_objects=1"], "no scene"),
    (["model.sequential=True"], "needs 3 frames"),
  ],
)
def test_errors_come_before_the_work(capsys, evaluate, tmp_path, updates, part):
  with pytest.raises(SystemExit):
    evaluate(*updates)
  captured = capsys.readouterr()
  assert "Traceback" not in captured.err
  (line,) = [x for x in captured.err.splitlines() if x.startswith("error: ")]
  assert part in line and "step " not in captured.out
  assert not os.path.exists(tmp_path / "evaluation.json")
