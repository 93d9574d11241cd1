"""The training step, the loop around it, its curriculum and its logs."""

from iodine.training.curriculum import Stage, plan
from iodine.training.loop import (
  CompiledStep,
  Outcome,
  Report,
  Schedule,
  compute_gradients,
  train,
  train_step,
)
from iodine.training.summaries import (
  OverviewImages,
  SummaryWriter,
  read_scalars,
)

__all__ = [
  "CompiledStep",
  "Outcome",
  "OverviewImages",
  "Report",
  "Schedule",
  "Stage",
  "SummaryWriter",
  "compute_gradients",
  "plan",
  "read_scalars",
  "train",
  "train_step",
]
