"""Any set of runs in one table, with pictures; two of them scene by scene."""

from __future__ import annotations

import collections
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tabulate

from iodine import config_files, entries, errors, evaluation, files, training
from iodine.commands import common
from iodine.drawing import canvas, charts, plotting
from iodine.studies import evaluated

Config = common.Config
Groups = Mapping[str, Sequence[evaluated.Evaluated]]
Rows = Mapping[str, Mapping[str, Any]]

METRICS = {"ari_nobg": "foreground ARI", "ari": "ARI"}
METRICS |= {"miou": "mIoU", "mse": "MSE"}
# Foreground ARI: Greff et al. 2019, table 1.
PAPER = {"tetrominoes": 0.992, "multi_dsprites": 0.767, "clevr6": 0.988}
# In these data sets may differ, and have the same scenes.
_NOT_OF_SCENES = {"batch_size", "cache", "seed", "shuffle_buffer", "train"}
# In these a config may differ from the paper's, and still be the paper's.
_RECIPE = {"compute_dtype", "num_iters", "recompute", "refinement_batch_size"}
_RECIPE |= {"max_num_objects", "min_num_objects", "num_test_scenes", "path"}
_RECIPE |= {"scale_val", "test", *_NOT_OF_SCENES}
# What tells groups apart: names at the top before what follows from them.
_TELLING = (*entries.MODEL, *entries.OF_NAMED["own"], "stop_after_steps")
_TELLING += ("skip_nonfinite", "stages", *entries.PARTS)
_OF_MODEL = ("model", "data")
_LOGGED = {"loss/total": "total", "loss/ari_nobg": "ari_nobg"}


def run(
  config: Config,
  open_run: evaluated.OpenRun,
  papers: Mapping[str, Config],
) -> dict[str, Any]:
  """Evaluates runs, and writes table, curves and a picture.

  Args:
    config: the complete config, with `runs`, `output` and `plot.scenes`.
    open_run: see `evaluated.OpenRun`.
    papers: the configs of the paper's experiments, by those names of `PAPER`.

  Returns:
    By group, what the table has.
  """
  folders, scenes = evaluated.find(config["runs"]), config["plot"]["scenes"]
  shared = os.path.commonpath([os.path.abspath(x) for x in folders])
  output = config["output"] or os.path.relpath(os.path.join(shared, "gathered"))
  files.check_folder(output)
  runs = [evaluated.measure_once(x, open_run, scenes) for x in folders]
  for each in runs:
    step, stop = each.found["step"], each.config["stop_after_steps"]
    if step < stop:
      print(f"{each.folder} is at step {step} of {stop}", flush=True)
  groups = group(runs, os.path.basename(shared))
  rows = {label: summarize(members) for label, members in groups.items()}
  empty = summarize([])
  for name, theirs in papers.items():
    if any(is_of_paper(each.config, theirs) for each in runs):
      rows[f"the paper ({name})"] = {**empty, "ari_nobg_mean": PAPER[name]}
  print(f"\n{as_table(rows, 'simple')}\n", flush=True)
  lines = [[label, *row.values()] for label, row in rows.items()]
  for name, text in (
    ("table.md", as_table(rows, "github")),
    ("table.tex", as_table(rows, "latex_booktabs")),
    ("table.csv", evaluation.tables.csv_text(["runs", *empty], lines)),
  ):
    files.write(os.path.join(output, name), text)
  _draw(config["plot"], groups, output)
  print(f"tables, curves and scenes: {output}", flush=True)
  return rows


def group(
  runs: Sequence[evaluated.Evaluated], otherwise: str
) -> dict[str, list[evaluated.Evaluated]]:
  """Returns runs by that in which they differ beside `seed`.

  Args:
    runs: which.
    otherwise: the name of the group where they differ in nothing else.
  """
  told = [
    dict(config_files.leaves({k: each.config.get(k) for k in _TELLING}))
    for each in runs
  ]

  def labels(names: Sequence[str]) -> list[str]:
    return [
      ", ".join(f"{name}={own[name]}" for name in names if name in own)
      for own in told
    ]

  kept: list[str] = []
  for name in dict.fromkeys(name for own in told for name in own):
    # Of the parts, only what does not follow from names at the top.
    others = kept if "." in name else []
    if len({*labels([*others, name])}) > len({*labels(others)}):
      kept.append(name)
  groups = collections.defaultdict(list)
  for label, each in zip(labels(kept), runs, strict=True):
    groups[label or otherwise].append(each)
  return dict(groups)


def is_of_paper(config: Config, theirs: Config) -> bool:
  """Returns whether a config differs from the paper's in its recipe at most."""
  ours, paper = (
    {
      path: value
      for path, value in config_files.leaves({k: x[k] for k in _OF_MODEL})
      # What an older config does not know is off in a newer one.
      if value and path.rpartition(".")[2] not in _RECIPE
    }
    for x in (config, theirs)
  )
  return ours == paper


def summarize(runs: Sequence[evaluated.Evaluated]) -> dict[str, Any]:
  """Returns n, mean and deviation of each metric over the runs, and folders."""
  row: dict[str, Any] = {"n": len(runs) or None}
  for name in METRICS:
    means = [each.found.get(name, {}).get("mean") for each in runs]
    means = [] if None in means else means
    deviation = float(np.std(means, ddof=1)) if len(means) > 1 else None
    row[f"{name}_mean"] = float(np.mean(means)) if means else None
    row[f"{name}_deviation"] = deviation
  return {**row, "folders": " ".join(each.folder for each in runs)}


def as_table(rows: Rows, kind: str) -> str:
  """Returns a table of a kind that tabulate knows."""
  spread = evaluation.tables.spread
  names = [(f"{name}_mean", f"{name}_deviation") for name in METRICS]
  cells = [
    [label, row["n"], *(spread(row[x], row[y]) for x, y in names)]
    for label, row in rows.items()
  ]
  headers = ["runs", "n", *METRICS.values()]
  text = tabulate.tabulate(
    cells, headers, kind, missingval="-", disable_numparse=True
  )
  is_latex = kind.startswith("latex")
  return (text.replace("±", r"$\pm$") if is_latex else text) + "\n"


def _draw(options: Config, groups: Groups, output: str) -> None:
  """Draws what was logged, and the scenes that were decomposed."""
  panels: dict[str, dict[str, list[Any]]] = collections.defaultdict(dict)
  rows = []
  for label, members in groups.items():
    for each in members:
      rows.append((f"{os.path.basename(each.folder)}: {label}", each.shown))
      logged = training.read_scalars(each.run_folder, list(_LOGGED))
      for tag, curve in logged.items():
        panels[_LOGGED[tag]].setdefault(label, []).append(curve)
  with canvas.styled(options):
    if panels:
      figure = charts.groups_plot(panels, evaluation.catalogue.TITLES)
      canvas.save(figure, os.path.join(output, "curves"))
    if options["scenes"]:
      figure = plotting.side_by_side_plot(rows)
      canvas.save(figure, os.path.join(output, "scenes"))


def compare(config: Config, open_run: evaluated.OpenRun) -> dict[str, Any]:
  """Compares two runs scene by scene, in a table and as JSON.

  Args:
    config: the complete config, with `runs`.
    open_run: see `evaluated.OpenRun`.

  Returns:
    By the name of a metric: the means, their difference, its standard error.
  """
  folders, json_path = evaluated.find(config["runs"]), config["json_path"]
  if len(folders) != 2:
    raise errors.UserError(
      f"`runs` has {len(folders)} runs: give two, such as "
      "`'runs=[runs/a,runs/b]'`"
    )
  first, second = (evaluated.measure_once(x, open_run) for x in folders)
  ignored = [f"data.{name}" for name in _NOT_OF_SCENES]
  differences = config_files.differences(
    first.config, second.config, ("data",), ignored
  )
  ours, theirs = (each.found["scenes"] for each in (first, second))
  if differences or len(ours["mse"]) != len(theirs["mse"]):
    raise errors.UserError(
      "the runs are not evaluated on the same scenes "
      f"({differences or 'there are not as many'}): give these entries in "
      "this call, such as `data.path=` and `evaluation.num_scenes=`"
    )
  result = {k: paired(ours[k], theirs[k]) for k in ours if k in theirs}
  headers = ["metric", *folders, "difference", "standard error", "scenes"]
  rows = [[name, *row.values()] for name, row in result.items()]
  table = tabulate.tabulate(rows, headers, floatfmt=".4f", missingval="-")
  print(f"\n{table}\n\nthe first minus the second, scene by scene", flush=True)
  if json_path is not None:
    files.write_json(json_path, {"runs": folders, **result})
    print(f"differences: {json_path}", flush=True)
  return result


def paired(first: Sequence[Any], second: Sequence[Any]) -> dict[str, Any]:
  """Returns means, their difference, and its error over pairs of scenes."""
  pairs = np.array([first, second], np.float64)
  # Scenes without objects have no value of some metrics.
  pairs = pairs[:, ~np.isnan(pairs).any(axis=0)]
  of_pairs = (*pairs, pairs[0] - pairs[1])
  ours, theirs, difference = map(evaluation.summarize, of_pairs)
  means = {"first": ours.mean, "second": theirs.mean}
  means["difference"] = difference.mean
  return {**means, "error": difference.standard_error, "scenes": pairs.shape[1]}
