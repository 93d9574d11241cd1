"""Many trainings by one command: seeds, and other entries with their values."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import tensorflow as tf
import tqdm

from iodine import building, checkpoints, config_files, errors, files, kinds
from iodine.commands import common, experiment, help
from iodine.training import run_folder

Config = common.Config

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
    words: what stands after `with`, but for the folder.
    stop: its last step.
    row: what it has of its own, by dotted paths.
    folder: of the run, its number at the end; the log has its name, too.
  """

  words: list[str]
  stop: int
  row: Config
  folder: str = ""

  def saved(self) -> int:
    """Returns the step of its newest checkpoint, 0 for none."""
    newest = checkpoints.latest(self.folder)
    return int(newest.rpartition("-")[2]) if newest else 0

  def told(self) -> tuple[int, str]:
    """Returns the step that it has come to, and the last line it printed."""
    with open(f"{self.folder}.log", "ab+") as file:
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
    with open(f"{self.folder}.log", "ab") as log:
      # Ctrl-C in the terminal reaches it once, by whoever waits for it.
      return Process(command, stdout=log, stderr=log, start_new_session=True)

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
) -> dict[str, Config]:
  """Trains what is not trained yet, and says what came of it.

  Args:
    config: the complete config, with the entries of a sweep.
    given: what the user gave.
    get_config: returns the complete config of names and updates.

  Returns:
    By the folders of runs what each has of its own.
  """
  name = "_".join(pathlib.Path(name).stem for name in given.names)
  root = given.updates.get("checkpoint_dir", os.path.join("runs", name))
  checkpoints.check_name(root)
  own = ("sweep", "continue_run", "checkpoint_dir")
  leaves = config_files.leaves(given.updates)
  shared = {k: v for k, v in leaves if not k.startswith(own)}
  tf.config.set_visible_devices([], "GPU")  # they are for the runs
  trainings = []
  for row in list_rows(given.updates.get("sweep", {}), config["sweep_zip"]):
    each = given._replace(updates={**shared, **row})
    complete = get_config(each.names, each.updates)
    # What is wrong is said before the first run starts.
    list(config_files.stages(complete))
    for part in ("model", "optimizer", "data"):
      building.build(complete[part], part)
    trainings.append(Training(each.words, complete["stop_after_steps"], row))
  with run_folder.locked(root):
    start, by_submitit = launcher(config, root), config["sweep_launcher"]
    most = config["sweep_parallel"] or (len(trainings) if by_submitit else 1)
    _number(root, given, trainings)
    failed = _train_all(trainings, start, most)
  if failed:
    raise errors.UserError(
      f"{len(failed)} of {len(trainings)} runs failed, "
      f"{errors.join_some(failed)}: mend what these files say, and give the "
      "same command, which goes on with what is not finished"
    )
  print(f"one table of them: `{help.program()} gather with runs={root}`")
  return {each.folder: each.row for each in trainings}


def list_rows(swept: Config, is_zipped: bool) -> list[dict[str, Any]]:
  """Returns what each run has of its own.

  Args:
    swept: lists of values, a nested dict.
    is_zipped: whether the lists go side by side, not each with each.
  """
  lists = dict(config_files.leaves(swept))
  for name, values in lists.items():
    kinds.check(f"sweep.{name}", values, Annotated[list[Any], kinds.Length(1)])
  lengths = {name: len(values) for name, values in lists.items()}
  if not lists or (is_zipped and len({*lengths.values()}) > 1):
    raise errors.UserError(
      f"`sweep` has lists of so many values: {lengths or 'none'}; give entries "
      "and theirs, as `'sweep.seed=[0,1]'`, with `sweep_zip` as many of each"
    )
  combine = zip if is_zipped else itertools.product
  rows = [dict(zip(lists, x, strict=True)) for x in combine(*lists.values())]
  return [row for i, row in enumerate(rows) if row not in rows[:i]]


def _number(
  root: str, given: experiment.Given, trainings: Sequence[Training]
) -> None:
  """Gives trainings the folders that they had before, or the next numbers.

  A table beside them says what each was given.
  """
  path = os.path.join(root, "sweep.json")
  table = files.read_json(path) if os.path.exists(path) else {}
  shared = config_files.for_another_call(given.updates)
  shared.pop("stop_after_steps", None)  # it goes on until there
  shared = {"with": given.names, **dict(config_files.leaves(shared))}
  # Where a table was lost, there are folders that it does not have.
  taken = {*table, *os.listdir(root)}
  free = (f"run_{n}" for n in itertools.count(1) if f"run_{n}" not in taken)
  for each in trainings:
    row = json.loads(json.dumps({**shared, **each.row}))  # as it is read
    known = [name for name, other in table.items() if other == row]
    name = known[0] if known else next(free)
    table[name], each.folder = row, os.path.join(root, name)
  files.write_json(path, table)


def launcher(config: Config, root: str) -> Callable[[Training], Any]:
  """Returns what starts a training, as a process or a job of submitit.

  Args:
    config: with `sweep_launcher`, and in `sweep_slurm` `hours`, `gpus`,
      `partition` and submitit's own names; by `cluster="local"` it runs the
      jobs on this machine.
    root: the folder of the sweep, in which submitit has one of its own.
  """
  # So that trainings find what this process finds, wherever they start.
  os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, sys.path))
  if config["sweep_launcher"] is None:
    return Training.start
  options = {"cluster": "slurm", "hours": 24, **config["sweep_slurm"]}
  options = {_SLURM.get(k, k): v for k, v in options.items()}
  options["timeout_min"] = int(60 * options.pop("hours"))
  with errors.as_user_error(
    (Exception,),
    lambda error: (
      "there is no Slurm here, or submitit does not take `sweep_slurm` "
      f"({errors.reason(error)}): give `partition`, `gpus`, `hours` and other "
      "names of submitit, after `pip install -r requirements-slurm.txt`"
    ),
  ):
    submitit = importlib.import_module("submitit")
    place, cluster = os.path.join(root, "submitit"), options.pop("cluster")
    executor = submitit.AutoExecutor(place, cluster=cluster)
    executor.update_parameters(**options)
  return lambda training: executor.submit(training.run)


def _train_all(
  trainings: Sequence[Training], start: Callable[[Training], Any], most: int
) -> list[str]:
  """Runs what is not finished, so many at a time, with the time that is left.

  However it ends, the runs end, too, and have saved.

  Returns:
    Of those that failed log and last line.
  """
  waiting = [each for each in trainings if each.saved() < each.stop]
  left = f"{len(waiting)} of {len(trainings)} runs are left to train"
  print(f"{left}; if interrupted, the same command goes on", flush=True)
  jobs: dict[Training, Any] = {}
  failed = []

  def num_steps() -> int:
    return sum(each.told()[0] for each in trainings)

  with tqdm.tqdm(
    total=sum(each.stop for each in trainings),
    initial=num_steps(),
    unit=" steps",
    smoothing=0,  # the rate is that from now on
    mininterval=5,  # as it may be written to a file
  ) as bar:
    try:
      while waiting or jobs:
        for each in waiting[: most - len(jobs)]:
          waiting.remove(each)
          jobs[each] = start(each)
        time.sleep(0.5)
        for each in [each for each, job in jobs.items() if job.done()]:
          del jobs[each]
          step, said = each.told()
          how = "done"
          if each.saved() < each.stop:
            how = f"FAILED: {said}"
            failed.append(f"`{each.folder}.log` ({said})")
            bar.total -= each.stop - step
          row = ", ".join(f"{k}={v}" for k, v in each.row.items())
          bar.write(f"{each.folder} ({row}): {how}")
        bar.update(num_steps() - bar.n)
    finally:
      for job in jobs.values():
        job.cancel(check=False)
      for job in jobs.values():
        job.wait()
  return failed
