import math

import helpers
import numpy as np
import pytest
import tensorflow as tf

from iodine import errors, evaluation
from iodine.modules import metrics


def batches(sizes, seed=0):
  """Scenes in batches of the given sizes; scene i follows from i alone."""
  start = 0
  for size in sizes:
    scenes = [
      helpers.make_batch(batch_size=1, seed=seed + start + i)
      for i in range(size)
    ]
    yield tf.nest.map_structure(lambda *x: tf.concat(x, axis=0), *scenes)
    start += size


def make_model(updates=None):
  model = helpers.tiny_model(updates)
  model.initialize((8, 8, 3))
  helpers.perturb(model)
  return model


def test_every_scene_counts_once_and_the_last_batch_is_filled_up():
  model = make_model()
  # Scenes do not depend on their neighbours in a batch of the same size: the
  # first four agree whether or not a fifth follows.
  four = evaluation.evaluate(model, batches([2, 2]), batch_size=2)
  five = evaluation.evaluate(model, batches([2, 2, 1]), batch_size=2)
  fifth = evaluation.evaluate(model, batches([2, 2, 2]), batch_size=2)
  assert (four.num_scenes, five.num_scenes, fifth.num_scenes) == (4, 5, 6)
  last = 5 * five.metrics["mse"].mean - 4 * four.metrics["mse"].mean
  assert 0 < last < 1e3
  limited = evaluation.evaluate(
    model, batches([2, 2, 2]), batch_size=2, num_scenes=5
  )
  for name, value in five.metrics.items():
    assert math.isclose(
      value.mean, limited.metrics[name].mean, rel_tol=1e-5, abs_tol=1e-6
    ), name


def test_metrics_agree_with_eval_on_one_batch():
  model = make_model()
  (data,) = batches([3])
  result = evaluation.evaluate(model, [data], batch_size=3, seed=7)
  info = model.eval(data, seed=tf.constant([7, 0], tf.int64), update=False)

  def mean(name):
    return result.metrics[name].mean

  near = {"rel_tol": 1e-4, "abs_tol": 1e-5}  # graph and eager round apart
  assert math.isclose(
    mean("ari"), np.mean(info["metrics"]["ari"][:, -1]), **near
  )
  assert math.isclose(
    mean("ari_nobg"), np.mean(info["metrics"]["ari_nobg"][:, -1]), **near
  )
  assert math.isclose(
    mean("mse"), np.mean(info["metrics"]["mse"][:, -1]), **near
  )
  assert math.isclose(
    mean("recons"), np.mean(info["losses"]["recons"][:, -1]), **near
  )
  kl = np.sum(info["losses"]["kl"], axis=2)
  assert math.isclose(mean("kl"), np.mean(kl[:, -1]), **near)
  weights = np.linspace(0, 1, 3)
  total = (np.array(info["losses"]["recons"]) + kl) @ weights
  assert math.isclose(mean("total"), np.mean(total), **near)
  counts = metrics.mask_contingency(
    data["mask"][:, 0], info["outputs"]["pred_mask"][:, -1]
  ).numpy()
  miou = np.mean([metrics.mean_iou(c) for c in counts])
  assert math.isclose(mean("miou"), miou, **near)


def test_evaluation_changes_no_state():
  model = make_model()
  before = [np.array(v) for v in model.variables]
  evaluation.evaluate(model, batches([2, 1]), batch_size=2)
  for a, b in zip(before, model.variables, strict=True):
    np.testing.assert_array_equal(a, b)


def test_the_same_seed_gives_the_same_figures():
  model = make_model()
  first = evaluation.evaluate(model, batches([2]), batch_size=2, seed=1)
  again = evaluation.evaluate(model, batches([2]), batch_size=2, seed=1)
  other = evaluation.evaluate(model, batches([2]), batch_size=2, seed=2)
  assert first == again
  assert first.metrics["recons"] != other.metrics["recons"]


def test_a_model_without_regressor():
  model = make_model({"model.factor_evaluator": None})
  result = evaluation.evaluate(model, batches([2]), batch_size=2)
  assert "factor" not in result.metrics


def test_factor_loss_is_the_regressors():
  model = make_model()
  (data,) = batches([1])
  result = evaluation.evaluate(model, [data], batch_size=1, seed=0)
  info = model.eval(data, seed=tf.constant([0, 0], tf.int64), update=False)
  assert math.isclose(
    result.metrics["factor"].mean,
    float(info["losses"]["factor"][-1]),
    rel_tol=1e-4,  # graph and eager round apart
  )


def test_summary_is_mean_and_standard_error():
  values = [1.0, 2.0, 4.0]
  summary = evaluation.summarize(np.array(values))
  assert math.isclose(summary.mean, 7 / 3)
  assert math.isclose(summary.standard_error, np.std(values, ddof=1) / 3**0.5)
  assert evaluation.summarize(np.array([1.0])).standard_error is None


def test_no_scene_is_an_error():
  with pytest.raises(errors.UserError, match="no scene to evaluate"):
    evaluation.evaluate(make_model(), [], batch_size=2)


def test_progress_is_reported():
  seen = []
  evaluation.evaluate(
    make_model(), batches([2, 1]), batch_size=2, on_progress=seen.append
  )
  assert seen == [2, 3]
