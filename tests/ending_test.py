"""What is left of a training that ends between two saves, and its logs."""

import logging
import math
import os
import shutil
import signal
import traceback

import helpers
import numpy as np
import pytest
import tensorflow as tf
import training_test
from tensorboard.backend.event_processing import (
  event_accumulator,
  plugin_event_accumulator,
)

import main
from iodine import building, checkpoints, errors, training
from iodine.checkpoints import kept
from iodine.commands import experiment, make_data, train
from iodine.training import summaries


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
      for variable in variables[:half]:
        self._change(variable, number)
      if number == fails_at:
        raise error
      for variable in variables[half:]:
        self._change(variable, number)
      self.optimizer.global_step.assign(number)
      return {"loss/total": 1.0, "debug/global_grad_norm": 1.0}

    return step

  @staticmethod
  def _change(variable, number):
    if variable.dtype == tf.float32:
      variable.assign_add(tf.fill(variable.shape, 0.1 / number))

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
      on_rescue=lambda *told: self.rescued.append(told),
      **{"save_checkpoint_steps": 100, **options},
    )

  def restored(self):
    """Leaves the state for that of the newest checkpoint."""
    for variable in [*self.model.variables, *self.optimizer.variables]:
      variable.assign(tf.ones_like(variable))
    self.store.restore()
    return self


def failing_at(step, error):
  """A listener that raises an error at a step."""

  def listen(told):
    number = told.step if isinstance(told, training.Report) else told
    if number == step:
      raise error
    return 1.0

  return listen


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


ERRORS = [
  RuntimeError("a bug"),
  MemoryError(),
  tf.errors.ResourceExhaustedError(None, None, "OOM"),
  tf.errors.DataLossError(None, None, "truncated"),
]


@pytest.mark.parametrize(
  "error, calls", zip(ERRORS, [1, 3, 1, 3], strict=True), ids=str
)
def test_a_step_that_fails_is_undone_and_the_rest_saved(
  run, tmp_path, whole, error, calls
):
  step = run.counting_step(fails_at=6, error=error)
  with pytest.raises(type(error)) as info:
    run.train(9, step=step, save_summaries_steps=3, steps_per_call=calls)
  assert info.value is error
  saved = {1: 5, 3: 3}[calls]
  assert run.rescued == [(saved, None)]
  assert run.store.latest == str(tmp_path / f"ckpt-{saved}")
  run.restored().train(9)
  training_test.assert_same_bits(run.state(), whole)


@pytest.mark.parametrize(
  "listener", ["on_report", "on_images", "on_validation", "on_first_step"]
)
def test_what_fails_after_a_step_leaves_it_saved(run, whole, listener):
  error = ZeroDivisionError("a bug")
  listen = failing_at(6, error)
  if listener == "on_first_step":
    listen = lambda: failing_at(6, error)(6)  # noqa: E731
  periods = {"save_images_steps": 6, "every": 6}
  with pytest.raises(ZeroDivisionError) as info:
    run.train(9, **{listener: listen}, **periods)
  assert info.value is error
  saved = 1 if listener == "on_first_step" else 6
  assert run.rescued == [(saved, None)]
  run.restored().train(9)
  training_test.assert_same_bits(run.state(), whole)


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
  run.restored().train(9)
  training_test.assert_same_bits(run.state(), whole)


def test_state_that_is_not_finite_is_not_saved_first(run, tmp_path):
  error = OSError("elsewhere")
  count = run.counting_step()

  def step(batch):
    if int(run.optimizer.global_step) == 4:
      raise error
    scalars = count(batch)
    if int(run.optimizer.global_step) == 4:
      variable = run.model.trainable_variables[0]
      variable.assign(tf.fill(variable.shape, math.nan))
    return scalars

  with pytest.raises(OSError) as info:
    run.train(9, step=step)
  assert info.value is error
  ((at, reason),) = run.rescued
  assert at == 4 and "diverged at step 4" in reason
  assert not list(tmp_path.glob("**/ckpt-*"))


def test_a_loss_that_was_not_read_yet_is_read_before(run, tmp_path):
  error = KeyError("elsewhere")
  step = run.fake_step(**{"loss/total": {5: math.nan}})

  def fail(batch):
    if int(run.optimizer.global_step) == 7:
      raise error
    return step(batch)

  with pytest.raises(KeyError):
    run.train(20, step=fail, save_summaries_steps=100, save_checkpoint_steps=4)
  ((at, reason),) = run.rescued
  assert at == 7 and "diverged at step 5 (loss/total = nan)" in reason
  assert run.store.latest == str(tmp_path / "ckpt-4")


def test_a_divergence_is_told_once(run):
  step = run.fake_step(**{"loss/total": {3: math.nan}})
  with pytest.raises(errors.UserError, match="diverged at step 3"):
    run.train(9, step=step)
  assert run.rescued == []


@pytest.mark.parametrize("failure", [errors.UserError, MemoryError, TypeError])
def test_a_save_that_fails_too_is_no_second_error(run, monkeypatch, failure):
  error = ValueError("the first")

  def save(mean_loss=None):
    raise failure("the disk is full")

  def fail(step, reason):
    told.append((step, reason))
    raise BrokenPipeError

  told = []
  monkeypatch.setattr(run.store, "save", save)
  with pytest.raises(ValueError) as info:
    training_test.Run.train(
      run,
      9,
      step=run.counting_step(3, error),
      on_rescue=fail,
      save_checkpoint_steps=100,
    )
  assert info.value is error
  assert told == [(2, "the disk is full")]


def test_a_full_disk_is_told_once_and_leaves_no_best_loss(
  run, tmp_path, monkeypatch
):

  def save(manager):
    where = os.path.basename(manager.path)
    raise errors.UserError(f"cannot write: make room ({where} is full)")

  monkeypatch.setattr(run.store, "_save", save)
  with pytest.raises(errors.UserError, match=r"room \(best is full\)"):
    run.train(9, save_checkpoint_steps=3)
  assert run.rescued == []
  monkeypatch.undo()
  run.store.save(2.0)
  assert run.store.best == str(tmp_path / "best/ckpt-3")


@pytest.mark.parametrize(
  "num_before, remedy",
  [(0, "then start again"), (1, "then go on with `continue_run=True`")],
)
def test_where_nothing_is_saved_nothing_goes_on(
  run, monkeypatch, num_before, remedy
):
  for _ in range(num_before):
    run.store.save(2.0)

  def save(*_):
    raise OSError("full")

  monkeypatch.setattr(kept.Folder, "save", save)
  run.optimizer.global_step.assign(1)
  with pytest.raises(errors.UserError, match=f"{remedy} .full"):
    run.store.save(1.0)


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
    step = run.fake_step()
    outcome = run.train(
      4, step=step, on_images=lambda step: os.kill(os.getpid(), signal.SIGHUP)
    )
  finally:
    signal.signal(signal.SIGHUP, before)
  assert outcome.step == 4 and outcome.interrupted_by is None


def test_a_closed_terminal_ends_a_command_as_ctrl_c_does():
  def command():
    os.kill(os.getpid(), signal.SIGHUP)

  ending = experiment.Experiment("ending", save_git_info=False)
  ending.logger = experiment.quiet_logger()
  ending.main(command)
  before = signal.getsignal(signal.SIGHUP)
  with pytest.raises(SystemExit) as info:
    ending.run_commandline(["ending"])
  assert info.value.code == 128 + signal.SIGHUP
  assert signal.getsignal(signal.SIGHUP) is before


# ------------------------------------------------------------------- the data


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
  config = main.get_config(("tetrominoes",))["data"]
  folder = tmp_path_factory.mktemp("data")
  return make_data.make_data(config, str(folder), 12, seed=0)


@pytest.mark.parametrize(
  "damage, words",
  [
    (os.remove, r"cannot be read \(No such file or directory\)"),
    (lambda path: os.truncate(path, 0), "is empty"),
    (lambda path: os.truncate(path, 1500), "is truncated or corrupt"),
  ],
  ids=["deleted", "emptied", "truncated"],
)
def test_a_file_that_is_damaged_while_it_is_read(
  scenes, tmp_path, damage, words
):
  path = f"{tmp_path}/scenes"
  shutil.copy(scenes, path)
  updates = {"data.path": path, "batch_size": 2, "data.shuffle_buffer": 2}
  data = building.build(helpers.tiny_config(updates)["data"])
  batches = iter(data.batches("train"))
  next(batches)
  damage(path)
  with pytest.raises(errors.UserError, match=f"`{path}` {words}"):
    for _ in range(20):
      next(batches)


@pytest.mark.slow  # its parts are tests of every day
def test_data_that_vanish_end_a_run_that_goes_on(
  scenes, tmp_path, monkeypatch, capsys
):
  path = f"{tmp_path}/scenes"
  shutil.copy(scenes, path)
  words = [
    *("with", "tetrominoes", f"data.path={path}", "seed=3", "batch_size=2"),
    *(f"{key}={value}" for key, value in helpers.TINY.items()),
    *("data.image_dim=[8,8]", "data.shuffle_buffer=4", "num_iters=0"),
    *("model.iter_loss_weight=1.0", "save_summaries_steps=1"),
    *("stop_after_steps=40", "save_checkpoint_steps=20"),
  ]
  helpers.run_main(*words, f"checkpoint_dir={tmp_path}/whole")
  report = train._Logs._report

  def spy(self, told):
    report(self, told)
    if told.step == 23:
      os.remove(path)

  capsys.readouterr()
  monkeypatch.setattr(train._Logs, "_report", spy)
  with pytest.raises(SystemExit):
    helpers.run_main(*words, f"checkpoint_dir={tmp_path}/run")
  monkeypatch.undo()
  told = capsys.readouterr()
  folder = f"{tmp_path}/run_1"
  step = int(checkpoints.find(folder).rpartition("-")[2])
  assert step >= 23
  assert f"the state after step {step} is saved: go on with" in told.out
  assert f"error: `{path}` cannot be read (No such file" in told.err
  assert "Traceback" not in told.err
  shutil.copy(scenes, path)
  helpers.run_main(*words, f"checkpoint_dir={folder}", "continue_run=True")
  assert steps_in(folder) == list(range(1, 41))
  first, second = (
    tf.train.load_checkpoint(f"{tmp_path}/{name}_1/ckpt-40")
    for name in ("whole", "run")
  )
  # What counts as best may differ, and TensorFlow counts its saves.
  uncounted = ("OBJECT_GRAPH", "save_counter", "best_loss")
  for name in first.get_variable_to_shape_map():
    if not any(part in name for part in uncounted):
      np.testing.assert_array_equal(
        first.get_tensor(name), second.get_tensor(name), name
      )


# ----------------------------------------------------------------- the events


def steps_in(folder, tag="loss/total"):
  """The steps that each reader finds, after a check that all agree."""
  ours = training.read_scalars(str(folder), [tag])[tag]
  for library in (event_accumulator, plugin_event_accumulator):
    events = library.EventAccumulator(
      str(folder), size_guidance={library.TENSORS: 0}
    )
    events.Reload()
    theirs = [
      (e.step, float(tf.make_ndarray(e.tensor_proto)))
      for e in events.Tensors(tag)
    ]
    assert theirs == ours
  return [step for step, _ in ours]


@pytest.mark.parametrize("tick", [0, 1000, -1000], ids=["still", "on", "back"])
def test_every_step_is_shown_once_whatever_the_clock_does(
  tmp_path, monkeypatch, tick
):
  now = [1_700_000_000.0]
  monkeypatch.setattr(summaries.time, "time", lambda: now[0])

  def log(start, last, value):
    writer = training.SummaryWriter(str(tmp_path), after_step=start)
    for step in range(start + 10, last + 1, 10):
      writer.scalars(step, {"loss/total": value + step})
    now[0] += tick

  log(0, 70, 0.0)  # killed, as are the others
  log(40, 90, 0.1)
  log(80, 80, 0.2)  # before its first report
  log(40, 50, 0.3)  # from an older checkpoint
  assert steps_in(tmp_path) == [10, 20, 30, 40, 50]
  log(40, 120, 0.4)
  curve = training.read_scalars(str(tmp_path), ["loss/total"])["loss/total"]
  assert steps_in(tmp_path) == list(range(10, 130, 10))
  assert [round(v % 1, 1) for _, v in curve] == [0.0] * 4 + [0.4] * 8


def test_logs_of_before_are_purged_too(tmp_path, monkeypatch):
  writer = tf.summary.create_file_writer(str(tmp_path))
  with writer.as_default():
    for step in (10, 20, 30):
      tf.summary.scalar("loss/total", float(step), step=step)
  writer.close()
  monkeypatch.setattr(summaries.time, "time", lambda: 1.0)
  again = training.SummaryWriter(str(tmp_path), after_step=15)
  again.scalars(25, {"loss/total": 25.0})
  assert steps_in(tmp_path) == [10, 25]


def test_a_full_disk_ends_the_logs_and_not_the_training(
  tmp_path, monkeypatch, capsys
):
  logs = train._Logs(
    helpers.tiny_model(), {}, str(tmp_path), 0, 9, lambda *told: None
  )
  listeners = logs.listeners()
  report = training.Report(1, {"loss/total": 1.0, "loss/mse": 0.1}, 1.0, 1.0)
  monkeypatch.setattr(summaries, "_next_path", lambda folder: "/dev/full")
  for step in (1, 2, 3):
    listeners["on_report"](report._replace(step=step))
  logs.validation(3, {"mse": 0.1, "total": 1.0})
  out = capsys.readouterr().out.splitlines()
  (said,) = [line for line in out if "without TensorBoard logs" in line]
  assert "No space left on device" in said and "function_node" not in said
  assert [line.split("/")[0] for line in out if line.startswith("step")] == [
    *("step 1", "step 2", "step 3")
  ]


def test_what_the_user_can_mend_is_a_sentence():
  full = OSError(28, "No space left on device")  # of a print
  assert "output of this command" in experiment._sentence(full)
  for error in (MemoryError("no room"), ERRORS[2]):
    with (
      pytest.raises(errors.UserError, match="not enough memory"),
      train._explained_memory(),
    ):
      raise error
  np.testing.assert_equal(experiment._sentence(TypeError("a bug")), None)


def test_an_observer_that_cannot_write_is_a_line():
  def said(error):
    trace = "\n".join(["Traceback", *traceback.format_exception(error)])
    record = logging.LogRecord("sacred", 40, "", 0, trace, None, None)
    assert experiment._is_worth_saying(record)
    return record.getMessage()

  full = said(OSError(28, "No space left on device"))
  assert full.endswith("in full: OSError: [Errno 28] No space left on device")
  assert "\n" not in full
  assert "RuntimeError: a bug\n" in said(RuntimeError("a bug"))
