import math
import os
import pathlib
import signal
import traceback

import helpers
import numpy as np
import pytest
import tensorflow as tf

import main
from iodine import checkpoints, errors, training
from iodine.training import loop
from iodine.training import step as step_lib


class Scenes:
  """Stands in for a data set: batch i follows from i alone."""

  batch_size = 2

  def batches(self, subset, skip_batches=0):
    assert subset == "train"
    index = skip_batches
    while True:
      yield helpers.make_batch(seed=index)
      index += 1


class Run(helpers.Run):
  """One that trains on `Scenes`."""

  def fake_step(self, **changes):
    """A step that only counts, for tests of the loop around it.

    Args:
      **changes: {name: {step: value}}, where a scalar is not 1.
    """

    def step(batch):
      del batch
      self.optimizer.global_step.assign_add(1)
      number = int(self.optimizer.global_step)
      scalars = {"loss/total": 1.0, "debug/global_grad_norm": 1.0}
      return {k: changes.get(k, {}).get(number, v) for k, v in scalars.items()}

    return step

  def train(self, stop_after_steps, **options):
    """Trains to a step.

    Args:
      stop_after_steps: the last step.
      **options: of a `training.Loop`, of its schedule, or what its listener
        does (`report`, `images`, `validate`, `rescue`, `first_step`).
    """
    schedule = {"save_summaries_steps": 2, "save_checkpoint_steps": 2}
    listener = training.Listener()
    for name in list(options):
      if name in training.Schedule._fields:
        schedule[name] = options.pop(name)
      elif hasattr(listener, name):
        setattr(listener, name, options.pop(name))
    start = int(self.optimizer.global_step)
    step, batches = options.pop("step", self.step), options.pop("scenes", None)
    return training.Loop(
      helpers.steps_of(step, batches or Scenes().batches("train", start)),
      [*self.model.trainable_variables, *self.optimizer.m, *self.optimizer.v],
      Scenes.batch_size,
      self.store,
      training.Schedule(stop_after_steps, **schedule),
      listener,
      start,
      **options,
    ).run()

  def state(self):
    return [
      np.array(v) for v in [*self.model.variables, *self.optimizer.variables]
    ]


def test_one_trace_for_every_batch_shape_and_no_new_variables(tmp_path):
  run = Run(tmp_path)
  before = len(run.model.variables) + len(run.optimizer.variables)
  for seed in range(3):
    run.step(helpers.make_batch(batch_size=2, seed=seed))
  assert run.step.experimental_get_tracing_count() == 1
  run.step(helpers.make_batch(batch_size=3))
  assert run.step.experimental_get_tracing_count() == 2
  assert len(run.model.variables) + len(run.optimizer.variables) == before


def test_a_run_follows_from_its_seed(tmp_path):
  runs = [Run(tmp_path / str(i), seed=seed) for i, seed in enumerate((0, 0, 1))]
  first, second, other = runs
  a, b = (r.model.initial_sample_distribution.numpy() for r in (first, other))
  assert np.abs(a - b).max() > 1e-3
  first.train(3)
  second.train(3)
  helpers.assert_same_bits(first.state(), second.state())


def test_samples_differ_between_steps(tmp_path):
  run = Run(tmp_path, updates={"learn_rate": 0.0})
  batch = helpers.make_batch()
  losses = [run.step(batch)["loss/total"] for _ in range(2)]
  assert losses[0] != losses[1]


def test_a_continued_run_is_the_same_run(tmp_path):
  whole = Run(tmp_path / "whole")
  whole.train(6)
  Run(tmp_path / "parts").train(4)
  second = Run(tmp_path / "parts", seed=0)
  second.store.restore()
  assert int(second.optimizer.global_step) == 4
  second.train(6)
  helpers.assert_same_bits(whole.state(), second.state())


def test_reports_and_images_come_when_due_and_at_the_end(tmp_path):
  run = Run(tmp_path)
  reports, images = [], []
  step = run.fake_step(**{"loss/total": {3: 5.0, 4: 8.0}})
  listens = {"report": reports.append, "images": images.append}
  run.train(5, step=step, save_images_steps=2, **listens)
  assert [r.step for r in reports] == images == [2, 4, 5]
  assert [r.means["loss/total"] for r in reports] == [1.0, 6.5, 1.0]
  assert all(r.images_per_second > 0 for r in reports)
  assert all(r.seconds_per_step > 0 for r in reports)


def test_the_pace_is_told_once_and_is_a_median(tmp_path, monkeypatch):
  run, paces, clock = Run(tmp_path), [], [0.0]
  # Seconds of the steps from the first on.
  seconds = iter([50.0, 2.0, 4.0, 60.0, 3.0, 5.0])
  count = run.fake_step()

  def step(batch):
    clock[0] += next(seconds)
    return count(batch)

  monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
  reports = []
  run.train(
    6,
    step=step,
    save_summaries_steps=1,
    report=reports.append,
    pace=lambda *told: paces.append(told),
  )
  assert paces == [(2, 2.0)]
  assert [r.seconds_per_step for r in reports[1:]] == [2.0, 3.0, 4.0, 3.5, 4.0]


def test_a_training_may_end_by_time(tmp_path, monkeypatch):
  run, clock = Run(tmp_path), [0.0]
  count = run.fake_step()

  def step(batch):
    clock[0] += 10.0
    return count(batch)

  monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
  outcome = run.train(9, step=step, max_seconds=35.0)
  assert outcome[:3] == (4, run.store.latest, None)
  assert run.store.latest == str(tmp_path / "ckpt-4")


def test_the_last_five_and_the_best_are_kept(tmp_path):
  run = Run(tmp_path)
  # The loss of step 3 is the lowest, and its checkpoint is dropped later.
  losses = dict(enumerate([5.0, 4.0, 1.0, 3.0, 2.0, 6.0, 7.0, 8.0, 9.0], 1))
  step = run.fake_step(**{"loss/total": losses})
  outcome = run.train(9, step=step, save_checkpoint_steps=1)
  kept = {f for f in os.listdir(tmp_path) if f.endswith(".index")}
  assert kept == {f"ckpt-{n}.index" for n in (5, 6, 7, 8, 9)}
  assert checkpoints.latest(tmp_path / "best") == str(tmp_path / "best/ckpt-3")
  assert outcome.checkpoint == str(tmp_path / "ckpt-9")


def test_the_best_loss_survives_a_restart(tmp_path):
  run = Run(tmp_path)
  run.train(1, step=run.fake_step())
  again = Run(tmp_path)
  again.store.restore()
  again.train(2, step=again.fake_step(**{"loss/total": {2: 2.0}}))
  assert checkpoints.latest(tmp_path / "best") == str(tmp_path / "best/ckpt-1")


@pytest.mark.parametrize(
  "name, value",
  [("loss/total", math.nan), ("debug/global_grad_norm", -math.inf)],
)
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, name, value):
  run = Run(tmp_path)
  with pytest.raises(errors.UserError) as info:
    run.train(10, step=run.fake_step(**{name: {3: value}}))
  assert f"diverged at step 3 ({name} = {value})" in str(info.value)
  assert str(tmp_path / "ckpt-2") in str(info.value)
  assert run.store.latest == str(tmp_path / "ckpt-2")


@pytest.mark.parametrize(
  "kind, value, last",
  [
    *(("weights", math.nan, False), ("weights", 1e30, True)),
    *(("v", -math.inf, True), ("v", 1e30, False)),
  ],
)
def test_state_that_is_not_finite_is_not_saved(tmp_path, kind, value, last):
  run = Run(tmp_path)
  count = run.fake_step()

  def step(batch):
    scalars = count(batch)  # all of which are finite
    if int(run.optimizer.global_step) == 4:
      state = {"weights": run.model.trainable_variables}
      variable = (state.get(kind) or getattr(run.optimizer, kind))[-1]
      variable.assign(tf.fill(variable.shape, value))
    return scalars

  with pytest.raises(errors.UserError) as info:
    run.train(4 if last else 10, step=step)
  assert "diverged at step 4 (norm of weights and moments" in str(info.value)
  assert str(tmp_path / "ckpt-2") in str(info.value)
  assert run.store.latest == str(tmp_path / "ckpt-2")
  assert not list(tmp_path.glob("**/ckpt-4*"))


def test_scalars_are_read_when_due_and_all_at_once(tmp_path, monkeypatch):
  run, fetched = Run(tmp_path), []
  fetch = loop._fetch

  def spy(steps):
    assert all(tf.is_tensor(x) for scalars in steps for x in scalars.values())
    fetched.append(len(steps))
    return fetch(steps)

  monkeypatch.setattr(loop, "_fetch", spy)
  monkeypatch.setattr(loop, "_MAX_UNREAD", 4)
  reports = []
  periods = {"save_summaries_steps": 7, "save_checkpoint_steps": 100}
  run.train(14, report=reports.append, **periods)
  # The first two alone, for their times; then for reports, or four in a row.
  assert fetched == [1, 1, 4, 1, 4, 3]
  assert [r.step for r in reports] == [7, 14]
  assert all(type(x) is float for x in reports[0].means.values())


def test_a_step_that_diverged_is_named_though_noticed_later(tmp_path):
  run = Run(tmp_path)
  step = run.fake_step(**{"loss/total": {5: math.nan, 6: math.nan}})
  with pytest.raises(errors.UserError, match="diverged at step 5 "):
    run.train(20, step=step, save_summaries_steps=10, save_checkpoint_steps=4)
  assert run.store.latest == str(tmp_path / "ckpt-4")
  assert not list(tmp_path.glob("ckpt-8*"))


def test_a_signal_waits_for_the_end_of_a_block():
  done, before = [], signal.getsignal(signal.SIGTERM)
  with pytest.raises(KeyboardInterrupt) as info, training.uninterrupted():
    os.kill(os.getpid(), signal.SIGTERM)
    done.append(signal.getsignal(signal.SIGTERM) is before)
  assert done == [True]  # a second one ends at once
  assert info.value.args == (signal.SIGTERM,)


@pytest.mark.parametrize(
  "number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM]
)
def test_a_signal_saves_and_ends_the_training(tmp_path, number):
  run = Run(tmp_path)
  before = signal.getsignal(number)
  count = run.fake_step()

  def step(batch):
    scalars = count(batch)
    if int(run.optimizer.global_step) == 3:
      os.kill(os.getpid(), number)
    return scalars

  outcome = run.train(10, step=step, save_checkpoint_steps=100)
  assert outcome.interrupted_by == number
  assert outcome.step == 3
  assert outcome.checkpoint == str(tmp_path / "ckpt-3")
  assert signal.getsignal(number) is before


@pytest.mark.slow
def test_xla_computes_the_same_step(tmp_path, monkeypatch):
  z = np.random.default_rng(0).normal(size=[2, 2, 3, 3]).astype(np.float32)
  step = training.train_step
  # Random numbers of XLA are others.
  monkeypatch.setattr(
    step_lib,
    "train_step",
    lambda *args, run_seed, **options: step(*args, z=tf.constant(z), **options),
  )
  batch = helpers.make_batch()
  runs, scalars = [], []
  for jit_compile in (False, True):
    run = Run(tmp_path / str(jit_compile), updates={"num_iters": 1})
    compiled = training.compile_step(
      run.model, run.optimizer, 0, jit_compile=jit_compile
    )
    scalars.append([compiled(batch), compiled(batch)])
    assert compiled.experimental_get_tracing_count() == 1
    assert compiled._jit_compile == (jit_compile or None)
    assert math.isfinite(scalars[-1][-1]["loss/total"])
    runs.append(run)
  for plain, xla in zip(*scalars, strict=True):
    assert plain.keys() == xla.keys()
    for name, value in plain.items():
      # float32 sums in another order; R2 divides by differences.
      np.testing.assert_allclose(xla[name], value, rtol=1e-4, err_msg=name)
  for a, b in zip(*[run.optimizer.m for run in runs], strict=True):
    helpers.assert_near(b, a, 1e-5)  # gradients, as for the recorded loss
  for a, b in zip(*[run.model.variables for run in runs], strict=True):
    # As for the recorded variables; a bias is nothing but its updates yet, so
    # that it is as exact as the gradients, on some processors no more.
    is_bias = a.name.split("/")[-1] == "b:0"
    helpers.assert_near(b, a, 1e-5 if is_bias else 5e-6)


def test_the_path_from_the_command_to_the_tape(tmp_path, monkeypatch):
  """Where the graph is made, which is before the loop begins."""
  scenes = helpers.make_scenes(tmp_path, 4)
  root = str(pathlib.Path(main.__file__).parent)
  paths = []

  class Tape(tf.GradientTape):
    """Notes the functions of the project that led to it."""

    def __enter__(self):
      path = [
        f"{os.path.relpath(frame.filename, root)}:{frame.name}"
        for frame in traceback.extract_stack()
        if frame.filename.startswith((f"{root}/iodine/", f"{root}/main.py"))
      ]
      paths.append(path[path.index("main.py:train") :])
      return super().__enter__()

  monkeypatch.setattr(tf, "GradientTape", Tape)
  helpers.run_main(
    *helpers.training_words(scenes, f"{tmp_path}/run", stop_after_steps=1)
  )
  (path,) = [path for path in paths if "step.py:train_step" in path[-2]]
  assert path == [
    "main.py:train",
    "iodine/commands/train.py:run",
    "iodine/commands/train.py:train",
    "iodine/training/step.py:train_step",
    "iodine/training/step.py:compute_gradients",
  ]
