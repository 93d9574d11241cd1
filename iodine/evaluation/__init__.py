"""Metrics over a data set, and what there is to see of a model."""

from iodine.evaluation.catalogue import STANDARD, TITLES, Metric, panels
from iodine.evaluation.evaluator import (
  Data,
  Evaluation,
  Summary,
  evaluate,
  summarize,
)
from iodine.evaluation.inspection import (
  Decoder,
  Scene,
  Survey,
  foreground_slot,
  look,
  sample,
  traverse,
)
from iodine.evaluation.scores import linearize, r2, score_batch
from iodine.evaluation.tables import (
  LogScalar,
  draw_curves,
  final_table,
  generalisation_plot,
  generalisation_table,
  iteration_table,
  log,
  log_scalars,
  spread_titles,
  write_files,
)

__all__ = [
  "Data",
  "Decoder",
  "Evaluation",
  "LogScalar",
  "Metric",
  "STANDARD",
  "Scene",
  "Summary",
  "Survey",
  "TITLES",
  "draw_curves",
  "evaluate",
  "final_table",
  "foreground_slot",
  "generalisation_plot",
  "generalisation_table",
  "iteration_table",
  "linearize",
  "log",
  "log_scalars",
  "look",
  "panels",
  "r2",
  "sample",
  "score_batch",
  "spread_titles",
  "summarize",
  "traverse",
  "write_files",
]
