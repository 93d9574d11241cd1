"""The loss scale: what it does to gradients, steps, runs and checkpoints."""

import math

import helpers
import numpy as np
import pytest
import tensorflow as tf

from iodine import building, checkpoints, errors, optimizers, training


def make_adam(**options):
  loss_scale = optimizers.LossScale(**options)
  return optimizers.Adam(0.1, max_gradient_norm=1.0, loss_scale=loss_scale)


def values(module):
  return [v.numpy().copy() for v in module]


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_an_overflow_leaves_the_update_out_and_halves(graph):
  adam, variable = make_adam(initial=8.0), tf.Variable([1.0, 2.0])
  adam.initialize([variable])
  apply = lambda g: adam.apply([g], [variable])  # noqa: E731
  apply = tf.function(apply) if graph else apply
  apply(tf.constant([0.5, -0.5]))
  kept = [variable, *adam.m, *adam.v, adam.beta1_power, adam.beta2_power]
  before = values(kept)
  assert adam.loss_scale.good_steps == 1
  for i, bad in enumerate([math.inf, math.nan, -math.inf], 1):
    assert not np.isfinite(apply(tf.constant([bad, 1.0])))
    for a, b in zip(before, kept, strict=True):
      np.testing.assert_array_equal(a, b)
    assert adam.loss_scale.scale == 8.0 / 2**i
    assert adam.loss_scale.good_steps == 0
    # Samples and scenes go on.
    assert adam.global_step == 1 + i
  apply(tf.constant([0.5, -0.5]))
  assert not np.any(before[0] == variable.numpy())
  assert adam.beta1_power.numpy() < before[-2]


def test_growth_doubles_after_good_steps_in_a_row():
  scale = optimizers.LossScale(initial=4.0, growth_steps=3)
  history = []
  for is_finite in [True, True, False, True, True, True, True, True, True]:
    scale.update(tf.constant(is_finite))
    history.append((float(scale.scale), int(scale.good_steps)))
  assert [scale for scale, _ in history] == [4, 4, 2, 2, 2, 4, 4, 4, 8]
  assert [steps for _, steps in history] == [1, 2, 0, 1, 2, 0, 1, 2, 0]


def test_by_default_it_grows_after_2000_steps():
  scale = optimizers.LossScale()
  scale.good_steps.assign(1998)
  scale.update(tf.constant(True))
  assert scale.scale == 1.0
  scale.update(tf.constant(True))
  assert scale.scale == 2.0


@pytest.mark.parametrize("power, is_finite", [(-24, False), (24, True)])
def test_the_scale_stays_in_its_range(power, is_finite):
  scale = optimizers.LossScale(initial=2.0**power, growth_steps=1)
  scale.update(tf.constant(is_finite))
  assert scale.scale == 2.0**power


@pytest.mark.parametrize("scale", [2.0**-9, 2.0**9])
def test_gradients_are_those_without_a_scale_to_the_bit(scale):
  model, batch = helpers.tiny_model(), helpers.make_batch()
  loss_scale = optimizers.LossScale(initial=scale)
  seed = tf.constant([1, 2])
  expected = training.compute_gradients(model, batch, seed=seed)
  actual = training.compute_gradients(
    model, batch, seed=seed, loss_scale=loss_scale
  )
  assert actual.loss == expected.loss
  for a, b in zip(actual.gradients, expected.gradients, strict=True):
    np.testing.assert_array_equal(a, b)


def test_without_it_an_optimizer_has_no_state_of_it():
  adam = optimizers.Adam(0.1)
  assert adam.loss_scale is None and len(adam.variables) == 3
  config = helpers.tiny_config()["optimizer"]
  assert building.build(config).loss_scale is None
  config = helpers.tiny_config({"compute_dtype": "bfloat16"})["optimizer"]
  assert building.build(config).loss_scale is None
  config = helpers.tiny_config({"compute_dtype": "float16"})["optimizer"]
  assert building.build(config).loss_scale.scale == 1.0


@pytest.mark.parametrize(
  "options, part",
  [
    ({"initial": 3.0}, "power of two"),
    ({"initial": True}, "power of two"),
    ({"growth_steps": 0}, "at least 1"),
    ({"growth_steps": 2.5}, "whole number"),
  ],
)
def test_wrong_numbers(options, part):
  with pytest.raises(ValueError, match=part):
    optimizers.LossScale(**options)


def test_a_wrong_entry_of_the_config_is_a_sentence():
  config = helpers.tiny_config({"optimizer.loss_scale": "dynamic"})
  with pytest.raises(errors.UserError, match="give True or False"):
    building.build(config["optimizer"], "optimizer")


# ------------------------------------------------------------ whole runs


class Scenes:
  """Stands in for a data set: batch i follows from i alone."""

  batch_size = 2

  def batches(self, subset, skip_batches=0):
    assert subset == "train"
    while True:
      yield helpers.make_batch(seed=skip_batches)
      skip_batches += 1


class Run:
  """A tiny float32 model that trains with a loss scale."""

  def __init__(self, folder, **options):
    tf.random.set_seed(0)
    config = helpers.tiny_config({"num_iters": 1})
    self.model = building.build(config["model"])
    self.model.initialize((8, 8, 3))
    self.optimizer = building.build(
      {
        **config["optimizer"],
        "loss_scale": {
          "constructor": "iodine.optimizers.LossScale",
          **options,
        },
      }
    )
    self.optimizer.initialize(self.model.trainable_variables)
    self.store = checkpoints.CheckpointStore(
      str(folder), self.model, self.optimizer
    )

  def step(self, batch):
    return training.train_step(self.model, self.optimizer, batch, run_seed=0)

  def train(self, last, **options):
    return training.train(
      helpers.steps_of(
        options.pop("step", self.step),
        Scenes().batches("train", int(self.optimizer.global_step)),
      ),
      [*self.model.trainable_variables, *self.optimizer.m, *self.optimizer.v],
      Scenes.batch_size,
      self.store,
      training.Schedule(last, save_checkpoint_steps=2),
      start_step=int(self.optimizer.global_step),
      **options,
    )

  def state(self):
    return values([*self.model.variables, *self.optimizer.variables])


def test_a_continued_run_has_the_same_scale(tmp_path):
  whole = Run(tmp_path / "whole", growth_steps=3)
  whole.train(5)
  assert whole.optimizer.loss_scale.scale == 2.0
  assert whole.optimizer.loss_scale.good_steps == 2
  Run(tmp_path / "parts", growth_steps=3).train(2)
  second = Run(tmp_path / "parts", growth_steps=3)
  second.store.restore()
  assert second.optimizer.loss_scale.good_steps == 2
  second.train(5)
  for a, b in zip(whole.state(), second.state(), strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_run_goes_on_after_an_overflow_and_reports_the_scale(tmp_path):
  # A scaled gradient of float32 overflows where the scale is large enough.
  run = Run(tmp_path, initial=2.0**24)
  variable = run.model.initial_sample_distribution
  reports = []

  def step(batch):
    # The loss of the second step alone has gradients that overflow.
    second = int(run.optimizer.global_step) == 1
    before = variable.numpy()
    if second:
      run.optimizer.loss_scale.scale.assign(2.0**127)
    scalars = run.step(batch)
    if second:
      assert not np.isfinite(scalars["debug/global_grad_norm"])
      assert scalars["debug/loss_scale"] == 2.0**127
      np.testing.assert_array_equal(variable, before)
      run.optimizer.loss_scale.scale.assign(2.0**3)
    else:
      assert np.any(variable.numpy() != before)
    return scalars

  outcome = run.train(4, step=step, on_report=reports.append)
  assert outcome.step == 4
  assert run.optimizer.loss_scale.scale == 8.0
  assert "debug/loss_scale" in reports[-1].means


@pytest.mark.parametrize(
  "scalars",
  [
    # The smallest scale did not help.
    {"debug/loss_scale": optimizers.LossScale.MIN, "loss/total": 1.0},
    # No scale helps a loss that is itself not finite.
    {"debug/loss_scale": 1.0, "loss/total": math.nan},
  ],
)
def test_a_run_ends_where_no_smaller_scale_helps(tmp_path, scalars):
  run = Run(tmp_path)

  def step(batch):
    run.optimizer.global_step.assign_add(1)
    return {"debug/global_grad_norm": math.inf, **scalars}

  with pytest.raises(errors.UserError, match="diverged at step 1"):
    run.train(3, step=step)


def test_checkpoints_hold_the_scale_only_where_there_is_one(tmp_path):
  run = Run(tmp_path)
  names = checkpoints.variables_by_path(run.optimizer)
  plain = building.build(helpers.tiny_config()["optimizer"])
  plain.initialize(run.model.trainable_variables)
  of_scale = {"loss_scale/scale", "loss_scale/good_steps"}
  assert set(names) - set(checkpoints.variables_by_path(plain)) == of_scale
