"""Metrics over a data set, and what there is to see of a model."""

from iodine.evaluation import catalogue, tables
from iodine.evaluation.catalogue import Metric, panels
from iodine.evaluation.decomposing import compiled, decompose_batches
from iodine.evaluation.evaluator import Evaluation, evaluate, summarize
from iodine.evaluation.inspection import (
  Decoder,
  Scene,
  SceneStatistics,
  background_first,
  decompose_scenes,
  inspect,
  sample,
  to_numpy,
  traverse,
)
from iodine.evaluation.pictures import (
  Picture,
  draw,
  draw_few,
  generalisation_plot,
)
from iodine.evaluation.scores import score, score_batch

__all__ = [
  "Decoder",
  "Evaluation",
  "Metric",
  "Picture",
  "Scene",
  "SceneStatistics",
  "background_first",
  "catalogue",
  "compiled",
  "decompose_batches",
  "decompose_scenes",
  "draw",
  "draw_few",
  "evaluate",
  "generalisation_plot",
  "inspect",
  "panels",
  "sample",
  "score",
  "score_batch",
  "summarize",
  "tables",
  "to_numpy",
  "traverse",
]
