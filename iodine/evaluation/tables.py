"""What becomes of the figures of an evaluation: tables, files, logs, curves."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import tabulate
import tensorflow as tf
from matplotlib.figure import Figure

from iodine import files, training
from iodine.drawing import canvas, curves
from iodine.evaluation import catalogue, evaluator

LogScalar = Callable[[str, float, int], None]

_FACTOR_NOTE = (
  "accuracy and r2 are over the visible objects of all scenes at once,\n"
  "which the training scalars factor/* are not: docs/evaluation.md"
)


def final_table(result: evaluator.Evaluation) -> str:
  """Every metric of the final decode, with its errors."""
  scenes = f"{result.num_scenes} scene{'s' if result.num_scenes > 1 else ''}"
  headers = [scenes, *spread_titles(result)]
  rows = [
    [name, *(_number(value) for value in summary)][: len(headers)]
    for name, summary in result.metrics.items()
  ]
  table = _tabulate(rows, headers)
  return f"{table}\n{_FACTOR_NOTE}" if "factor" in result.metrics else table


def spread_titles(result: evaluator.Evaluation) -> list[str]:
  """What the numbers of an `evaluator.Summary` are called."""
  titles = ["mean", "standard error"]
  if result.seeds > 1:
    titles.append(f"deviation, {result.seeds} seeds")
  return titles


def iteration_table(result: evaluator.Evaluation) -> str:
  """The means of the main metrics after each number of refinements."""
  names = result.main_metrics
  means = result.means()
  rows = [
    [str(t), *(_number(means[name][t]) for name in names)]
    for t in range(result.num_iters + 1)
  ]
  return _tabulate(rows, ["step", *names])


def generalisation_table(results: Sequence[evaluator.Evaluation]) -> str:
  """The means of the main metrics at each number of slots."""
  names = results[0].main_metrics
  rows = [
    [
      str(result.num_components),
      *(_number(result.metrics[name].mean) for name in names),
    ]
    for result in results
  ]
  return _tabulate(rows, ["slots", *names])


def _tabulate(rows: Sequence[Sequence[Any]], headers: Sequence[str]) -> str:
  return tabulate.tabulate(
    rows,
    headers=headers,
    floatfmt=".4f",
    missingval="-",
    disable_numparse=[0],
    colalign=("left",),
  )


def _number(value: float | None) -> float | None:
  """None for what is no number."""
  return value if value is not None and math.isfinite(value) else None


# ----------------------------------------------------------------------- files


def as_csv(result: evaluator.Evaluation) -> str:
  """One row for every number of slots, metric and iteration."""
  headers = ["num_components", "metric", "iteration"]
  headers += evaluator.Summary._fields
  rows: list[Sequence[Any]] = []
  runs = {r.num_components: r for r in (result, *result.generalisation)}
  for k, run in runs.items():
    for name, summaries_over_time in run.per_iteration.items():
      for t, summary in enumerate(summaries_over_time):
        rows.append([k, name, t, *map(_number, summary)])
    for name, summary in run.metrics.items():
      if name not in run.per_iteration:
        rows.append([k, name, None, *map(_number, summary)])
  return _csv_text(headers, rows)


def scenes_as_csv(result: evaluator.Evaluation) -> str:
  """One row for every scene, with its metrics of the final decode."""
  rows = zip(*result.scenes.values(), strict=True)
  return _csv_text(
    ["scene", *result.scenes],
    ([i, *map(_number, row)] for i, row in enumerate(rows)),
  )


def _csv_text(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
  """None becomes an empty cell."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(headers)
  writer.writerows(rows)
  return text.getvalue()


def write_files(
  result: evaluator.Evaluation, paths: Mapping[str, str | None]
) -> None:
  """Writes those files that are asked for, and says which.

  Args:
    result: the evaluation.
    paths: paths under json_path, csv_path and scenes_csv; None for no file.

  Raises:
    errors.UserError: if one cannot be written.
  """
  if paths["json_path"] is not None:
    files.write_json(paths["json_path"], result.as_json())
    print(f"figures: {paths['json_path']}", flush=True)
  if paths["csv_path"] is not None:
    files.write(paths["csv_path"], as_csv(result))
    print(f"figures: {paths['csv_path']}", flush=True)
  if paths["scenes_csv"] is not None:
    files.write(paths["scenes_csv"], scenes_as_csv(result))
    print(f"figures of every scene: {paths['scenes_csv']}", flush=True)


# ------------------------------------------------------------ logs and curves


def log(
  result: evaluator.Evaluation,
  folder: str,
  step: int,
  log_scalar: LogScalar,
) -> None:
  """Sends the means to Sacred and to TensorBoard, as evaluation/<metric>.

  Sacred gets all iterations, which are the steps there, and TensorBoard the
  final ones. Where its folder cannot be written there are none.

  Args:
    result: the evaluation.
    folder: for TensorBoard.
    step: of the checkpoint.
    log_scalar: takes name, value and iteration.
  """
  log_scalars(result, log_scalar)
  means = {
    f"evaluation/{name}": value.mean for name, value in result.metrics.items()
  }
  try:
    os.makedirs(folder, exist_ok=True)
    training.SummaryWriter(folder).scalars(step, means)
  except (OSError, tf.errors.OpError):
    print(f"no TensorBoard scalars: `{folder}` cannot be written", flush=True)
  else:
    print(f"TensorBoard scalars: {folder}", flush=True)


def log_scalars(result: evaluator.Evaluation, log_scalar: LogScalar) -> None:
  """Sends the means of all iterations to Sacred, see `log`."""
  for name, summaries_over_time in result.per_iteration.items():
    for t, summary in enumerate(summaries_over_time):
      log_scalar(f"evaluation/{name}", summary.mean, t)
  for name, summary in result.metrics.items():
    if name not in result.per_iteration:
      log_scalar(f"evaluation/{name}", summary.mean, result.num_iters)


def draw_curves(
  results: Sequence[evaluator.Evaluation], trained: curves.Trained, folder: str
) -> None:
  """Writes generalisation.png."""
  path = os.path.join(folder, "generalisation.png")
  canvas.save(generalisation_plot(results, trained), path)
  print(f"curves: {path}", flush=True)


def generalisation_plot(
  results: Sequence[evaluator.Evaluation], trained: curves.Trained
) -> Figure:
  """The curves of several numbers of slots."""
  return curves.generalisation_plot(
    [
      curves.SlotCurve(r.num_components, r.means(), r.standard_errors())
      for r in results
    ],
    trained,
    catalogue.TITLES,
  )
