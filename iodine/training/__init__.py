"""The training step, the loop around it, its curriculum and its logs."""

from iodine.training import run_folder
from iodine.training.curriculum import Stage, plan
from iodine.training.feeding import Feed
from iodine.training.held_out import HeldOut
from iodine.training.loop import (
  DivergedError,
  Listener,
  Loop,
  Outcome,
  Report,
  Schedule,
  heard_by,
  on_report,
  tell,
  uninterrupted,
)
from iodine.training.step import (
  compile_step,
  compile_steps,
  compute_gradients,
  steps_per_call,
  train_step,
)
from iodine.training.summaries import (
  OverviewImages,
  SummaryWriter,
  read_scalars,
)

__all__ = [
  "DivergedError",
  "Feed",
  "HeldOut",
  "Listener",
  "Loop",
  "Outcome",
  "OverviewImages",
  "Report",
  "Schedule",
  "Stage",
  "SummaryWriter",
  "compile_step",
  "compile_steps",
  "compute_gradients",
  "heard_by",
  "on_report",
  "plan",
  "read_scalars",
  "run_folder",
  "steps_per_call",
  "tell",
  "train_step",
  "uninterrupted",
]
