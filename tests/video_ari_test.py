"""The ARI of all frames of a film together."""

import helpers
import numpy as np
import pytest
import sklearn.metrics

from iodine import evaluation
from iodine.evaluation import catalogue, decomposing
from iodine.evaluation import scores as scores_lib

FILMS = helpers.make_batch(batch_size=3, frames=2, seed=4)
NAMES = ["video_ari", "video_ari_nobg"]


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
  for name, expected in zip(NAMES, (everywhere, objects), strict=True):
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
  metrics = [m for m in evaluation.STANDARD if m.name in NAMES]
  truth, slots = [1] * 8 + [2] * 4, [1] * 8 + [2] * 4 + [2] * 8 + [1] * 4
  expected = sklearn.metrics.adjusted_rand_score(truth * 2, slots)
  for _, values in catalogue.measure(scores, metrics):
    np.testing.assert_allclose(values, [[1.0, expected]], 1e-12)


def test_other_models_have_no_video_ari():
  data = helpers.make_batch(batch_size=1)
  model = helpers.tiny_model({"num_iters": 1})
  scores = evaluation.score_batch(model, data, decomposing.scene_seeds(2, 0, 1))
  arrays = scores_lib.to_numpy([scores], 1)
  metrics = [m for m in evaluation.STANDARD if m.name in NAMES]
  assert len(metrics) == 2
  assert not catalogue.measure(arrays, metrics)
