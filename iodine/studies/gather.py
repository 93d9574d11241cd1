"""Any set of runs in one table, with curves and a picture."""

from __future__ import annotations

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

METRICS = {
  "ari_nobg": "foreground ARI",
  "ari": "ARI",
  "miou": "mIoU",
  "mse": "MSE",
}
# Foreground ARI: Greff et al. 2019, table 1.
PAPER = {"tetrominoes": 0.992, "multi_dsprites": 0.767, "clevr6": 0.988}
# The paper's model may differ in these, and still be the paper's.
_RECIPE = (
  "model.output_dist.component_dist.scale_val",
  "model.refinement_batch_size",
  "model.num_iters",
  "model.decoder.recompute",
  "model.decoder.pixel_decoder.compute_dtype",
  "model.refinement_core.encoder_net.compute_dtype",
)
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
    if any(_is_of_paper(each.config, theirs) for each in runs):
      rows[f"the paper ({name})"] = {"n": None, "ari_nobg": (PAPER[name], None)}
  print(f"\n{as_table(rows, 'simple')}\n", flush=True)
  _write_tables(output, rows, groups)
  panels = _curves(groups)
  with canvas.styled(config["plot"]):
    if panels:
      figure = charts.groups_plot(panels, evaluation.catalogue.TITLES)
      canvas.save(figure, os.path.join(output, "curves"))
    if scenes:
      figure = plotting.side_by_side_plot(_same_scenes(groups))
      canvas.save(figure, os.path.join(output, "scenes"))
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
  names = [n for n in every if len({x.get(n) for x in leaves}) > 1]
  swept = {n for each in runs for n in _swept_beside(each.run_folder)}
  kept = [n for n in names if n in swept] or [n for n in names if "." not in n]
  # Of the rest, what does not follow from these.
  for name in names:
    if _count(leaves, [*kept, name]) > _count(leaves, kept):
      kept.append(name)
  groups: dict[str, list[evaluated.Evaluated]] = {}
  for each, own in zip(runs, leaves, strict=True):
    values = [f"{n}={own[n]}" for n in kept if n in own]
    groups.setdefault(", ".join(values) or otherwise, []).append(each)
  return groups


def _leaves(config: Config) -> dict[str, str]:
  """Returns what may tell groups apart, as text."""
  kept = {k: v for k, v in config.items() if k not in _IGNORED}
  return {
    name: value if isinstance(value, str) else json.dumps(value, default=str)
    for name, value in config_files.leaves(kept)
    if not name.startswith(("save_", "validate_"))
  }


def _swept_beside(folder: str) -> set[str]:
  root = os.path.dirname(os.path.abspath(folder))
  if not os.path.exists(os.path.join(root, sweep.TABLE)):
    return set()
  return {
    name for row in sweep.read_table(root)["runs"].values() for name in row
  }


def _count(leaves: Sequence[Mapping[str, str]], names: Sequence[str]) -> int:
  return len({tuple(each.get(name) for name in names) for each in leaves})


def summarize(runs: Sequence[evaluated.Evaluated]) -> dict[str, Any]:
  """Returns n, and by metric mean and standard deviation over the runs."""
  row: dict[str, Any] = {"n": len(runs)}
  for name in METRICS:
    found = [each.mean(name) for each in runs]
    values = [value for value in found if value is not None]
    if len(values) == len(runs):
      deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
      row[name] = (float(np.mean(values)), deviation)
  return row


def _is_of_paper(config: Config, theirs: Config) -> bool:
  """Returns whether a config has the paper's model and kind of scenes."""
  pairs = [
    [config_files.get(each, f"data.{name}") for each in (config, theirs)]
    for name in (building.CONSTRUCTOR, "dataset_variant")
  ]
  is_same_data = all(ours == other for ours, other in pairs)
  return is_same_data and not config_files.differences(
    config, theirs, ("model",), _RECIPE
  )


def as_table(rows: Mapping[str, Mapping[str, Any]], kind: str) -> str:
  """Returns a table of a kind that tabulate knows."""
  names = [
    name for name in METRICS if any(name in row for row in rows.values())
  ]
  cells = [
    [label, row["n"], *(_cell(name, *row.get(name, ())) for name in names)]
    for label, row in rows.items()
  ]
  text = tabulate.tabulate(
    cells,
    ["runs", "n", *(METRICS[name] for name in names)],
    tablefmt=kind,
    missingval="-",
    disable_numparse=True,
  )
  return text.replace("±", r"$\pm$") if kind.startswith("latex") else text


def _cell(
  name: str, mean: float | None = None, deviation: float | None = None
) -> str | None:
  if mean is None:
    return None
  digits = 4 if name == "mse" else 3
  text = f"{mean:.{digits}f}"
  return text if deviation is None else f"{text} ± {deviation:.{digits}f}"


def _write_tables(
  output: str, rows: Mapping[str, Mapping[str, Any]], groups: Groups
) -> None:
  """Writes the table as Markdown, LaTeX and CSV."""
  for name, kind in (("table.md", "github"), ("table.tex", "latex_booktabs")):
    files.write(os.path.join(output, name), as_table(rows, kind) + "\n")
  headers = ["runs", "n"]
  headers += [f"{name}_{x}" for name in METRICS for x in ("mean", "deviation")]
  lines = [
    [label, row["n"], *(v for m in METRICS for v in row.get(m, (None, None)))]
    + [" ".join(each.folder for each in groups.get(label, ()))]
    for label, row in rows.items()
  ]
  text = evaluation.tables.csv_text([*headers, "folders"], lines)
  files.write(os.path.join(output, "table.csv"), text)


def _curves(groups: Groups) -> dict[str, dict[str, list[Any]]]:
  """Returns what was logged, by metric and by group."""
  panels: dict[str, dict[str, list[Any]]] = {}
  for label, members in groups.items():
    for each in members:
      logged = training.read_scalars(each.run_folder, list(_LOGGED))
      for tag, curve in logged.items():
        named = panels.setdefault(_LOGGED[tag], {})
        named.setdefault(label, []).append(curve)
  return panels


def _same_scenes(groups: Groups) -> list[tuple[str, list[plotting.Info]]]:
  """Returns decomposed scenes of runs that see what the first one sees."""
  result: list[tuple[str, list[plotting.Info]]] = []
  for label, members in groups.items():
    for each in members:
      infos: list[plotting.Info] = list(each.shown)
      name = f"{os.path.basename(each.folder)}: {label}"
      pairs = zip(infos, result[0][1] if result else infos, strict=True)
      images = [(a["data"]["image"], b["data"]["image"]) for a, b in pairs]
      if all(np.array_equal(*pair) for pair in images):
        result.append((name, infos))
      else:
        print(f"{each.folder} sees other scenes, which are not drawn")
  return result
