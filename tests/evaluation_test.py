import json
import math

import helpers
import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf

from iodine import evaluation
from iodine.evaluation import evaluator, scores
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


def seeds(seed, size, first=0):
  """Those of a batch: a scene's samples follow from its number."""
  return tf.constant([[seed, first + i] for i in range(size)], tf.int64)


NEAR = {"rtol": 1e-4, "atol": 1e-5}  # graph and eager round apart


def test_metrics_agree_with_eval_in_every_iteration():
  model = make_model()
  (data,) = batches([3])
  result = evaluation.evaluate(model, [data], batch_size=3, seed=7)
  info = model.eval(data, seed=seeds(7, 3), update=False)
  info = tf.nest.map_structure(np.asarray, info)
  means = result.means()
  orders = map(helpers.background_first, info["outputs"]["pred_mask"][:, -1])
  kl = np.stack(
    [x[:, order] for x, order in zip(info["losses"]["kl"], orders, strict=True)]
  )
  assert np.any(kl != info["losses"]["kl"])
  expected = {
    **info["metrics"],
    "recons": info["losses"]["recons"],
    "kl": kl.sum(axis=2),
    **{f"kl/slot_{k + 1}": kl[..., k] for k in range(3)},
  }
  winners = info["outputs"]["pred_mask"].argmax(axis=2)  # [B, T, H, W, 1]
  expected["num_active_slots"] = np.array(
    [[len(np.unique(frame)) for frame in scene] for scene in winners]
  )
  for name, values in expected.items():
    np.testing.assert_allclose(means[name], values.mean(axis=0), **NEAR)
  assert result.num_iters == 2
  for t in range(3):
    counts = metrics.mask_contingency(
      data["mask"][:, 0], info["outputs"]["pred_mask"][:, t]
    ).numpy()
    coverings = np.array([metrics.segmentation_covering(c) for c in counts])
    sc, msc = coverings.mean(axis=0)
    miou = np.mean([metrics.mean_iou(c) for c in counts])
    for name, value in (("sc", sc), ("msc", msc), ("miou", miou)):
      np.testing.assert_allclose(means[name][t], value, **NEAR)
  for name, summaries in result.per_iteration.items():
    assert summaries[-1] == result.metrics[name]
  factor = info["losses"]["factor"][-1]
  np.testing.assert_allclose(result.metrics["factor"].mean, factor, **NEAR)
  total = (info["losses"]["recons"] + kl.sum(axis=2)) @ np.linspace(0, 1, 3)
  np.testing.assert_allclose(
    result.metrics["total"].mean, np.mean(total), **NEAR
  )


def test_factor_scores_are_scikit_learns_over_all_visible_objects():
  model = make_model()
  scenes = list(batches([2, 2]))
  result = evaluation.evaluate(model, scenes, batch_size=2, seed=5)
  infos = [
    model.eval(data, seed=seeds(5, 2, first), update=False)
    for first, data in zip((0, 2), scenes, strict=True)
  ]
  visible = np.concatenate([data["visibility"] for data in scenes]) > 0
  assert np.all(visible.sum(axis=1) == 3)
  visible[:, 0] = False  # the background is no object
  for name in ("position", "color", "shape"):
    target = np.concatenate([data["factors"][name] for data in scenes])[visible]
    predictions = [i["factor_regressor"]["predictions"][name] for i in infos]
    for t in range(3):
      output = np.concatenate([p[:, t] for p in predictions])[visible]
      if name == "shape":
        actual = result.per_iteration["accuracy/shape"][t].mean
        expected = sklearn.metrics.accuracy_score(
          target[:, 0], output.argmax(axis=-1)
        )
      else:
        actual = result.per_iteration[f"r2/{name}"][t].mean
        expected = sklearn.metrics.r2_score(target, output)
      assert actual == pytest.approx(expected, rel=1e-4)  # float32 outputs


def test_the_error_of_a_quotient_is_that_of_the_jackknife():
  rng = np.random.default_rng(0)
  denominator = rng.uniform(1, 5, 400)
  numerator = denominator * rng.uniform(0, 2, 400) + rng.normal(size=400)
  values = scores.linearize(numerator[None, :, None], denominator)
  summary = evaluator.summarize(values[0, :, 0])
  ratio = numerator.sum() / denominator.sum()
  assert summary.mean == pytest.approx(ratio, rel=1e-12)  # float64
  without_one = (numerator.sum() - numerator) / (
    denominator.sum() - denominator
  )
  jackknife = np.sqrt(399 / 400 * np.sum((without_one - ratio) ** 2))
  # They differ by terms of second order, about 1 in 400.
  assert summary.standard_error == pytest.approx(jackknife, rel=0.01)


def test_r2_leaves_out_values_that_do_not_vary():
  rng = np.random.default_rng(0)
  target = rng.normal(size=[3, 5, 2])
  target[..., 1] = 0.3
  residual = rng.uniform(size=[1, 3, 2, 2])
  visibility = np.ones([3, 5])
  both = scores.r2(residual, target, visibility)
  first = scores.r2(residual[..., :1], target[..., :1], visibility)
  np.testing.assert_array_equal(both, first)
  assert both.shape == (1, 3, 2)
  second = scores.r2(residual[..., 1:], target[..., 1:], visibility)
  assert np.isnan(second).all()


def test_several_seeds_give_mean_and_deviation():
  model = make_model()
  together = evaluation.evaluate(
    model, batches([2, 1]), batch_size=2, seed=3, seeds=3
  )
  alone = [
    evaluation.evaluate(model, batches([2, 1]), batch_size=2, seed=3 + s)
    for s in range(3)
  ]
  for name, summary in together.metrics.items():
    means = [run.metrics[name].mean for run in alone]
    assert summary.mean == pytest.approx(np.mean(means), rel=1e-12)  # float64
    deviation = np.std(means, ddof=1)
    near = pytest.approx(deviation, rel=1e-6, abs=1e-9)  # cancels digits
    assert summary.standard_deviation == near
  for name, values in together.scenes.items():
    scenes = np.mean([run.scenes[name] for run in alone], axis=0)
    np.testing.assert_allclose(values, scenes, 1e-12)  # float64 sums
    error = np.std(scenes, ddof=1) / 3**0.5
    near = pytest.approx(error, rel=1e-6, abs=1e-9)  # cancels digits
    assert together.metrics[name].standard_error == near
  assert together.seeds == 3
  assert together.as_json()["mse"].keys() == {
    "mean",
    "standard_error",
    "standard_deviation",
  }


def test_what_a_scene_does_not_have_is_left_out_and_what_is_broken_is_not():
  full, empty = batches([1, 1])
  mask = np.zeros(empty["mask"].shape, np.float32)
  mask[:, :, 0] = 1.0  # the background is everywhere
  empty = {**empty, "mask": tf.constant(mask), "image": empty["image"] * np.nan}
  result = evaluation.evaluate(make_model(), [full, empty], batch_size=1)
  figures = json.loads(json.dumps(result.as_json(), allow_nan=False))
  for name in ("msc", "sc"):
    first, second = result.scenes[name]
    assert np.isnan(second)
    assert figures[name] == {"mean": first, "standard_error": None}
  assert figures["miou"]["mean"] == np.mean(result.scenes["miou"])
  assert figures["mse"] == {"mean": None, "standard_error": None}


def test_evaluation_changes_no_state_and_is_repeated():
  model = make_model()
  before = [np.array(v) for v in model.variables]
  regressor = model.factor_evaluator
  assert any(v is regressor.mean_var["color"].m2 for v in model.variables)
  score = evaluation.compiled(model, evaluation.score_batch)
  first, again, other = (
    evaluation.evaluate(model, batches([2, 1]), 2, seed, seeds=2, score=score)
    for seed in (1, 1, 4)
  )
  assert score.experimental_get_tracing_count() == 1
  assert first == again
  assert first.metrics["recons"] != other.metrics["recons"]
  for a, b in zip(before, model.variables, strict=True):
    np.testing.assert_array_equal(a, b)
