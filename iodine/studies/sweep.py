"""Many trainings by one command: seeds, and other entries with their values."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import time
from collections.abc import Callable, Sequence
from typing import Any

import tabulate
import tensorflow as tf
import tqdm

from iodine import (
  building,
  checkpoints,
  config_files,
  entries,
  errors,
  files,
  kinds,
  training,
)
from iodine.commands import common, experiment, help
from iodine.studies import launching
from iodine.training import run_folder

Config = common.Config
Row = dict[str, Any]  # what a run has of its own, by dotted paths

TABLE = "sweep.json"
# In these the same sweep may differ when it goes on.
_MAY_DIFFER = {"stop_after_steps", *entries.OF_CALL}


def run(
  config: Config,
  given: experiment.Given,
  get_config: Callable[[Sequence[str], dict[str, Any]], Config],
) -> dict[str, str]:
  """Trains what is not trained yet, and prints a table.

  Args:
    config: the complete config, with the entries of a sweep.
    given: what the user gave.
    get_config: returns the complete config of names and updates.

  Returns:
    What became of every run, by its folder.
  """
  rows = list_rows(given.updates.get("sweep", {}), config["sweep_zip"])
  updates = dict(config_files.leaves(given.updates))
  own = ("sweep", "continue_run")
  updates = {k: v for k, v in updates.items() if not k.startswith(own)}
  root = updates.pop("checkpoint_dir", None) or _default_folder(given.names)
  checkpoints.check_name(root)
  configs = [get_config(given.names, {**updates, **row}) for row in rows]
  # The GPUs are for the runs.
  if tf.config.list_physical_devices("GPU"):
    tf.config.set_visible_devices([], "GPU")
  for each in configs:
    _check(each)
  files.check_folder(root)
  with run_folder.locked(root):
    folders = _number(root, given.names, updates, rows)
    trainings = [
      launching.Training(
        os.path.join(root, folder),
        each["stop_after_steps"],
        [*given.names, *(f"{k}={v!r}" for k, v in {**updates, **row}.items())],
        [f"--trust={given.trusted}"] if given.trusted else [],
      )
      for folder, row, each in zip(folders, rows, configs, strict=True)
    ]
    start = launching.launcher(
      config["sweep_launcher"],
      os.path.join(root, "submitit"),
      config["sweep_slurm"],
    )
    most = config["sweep_parallel"]
    if most is None:
      most = len(rows) if config["sweep_launcher"] else 1
    print(f"{len(rows)} runs, into {root}", flush=True)
    _train_all(trainings, start, most, given)
  return _tell_end(trainings, rows)


def list_rows(swept: Config, is_zipped: bool) -> list[Row]:
  """Returns what each run has of its own.

  Args:
    swept: lists of values, a nested dict.
    is_zipped: whether the lists go side by side, not each with each.
  """
  lists = dict(config_files.leaves(swept))
  if not lists:
    raise errors.UserError(
      "nothing is swept: give an entry with its values, such as "
      "`'sweep.seed=[0,1,2]'`"
    )
  for name, values in lists.items():
    if not kinds.fits(values, kinds.Annotated[list[Any], kinds.Length(1)]):
      raise errors.UserError(
        f"`sweep.{name}` is {errors.shorten(values)}: give a list of values, "
        f"such as `'sweep.{name}=[{values},...]'`"
      )
  if is_zipped and len({len(values) for values in lists.values()}) > 1:
    lengths = ", ".join(f"`{k}` {len(v)}" for k, v in lists.items())
    raise errors.UserError(
      f"with `sweep_zip` all lists are as long as each other, and there are of "
      f"{lengths} values: give as many of each, or leave `sweep_zip` out"
    )
  combine = zip if is_zipped else itertools.product
  rows = [dict(zip(lists, x, strict=True)) for x in combine(*lists.values())]
  return [row for i, row in enumerate(rows) if row not in rows[:i]]


def _default_folder(names: Sequence[str]) -> str:
  stems = [os.path.splitext(os.path.basename(name))[0] for name in names]
  return os.path.join("runs", "_".join(stems) or "sweep")


def _check(config: Config) -> None:
  """Checks a run's config before the first run starts."""
  config_files.require_experiment(config["model"])
  training.plan(config)
  building.build(config["model"], "model")
  building.build(config["optimizer"], "optimizer")
  # Its files need not be there yet.
  arguments = dict(config["data"])
  constructor = building.resolve(arguments.pop(building.CONSTRUCTOR, None))
  if callable(constructor):
    kinds.check_arguments("data", constructor, arguments)


def _number(
  root: str, names: Sequence[str], updates: Config, rows: list[Row]
) -> list[str]:
  """Returns the folders of runs: those they had before, or the next numbers.

  They are written to a table beside the runs.
  """
  path = os.path.join(root, TABLE)
  common_to_all = {"with": list(names), "entries": updates}
  table: dict[str, Any] = {**common_to_all, "runs": {}}
  if os.path.exists(path):
    table = read_table(root)
    now, before = (
      [x["with"], {k: v for k, v in x["entries"].items() if k not in ignored}]
      for ignored in [_MAY_DIFFER]
      for x in (json.loads(json.dumps(common_to_all)), table)
    )
    if now != before:
      raise errors.UserError(
        f"the sweep in `{root}` was begun with other entries ({before}): give "
        "the same, or another `checkpoint_dir`"
      )
  runs = table["runs"]
  found = []
  for row in json.loads(json.dumps(rows)):
    known = [name for name, own in runs.items() if own == row]
    found += known or [f"run_{len(runs) + 1}"]
    runs[found[-1]] = row
  files.write_json(path, {**common_to_all, "runs": runs})
  return found


def read_table(root: str) -> dict[str, Any]:
  """Returns the table of a sweep: `with`, `entries`, and `runs` by name."""
  path = os.path.join(root, TABLE)
  with (
    errors.as_user_error(
      (ValueError,),
      lambda error: f"`{path}` cannot be read ({error}): put it back",
    ),
    open(path, encoding="utf-8") as file,
  ):
    table = json.load(file)
    kinds.check(f"runs` of `{path}", table["runs"], dict)
    return dict(table)


def _train_all(
  trainings: list[launching.Training],
  start: Callable[[launching.Training], launching.Process],
  most: int,
  given: experiment.Given,
) -> None:
  """Runs what is not finished, so many at a time, with the time that is left.

  However it ends, the runs end, too, and have saved.
  """
  waiting = [each for each in trainings if each.step() < each.stop]
  running: list[tuple[launching.Training, launching.Process]] = []
  progress = _Progress(trainings)
  try:
    while waiting or running:
      while waiting and len(running) < most:
        each = waiting.pop(0)
        running.append((each, start(each)))
      ended = [pair for pair in running if pair[1].poll() is not None]
      running = [pair for pair in running if pair not in ended]
      for each, _ in ended:
        progress.ended.add(each.folder)
        is_done = each.step() >= each.stop
        how = "done" if is_done else f"FAILED: {each.failure()}"
        progress.say(f"{each.folder}: {how}")
      progress.update()
      if not ended:
        time.sleep(launching.SECONDS)
  finally:
    for _, process in running:
      process.terminate()
    for _, process in running:
      process.wait()
    progress.bar.close()
    if running or waiting:
      words = " ".join(map(shlex.quote, ["sweep", "with", *given.words]))
      print(f"go on with `{help.program()} {words}`", flush=True)


class _Progress:
  """Tells how long all runs still take, by the steps since the start."""

  def __init__(self, trainings: Sequence[launching.Training]):
    """Begins with the steps that are done before."""
    self._trainings, self._started = trainings, time.monotonic()
    self._first = self._done()
    self._is_told = False
    self.ended: set[str] = set()  # whatever is missing in these folders
    total = sum(each.stop for each in trainings)
    self.bar = tqdm.tqdm(
      initial=self._first,
      total=total,
      unit=" steps",
      leave=False,
      disable=None,
      smoothing=0,
    )

  def _done(self) -> int:
    return sum(min(x.reported_step(), x.stop) for x in self._trainings)

  def _left(self) -> str:
    """Returns the time that is left, "" as long as nobody knows."""
    done = self._done()
    left = sum(
      max(0, each.stop - each.reported_step())
      for each in self._trainings
      if each.folder not in self.ended
    )
    if done <= self._first or not left:
      return ""
    seconds = (time.monotonic() - self._started) / (done - self._first)
    return f"about {help.duration(seconds * left)} left"

  def update(self) -> None:
    """Moves the bar; says the time that is left once it is known."""
    self.bar.update(self._done() - self.bar.n)
    left = self._left()
    if left and not self._is_told:
      self._is_told = True
      self.say("all runs together")

  def say(self, line: str) -> None:
    """Prints a line above the bar, with the time that is left."""
    with tqdm.tqdm.external_write_mode():
      print("; ".join(filter(None, [line, self._left()])), flush=True)


def _tell_end(
  trainings: Sequence[launching.Training], rows: Sequence[Row]
) -> dict[str, str]:
  """Prints what became of the runs; raises a UserError where some failed."""
  status = {
    each.folder: "done" if each.step() >= each.stop else "failed"
    for each in trainings
  }
  names = list(dict.fromkeys(name for row in rows for name in row))
  table = [
    [folder, *(row.get(name) for name in names), state]
    for (folder, state), row in zip(status.items(), rows, strict=True)
  ]
  print(f"\n{tabulate.tabulate(table, ['run', *names, 'status'])}", flush=True)
  failed = [
    f"`{each.log}` ({each.failure()})"
    for each in trainings
    if status[each.folder] == "failed"
  ]
  if failed:
    raise errors.UserError(
      f"{len(failed)} of {len(rows)} runs failed: "
      f"{errors.join_some(failed)}: mend what these files say, and give the "
      "same command, which goes on with what is not finished"
    )
  root = os.path.dirname(trainings[0].folder)
  print(f"one table of them: `{help.program()} gather with runs={root}`")
  return status
