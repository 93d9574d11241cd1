"""What is left of a training that ends between two saves."""

import math
import os
import signal

import helpers
import pytest
import tensorflow as tf
import tqdm
import training_test

from iodine import building, checkpoints, errors, training
from iodine.commands import train


class Run(training_test.Run):
  """One whose step changes all variables, and may fail between two of them."""

  def __init__(self, folder):
    super().__init__(folder)
    self._start = self.state()

  def counting_step(self, fails_at=None, error=None):
    variables = [*self.model.variables, *self.optimizer.variables]
    half = len(variables) // 2

    def step(batch):
      del batch
      number = int(self.optimizer.global_step) + 1
      for i, variable in enumerate(variables):
        if i == half and number == fails_at:
          raise error
        if variable.dtype == tf.float32:
          variable.assign_add(tf.fill(variable.shape, 0.1 / number))
      self.optimizer.global_step.assign(number)
      return {"loss/total": 1.0, "debug/global_grad_norm": 1.0}

    return step

  def afresh(self, folder):
    """Goes back to before the first step, and saves in a folder."""
    variables = [*self.model.variables, *self.optimizer.variables]
    for variable, value in zip(variables, self._start, strict=True):
      variable.assign(value)
    self.store = checkpoints.CheckpointStore(
      str(folder), self.model, self.optimizer
    )
    return self

  def train(self, last, step=None, **options):
    self.rescued = []
    return super().train(
      last,
      step=step or self.counting_step(),
      **{
        "rescue": lambda *told: self.rescued.append(told),
        "save_checkpoint_steps": 100,
        **options,
      },
    )

  def goes_on_as(self, whole):
    """Checks that the newest checkpoint leads to a state at step 9."""
    for variable in [*self.model.variables, *self.optimizer.variables]:
      variable.assign(tf.ones_like(variable))
    self.store.restore()
    self.train(9)
    helpers.assert_same_bits(self.state(), whole)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
  return Run(tmp_path_factory.mktemp("unused"))


@pytest.fixture(scope="module")
def whole(shared, tmp_path_factory):
  """The state of a training of 9 steps that nothing ended."""
  shared.afresh(tmp_path_factory.mktemp("whole")).train(9)
  return shared.state()


@pytest.fixture
def run(shared, tmp_path):
  return shared.afresh(tmp_path)


@pytest.mark.parametrize(
  "error, calls, saved",
  [
    (RuntimeError("a bug"), 1, 5),
    (tf.errors.ResourceExhaustedError(None, None, "OOM"), 3, 3),
  ],
  ids=str,
)
def test_a_step_that_fails_is_undone_and_the_rest_saved(
  run, tmp_path, whole, error, calls, saved
):
  step = run.counting_step(fails_at=6, error=error)
  with pytest.raises(type(error)) as info:
    run.train(9, step=step, save_summaries_steps=3, steps_per_call=calls)
  assert info.value is error
  assert run.rescued == [(saved, None)]
  assert run.store.latest == str(tmp_path / f"ckpt-{saved}")
  run.goes_on_as(whole)


@pytest.mark.parametrize("listener", ["report", "images", "validate"])
def test_what_fails_after_a_step_leaves_it_saved(run, whole, listener):
  error = ZeroDivisionError("a bug")

  def listen(told):
    if (told.step if isinstance(told, training.Report) else told) == 6:
      raise error
    return 1.0

  periods = {"save_images_steps": 6, "validate_every": 6}
  with pytest.raises(ZeroDivisionError) as info:
    run.train(9, **{listener: listen}, **periods)
  assert info.value is error
  assert run.rescued == [(6, None)]
  run.goes_on_as(whole)


def test_other_workers_that_are_lost_leave_the_last_step(run, whole):
  asked = []

  def agree(told):
    asked.append(told)
    if len(asked) == 5:
      raise tf.errors.UnavailableError(None, None, "a worker has gone")
    return told

  with pytest.raises(tf.errors.UnavailableError):
    run.train(9, agree_to_stop=agree)
  assert run.rescued == [(4, None)]
  run.goes_on_as(whole)


@pytest.mark.parametrize("hidden", ["state", "loss"])
def test_what_is_not_finite_is_not_saved_first(run, tmp_path, hidden):
  error = OSError("elsewhere")
  changes = {"loss/total": {4: math.nan}} if hidden == "loss" else {}
  count = run.fake_step(**changes)

  def step(batch):
    if int(run.optimizer.global_step) == 5:
      raise error
    scalars = count(batch)
    if hidden == "state" and int(run.optimizer.global_step) == 5:
      variable = run.model.trainable_variables[0]
      variable.assign(tf.fill(variable.shape, math.nan))
    return scalars

  with pytest.raises(OSError) as info:
    run.train(9, step=step, save_summaries_steps=100)
  assert info.value is error
  ((at, reason),) = run.rescued
  assert at == 5 and f"diverged at step {5 if hidden == 'state' else 4}" in (
    reason
  )
  assert not list(tmp_path.glob("**/ckpt-*"))


def test_a_divergence_is_told_once(run):
  step = run.fake_step(**{"loss/total": {3: math.nan}})
  with pytest.raises(errors.UserError, match="at step 3 .*no checkpoint yet"):
    run.train(9, step=step)
  assert run.rescued == []


@pytest.mark.parametrize("failure", [errors.UserError, MemoryError])
def test_a_save_that_fails_too_is_no_second_error(run, monkeypatch, failure):
  def save(mean_loss=None):
    raise failure("the disk is full")

  monkeypatch.setattr(run.store, "save", save)
  with pytest.raises(ValueError, match="the first"):
    run.train(9, step=run.counting_step(3, ValueError("the first")))
  assert run.rescued == [(2, "the disk is full")]


def full_disk(*_, **__):
  raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")


@pytest.mark.parametrize(
  "num_before, remedy",
  [(0, "then start again"), (1, "then go on with `continue_run=True`")],
)
def test_a_full_disk_is_told_once_and_leaves_nothing_half(
  run, tmp_path, monkeypatch, num_before, remedy
):
  for _ in range(num_before):
    run.store.save()
  (tmp_path / "best/ckpt-3_temp").mkdir(parents=True)
  monkeypatch.setattr(tf.train.Checkpoint, "_write", full_disk)
  with pytest.raises(
    errors.UserError, match=f"{remedy} .No space left"
  ) as info:
    run.train(9, save_checkpoint_steps=3)
  assert "at step 3" in str(info.value)
  assert run.rescued == []
  assert not list(tmp_path.glob("**/ckpt-3*"))
  monkeypatch.undo()
  # A loss that was not saved is not the best so far.
  run.store.save(2.0)
  assert checkpoints.latest(tmp_path / "best") == str(tmp_path / "best/ckpt-3")


def test_a_second_ctrl_c_and_a_first_step_save_nothing(run, tmp_path):
  with pytest.raises(KeyboardInterrupt):
    run.train(9, step=run.counting_step(4, KeyboardInterrupt()))
  assert run.rescued == []
  run.optimizer.global_step.assign(0)
  with pytest.raises(RuntimeError):
    run.train(9, step=run.counting_step(1, RuntimeError()))
  assert run.rescued == []
  assert not list(tmp_path.glob("**/ckpt-*"))


def test_nohup_outlives_its_terminal(run):
  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    hang_up = lambda step: os.kill(os.getpid(), signal.SIGHUP)  # noqa: E731
    outcome = run.train(4, step=run.fake_step(), images=hang_up)
  finally:
    signal.signal(signal.SIGHUP, before)
  assert outcome.step == 4 and outcome.interrupted_by is None


@pytest.mark.parametrize(
  "damage, words",
  [
    (os.remove, "No such file"),
    (lambda path: os.truncate(path, 1500), "truncated or corrupt"),
  ],
  ids=["deleted", "truncated"],
)
def test_a_file_that_is_damaged_while_it_is_read(tmp_path, damage, words):
  path = helpers.make_scenes(tmp_path, 12)
  updates = {"data.path": path, "batch_size": 2, "data.shuffle_buffer": 2}
  data = building.build(helpers.tiny_config(updates)["data"])
  batches = iter(data.batches("train"))
  next(batches)
  damage(path)
  with pytest.raises(errors.UserError, match=f"`{path}` .*{words}"):
    for _ in range(20):
      next(batches)


def test_a_full_disk_ends_the_logs_and_not_the_training(
  tmp_path, monkeypatch, capsys
):
  scores = {"mse": 0.1, "total": 1.0}
  bar = tqdm.tqdm(total=9, disable=True)
  logs = train._Logs(
    lambda: scores, dict, str(tmp_path), bar, lambda *told: None
  )
  report = training.Report(1, {"loss/total": 1.0, "loss/mse": 0.1}, 1.0, 1.0)
  monkeypatch.setattr(tf.summary.experimental, "write_raw_pb", full_disk)
  for step in (1, 2, 3):
    logs.report(report._replace(step=step))
  assert logs.validate(3) == 1.0
  out = capsys.readouterr().out.splitlines()
  (said,) = [line for line in out if "without TensorBoard logs" in line]
  assert "No space left on device" in said
  assert [line.split("/")[0] for line in out if line.startswith("step")] == [
    *("step 1", "step 2", "step 3")
  ]


@pytest.mark.parametrize(
  "error",
  [MemoryError("no room"), tf.errors.ResourceExhaustedError(None, None, "OOM")],
  ids=str,
)
def test_full_memory_is_a_sentence(error):
  with (
    pytest.raises(errors.UserError, match="not enough memory"),
    train._explained_memory(),
  ):
    raise error
