"""Any set of runs in one table, with curves and a picture."""

from __future__ import annotations

import collections
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tabulate

from iodine import config_files, entries, evaluation, files, training
from iodine.commands import common
from iodine.drawing import canvas, charts, plotting
from iodine.studies import evaluated

Config = common.Config
Groups = Mapping[str, Sequence[evaluated.Evaluated]]
Rows = Mapping[str, Mapping[str, Any]]
Panels = dict[str, dict[str, list[Any]]]

METRICS = {"ari_nobg": "foreground ARI", "ari": "ARI"}
METRICS |= {"miou": "mIoU", "mse": "MSE"}
# Foreground ARI: Greff et al. 2019, table 1.
PAPER = {"tetrominoes": 0.992, "multi_dsprites": 0.767, "clevr6": 0.988}
# In these a config may differ from the paper's, and is still the paper's.
_MAY_DIFFER = (
  *config_files.MAY_DIFFER,
  "data.max_num_objects",
  "data.min_num_objects",
  "model.decoder.pixel_decoder.compute_dtype",
  "model.num_iters",
  "model.output_dist.component_dist.scale_val",
  "model.refinement_batch_size",
  "model.refinement_core.encoder_net.compute_dtype",
)
# What tells groups apart: names at the top before what follows from them.
_TELLING = (*entries.MODEL, *entries.OF_NAMED["own"], "stop_after_steps")
_TELLING += ("skip_nonfinite", "stages", *entries.PARTS)
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
  scenes = config["plot"]["scenes"]
  runs = [evaluated.measure_once(x, open_run, scenes) for x in folders]
  for each in runs:
    step, stop = each.found["step"], each.config["stop_after_steps"]
    if step < stop:
      print(f"{each.folder} is at step {step} of {stop}", flush=True)
  groups = group(runs, os.path.basename(shared))
  rows = {label: summarize(members) for label, members in groups.items()}
  for name, theirs in papers.items():
    if any(is_of_paper(each.config, theirs) for each in runs):
      rows[f"the paper ({name})"] = {"n": None, "ari_nobg": (PAPER[name], None)}
  print(f"\n{as_table(rows, 'simple')}\n", flush=True)
  for name, kind in (("table.md", "github"), ("table.tex", "latex_booktabs")):
    files.write(os.path.join(output, name), as_table(rows, kind) + "\n")
  files.write(os.path.join(output, "table.csv"), _as_csv(rows))
  with canvas.styled(config["plot"]):
    if panels := _curves(groups):
      figure = charts.groups_plot(panels, evaluation.catalogue.TITLES)
      canvas.save(figure, os.path.join(output, "curves"))
    if scenes:
      picture = plotting.side_by_side_plot(_same_scenes(groups))
      canvas.save(picture, os.path.join(output, "scenes"))
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
    {k: str(v) for k, v in config_files.leaves(each)}
    for each in ({k: x.config.get(k) for k in _TELLING} for x in runs)
  ]

  def count(names: Sequence[str]) -> int:
    return len({tuple(each.get(name) for name in names) for each in told})

  kept: list[str] = []
  for name in dict.fromkeys(name for each in told for name in each):
    # Of the parts, only what does not follow from a name at the top.
    others = kept if "." in name else []
    if count([*others, name]) > count(others):
      kept.append(name)
  groups = collections.defaultdict(list)
  for each, own in zip(runs, told, strict=True):
    label = ", ".join(f"{name}={own[name]}" for name in kept if name in own)
    groups[label or otherwise].append(each)
  return dict(groups)


def is_of_paper(config: Config, theirs: Config) -> bool:
  """Returns whether a config is the paper's but for how it is trained."""
  return not config_files.differences(config, theirs, ignored=_MAY_DIFFER)


def summarize(runs: Sequence[evaluated.Evaluated]) -> dict[str, Any]:
  """Returns n, folders, and by metric mean and deviation over the runs."""
  row: dict[str, Any] = {"n": len(runs)}
  for name in METRICS:
    found = [each.found.get(name, {}).get("mean") for each in runs]
    if None not in found:
      deviation = float(np.std(found, ddof=1)) if len(found) > 1 else None
      row[name] = (float(np.mean(found)), deviation)
  return {**row, "folders": " ".join(each.folder for each in runs)}


def as_table(rows: Rows, kind: str) -> str:
  """Returns a table of a kind that tabulate knows."""
  spread = evaluation.tables.spread
  cells = [
    [label, row["n"], *(m in row and spread(*row[m]) or None for m in METRICS)]
    for label, row in rows.items()
  ]
  headers = ["runs", "n", *METRICS.values()]
  text = tabulate.tabulate(
    cells, headers, kind, missingval="-", disable_numparse=True
  )
  return text.replace("±", r"$\pm$") if kind.startswith("latex") else text


def _as_csv(rows: Rows) -> str:
  headers = [f"{name}_{x}" for name in METRICS for x in ("mean", "deviation")]
  lines = [
    [label, row["n"], *(x for m in METRICS for x in row.get(m, (None, None)))]
    + [row.get("folders")]
    for label, row in rows.items()
  ]
  return evaluation.tables.csv_text(["runs", "n", *headers, "folders"], lines)


def _curves(groups: Groups) -> Panels:
  """Returns what was logged, by metric and by group."""
  panels: Panels = collections.defaultdict(dict)
  for label, members in groups.items():
    for each in members:
      logged = training.read_scalars(each.run_folder, list(_LOGGED))
      for tag, curve in logged.items():
        panels[_LOGGED[tag]].setdefault(label, []).append(curve)
  return panels


def _same_scenes(groups: Groups) -> list[tuple[str, list[plotting.Info]]]:
  """Returns decomposed scenes of runs that see what the first one sees."""
  titled = [
    (f"{os.path.basename(each.folder)}: {label}", list(each.shown))
    for label, members in groups.items()
    for each in members
  ]
  images = [
    np.array([x["data"]["image"] for x in shown]) for _, shown in titled
  ]
  is_same = [np.array_equal(x, images[0]) for x in images]
  if others := [x for (x, _), same in zip(titled, is_same) if not same]:
    print(f"other scenes, which are not drawn: {', '.join(others)}")
  return [x for x, same in zip(titled, is_same) if same]
