"""The benchmark as users run it: measurements and sentences."""

import json
import math

import helpers
import pytest

from iodine.benchmark import measuring

TINY = [
  "benchmark",
  "with",
  "tetrominoes",
  *helpers.TINY_OPTIONS,
  *("batch_size=2", "num_iters=1", "data.path=/no/such.tfrecords"),
  *("benchmark.steps=2", "benchmark.warmup=0"),
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
def in_no_time(monkeypatch):
  monkeypatch.setattr(measuring, "_MATRIX_SIZE", 64)
  monkeypatch.setattr(measuring, "_MIN_SECONDS", 0.0)


def test_all_parts_without_any_data(tmp_path, capsys):
  json_path = tmp_path / "measurements.json"
  helpers.run_main(*TINY, f"json_path={json_path}")
  result = json.loads(json_path.read_text())
  assert set(CONTRACT) <= set(result)
  for part in (result, result["eval"], result["segmentation"]):
    for name in CONTRACT[:-1]:
      assert math.isfinite(part[name]) and part[name] > 0, name
  # A training step has the work of an evaluation and that of gradients, an
  # evaluation has regressors and metrics besides the segmentation.
  assert (
    result["flops_per_step"]
    > result["eval"]["flops_per_step"]
    > result["segmentation"]["flops_per_step"]
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
    "segmentation",
    "images/s",
    "GFLOP/s",
    "generated scenes, not filtered",
    "peak memory",
    "2 images of 8x8, 3 slots, 1 refinements",
    f"measurements: {json_path}",
  ):
    assert text in out


def test_the_pipeline_reads_the_data_that_is_there(five_scenes, capsys):
  words = [f"data.path={five_scenes}", "benchmark.parts=['input']"]
  helpers.run_main(*TINY, *words)
  out = capsys.readouterr().out
  assert f"from the scenes of {five_scenes}" in out
  assert "eval" not in out


def test_a_data_set_without_data_and_generator(capsys):
  words = ["data.constructor=iodine.modules.data.ObjectsRoom"]
  words += ["model.factor_evaluator=None", "benchmark.parts=['input']"]
  helpers.run_main(*TINY, *words)
  assert "neither data nor a generator" in capsys.readouterr().out


@pytest.mark.parametrize(
  "words, part",
  [
    ([*TINY, "json_path=/tmp"], "`/tmp` is not a file"),
    ([*TINY, "model.sequential=True"], "needs 2 frames"),
  ],
)
def test_errors(capsys, words, part):
  assert part in helpers.fails_with_sentence(capsys, *words)
