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

  def told(self) -> tuple[int, str]:
    """Returns the last step that it printed, and its error or last line."""
    if not os.path.exists(self.log):
      return self.step(), "no output"
    with open(self.log, "rb") as file:
      file.seek(max(0, os.path.getsize(self.log) - 8192))
      text = file.read().decode(errors="replace").strip()
    steps = map(int, re.findall(r"^step (\d+)/", text, re.MULTILINE)[-1:])
    said = re.findall(r"^error: .*", text, re.MULTILINE)
    return max(self.step(), *steps, 0), (said or text.split("\n"))[-1]

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

  def __call__(self) -> None:
    """Trains to the end."""
    # Slurm tells the whole job when its time is over: `checkpoint` acts on it.
    handler = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    self.process = self.start()
    signal.signal(signal.SIGUSR2, handler)
    try:
      # Not by `wait`, which holds a lock that `checkpoint` needs.
      while self.process.poll() is None:
        time.sleep(SECONDS)
    finally:
      self.process.terminate()

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
  with errors.as_user_error(
    (ImportError, NameError, TypeError, ValueError, AssertionError),
    lambda error: (
      "there is no Slurm here, or submitit does not take `sweep_slurm` "
      f"({errors.reason(error)}): give the command where Slurm is, after `pip "
      "install -r requirements-slurm.txt`, and in `sweep_slurm` `partition`, "
      "`gpus`, `hours` and names that submitit knows, such as `mem_gb`"
    ),
  ):
    if options["cluster"] == "slurm" and shutil.which("srun") is None:
      raise ValueError("no srun")
    submitit = importlib.import_module("submitit")
    executor = submitit.AutoExecutor(folder, cluster=options.pop("cluster"))
    options["timeout_min"] = int(60 * options.pop("hours"))
    known = {_PARAMETERS.get(k, k): v for k, v in options.items()}
    executor.update_parameters(**known)
  return lambda training: _Job(executor.submit(training))
