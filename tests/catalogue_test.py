"""The catalogue of metrics: complete, documented, and open to others."""

import pathlib
import re

import helpers
import numpy as np
import pytest
import sklearn.metrics

from iodine import errors, evaluation
from iodine.evaluation import catalogue, decomposing

ROOT = pathlib.Path(__file__).parents[1]


def test_every_metric_has_a_row_in_the_documentation():
  page = (ROOT / "docs/evaluation.md").read_text()
  (table,) = re.findall(r"\| name \| what it is .*?\n\n", page, re.S)
  rows = re.findall(r"^\| `(.*?)`", table, re.M)
  names = [
    metric.name.replace("{}", "1" if "slot" in metric.name else "<factor>")
    for metric in catalogue.STANDARD
  ]
  assert sorted(rows) == sorted(names)


def test_names_are_unique_and_meanings_are_lines():
  names = [metric.name for metric in catalogue.STANDARD]
  assert len(set(names)) == len(names)
  for metric in catalogue.STANDARD:
    assert 0 < len(metric.meaning) <= 80 and "\n" not in metric.meaning
    assert metric.unit not in metric.title or not metric.unit


def by_name(name):
  (metric,) = [m for m in catalogue.STANDARD if m.name == name]
  return metric


def test_recall_counts_objects_with_more_than_half_in_common():
  # The background and three objects, the last without pixels, in 3 slots.
  table = [[50, 0, 10], [0, 9, 1], [4, 0, 10], [0, 0, 0]]
  nothing = [[74, 9, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
  counts = np.array([table, nothing], np.float64)[None, :, None]
  values = by_name("recall").compute({"contingency": counts})
  # 9 of 10 pixels; 10 of 14 + 21 - 10.
  np.testing.assert_array_equal(values, [[[1 / 2], [np.nan]]])


FILMS = helpers.make_batch(batch_size=3, frames=2, seed=4)
VIDEO_ARI = ["video_ari", "video_ari_nobg"]


def test_video_ari_is_that_of_all_frames_as_one_image():
  model = helpers.tiny_model({"model.sequential": True, "num_iters": 1})
  helpers.perturb(model, stddev=0.5)
  result = evaluation.evaluate(model, [FILMS], batch_size=3, seed=2)
  seeds = decomposing.scene_seeds(2, 0, 3)
  info = model.eval(FILMS, seed=seeds)
  slots = info["outputs"]["pred_mask"].numpy()[..., 0].argmax(axis=2)
  truth = FILMS["mask"].numpy()[..., 0].argmax(axis=2)
  assert len(np.unique(slots)) > 1  # [B, T, H, W]
  everywhere, objects, of_frames = [], [], []
  for t, s in zip(truth, slots, strict=True):
    score = sklearn.metrics.adjusted_rand_score
    everywhere.append(score(t.ravel(), s.ravel()))
    objects.append(score(t[t > 0], s[t > 0]))
    of_frames.append(
      [score(a.ravel(), b.ravel()) for a, b in zip(t, s, strict=True)]
    )
  for name, expected in zip(VIDEO_ARI, (everywhere, objects), strict=True):
    # float32 sums on their side.
    assert result.metrics[name].mean == pytest.approx(
      np.mean(expected), abs=1e-6
    )
    assert result.metrics[name].standard_error == pytest.approx(
      np.std(expected, ddof=1) / np.sqrt(3), abs=1e-6
    )
    assert name not in result.per_iteration
  # By iteration there is the ARI of each frame by itself.
  actual = [summary.mean for summary in result.per_iteration["ari"]]
  np.testing.assert_allclose(actual, np.mean(of_frames, axis=0), atol=1e-6)
  assert np.mean(everywhere) != pytest.approx(np.mean(of_frames), abs=1e-4)


def test_a_slot_has_to_keep_its_object():
  # Two objects in two frames, of 8 and 4 pixels, without a background.
  table = np.array([[0, 0], [8, 0], [0, 4]], np.float64)
  kept, swapped = [table, table], [table, table[:, ::-1]]
  scores = {
    "mse": np.zeros([1, 2, 2]),
    "contingency": np.array([[kept, swapped]]),
    "frame": np.array([[[0, 1], [0, 1]]]),
  }
  metrics = [m for m in catalogue.STANDARD if m.name in VIDEO_ARI]
  truth, slots = [1] * 8 + [2] * 4, [1] * 8 + [2] * 4 + [2] * 8 + [1] * 4
  expected = sklearn.metrics.adjusted_rand_score(truth * 2, slots)
  for _, values in catalogue.measure(scores, metrics):
    np.testing.assert_allclose(values, [[1.0, expected]], 1e-12)


# --------------------------------------------------------------------- your own

MODULE = """
from iodine import evaluation


def ari(scores):
  return scores["ari"]


def per_scene(scores):
  return scores["ari"].mean(axis=0)


def broken(scores):
  return scores.no_such_attribute


nothing = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
  """The name of a module outside the package, with what the page shows."""
  page = (ROOT / "docs/extending.md").read_text()
  (shown,) = re.findall(
    r"```python\n(# my_metric.py\ndef purity.*?)```", page, re.S
  )
  (tmp_path / "my_metrics.py").write_text(shown + MODULE)
  monkeypatch.syspath_prepend(str(tmp_path))
  return "my_metrics"


@pytest.mark.parametrize("name", ["my_metrics.nothing", "no_module.purity"])
def test_a_name_without_a_metric_is_a_sentence(module, name):
  with pytest.raises(errors.UserError, match=f"names `{name}`, which is not"):
    catalogue.find_metric(name, "evaluation.metrics")


def evaluate_with(name):
  model = helpers.tiny_model()
  model.initialize((8, 8, 3))
  return evaluation.evaluate(
    model,
    [helpers.make_batch(2)],
    batch_size=2,
    metrics=[catalogue.find_metric(name, "evaluation.metrics")],
  )


def test_wrong_values_and_taken_names_are_sentences_and_bugs_are_not(module):
  with pytest.raises(errors.UserError, match="two metrics `ari`"):
    evaluate_with(f"{module}.ari")
  with pytest.raises(errors.UserError, match=r"shape \(2, 3\): give one for"):
    evaluate_with(f"{module}.per_scene")
  with pytest.raises(AttributeError, match="no_such_attribute"):
    evaluate_with(f"{module}.broken")
  purity = catalogue.find_metric(f"{module}.purity", "evaluation.metrics")
  assert purity.meaning.startswith("Returns the share of pixels whose slot is")
