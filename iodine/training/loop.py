"""The loop around the training step, and when it stops.

Source: section B.3 of the paper and the original's `main.py`.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine import checkpoints, errors
from iodine.modules import iodine
from iodine.training import step as step_lib

# What has to stay finite; a factor's R2 may be infinite where it is constant.
_VITAL = ("loss/total", "debug/global_grad_norm")
# Where reports are rarer, scalars are read and checked so often.
_MAX_UNREAD = 100
# Of so many intervals the pace is the median.
_NUM_PACES = 21


# What hears of reports besides the listener of a loop.
_Hear = Callable[[int, Mapping[str, float]], None]
_hearing: list[_Hear] = []


def on_report(hear: _Hear) -> _Hear:
  """Has a function hear of what TensorBoard gets, for trackers of your own.

  It is called at every report and validation of all trainings from now on, in
  the process that writes. An error of it ends the training, which is saved.

  Args:
    hear: takes the step and all scalars by their names in TensorBoard.

  Returns:
    The function, so that this can stand above it as `@training.on_report`.
  """
  _hearing.append(hear)
  return hear


@contextlib.contextmanager
def heard_by(hear: _Hear | None) -> Iterator[None]:
  """Has a function hear of reports, see `on_report`, until the context ends."""
  before = list(_hearing)
  _hearing.extend([hear] if hear else [])
  try:
    yield
  finally:
    _hearing[:] = before


def tell(step: int, scalars: Mapping[str, float]) -> None:
  """Tells scalars to all functions that were given to `on_report`."""
  for hear in _hearing:
    hear(step, scalars)


class Schedule(NamedTuple):
  """When a training does what, in steps.

  Attributes:
    stop_after_steps: the step after which it ends.
    save_summaries_steps: between two reports.
    save_checkpoint_steps: between two checkpoints.
    save_images_steps: between two sets of overview images.
    validate_every: between two validations; None for none.
  """

  stop_after_steps: int
  save_summaries_steps: int = 10
  save_checkpoint_steps: int = 1000
  save_images_steps: int = 1000
  validate_every: int | None = None

  def steps_until_due(self, step: int) -> int:
    """Returns how many steps there are until one of these is due."""
    stop, *periods = self
    due = (period - step % period for period in periods if period)
    return min(stop - step, *due)


class Report(NamedTuple):
  """Progress since the last report.

  Attributes:
    step: number of updates so far.
    means: mean of every scalar since the last report, without updates that
      were left out; debug/skipped_updates is their number.
    images_per_second: training images.
    seconds_per_step: a median, without what is done between steps.
  """

  step: int
  means: dict[str, float]
  images_per_second: float
  seconds_per_step: float


class Outcome(NamedTuple):
  """How a training ended.

  Attributes:
    step: number of updates.
    checkpoint: prefix of the last checkpoint.
    interrupted_by: the signal that ended it, or None.
    model: as it is then.
  """

  step: int
  checkpoint: str | None
  interrupted_by: signal.Signals | None
  model: iodine.IODINE | None = None

  def __repr__(self) -> str:
    return f"Training up to step {self.step}: {self.checkpoint}"


class Listener:
  """Hears of a training's progress; does nothing by itself."""

  def first_step(self) -> None:
    """Hears of the end of the first step, which makes the graph."""

  def pace(self, step: int, seconds_per_step: float) -> None:
    """Hears once what a step takes, as soon as that is known."""

  def advance(self, step: int) -> None:
    """Hears of every call of steps."""

  def report(self, report: Report) -> None:
    """Hears every `save_summaries_steps` and at the end."""

  def images(self, step: int) -> None:
    """Draws every `save_images_steps` and at the end."""

  def validate(self, step: int) -> float:
    """Returns the loss on held-out scenes, by which the best one is kept.

    It is asked for every `validate_every` and at the end, and leaves the state
    as it is.
    """
    return math.nan

  def rescue(self, step: int, reason: str | None) -> None:
    """Hears which step was saved before an error is raised.

    Where that could not be done, there is a reason.
    """


@dataclasses.dataclass
class Loop:
  """Trains until the last step, SIGHUP, SIGINT, SIGTERM or an error, and saves.

  An error is raised after the save, which is that of the last step that was
  complete. Only a second signal ends the training without one.

  Scalars stay on the device until a report or a save needs them. Then those of
  every step so far are read at once and checked, before anything is saved.
  A report that is due while all updates since the last one were left out waits
  for the next.

  Attributes:
    make_steps: makes so many updates and returns their scalars, see
      `compile_steps`.
    state: weights and moments; they are saved only while they are finite.
    batch_size: scenes in a batch.
    store: where checkpoints go.
    schedule: when what happens.
    listener: hears of it.
    start_step: number of updates already done.
    skip_nonfinite: how many updates in a row may be left out because they were
      not finite; None for none. `make_steps` leaves them out.
    steps_per_call: how many updates `make_steps` is asked for at most; fewer
      where something is due before.
    agree_to_stop: from whether this process was told to stop to whether all
      that train together stop.
    max_seconds: it ends after so long, wherever it is.
  """

  make_steps: Callable[[tf.Tensor], Mapping[str, tf.Tensor]]
  state: Sequence[tf.Variable]
  batch_size: int
  store: checkpoints.CheckpointStore
  schedule: Schedule
  listener: Listener = Listener()  # noqa: RUF009 (it has no state)
  start_step: int = 0
  skip_nonfinite: int | None = None
  steps_per_call: int = 1
  agree_to_stop: Callable[[bool], bool] = bool
  max_seconds: float = math.inf

  def __post_init__(self) -> None:
    self._step = self.start_step
    is_saved = (self.store.latest or "").endswith(f"-{self._step}")
    self._saved_step = self._step if is_saved else None
    self._unread: list[Mapping[str, tf.Tensor]] = []  # of calls
    self._num_nonfinite = 0  # in a row
    self._since_report: list[dict[str, float]] = []
    self._since_save: list[dict[str, float]] = []
    self._num_calls = 0
    self._paces = collections.deque[float](maxlen=_NUM_PACES)
    self._begun = self._read_at = time.monotonic()
    self._start_clock()

  def run(self) -> Outcome:
    """Trains, see the class."""
    last = self.schedule.stop_after_steps
    with _catch_signals() as caught:
      try:
        while (
          self._step < last
          and not self._is_over()
          and not self.agree_to_stop(bool(caught))
        ):
          self._advance()
          self._do_what_is_due()
        self._save_state()
      except Exception as error:
        self._rescue(error)
        raise
    is_told = self._step < last and not self._is_over()
    told = caught or ([signal.SIGTERM] if is_told else [])
    return Outcome(self._step, self.store.latest, told[0] if told else None)

  def _is_over(self) -> bool:
    return time.monotonic() - self._begun > self.max_seconds

  def _advance(self) -> None:
    """Makes steps up to the next at which something may be due."""
    until_due = self.schedule.steps_until_due(self._step)
    num_steps = min(self.steps_per_call, until_due)
    with contextlib.ExitStack() as unfinished:
      # An error may leave a part of the variables, or of the steps, updated.
      unfinished.callback(self.store.snapshot())
      self._unread.append(self.make_steps(tf.constant(num_steps)))
      unfinished.pop_all()
    self._step += num_steps
    self._num_calls += 1
    self.listener.advance(self._step)

  def _do_what_is_due(self) -> None:
    """Reports, draws, validates and saves, each at its steps."""
    step, is_last = self._step, self._step == self.schedule.stop_after_steps
    report, save, images, validation = (
      period is not None and (is_last or step % period == 0)
      for period in self.schedule[1:]
    )
    num_unread = len(self._unread) * self.steps_per_call
    is_due = self._num_calls <= 2 or report or save or images or validation
    if is_due or num_unread >= _MAX_UNREAD:
      self._read()
    if self._num_calls == 1:
      self.listener.first_step()
      self._paces.clear()
      if not report:
        self._start_clock()
    elif self._num_calls == 2:
      self.listener.pace(step, statistics.median(self._paces))
    if report:
      self._report()
    if images:
      self.listener.images(step)
    if validation:
      self._check_state()
      # Before the checkpoint, which knows what was best so far.
      self.store.save_if_best(self.listener.validate(step))
    if save:
      # The best one is that of the validation, where there is one.
      validates = self.schedule.validate_every is not None
      mean_loss = _means(self._since_save).get("loss/total")
      self._save_state(None if validates else mean_loss)
      self._since_save.clear()
    if not self._unread:
      self._read_at = time.monotonic()

  def _read(self) -> None:
    """Reads the scalars of all steps so far, and checks them."""
    rows = _fetch(self._unread) if self._unread else []
    if rows:
      self._paces.append((time.monotonic() - self._read_at) / len(rows))
    for step, scalars in enumerate(rows, self._step - len(rows) + 1):
      is_finite = all(math.isfinite(scalars[name]) for name in _VITAL)
      self._num_nonfinite = 0 if is_finite else self._num_nonfinite + 1
      if self._num_nonfinite > (self.skip_nonfinite or 0):
        raise self._diverged(scalars, step)
      self._since_report.append(scalars)
      self._since_save.append(scalars)
    self._unread.clear()

  def _start_clock(self) -> None:
    self._clock, self._clock_step = time.monotonic(), self._step

  def _report(self) -> None:
    """Reports the means since the last report, if there are some."""
    means = _means(self._since_report)
    if means:
      seconds = max(time.monotonic() - self._clock, 1e-9)
      num_images = max(self._step - self._clock_step, 1) * self.batch_size
      # Of the first step alone nothing is known.
      pace = statistics.median(self._paces or [seconds])
      self.listener.report(
        Report(self._step, means, num_images / seconds, pace)
      )
      self._since_report.clear()
      self._start_clock()

  def _save_state(self, mean_loss: float | None = None) -> None:
    """Saves the state, unless that is done."""
    if self._saved_step != self._step:
      self._read()
      self._check_state()
      self.store.save(mean_loss)
      self._saved_step = self._step

  def _rescue(self, error: Exception) -> None:
    """Saves before an error ends the training; it stays the one raised."""
    if self._step == self.start_step or isinstance(error, DivergedError):
      return
    reason = errors.message_of(self._save_state, (Exception,))
    if reason is None or _gist(reason) != _gist(str(error)):
      self.listener.rescue(self._step, reason)

  def _check_state(self) -> None:
    """Raises a UserError where weights or moments are not finite, or absurd.

    The loss of a step is that before its update, which may do harm. A sum of
    squares in float32 overflows for weights about 1e19, too, which have no
    finite loss. Less than that Adam, whose updates hardly exceed the learning
    rate, does to weights only where the learning rate is as absurd.
    """
    norm = float(tf.linalg.global_norm(self.state))
    if not math.isfinite(norm):
      values = {"norm of weights and moments": norm}
      raise self._diverged(values, self._step)

  def _diverged(
    self, values: Mapping[str, float], step: int
  ) -> errors.UserError:
    """Returns the error to raise where some of these values are not finite."""
    offending = ", ".join(
      f"{name} = {value}"
      for name, value in values.items()
      if not math.isfinite(value)
    )
    remedy = (
      f"the last good checkpoint is `{self.store.latest}`, go on from it with "
      f"`continue_run=True checkpoint_dir={self.store.folder}` and a lower "
      "`learn_rate`"
      if self.store.latest
      else "there is no checkpoint yet, start again with a lower `learn_rate`"
    )
    return DivergedError(
      f"the training diverged at step {step} ({offending}): {remedy}"
    )


class DivergedError(errors.UserError):
  """A loss, a gradient or the state is no longer finite."""


def _gist(sentence: str) -> str:
  """Returns it without the details, such as which file was written."""
  return sentence.partition(" (")[0]


def _fetch(calls: Sequence[Mapping[str, tf.Tensor]]) -> list[dict[str, float]]:
  """Returns the scalars of every step of some calls, in one transfer."""
  names = list(calls[0])
  columns = [tf.concat([call[name] for call in calls], 0) for name in names]
  rows = tf.stack(columns, axis=1).numpy().tolist()
  return [dict(zip(names, row, strict=True)) for row in rows]


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """Returns the means of scalars, nothing where every update was left out."""
  made = [row for row in rows if not row.get(step_lib.SKIPPED)]
  if not made:
    return {}
  means = {n: float(np.mean([row[n] for row in made])) for n in made[0]}
  if step_lib.SKIPPED in means:
    means[step_lib.SKIPPED] = float(len(rows) - len(made))
  return means


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
  """Has a signal that asks to end wait until a block is done.

  TensorFlow does not stand an error from outside while it makes a graph.
  """
  with _catch_signals() as caught:
    yield
  if caught:
    raise KeyboardInterrupt(int(caught[0]))


@contextlib.contextmanager
def _catch_signals() -> Iterator[list[signal.Signals]]:
  """Collects the first signal that asks to end; a second one acts as usual."""
  caught: list[signal.Signals] = []
  numbers = [signal.SIGINT, signal.SIGTERM]
  hang_up = getattr(signal, "SIGHUP", None)  # which Windows has not
  # With `nohup` a training outlives its terminal.
  if hang_up and signal.getsignal(hang_up) != signal.SIG_IGN:
    numbers.append(hang_up)
  previous = {number: signal.getsignal(number) for number in numbers}

  def put_back() -> None:
    for number, handler in previous.items():
      signal.signal(number, handler)

  def catch(number: int, _: Any) -> None:
    caught.append(signal.Signals(number))
    put_back()

  for number in previous:
    signal.signal(number, catch)
  try:
    yield caught
  finally:
    put_back()
