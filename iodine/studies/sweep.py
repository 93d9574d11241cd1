"""Many trainings by one command: seeds, and other entries with their values."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
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
from iodine.training import run_folder

Config = common.Config
Row = dict[str, Any]  # what a run has of its own, by dotted paths

TABLE = "sweep.json"
SECONDS = 0.5  # between two looks at what runs
# In these the same sweep may differ when it goes on.
_MAY_DIFFER = {"stop_after_steps", *entries.OF_CALL}
# What submitit calls what people say; other names are its own.
_SLURM = {"partition": "slurm_partition", "gpus": "gpus_per_node"}


class Process(subprocess.Popen[bytes]):
  """A process with the methods of submitit's jobs."""

  def done(self) -> bool:
    """Returns whether it has ended."""
    return self.poll() is not None

  def cancel(self, check: bool = True) -> None:
    """Has it save and end."""
    self.terminate()


@dataclasses.dataclass(eq=False)
class Training:
  """A training that begins, or goes on, in a folder.

  Attributes:
    folder: of the run, its number at the end.
    stop: its last step.
    words: what stands after `with`, but for the folder.
  """

  folder: str
  stop: int
  words: list[str]

  @property
  def log(self) -> str:
    """Returns the file of what it prints."""
    return f"{self.folder}.log"

  def saved(self) -> int:
    """Returns the step of its newest checkpoint, 0 for none."""
    newest = checkpoints.latest(self.folder)
    return int(newest.rpartition("-")[2]) if newest else 0

  def is_done(self) -> bool:
    """Returns whether its last step is saved."""
    return self.saved() >= self.stop

  def told(self) -> tuple[int, str]:
    """Returns the step that it has come to, and the last line it printed."""
    with open(self.log, "ab+") as file:
      file.seek(max(0, file.tell() - 8192))
      text = file.read().decode(errors="replace").strip() or "no output"
    steps = map(int, re.findall(r"^step (\d+)/", text, re.MULTILINE))
    return min(self.stop, max(self.saved(), *steps, 0)), text.split("\n")[-1]

  def start(self) -> Process:
    """Starts its process."""
    place = [f"checkpoint_dir={self.folder!r}", "continue_run=True"]
    if not self.saved():
      stem, _, number = self.folder.rpartition("_")
      place = [f"checkpoint_dir={stem!r}", f"--id={number}"]
      # One that ended before its first checkpoint begins again.
      with run_folder.locked(self.folder):
        shutil.rmtree(self.folder)
    command = [sys.executable, "-m", "iodine", "with", *self.words, *place]
    with open(self.log, "ab") as log:
      # Ctrl-C in the terminal reaches it once, by whoever waits for it.
      return Process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
      )

  def run(self) -> None:
    """Trains to the end, as submitit has it done on another machine."""
    process = self.start()
    try:
      process.wait()
    finally:
      process.terminate()


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
  name = "_".join(pathlib.Path(name).stem for name in given.names)
  root = updates.pop("checkpoint_dir", os.path.join("runs", name))
  checkpoints.check_name(root)
  runs = [given._replace(updates={**updates, **row}) for row in rows]
  tf.config.set_visible_devices([], "GPU")  # they are for the runs
  configs = [get_config(each.names, each.updates) for each in runs]
  for each in configs:
    # What is wrong is said before the first run starts.
    list(config_files.stages(each))
    for part in ("model", "optimizer", "data"):
      building.build(each[part], part)
  with run_folder.locked(root):
    start = launcher(config["sweep_launcher"], root, config["sweep_slurm"])
    trainings = [
      Training(folder, each["stop_after_steps"], own.words)
      for folder, own, each in zip(_number(root, runs), runs, configs)
    ]
    is_here = config["sweep_launcher"] is None
    most = config["sweep_parallel"] or (1 if is_here else len(rows))
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


def _number(root: str, runs: Sequence[experiment.Given]) -> list[str]:
  """Returns the folders of runs: those they had before, or the next numbers.

  A table beside them says what each was given.
  """
  path = os.path.join(root, TABLE)
  table = files.read_json(path) if os.path.exists(path) else {}
  folders = []
  for run in runs:
    given = {k: v for k, v in run.updates.items() if k not in _MAY_DIFFER}
    row = json.loads(json.dumps({"with": run.names, **given}))  # as it is read
    if row not in table.values():
      table[f"run_{len(table) + 1}"] = row
    folders += [os.path.join(root, k) for k, v in table.items() if v == row]
  files.write_json(path, table)
  return folders


def launcher(
  name: str | None, root: str, options: Mapping[str, Any]
) -> Callable[[Training], Any]:
  """Returns what starts a training, as a process or a job of submitit.

  Args:
    name: None for this machine, or "slurm".
    root: the folder of the sweep, in which submitit has one of its own.
    options: of Slurm: `hours`, `gpus`, `partition` and submitit's own; by
      `cluster="local"` submitit runs the jobs on this machine.
  """
  # So that trainings find what this process finds, wherever they start.
  os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, sys.path))
  if name is None:
    return Training.start
  options = {"cluster": "slurm", "hours": 24, **options}
  with errors.as_user_error(
    (Exception,),
    lambda error: (
      "there is no Slurm here, or submitit does not take `sweep_slurm` "
      f"({errors.reason(error)}): give `partition`, `gpus`, `hours` and names "
      "of submitit where Slurm is, after `pip install -r requirements-slurm.txt`"
    ),
  ):
    submitit = importlib.import_module("submitit")
    place, cluster = os.path.join(root, "submitit"), options.pop("cluster")
    executor = submitit.AutoExecutor(place, cluster=cluster)
    options["timeout_min"] = int(60 * options.pop("hours"))
    known = {_SLURM.get(k, k): v for k, v in options.items()}
    executor.update_parameters(**known)
  return lambda training: executor.submit(training.run)


def _train_all(
  trainings: Sequence[Training],
  start: Callable[[Training], Any],
  most: int,
  given: experiment.Given,
) -> None:
  """Runs what is not finished, so many at a time, with the time that is left.

  However it ends, the runs end, too, and have saved.
  """
  waiting = [each for each in trainings if not each.is_done()]
  jobs: dict[Training, Any] = {}
  bar = progress(trainings)
  try:
    while waiting or jobs:
      for each in waiting[: most - len(jobs)]:
        waiting.remove(each)
        jobs[each] = start(each)
      time.sleep(SECONDS)
      for each in [each for each, job in jobs.items() if job.done()]:
        del jobs[each]
        step, said = each.told()
        bar.total -= each.stop - step  # what a failed one leaves out
        bar.write(f"{each.folder}: {'done' if each.is_done() else said}")
      bar.update(_num_steps(trainings) - bar.n)
  finally:
    for job in jobs.values():
      job.cancel(check=False)
    for job in jobs.values():
      job.wait()
    bar.close()
    if jobs or waiting:
      words = shlex.join(["sweep", "with", *given.words])
      print(f"go on with `{help.program()} {words}`", flush=True)


def progress(trainings: Sequence[Training]) -> tqdm.tqdm:
  """Returns a bar of all steps, whose rate is that of the steps from now on."""
  total, done = sum(each.stop for each in trainings), _num_steps(trainings)
  # Not too often, as it may be written to a file.
  return tqdm.tqdm(
    total=total, initial=done, unit=" steps", smoothing=0, mininterval=5
  )


def _num_steps(trainings: Sequence[Training]) -> int:
  return sum(each.told()[0] for each in trainings)


def _tell_end(
  trainings: Sequence[Training], rows: Sequence[Row]
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
