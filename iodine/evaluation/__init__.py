"""Metrics over a data set, and what there is to see of a model."""

from iodine.evaluation.catalogue import (
  STANDARD,
  TITLES,
  Metric,
  find_metric,
  panels,
)
from iodine.evaluation.evaluator import (
  Data,
  Evaluation,
  Evaluator,
  Summary,
  evaluate,
  pad,
  summarize,
)
from iodine.evaluation.inspection import (
  Decoder,
  Scene,
  Survey,
  background_first,
  foreground_slot,
  look,
  sample,
  to_numpy,
  traverse,
)
from iodine.evaluation.pictures import (
  Picture,
  View,
  draw,
  generalisation_plot,
)
from iodine.evaluation.scores import linearize, r2, score_batch
from iodine.evaluation.tables import (
  CSV_HEADERS,
  as_csv,
  final_table,
  generalisation_table,
  iteration_table,
  scenes_as_csv,
  spread_titles,
)

__all__ = [
  "STANDARD",
  "TITLES",
  "Data",
  "Decoder",
  "Evaluation",
  "Evaluator",
  "Metric",
  "Picture",
  "Scene",
  "Summary",
  "Survey",
  "View",
  "CSV_HEADERS",
  "as_csv",
  "background_first",
  "draw",
  "evaluate",
  "final_table",
  "find_metric",
  "foreground_slot",
  "generalisation_plot",
  "generalisation_table",
  "iteration_table",
  "linearize",
  "look",
  "pad",
  "panels",
  "r2",
  "sample",
  "scenes_as_csv",
  "score_batch",
  "spread_titles",
  "summarize",
  "to_numpy",
  "traverse",
]
