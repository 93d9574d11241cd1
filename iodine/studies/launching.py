"""Trainings as processes of their own: on this machine, or by Slurm."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from iodine import checkpoints, errors
from iodine.training import run_folder

SECONDS = 0.5  # between two looks at what runs
# What Slurm calls what people say; other names are submitit's own.
_PARAMETERS = {"partition": "slurm_partition", "gpus": "gpus_per_node"}


@dataclasses.dataclass
class Training:
  """A training that begins, or goes on, in a folder.

  Called, it trains to the end, which is what submitit does on another machine.

  Attributes:
    folder: of the run, its number at the end.
    stop: its last step.
    words: what stands after `with`, but for the folder.
    process: while it is called.
  """

  folder: str
  stop: int
  words: list[str]
  process: subprocess.Popen[bytes] | None = None

  @property
  def log(self) -> str:
    """Returns the file of what it prints."""
    return f"{self.folder}.log"

  def step(self) -> int:
    """Returns the step of its newest checkpoint, 0 for none."""
    newest = checkpoints.latest(self.folder)
    return int(newest.rpartition("-")[2]) if newest else 0

  def is_done(self) -> bool:
    """Returns whether its last step is saved."""
    return self.step() >= self.stop

  def reported_step(self) -> int:
    """Returns the step that it told last, which may not be saved yet."""
    told = re.findall(r"^step (\d+)/", self._tail(), re.MULTILINE)
    return max([self.step(), *map(int, told[-1:])])

  def failure(self) -> str:
    """Returns the sentence with which it ended, or else its last line."""
    lines = self._tail().strip().splitlines() or ["no output"]
    said = [line for line in lines if line.startswith("error: ")]
    return (said or lines)[-1]

  def _tail(self) -> str:
    if not os.path.exists(self.log):
      return ""
    with open(self.log, "rb") as file:
      file.seek(max(0, os.path.getsize(self.log) - 8192))
      return file.read().decode(errors="replace")

  def start(self) -> subprocess.Popen[bytes]:
    """Starts the process."""
    stem, _, number = self.folder.rpartition("_")
    place = [f"checkpoint_dir={stem!r}", f"--id={number}"]
    if self.step():
      place = [f"checkpoint_dir={self.folder!r}", "continue_run=True"]
    elif os.path.isdir(self.folder):
      # It ended before its first checkpoint, so it begins again.
      with run_folder.locked(self.folder):
        shutil.rmtree(self.folder)
    with open(self.log, "ab") as log:
      return subprocess.Popen(
        [sys.executable, "-m", "iodine", "with", *self.words, *place],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        # Ctrl-C in the terminal reaches it once, by whoever waits for it.
        start_new_session=True,
      )

  def __call__(self) -> int:
    """Trains to the end; returns the exit status."""
    told = getattr(signal, "SIGUSR2", signal.SIGTERM)
    # Slurm tells the whole job when its time is over: `checkpoint` acts on it.
    handler = signal.signal(told, signal.SIG_IGN)
    self.process = self.start()
    signal.signal(told, handler)
    try:
      # Not by `wait`, which holds a lock that `checkpoint` needs.
      while self.process.poll() is None:
        time.sleep(SECONDS)
    finally:
      self.process.terminate()
    return self.process.returncode

  def checkpoint(self) -> Any:
    """Saves, and has submitit queue it again, where its time is over."""
    process, self.process = self.process, None  # which is not stored
    if process is not None:
      process.terminate()
      process.wait()
    return importlib.import_module("submitit.helpers").DelayedSubmission(self)


@dataclasses.dataclass
class _Job:
  """A job of submitit with the methods of a process."""

  job: Any

  def poll(self) -> int | None:
    return 0 if self.job.done() else None

  def terminate(self) -> None:
    self.job.cancel(check=False)

  def wait(self) -> None:
    self.job.wait()


def launcher(
  name: str | None, folder: str, options: Mapping[str, Any]
) -> Callable[[Training], Any]:
  """Returns what starts a training, as a process or what is like one.

  Args:
    name: None for this machine, or "slurm".
    folder: for submitit's own files.
    options: of Slurm: `hours`, `gpus`, `partition` and submitit's own; by
      `cluster="local"` submitit runs the jobs on this machine.
  """
  # So that trainings find what this process finds, wherever they start.
  path = os.pathsep.join(each or os.getcwd() for each in sys.path)
  os.environ["PYTHONPATH"] = path
  if name is None:
    return Training.start
  options = {"cluster": "slurm", "hours": 24, **options}
  if options["cluster"] == "slurm" and shutil.which("srun") is None:
    raise errors.UserError(
      "`sweep_launcher` is 'slurm', and there is no Slurm here (`srun`): give "
      "the command on a node that has it, or leave `sweep_launcher` out"
    )
  with errors.as_user_error(
    (ModuleNotFoundError,),
    lambda _: (
      "`sweep_launcher` needs submitit: run `pip install -r "
      "requirements-slurm.txt`, or `pip install submitit`"
    ),
  ):
    submitit = importlib.import_module("submitit")
  executor = submitit.AutoExecutor(folder, cluster=options.pop("cluster"))
  options["timeout_min"] = int(60 * options.pop("hours"))
  with errors.as_user_error(
    (NameError, TypeError, ValueError, AssertionError),
    lambda error: (
      f"submitit does not take `sweep_slurm` ({errors.reason(error)}): give "
      "`partition`, `gpus`, `hours`, or names of its own, such as `mem_gb`"
    ),
  ):
    known = {_PARAMETERS.get(k, k): v for k, v in options.items()}
    executor.update_parameters(**known)
  return lambda training: _Job(executor.submit(training))
