"""Many trainings by one command: seeds, and other entries with their values."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import shlex
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

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
  stems = [pathlib.Path(name).stem for name in given.names]
  default = os.path.join("runs", "_".join(stems) or "sweep")
  root = updates.pop("checkpoint_dir", None) or default
  checkpoints.check_name(root)
  runs = [given._replace(updates={**updates, **row}) for row in rows]
  tf.config.set_visible_devices([], "GPU")  # they are for the runs
  configs = [get_config(each.names, each.updates) for each in runs]
  for each in configs:
    # What is wrong is said before the first run starts.
    list(config_files.stages(each))
    for part in ("model", "optimizer", "data"):
      building.build(each[part], part)
  files.check_folder(root)
  with run_folder.locked(root):
    folders = _number(root, given.names, updates, rows)
    trust = [f"--trust={given.trusted}"] if given.trusted else []
    trainings = [
      launching.Training(folder, each["stop_after_steps"], [*own.words, *trust])
      for folder, own, each in zip(folders, runs, configs, strict=True)
    ]
    name, place = config["sweep_launcher"], os.path.join(root, "submitit")
    start = launching.launcher(name, place, config["sweep_slurm"])
    most = config["sweep_parallel"] or (len(rows) if name else 1)
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
    kinds.check(f"sweep.{name}", values, Annotated[list[Any], kinds.Length(1)])
  if is_zipped and len({len(values) for values in lists.values()}) > 1:
    lengths = ", ".join(f"`{k}` {len(v)}" for k, v in lists.items())
    raise errors.UserError(
      f"with `sweep_zip` all lists are as long as each other, and there are of "
      f"{lengths} values: give as many of each, or leave `sweep_zip` out"
    )
  combine = zip if is_zipped else itertools.product
  rows = [dict(zip(lists, x, strict=True)) for x in combine(*lists.values())]
  return [row for i, row in enumerate(rows) if row not in rows[:i]]


def _number(
  root: str, names: Sequence[str], updates: Config, rows: list[Row]
) -> list[str]:
  """Returns the folders of runs: those they had before, or the next numbers.

  They are written to a table beside the runs.
  """
  shared = {k: v for k, v in updates.items() if k not in _MAY_DIFFER}
  text = json.dumps([{"with": names, "entries": shared}, rows])
  table, rows = json.loads(text)  # as it is read
  before = read_table(root) or {**table, "runs": {}}
  runs = before.pop("runs")
  if before != table:
    raise errors.UserError(
      f"the sweep in `{root}` was begun with other entries ({before}): give "
      "the same, or another `checkpoint_dir`"
    )
  found = []
  for row in rows:
    known = [name for name, own in runs.items() if own == row]
    found += known or [f"run_{len(runs) + 1}"]
    runs[found[-1]] = row
  files.write_json(os.path.join(root, TABLE), {**table, "runs": runs})
  return [os.path.join(root, name) for name in found]


def read_table(root: str) -> dict[str, Any]:
  """Returns `with`, `entries`, and `runs` by name; {} where is no sweep."""
  path = pathlib.Path(root, TABLE)
  return json.loads(path.read_text("utf-8")) if path.exists() else {}


def _train_all(
  trainings: list[launching.Training],
  start: Callable[[launching.Training], Any],
  most: int,
  given: experiment.Given,
) -> None:
  """Runs what is not finished, so many at a time, with the time that is left.

  However it ends, the runs end, too, and have saved.
  """
  waiting = [each for each in trainings if not each.is_done()]
  running: list[tuple[launching.Training, Any]] = []
  bar = progress(trainings)
  try:
    while waiting or running:
      while waiting and len(running) < most:
        running.append((waiting[0], start(waiting.pop(0))))
      ended = [pair for pair in running if pair[1].poll() is not None]
      running = [pair for pair in running if pair not in ended]
      for each, _ in ended:
        step, said = each.told()
        bar.total -= max(0, each.stop - step)  # what a failed one leaves out
        how = "done" if each.is_done() else f"FAILED: {said}"
        bar.write(f"{each.folder}: {how}")
      bar.update(_num_steps(trainings) - bar.n)
      if not ended:
        time.sleep(launching.SECONDS)
  finally:
    for _, process in running:
      process.terminate()
    for _, process in running:
      process.wait()
    bar.close()
    if running or waiting:
      words = " ".join(map(shlex.quote, ["sweep", "with", *given.words]))
      print(f"go on with `{help.program()} {words}`", flush=True)


def progress(trainings: Sequence[launching.Training]) -> tqdm.tqdm:
  """Returns a bar of all steps, whose rate is that of the steps from now on."""
  total, done = sum(each.stop for each in trainings), _num_steps(trainings)
  # Not too often, as it may be written to a file.
  return tqdm.tqdm(
    total=total, initial=done, unit=" steps", smoothing=0, mininterval=5
  )


def _num_steps(trainings: Sequence[launching.Training]) -> int:
  return sum(min(x.told()[0], x.stop) for x in trainings)


def _tell_end(
  trainings: Sequence[launching.Training], rows: Sequence[Row]
) -> dict[str, str]:
  """Prints what became of the runs; raises a UserError where some failed."""
  failed = [each for each in trainings if not each.is_done()]
  status = {x.folder: "failed" if x in failed else "done" for x in trainings}
  table = [
    {"run": folder, **row, "status": state}
    for (folder, state), row in zip(status.items(), rows, strict=True)
  ]
  print(f"\n{tabulate.tabulate(table, headers='keys')}", flush=True)
  if failed:
    reasons = [f"`{each.log}` ({each.told()[1]})" for each in failed]
    raise errors.UserError(
      f"{len(failed)} of {len(rows)} runs failed: "
      f"{errors.join_some(reasons)}: mend what these files say, and give the "
      "same command, which goes on with what is not finished"
    )
  root = os.path.dirname(trainings[0].folder)
  print(f"one table of them: `{help.program()} gather with runs={root}`")
  return status
