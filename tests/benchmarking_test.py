"""Measurements: that they fit together, not how fast anything is."""

import math

import helpers
import numpy as np
import pytest
import tensorflow as tf

import main
from iodine import benchmark, building, errors
from iodine.benchmark import measuring
from iodine.commands import make_data
from iodine.modules import distributions


@pytest.fixture(scope="module")
def matmul():
  return measuring.MatmulRate(size=64)


def compiled_square():
  matrix = tf.ones([4, 4])
  square = tf.function(lambda x: tf.matmul(x, x), autograph=False)
  calls = []

  def call():
    calls.append(1)
    return square(matrix)

  return lambda: square.get_concrete_function(matrix), call, calls


def test_spread_is_made_of_percentiles():
  spread = measuring.Spread.of([5.0, 1.0, 3.0, 2.0, 4.0])
  assert spread == (3.0, 2.0, 4.0, 1.0, 5.0)
  assert measuring.Spread.of([7.0]) == (7.0,) * 5


def test_measurements_fit_together(matmul):
  trace, call, calls = compiled_square()
  first = measuring.first_call(trace, call)
  assert len(calls) == 1
  shown = []
  measured = measuring.measure(
    first,
    call,
    batch_size=2,
    steps=3,
    warmup=2,
    matmul=matmul,
    on_progress=shown.append,
  )
  assert len(calls) == 1 + 2 + 3
  assert shown == [1, 2, 3]
  assert (
    measured.flops == 2 * 4**3 == sum(benchmark.count(first.graph).values())
  )
  result = measured.as_json()
  seconds = result["step_seconds_median"]
  assert result["flops_per_step"] == 128
  assert result["flops_by_op"] == {"MatMul": 128}
  assert result["images_per_second"] == pytest.approx(2 / seconds)
  assert result["gflops"] == pytest.approx(128 / seconds / 1e9)
  assert result["share_of_matmul"] == pytest.approx(
    result["gflops"] / result["matmul_gflops"]
  )
  assert result["share_of_matmul_fastest"] == pytest.approx(
    128
    / result["step_seconds"]["min"]
    / 1e9
    / result["matmul_gflops_spread"]["max"]
  )
  for value in tf.nest.flatten(result):
    assert math.isfinite(value) and value > 0


def test_times_are_those_of_the_clock(matmul, monkeypatch):
  # A clock that goes on by a second whenever it is read.
  ticks = iter(range(1000))
  monkeypatch.setattr(
    measuring.time, "perf_counter", lambda: float(next(ticks))
  )
  trace, call, _ = compiled_square()
  first = measuring.first_call(trace, call)
  assert (first.trace_seconds, first.first_seconds) == (1.0, 1.0)
  measured = measuring.measure(
    first, call, batch_size=8, steps=2, warmup=0, matmul=matmul
  )
  assert measured.seconds == (1.0,) * 5
  assert measured.images_per_second == 8.0
  assert measured.gflops == 128e-9
  assert measured.matmul_gflops.median == 2 * 64**3 / 1e9


@pytest.mark.parametrize("name", ["clevr6", "multi_dsprites", "tetrominoes"])
def test_synthetic_batches_look_like_the_real_ones(tmp_path, name):
  config = main.get_config((name,))
  path = make_data.make_data(config["data"], str(tmp_path), 2, seed=0)
  dataset = building.build(
    {
      **config["data"],
      "path": path,
      "batch_size": 2,
      "image_dim": [16, 12],
      "min_num_objects": None,
      "max_num_objects": None,
    }
  )
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


def test_the_pipeline_is_read_for_some_batches(tmp_path):
  config = main.get_config(("tetrominoes",))
  path = make_data.make_data(config["data"], str(tmp_path), 6, seed=0)
  dataset = building.build({**config["data"], "path": path, "batch_size": 4})
  measured = measuring.measure_pipeline(dataset, 3, min_seconds=0.0)
  assert measured.num_scenes == 3 * 4
  assert measured.first_batch_seconds > 0
  assert 0 < measured.scenes_per_second < math.inf


def test_has_files(tmp_path):
  file = tmp_path / "a.tfrecords"
  file.touch()
  glob = f"{tmp_path}/*.tfrecords"
  for there in (str(file), str(tmp_path), glob, ["/no", str(file)]):
    assert measuring.has_files(there)
  for missing in (f"{tmp_path}/b", [], f"{tmp_path}/*.x"):
    assert not measuring.has_files(missing)
  with pytest.raises(errors.UserError, match="`path` is 5"):
    measuring.has_files(5)


def test_a_line_goes_through_its_points():
  line = measuring.fit_line([1, 2, 4], [5.0, 7.0, 11.0])
  np.testing.assert_allclose(line, (3.0, 2.0), rtol=1e-12)
