"""Any set of runs in one table, with curves and a picture."""

from __future__ import annotations

import collections
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tabulate

from iodine import building, config_files, entries, evaluation, files, training
from iodine.commands import common
from iodine.drawing import canvas, charts, plotting
from iodine.studies import evaluated, sweep

Config = common.Config
Groups = Mapping[str, Sequence[evaluated.Evaluated]]
Rows = Mapping[str, Mapping[str, Any]]

METRICS = {"ari_nobg": "foreground ARI", "ari": "ARI"}
METRICS |= {"miou": "mIoU", "mse": "MSE"}
# Foreground ARI: Greff et al. 2019, table 1.
PAPER = {"tetrominoes": 0.992, "multi_dsprites": 0.767, "clevr6": 0.988}
# The paper's model may differ in these, and still be the paper's.
_RECIPE = {"scale_val", "num_iters", "recompute", "compute_dtype"}
_RECIPE |= {"refinement_batch_size"}
# What makes no group of its own.
_IGNORED = {"seed", "evaluation", "plot", "benchmark", "segment"}
_IGNORED |= {"generated_path", "num_scenes", *entries.OF_CALL}
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
  folders = evaluated.find(config["runs"])
  shared = os.path.commonpath([os.path.abspath(x) for x in folders])
  output = config["output"] or os.path.relpath(os.path.join(shared, "gathered"))
  files.check_folder(output)
  scenes = list(dict.fromkeys(config["plot"]["scenes"]))
  runs = [evaluated.measure_once(x, open_run, scenes) for x in folders]
  for each in runs:
    step, stop = each.found["step"], each.config["stop_after_steps"]
    if step < stop:
      print(f"{each.folder} is at step {step} of {stop}", flush=True)
  groups = group(runs, os.path.basename(shared))
  rows = {label: summarize(members) for label, members in groups.items()}
  for name, theirs in papers.items():
    if kind_of(theirs) in [kind_of(each.config) for each in runs]:
      rows[f"the paper ({name})"] = {"n": None, "ari_nobg": (PAPER[name], None)}
  print(f"\n{as_table(rows, 'simple')}\n", flush=True)
  for name, kind in (("table.md", "github"), ("table.tex", "latex_booktabs")):
    files.write(os.path.join(output, name), as_table(rows, kind) + "\n")
  files.write(os.path.join(output, "table.csv"), _as_csv(rows, groups))
  if panels := _curves(groups):
    canvas.save(charts.groups_plot(panels), os.path.join(output, "curves.png"))
  if scenes:
    picture = plotting.side_by_side_plot(_same_scenes(groups))
    canvas.save(picture, os.path.join(output, "scenes.png"))
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
  leaves = [_leaves(each.config) for each in runs]
  every = dict.fromkeys(name for each in leaves for name in each)
  names = [n for n in every if _count(leaves, [n]) > 1]
  roots = {os.path.dirname(os.path.abspath(x.run_folder)) for x in runs}
  tables = [sweep.read_table(root).get("runs", {}) for root in roots]
  swept = {n for table in tables for row in table.values() for n in row}
  kept = [n for n in names if n in swept] or [n for n in names if "." not in n]
  # Of the rest, what does not follow from these.
  for name in names:
    if _count(leaves, [*kept, name]) > _count(leaves, kept):
      kept.append(name)
  groups = collections.defaultdict(list)
  for each, own in zip(runs, leaves, strict=True):
    label = ", ".join(f"{n}={own[n]}" for n in kept if n in own)
    groups[label or otherwise].append(each)
  return dict(groups)


def _leaves(config: Config) -> dict[str, str]:
  """Returns what may tell groups apart, as text."""
  kept = {k: v for k, v in config.items() if k not in _IGNORED}
  return {
    name: value if isinstance(value, str) else json.dumps(value, default=str)
    for name, value in config_files.leaves(kept)
    if not name.startswith(("save_", "validate_"))
  }


def _count(leaves: Sequence[Mapping[str, str]], names: Sequence[str]) -> int:
  return len({tuple(each.get(name) for name in names) for each in leaves})


def summarize(runs: Sequence[evaluated.Evaluated]) -> dict[str, Any]:
  """Returns n, and by metric mean and standard deviation over the runs."""
  row: dict[str, Any] = {"n": len(runs)}
  for name in METRICS:
    found = [each.found.get(name, {}).get("mean") for each in runs]
    if None not in found:
      deviation = float(np.std(found, ddof=1)) if len(found) > 1 else None
      row[name] = (float(np.mean(found)), deviation)
  return row


def kind_of(config: Config) -> dict[str, str]:
  """Returns what a config has in common with others of the same experiment."""
  names = (building.CONSTRUCTOR, "dataset_variant")
  data = {name: config["data"].get(name) for name in names}
  return {
    name: value
    for name, value in _leaves({"model": config["model"], "data": data}).items()
    # What an older config does not know is off in a newer one.
    if value not in ("null", "false", "0", "0.0")
    and name.rpartition(".")[2] not in _RECIPE
  }


def as_table(rows: Rows, kind: str) -> str:
  """Returns a table of a kind that tabulate knows."""
  spread = evaluation.tables.spread
  cells = [
    {"runs": label, "n": row["n"]}
    | {METRICS[name]: spread(*row[name]) for name in METRICS if name in row}
    for label, row in rows.items()
  ]
  text = tabulate.tabulate(
    cells, "keys", kind, missingval="-", disable_numparse=True
  )
  return text.replace("±", r"$\pm$") if kind.startswith("latex") else text


def _as_csv(rows: Rows, groups: Groups) -> str:
  headers = [f"{name}_{x}" for name in METRICS for x in ("mean", "deviation")]
  lines = [
    [label, row["n"], *(v for m in METRICS for v in row.get(m, (None, None)))]
    + [" ".join(each.folder for each in groups.get(label, ()))]
    for label, row in rows.items()
  ]
  return evaluation.tables.csv_text(["runs", "n", *headers, "folders"], lines)


def _curves(groups: Groups) -> dict[str, dict[str, list[Any]]]:
  """Returns what was logged, by the titles of metrics and by group."""
  panels: dict[str, dict[str, list[Any]]] = {}
  for label, members in groups.items():
    for each in members:
      logged = training.read_scalars(each.run_folder, list(_LOGGED))
      for tag, curve in logged.items():
        title = evaluation.catalogue.TITLES[_LOGGED[tag]]
        panels.setdefault(title, {}).setdefault(label, []).append(curve)
  return panels


def _same_scenes(groups: Groups) -> list[tuple[str, list[plotting.Info]]]:
  """Returns decomposed scenes of runs that see what the first one sees."""
  result: list[tuple[str, list[plotting.Info]]] = []
  for label, members in groups.items():
    for each in members:
      name = f"{os.path.basename(each.folder)}: {label}"
      first = result[0][1] if result else each.shown
      if np.array_equal(_images(first), _images(each.shown)):
        result.append((name, list(each.shown)))
      else:
        print(f"{each.folder} sees other scenes, which are not drawn")
  return result


def _images(infos: Sequence[plotting.Info]) -> list[np.ndarray]:
  return [info["data"]["image"] for info in infos]
