"""The loop around the training step, and when it stops.

Source: section B.3 of the paper and the original's `main.py`.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine import checkpoints, errors
from iodine.training import step as step_lib

# What has to stay finite; a factor's R2 may be infinite where it is constant.
_VITAL = ("loss/total", "debug/global_grad_norm")
# Where reports are rarer, scalars are read and checked so often.
_MAX_UNREAD = 100


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
    seconds_left: until the last step, at this pace.
  """

  step: int
  means: dict[str, float]
  images_per_second: float
  seconds_left: float


class Outcome(NamedTuple):
  """How a training ended.

  Attributes:
    step: number of updates.
    checkpoint: prefix of the last checkpoint.
    interrupted_by: the signal that ended it, or None.
  """

  step: int
  checkpoint: str | None
  interrupted_by: signal.Signals | None


def train(
  make_steps: Callable[[tf.Tensor], Mapping[str, tf.Tensor]],
  state: Sequence[tf.Variable],
  batch_size: int,
  store: checkpoints.CheckpointStore,
  schedule: Schedule,
  start_step: int = 0,
  on_first_step: Callable[[], None] = lambda: None,
  on_report: Callable[[Report], None] = lambda report: None,
  on_images: Callable[[int], None] = lambda step: None,
  on_validation: Callable[[int], float] = lambda step: math.nan,
  on_rescue: Callable[[int, str | None], None] = lambda step, reason: None,
  skip_nonfinite: int | None = None,
  steps_per_call: int = 1,
  agree_to_stop: Callable[[bool], bool] = bool,
) -> Outcome:
  """Trains until the last step, SIGHUP, SIGINT, SIGTERM or an error, and saves.

  An error is raised after the save, which is that of the last step that was
  complete. Only a second signal ends the training without one.

  Scalars stay on the device until a report or a save needs them. Then those of
  every step so far are read at once and checked, before anything is saved.
  A report that is due while all updates since the last one were left out waits
  for the next.

  Args:
    make_steps: makes so many updates and returns their scalars, see
      `compile_steps`.
    state: weights and moments; they are saved only while they are finite.
    batch_size: scenes in a batch.
    store: where checkpoints go.
    schedule: when what happens.
    start_step: number of updates already done.
    on_first_step: called after the first step, which makes the graph.
    on_report: called every `save_summaries_steps` and at the end.
    on_images: called with the step every `save_images_steps`.
    on_validation: called with the step every `validate_every` and at the end;
      returns the loss on held-out scenes, by which the best checkpoint is kept.
      It leaves the state as it is.
    on_rescue: called with the step that was saved before an error is raised;
      where that could not be done, with the reason.
    skip_nonfinite: how many updates in a row may be left out because they were
      not finite; None for none. `make_steps` leaves them out.
    steps_per_call: how many updates `make_steps` is asked for at most; fewer
      where something is due before.
    agree_to_stop: from whether this process was told to stop to whether all
      that train together stop.

  Raises:
    errors.UserError: if the loss, a gradient or the state is no longer finite,
      the former more often in a row than allowed, with the step, the scalars
      and the last good checkpoint; or if data or checkpoints cannot be read or
      written.
  """
  step, last = start_step, schedule.stop_after_steps
  every = schedule.validate_every
  unread: list[Mapping[str, tf.Tensor]] = []  # of calls
  recent = _Means(step, batch_size)
  since_save = _Means(step, batch_size)
  saved = step if store.latest else None
  nonfinite_in_a_row = 0

  def read() -> None:
    nonlocal nonfinite_in_a_row
    rows = _fetch(unread)
    for number, scalars in enumerate(rows, step - len(rows) + 1):
      if all(math.isfinite(scalars[name]) for name in _VITAL):
        nonfinite_in_a_row = 0
      else:
        nonfinite_in_a_row += 1
        if nonfinite_in_a_row > (skip_nonfinite or 0):
          raise _diverged(scalars, number, store)
      recent.add(scalars)
      since_save.add(scalars)
    unread.clear()

  def save_state() -> None:
    nonlocal saved
    if saved != step:
      read()
      _check_state(state, step, store)
      store.save()
      saved = step

  def rescue(_: Any, error: BaseException | None, __: Any) -> None:
    """Saves before an error ends the training; it stays the one raised."""
    # A second Ctrl-C should not wait.
    if not isinstance(error, Exception) or step == start_step:
      return
    if isinstance(error, _DivergedError):
      return
    reason = errors.message_of(save_state, (Exception,))
    if reason is None or _gist(reason) != _gist(str(error)):
      # What cannot be told, as the output is full, is no second error.
      errors.message_of(lambda: on_rescue(step, reason), (Exception,))

  with _catch_signals() as caught, contextlib.ExitStack() as stack:
    stack.push(rescue)
    while step < last and not agree_to_stop(bool(caught)):
      num_steps = min(steps_per_call, schedule.steps_until_due(step))
      with contextlib.ExitStack() as unfinished:
        # An error may leave a part of the variables, or of the steps, updated.
        unfinished.callback(store.hold())
        unread.append(make_steps(tf.constant(num_steps)))
        unfinished.pop_all()
      step += num_steps
      is_first, is_last = step == start_step + num_steps, step == last
      report_due = is_last or step % schedule.save_summaries_steps == 0
      images_due = is_last or step % schedule.save_images_steps == 0
      save_due = is_last or step % schedule.save_checkpoint_steps == 0
      validation_due = every is not None and (is_last or step % every == 0)
      is_due = is_first or report_due or images_due or save_due
      is_due = is_due or validation_due
      if is_due or len(unread) * steps_per_call >= _MAX_UNREAD:
        read()
      if is_first:
        on_first_step()
        if not report_due:
          recent.restart_clock(step)
      if report_due and recent.means():
        on_report(recent.report(step, last))
        recent = _Means(step, batch_size)
      if images_due:
        on_images(step)
      if save_due or validation_due:
        _check_state(state, step, store)
      if validation_due:
        # Before the checkpoint, which knows what was best so far.
        store.save_if_best(on_validation(step))
      if save_due:
        mean_loss = since_save.means().get("loss/total")
        store.save(None if every else mean_loss)
        since_save = _Means(step, batch_size)
        saved = step
    save_state()
  told = caught or ([signal.SIGTERM] if step < last else [])
  return Outcome(step, store.latest, told[0] if told else None)


def _gist(sentence: str) -> str:
  """Returns it without the details, such as which file was written."""
  return sentence.partition(" (")[0]


def _fetch(calls: Sequence[Mapping[str, tf.Tensor]]) -> list[dict[str, float]]:
  """Returns the scalars of every step of some calls, in one transfer."""
  if not calls:
    return []
  names = list(calls[0])
  columns = [tf.concat([call[name] for call in calls], 0) for name in names]
  rows = tf.stack(columns, axis=1).numpy().tolist()
  return [dict(zip(names, row, strict=True)) for row in rows]


class _Means:
  """Running means of scalars, and the time they took."""

  def __init__(self, step: int, batch_size: int):
    self._first_step = step
    self._batch_size = batch_size
    self._start = time.monotonic()
    self._scalars: list[Mapping[str, float]] = []
    self._num_skipped = 0

  def restart_clock(self, step: int) -> None:
    self._first_step = step
    self._start = time.monotonic()

  def add(self, scalars: Mapping[str, float]) -> None:
    if scalars.get(step_lib.SKIPPED, 0.0):
      self._num_skipped += 1
    else:
      self._scalars.append(scalars)

  def means(self) -> dict[str, float]:
    """Returns the means, nothing where every update was left out."""
    means = {
      name: float(np.mean([scalars[name] for scalars in self._scalars]))
      for name in (self._scalars or [{}])[0]
    }
    if step_lib.SKIPPED in means:
      means[step_lib.SKIPPED] = float(self._num_skipped)
    return means

  def report(self, step: int, last_step: int) -> Report:
    seconds = max(time.monotonic() - self._start, 1e-9)
    num_steps = max(step - self._first_step, 1)
    return Report(
      step=step,
      means=self.means(),
      images_per_second=num_steps * self._batch_size / seconds,
      seconds_left=(last_step - step) * seconds / num_steps,
    )


def _check_state(
  state: Sequence[tf.Variable], step: int, store: checkpoints.CheckpointStore
) -> None:
  """Raises a UserError where weights or moments are not finite, or absurd.

  The loss of a step is that before its update, which may do harm. A sum of
  squares in float32 overflows for weights about 1e19, too, which have no finite
  loss. Less than that Adam, whose updates hardly exceed the learning rate, does
  to weights only where the learning rate is as absurd.
  """
  norm = float(tf.linalg.global_norm(state))
  if not math.isfinite(norm):
    raise _diverged({"norm of weights and moments": norm}, step, store)


class _DivergedError(errors.UserError):
  """A loss, a gradient or the state is no longer finite."""


def _diverged(
  values: Mapping[str, float], step: int, store: checkpoints.CheckpointStore
) -> errors.UserError:
  """Returns the error to raise where some of these values are not finite."""
  offending = ", ".join(
    f"{name} = {value}"
    for name, value in values.items()
    if not math.isfinite(value)
  )
  remedy = (
    f"the last good checkpoint is `{store.latest}`, go on from it with "
    f"`continue_run=True checkpoint_dir={store.folder}` and a lower "
    "`learn_rate`"
    if store.latest
    else "there is no checkpoint yet, start again with a lower `learn_rate`"
  )
  return _DivergedError(
    f"the training diverged at step {step} ({offending}): {remedy}"
  )


@contextlib.contextmanager
def _catch_signals() -> Iterator[list[signal.Signals]]:
  """Collects the first signal that asks to end; a second one acts as usual."""
  caught: list[signal.Signals] = []
  numbers = [signal.SIGINT, signal.SIGTERM]
  # With `nohup` a training outlives its terminal.
  if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
    numbers.append(signal.SIGHUP)

  def catch(number: int, _: Any) -> None:
    caught.append(signal.Signals(number))
    for each, handler in previous.items():
      signal.signal(each, handler)

  previous = {number: signal.getsignal(number) for number in numbers}
  for number in numbers:
    signal.signal(number, catch)
  try:
    yield caught
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)
