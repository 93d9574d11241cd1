"""The benchmark as users run it: measurements, sweeps, sentences."""

import json
import math
import os

import helpers
import pytest
import tensorflow as tf

import main
from iodine import errors
from iodine.benchmark import measuring, sweep
from iodine.commands import benchmark, make_data

run = helpers.run_main
fails_with_sentence = helpers.fails_with_sentence

TINY = [
  "benchmark",
  "with",
  "tetrominoes",
  *(f"{key}={value}" for key, value in helpers.TINY.items()),
  "batch_size=2",
  "data.image_dim=[8,8]",
  "num_iters=1",
  "data.path=/no/such.tfrecords",
  "seed=3",
  "benchmark.steps=2",
  "benchmark.warmup=0",
]

CONTRACT = (
  "trace_seconds",
  "first_step_seconds",
  "step_seconds_median",
  "images_per_second",
  "flops_per_step",
  "gflops",
  "matmul_gflops",
  "share_of_matmul",
  "peak_memory_bytes",
)


@pytest.fixture(autouse=True)
def small_product(monkeypatch):
  rate = measuring.MatmulRate
  monkeypatch.setattr(measuring, "MatmulRate", lambda: rate(size=64))
  monkeypatch.setattr(measuring.measure_pipeline, "__defaults__", (0.0,))


def check(measured, batch_size):
  """The measurements of one graph are positive and fit together."""
  for name in CONTRACT[:-1]:
    assert math.isfinite(measured[name]) and measured[name] > 0, name
  seconds = measured["step_seconds_median"]
  assert measured["images_per_second"] == pytest.approx(batch_size / seconds)
  assert measured["gflops"] == pytest.approx(
    measured["flops_per_step"] / seconds / 1e9
  )
  assert measured["share_of_matmul"] == pytest.approx(
    measured["gflops"] / measured["matmul_gflops"]
  )


def test_all_parts_without_any_data(tmp_path, capsys):
  json_path = tmp_path / "measurements.json"
  run(*TINY, f"json_path={json_path}")
  result = json.loads(json_path.read_text())
  assert set(CONTRACT) <= set(result)
  check(result, 2)
  # A training step has the work of an evaluation and that of gradients, an
  # evaluation has regressors and metrics besides the segmentation.
  for part in ("eval", "segmentation"):
    check(result[part], 2)
  assert result["flops_per_step"] > result["eval"]["flops_per_step"]
  assert (
    result["eval"]["flops_per_step"] > result["segmentation"]["flops_per_step"]
  )
  assert result["num_traces"] == 1
  assert result["peak_memory_bytes"] > 1e8
  assert result["peak_memory_growth_bytes"] >= 0
  assert result["start_to_first_step_seconds"] > result["first_step_seconds"]
  assert result["input"]["scenes_per_second"] > 0
  assert (result["batch_size"], result["num_components"]) == (2, 3)
  assert (result["num_iters"], result["image_shape"]) == (1, [8, 8, 3])
  out = capsys.readouterr().out
  for text in (
    "training step",
    "eval",
    "segmentation",
    "images/s",
    "GFLOP/s",
    "2/2 steps",
    "generated scenes, not filtered",
    "peak memory",
    "2 images of 8x8, 3 slots, 1 refinements",
    f"measurements: {json_path}",
  ):
    assert text in out


def test_the_pipeline_reads_the_data_that_is_there(tmp_path, capsys):
  path = make_data.make_data(
    main.get_config(("tetrominoes",))["data"], str(tmp_path), 4, seed=0
  )
  run(*TINY, f"data.path={path}", "benchmark.parts=['input']")
  out = capsys.readouterr().out
  assert f"from the scenes of {path}" in out
  assert "eval" not in out


def test_a_data_set_without_data_and_generator(capsys):
  words = ["data.constructor=iodine.modules.data.ObjectsRoom"]
  words += ["model.factor_evaluator=None", "benchmark.parts=['input']"]
  run(*TINY, *words)
  assert "neither data nor a generator" in capsys.readouterr().out


@pytest.mark.parametrize(
  "updates, part",
  [
    (["benchmark=5"], "`benchmark` is 5"),
    (["benchmark.steps=0"], "`benchmark.steps` is 0"),
    (["benchmark.steps=1.5"], "`benchmark.steps` is 1.5"),
    (["benchmark.warmup=-1"], "`benchmark.warmup` is -1"),
    (["benchmark.parts=['evil']"], "eval, segmentation, input"),
    (["benchmark.parts=eval"], "`benchmark.parts` is 'eval'"),
    (["benchmark.stepps=1"], "did you mean `benchmark.steps`"),
    (["benchmark.sweep=5"], "`benchmark.sweep` is 5"),
    (["benchmark.sweep.batch=[1]"], "`benchmark.sweep.batch_size`"),
    (["benchmark.sweep.batch_size=4"], "`benchmark.sweep.batch_size` is 4"),
    (["benchmark.sweep.batch_size=[]"], "`benchmark.sweep.batch_size` is []"),
    (["benchmark.sweep.batch_size=[0]"], "whole numbers, at least 1"),
    (["benchmark.sweep.num_iters=[-1]"], "whole numbers, at least 0"),
    (["benchmark.sweep.num_components=['a']"], "`benchmark.sweep.num_comp"),
    (["benchmark.sweep.image_size=[[1,2,3]]"], "or of [height, width]"),
    (["json_path=/tmp"], "not the path of a file"),
    (["n_z=0"], "`n_z` is 0"),
    (["model.decoder=5"], "`decoder` is 5"),
    (["model.sequential=True"], "needs 2 frames"),
    (["jit_compile=yes"], "give True or False"),
  ],
)
def test_errors(capsys, updates, part):
  assert part in fails_with_sentence(capsys, *TINY, *updates)


def test_no_experiment_is_an_error(capsys):
  message = fails_with_sentence(capsys, "benchmark")
  assert "no experiment is chosen" in message


def test_points_change_what_belongs_to_them_and_nothing_else():
  config = main.get_config(("tetrominoes",))
  before = json.dumps(config)
  options = {
    "sweep": {"image_size": [8, [4, 6]], "num_iters": [0], "batch_size": None}
  }
  points = sweep.read(options)
  assert [p.label for p in points] == ["8x8", "4x6", "0"]
  assert [p.size for p in points] == [64, 24, 0]
  changed = points[1].apply(config)
  assert changed["data"].pop("image_dim") == [4, 6]
  config_without = json.loads(before)
  assert json.loads(json.dumps(changed)) == config_without
  point = sweep.Point("num_components", 2)
  model = point.apply(config)["model"]
  assert model["num_components"] == 2
  assert model["output_dist"]["num_components"] == 2
  assert json.dumps(config) == before
  assert sweep.read({"sweep": None}) == []


def measure_here(config, parts, script):
  """What `measure_in_child` does, without a process and its time."""
  options = {**config["benchmark"], "parts": parts, "sweep": None}
  return benchmark.run(
    {**config, "benchmark": options, "json_path": None}, script
  )


def test_a_sweep_has_table_lines_picture_and_json(
  tmp_path, capsys, monkeypatch
):
  json_path = tmp_path / "sweep.json"
  in_child, scripts = sweep.measure_in_child, []

  def measure(*arguments):
    scripts.append(arguments[-1])
    is_last = len(scripts) == 4
    return (in_child if is_last else measure_here)(*arguments)

  monkeypatch.setattr(sweep, "measure_in_child", measure)
  run(
    *TINY,
    "benchmark.parts=[]",
    "benchmark.steps=1",
    "benchmark.sweep.batch_size=[1,3]",
    "benchmark.sweep.num_iters=[2]",
    f"json_path={json_path}",
    f"pictures_dir={tmp_path}/pictures",
  )
  assert scripts == [os.path.abspath(main.__file__)] * 4
  result = json.loads(json_path.read_text())
  assert set(CONTRACT) <= set(result)
  rows = result["sweep"]
  quantities = ["batch_size", "batch_size", "num_iters"]
  assert [row["quantity"] for row in rows] == quantities
  assert [row["value"] for row in rows] == [1, 3, 2]
  check(rows[0], 1)
  check(rows[1], 3)
  # One, two and three scenes lie on a straight line.
  assert (
    rows[0]["flops_per_step"] + rows[1]["flops_per_step"]
    == 2 * result["flops_per_step"]
  )
  assert rows[2]["flops_per_step"] > result["flops_per_step"]
  assert rows[2]["num_iters"] == 2
  fit = result["fits"]["batch_size"]["step_seconds_median"]
  assert fit["intercept"] + 3 * fit["slope"] == pytest.approx(
    rows[1]["step_seconds_median"]
  )
  assert set(result["fits"]) == {"batch_size"}  # two points make a line
  out = capsys.readouterr().out
  for text in ("point 2/3: batch_size=3", "s per scene", "peak [MB]"):
    assert text in out
  picture = (tmp_path / "pictures/sweep.png").read_bytes()
  height, width, _ = tf.io.decode_png(picture).shape
  assert (height, width) == (640, 850)


def test_a_point_that_fails_does_not_cost_the_others(
  tmp_path, capsys, monkeypatch
):
  def measure(config, parts, script):
    if config["model"]["num_components"] == 1:
      raise errors.UserError("one slot is not enough")
    return measure_here(config, parts, script)

  monkeypatch.setattr(sweep, "measure_in_child", measure)
  json_path = tmp_path / "sweep.json"
  message = fails_with_sentence(
    capsys,
    *TINY,
    "benchmark.parts=[]",
    "benchmark.sweep.num_components=[1,3]",
    f"json_path={json_path}",
    f"pictures_dir={tmp_path}",
  )
  assert "num_components=1 could not be measured" in message
  assert "one slot is not enough" in message
  rows = json.loads(json_path.read_text())["sweep"]
  assert rows[0]["error"] == "one slot is not enough"
  assert rows[1]["flops_per_step"] > 0
  assert (tmp_path / "sweep.png").exists()


def test_a_child_that_is_killed_says_so(tmp_path):
  script = tmp_path / "killed.py"
  config = main.get_config(("tetrominoes",))
  for code, part in (
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "signal 9"),
    ("import sys; sys.exit('error: no luck')", "^no luck$"),
    ("import sys; sys.exit(3)", "ended with 3"),
  ):
    script.write_text(code)
    with pytest.raises(errors.UserError, match=part):
      sweep.measure_in_child(config, [], str(script))
