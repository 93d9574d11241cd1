"""Updates that are left out because they were not finite."""

import math

import helpers
import numpy as np
import pytest
import tensorflow as tf
import training_test

from iodine import building, errors, training
from iodine.training import step as step_lib


def batches(first, bad_steps=()):
  """Yields batches, where batch i follows from i; of some steps with a NaN."""
  while True:
    batch = helpers.make_batch(seed=first)
    first += 1
    yield with_nan(batch) if first in bad_steps else batch


def with_nan(batch, place="image"):
  """A copy of a batch with one NaN, in the image or in a factor."""
  if place == "image":
    image = batch["image"].numpy()
    image[0, 0, 0, 0, 0] = math.nan
    return {**batch, "image": tf.constant(image)}
  values = batch["factors"][place].numpy()
  values[1, 0, 0] = math.nan
  factors = {**batch["factors"], place: tf.constant(values)}
  return {**batch, "factors": factors}


class Run(training_test.Run):
  """One that may leave out updates."""

  def __init__(self, folder, skip=None, jit_compile=False):
    self.skip = skip
    super().__init__(
      folder,
      updates={"num_iters": 1},
      jit_compile=jit_compile,
      skip_nonfinite=skip is not None,
    )

  def train(self, last, bad_steps=(), **schedule):
    self.reports = []
    return super().train(
      last,
      scenes=batches(int(self.optimizer.global_step), bad_steps),
      report=self.reports.append,
      skip_nonfinite=self.skip,
      **{"save_checkpoint_steps": 1000, **schedule},
    )

  def state(self):
    """Every variable of the model and the optimizer but the step."""
    variables = [*self.model.variables, *self.optimizer.variables]
    return {
      f"{v.name} {i}": v.numpy().copy()
      for i, v in enumerate(variables)
      if v is not self.optimizer.global_step
    }


@pytest.mark.parametrize(
  "place, options",
  [("image", {}), ("color", {}), ("color", {"jit_compile": True})],
)
def test_a_skipped_step_leaves_everything(tmp_path, place, options):
  run = Run(tmp_path, skip=1, **options)
  good = helpers.make_batch()
  assert run.step(good)["debug/skipped_updates"] == 0
  before = run.state()
  assert any("mean_var" in name for name in before)
  scalars = run.step(with_nan(good, place))
  assert scalars["debug/skipped_updates"] == 1
  assert np.isnan(scalars["loss/total"])
  helpers.assert_same_bits(before, run.state())
  # Samples and the order of scenes go on.
  assert run.optimizer.global_step == 2
  assert run.step(good)["debug/skipped_updates"] == 0
  after = run.state()
  changed = [name for name in before if np.any(before[name] != after[name])]
  assert len(changed) > 0.9 * len(before)
  assert all(np.all(np.isfinite(value)) for value in after.values())
  assert run.step.experimental_get_tracing_count() == 1


def test_an_infinite_loss_with_finite_gradients_is_skipped(
  tmp_path, monkeypatch
):
  run = Run(tmp_path)
  compute = step_lib.compute_gradients

  def infinite(*args, **options):
    found = compute(*args, **options)
    return found._replace(loss=found.loss + math.inf)

  monkeypatch.setattr(step_lib, "compute_gradients", infinite)
  before = run.state()
  scalars = training.train_step(
    run.model, run.optimizer, helpers.make_batch(), skip_nonfinite=True
  )
  assert scalars["debug/skipped_updates"] == 1
  assert math.isfinite(scalars["debug/global_grad_norm"])
  helpers.assert_same_bits(before, run.state())


def test_steps_that_are_finite_are_the_same_with_and_without_it(tmp_path):
  plain, skipping = Run(tmp_path / "a"), Run(tmp_path / "b", skip=3)
  plain.train(3)
  skipping.train(3)
  helpers.assert_same_bits(plain.state(), skipping.state())
  assert "debug/skipped_updates" not in plain.reports[0].means
  assert skipping.reports[0].means["debug/skipped_updates"] == 0


def test_it_works_on_a_model_without_variables_yet():
  config = helpers.tiny_config({"num_iters": 1})
  model = building.build(config["model"])
  optimizer = building.build(config["optimizer"])
  batch = with_nan(helpers.make_batch())
  training.train_step(model, optimizer, batch, skip_nonfinite=True)
  assert all(np.all(np.isfinite(v)) for v in model.variables)
  assert not any(np.any(x) for x in [*optimizer.m, *optimizer.v])


def test_n_in_a_row_are_skipped_and_counted(tmp_path):
  run = Run(tmp_path, skip=2)
  outcome = run.train(8, [2, 4, 5, 7], save_checkpoint_steps=3)
  assert outcome.step == 8
  assert [report.step for report in run.reports] == [2, 4, 6, 8]
  counts = [r.means["debug/skipped_updates"] for r in run.reports]
  assert counts == [1, 1, 1, 1]
  for report in run.reports:
    assert all(map(math.isfinite, report.means.values()))
  assert all(np.all(np.isfinite(v)) for v in run.state().values())


@pytest.mark.parametrize("skip", [None, 1, 2])
def test_one_more_in_a_row_ends_the_training(tmp_path, skip):
  run = Run(tmp_path, skip=skip)
  first_bad = 4
  bad = range(first_bad, 20)
  with pytest.raises(errors.UserError) as info:
    run.train(20, bad, save_checkpoint_steps=3, save_summaries_steps=10)
  last = first_bad + (skip or 0)
  assert f"diverged at step {last} (" in str(info.value)
  assert "loss/total = nan" in str(info.value)
  assert f"checkpoint is `{tmp_path}/ckpt-" in str(info.value)
  restored = Run(tmp_path)
  restored.store.restore()
  assert int(restored.optimizer.global_step) % 3 == 0
  assert all(np.all(np.isfinite(v)) for v in restored.state().values())


def test_a_report_waits_while_all_updates_are_skipped(tmp_path):
  run = Run(tmp_path, skip=3)
  run.train(6, [2, 3, 4], save_summaries_steps=1, save_checkpoint_steps=2)
  assert [report.step for report in run.reports] == [1, 5, 6]
  counts = [r.means["debug/skipped_updates"] for r in run.reports]
  assert counts == [0, 3, 0]
  assert run.store.latest == str(tmp_path / "ckpt-6")


def test_a_continued_run_is_the_same_run(tmp_path):
  whole = Run(tmp_path / "whole", skip=1)
  whole.train(6, [2, 5])
  Run(tmp_path / "parts", skip=1).train(3, [2, 5])
  second = Run(tmp_path / "parts", skip=1)
  second.store.restore()
  assert int(second.optimizer.global_step) == 3
  second.train(6, [2, 5])
  helpers.assert_same_bits(whole.state(), second.state())
