"""The metrics of an evaluation as text: tables, and CSV for files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tabulate

from iodine.evaluation import evaluator

_FACTOR_NOTE = (
  "accuracy and r2 are over the visible objects of all scenes at once,\n"
  "which the training scalars factor/* are not: docs/evaluation.md"
)


def final_table(result: evaluator.Evaluation) -> str:
  """Returns every metric of the final decode, with its errors."""
  scenes = f"{result.num_scenes} scene{'s' if result.num_scenes > 1 else ''}"
  titles = spread_titles(result)
  rows = {name: x[: len(titles)] for name, x in result.metrics.items()}
  table = _tabulate([scenes, *titles], rows)
  return f"{table}\n{_FACTOR_NOTE}" if "factor" in result.metrics else table


def spread_titles(result: evaluator.Evaluation) -> list[str]:
  """Returns what the numbers of an `evaluator.Summary` are called."""
  titles = ["mean", "standard error"]
  if result.seeds > 1:
    titles.append(f"deviation, {result.seeds} seeds")
  return titles


def iteration_table(result: evaluator.Evaluation) -> str:
  """Returns the main metrics after each number of refinements."""
  names, means = result.main_metrics, result.means()
  steps = range(result.num_iters + 1)
  rows = {t: [means[name][t] for name in names] for t in steps}
  return _tabulate(["step", *names], rows)


def generalisation_table(results: Sequence[evaluator.Evaluation]) -> str:
  """Returns the main metrics at each number of slots."""
  names = results[0].main_metrics
  rows = {r.num_components: [r.metrics[n].mean for n in names] for r in results}
  return _tabulate(["slots", *names], rows)


def _tabulate(
  headers: Sequence[str], rows: Mapping[Any, Iterable[float | None]]
) -> str:
  """Returns a table of rows, {first cell: numbers}."""
  return tabulate.tabulate(
    [[str(x), *map(evaluator.finite, row)] for x, row in rows.items()],
    headers=headers,
    floatfmt=".4f",
    missingval="-",
    disable_numparse=[0],
    colalign=("left",),
  )


def spread(mean: float | None, standard_deviation: float | None) -> str:
  """Returns a cell of a mean and its deviation, each where there is one."""
  numbers = [x for x in (mean, standard_deviation) if x is not None]
  return " ± ".join(f"{number:.4f}" for number in numbers) or "-"


# ------------------------------------------------------------------------- CSV


# Of `as_csv`, the summary's follow.
CSV_HEADERS = ("num_components", "metric", "iteration")


def as_csv(result: evaluator.Evaluation) -> str:
  """Returns a row for every number of slots, metric and iteration."""
  rows: list[Sequence[Any]] = []
  runs = {r.num_components: r for r in (result, *result.generalisation)}
  for k, run in runs.items():
    for name, summaries_over_time in run.per_iteration.items():
      for t, summary in enumerate(summaries_over_time):
        rows.append([k, name, t, *map(evaluator.finite, summary)])
    for name, summary in run.metrics.items():
      if name not in run.per_iteration:
        rows.append([k, name, None, *map(evaluator.finite, summary)])
  return csv_text((*CSV_HEADERS, *evaluator.Summary._fields), rows)


def scenes_as_csv(result: evaluator.Evaluation) -> str:
  """Returns a row for every scene, with its metrics of the final decode."""
  rows = zip(*result.scenes.values(), strict=True)
  return csv_text(
    ["scene", *result.scenes],
    ([i, *map(evaluator.finite, row)] for i, row in enumerate(rows)),
  )


def csv_text(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
  """Returns rows as text; None becomes an empty cell."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(headers)
  writer.writerows(rows)
  return text.getvalue()
