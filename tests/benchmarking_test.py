"""Measurements: that they fit together, not how fast anything is."""

import math

import helpers
import numpy as np
import pytest
import tensorflow as tf

import main
from iodine import building
from iodine.benchmark import measuring
from iodine.commands import make_data
from iodine.modules import distributions


def measure_square(steps, warmup, **options):
  """Measurements of a product, and how often it was called."""
  matrix, calls = tf.ones([4, 4]), tf.Variable(0)

  def square(x):
    calls.assign_add(1)
    return tf.matmul(x, x)

  function = tf.function(square, autograph=False)
  result = measuring.measure(
    "square", function, (matrix,), 8, steps, warmup, **options
  )
  return result, int(calls)


@pytest.fixture(autouse=True)
def small_product(monkeypatch):
  monkeypatch.setattr(measuring, "_MATRIX_SIZE", 64)


def test_measurements_fit_together(capsys):
  result, num_calls = measure_square(3, 2)
  assert num_calls == 1 + 2 + 3
  captured = capsys.readouterr()
  assert "square: tracing" in captured.out and "3/3" in captured.err
  seconds = result["step_seconds_median"]
  assert result["flops_per_step"] == 2 * 4**3
  assert result["flops_by_op"] == {"MatMul": 128}
  assert result["images_per_second"] == pytest.approx(8 / seconds)
  assert result["gflops"] == pytest.approx(128 / seconds / 1e9)
  assert result["share_of_matmul"] == pytest.approx(
    result["gflops"] / result["matmul_gflops"]
  )
  fastest = 128 / result["step_seconds"]["min"] / 1e9
  assert result["share_of_matmul_fastest"] == pytest.approx(
    fastest / result["matmul_gflops_spread"]["max"]
  )
  for value in tf.nest.flatten(result):
    assert math.isfinite(value) and value > 0


def test_times_are_those_of_the_clock(monkeypatch):
  # A clock that goes on by a second whenever it is read.
  ticks = iter(range(1000))
  monkeypatch.setattr(
    measuring.time, "perf_counter", lambda: float(next(ticks))
  )
  result, _ = measure_square(2, 0, steps_per_call=4)
  assert result["trace_seconds"] == result["first_step_seconds"] == 1.0
  assert set(result["step_seconds"].values()) == {0.25}
  assert result["images_per_second"] == 32.0
  assert result["matmul_gflops"] == 2 * 64**3 / 1e9


@pytest.mark.parametrize("name", ["clevr6", "multi_dsprites", "tetrominoes"])
def test_synthetic_batches_look_like_the_real_ones(tmp_path, name):
  config = main.get_config((name,))
  path = make_data.make_data(config["data"], str(tmp_path), 2, seed=0)
  own = {"path": path, "batch_size": 2, "image_dim": [16, 12]}
  own |= {"min_num_objects": None, "max_num_objects": None}
  dataset = building.build({**config["data"], **own})
  real = next(iter(dataset.batches("summary")))
  mapping = config["model"]["factor_evaluator"]["mapping"]
  made = measuring.synthetic_batch(dataset, mapping)
  for entry in ("image", "mask", "visibility"):
    assert made[entry].shape == real[entry].shape
    assert made[entry].dtype == real[entry].dtype
  np.testing.assert_array_equal(tf.reduce_sum(made["mask"], axis=2), 1.0)
  for factor, size, kind in mapping:
    values = made["factors"][factor]
    assert values.shape == real["factors"][factor].shape
    if kind == "categorical":
      assert np.max(values) < size
  again = measuring.synthetic_batch(dataset, mapping)
  tf.nest.map_structure(np.testing.assert_array_equal, made, again)
  films = measuring.synthetic_batch(dataset, mapping, num_frames=3)
  for entry in ("image", "mask"):
    assert films[entry].shape[:2] == (2, 3)
    assert films[entry].shape[2:] == made[entry].shape[2:]


def test_segmentation_is_the_end_of_eval():
  model = helpers.tiny_model()
  model.initialize((8, 8, 3))
  data, seed = helpers.make_batch(), tf.constant([1, 2])
  result = measuring.segment(model, data["image"], seed)
  estimates, _ = model.encode(data["image"], seed=seed)
  mask = distributions.render(estimates[-1].x_dist).masks
  helpers.assert_near(result["mask"], mask)
  info = model.eval(data, seed=seed, update=False)
  helpers.assert_near(result["recons"], info["outputs"]["recons"][:, -1])
