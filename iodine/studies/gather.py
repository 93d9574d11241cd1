"""Any set of runs in one table, with pictures; two of them scene by scene.

A run is evaluated once: what came of it is kept as JSON beside it.
"""

from __future__ import annotations

import collections
import glob
import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tabulate

from iodine import (
  checkpoints,
  config_files,
  entries,
  errors,
  evaluation,
  files,
  kinds,
  replicas,
  training,
)
from iodine.commands import common, evaluate
from iodine.drawing import canvas, charts, plotting
from iodine.readers import paths

differ = config_files.differences

Config = common.Config
# Takes a run's folder; returns the config that `evaluate` has, the checkpoint.
OpenRun = Callable[[str], tuple[Config, checkpoints.Opened | str]]
Rows = Mapping[str, Mapping[str, Any]]

METRICS = {"ari_nobg": "foreground ARI", "ari": "ARI"}
METRICS |= {"miou": "mIoU", "mse": "MSE"}
# Foreground ARI: Greff et al. 2019, table 1.
PAPER = {"tetrominoes": 0.992, "multi_dsprites": 0.767, "clevr6": 0.988}
# In these data sets may differ, and have the same scenes.
_NOT_OF_SCENES = {"batch_size", "cache", "seed", "shuffle_buffer", "train"}
# In these a config may differ from the paper's, and still be the paper's.
RECIPE = {"compute_dtype", "num_iters", "recompute", "refinement_batch_size"}
RECIPE |= {"max_num_objects", "min_num_objects", "num_test_scenes", "path"}
RECIPE |= {"scale_val", "test", *_NOT_OF_SCENES}
# What tells groups apart: names at the top before what follows from them.
_TELLING = (*entries.MODEL, *entries.OF_NAMED["own"], "stop_after_steps")
_TELLING += ("skip_nonfinite", "stages", *entries.PARTS)
_LOGGED = {"loss/total": "total", "loss/ari_nobg": "ari_nobg"}


class Evaluated(NamedTuple):
  """A run with its evaluation.

  Attributes:
    folder: as it was given, or the prefix of one checkpoint.
    run_folder: the folder with its logs.
    config: the one that it was evaluated with.
    found: what `json_path` of `evaluate` has, and `scenes`: by the name of a
      metric the values of all scenes.
    tiles: of decomposed scenes, see `plotting.compared_tiles`.
  """

  folder: str
  run_folder: str
  config: Config
  found: dict[str, Any]
  tiles: list[canvas.Tile]


def run(
  config: Config, open_run: OpenRun, papers: Mapping[str, Config]
) -> dict[str, Any]:
  """Evaluates runs, and writes tables, curves and a picture.

  Args:
    config: the complete config, with `runs`, `output` and `plot.scenes`.
    open_run: see `OpenRun`.
    papers: the configs of the paper's experiments, by those names of `PAPER`.

  Returns:
    By group, what the table has.
  """
  folders, scenes = find(config["runs"]), config["plot"]["scenes"]
  shared = os.path.commonpath(
    [os.path.dirname(os.path.abspath(x)) for x in folders]
  )
  output = config["output"] or os.path.relpath(os.path.join(shared, "gathered"))
  files.check_folder(output)
  runs = [measure_once(x, open_run, scenes) for x in folders]
  groups = group(runs, os.path.basename(shared))
  rows = {label: summarize(members) for label, members in groups.items()}
  empty = summarize([])
  for name, paper in papers.items():
    if not all(differ(each.config, paper, ignored=RECIPE) for each in runs):
      rows[f"the paper ({name})"] = {**empty, "ari_nobg_mean": PAPER[name]}
  print(f"\n{as_table(rows, 'simple')}\n", flush=True)
  lines = [[label, *row.values()] for label, row in rows.items()]
  latex = as_table(rows, "latex_booktabs").replace("±", r"$\pm$")
  for kind, text in {
    "md": as_table(rows, "github"),
    "tex": latex,
    "csv": evaluation.tables.csv_text(["runs", *empty], lines),
  }.items():
    files.write(os.path.join(output, f"table.{kind}"), text)
  if len(runs) == 2:
    compare(runs[0], runs[1], output)
  _draw(config["plot"], groups, output)
  print(f"tables, curves and scenes: {output}", flush=True)
  return rows


def find(runs: Any) -> list[str]:
  """Returns the runs that folders are, or have in them; or globs, or a list."""
  kinds.check("runs", runs, kinds.Path | list[kinds.Path])
  if isinstance(runs, str):
    # A shell's `[runs/a,runs/b]` is no list to Sacred.
    runs = re.sub(r"^\[(.*)\]$", r"\1", runs).split(",")
  found: list[str] = []
  for path in (each.strip(" '\"") for each in runs):
    inside = [path] if files.is_packed(path) else []
    inside += [x.removesuffix(".index") for x in glob.glob(f"{path}.index")]
    for pattern in (f"{path}/*.index", f"{path}/*_*/*.index"):
      inside += map(os.path.dirname, glob.glob(pattern))
    if not inside:
      raise errors.UserError(
        f"there is no checkpoint of a run at `{path}`: give `runs` the folders "
        "that trainings or `sweep` printed"
      )
    found += sorted(map(os.path.normpath, inside), key=paths.by_number)
  return list(dict.fromkeys(found))


def measure_once(
  folder: str, open_run: OpenRun, scenes: Sequence[int] = ()
) -> Evaluated:
  """Evaluates a run as `evaluate` does, unless that was done before.

  Args:
    folder: of the run.
    open_run: see `OpenRun`.
    scenes: numbers of those to decompose, which is not kept.
  """
  config, checkpoint = open_run(folder)
  opened = checkpoints.open_checkpoint(checkpoint)
  evaluate.check(config)
  if opened.step < config["stop_after_steps"]:
    stop = config["stop_after_steps"]
    print(f"{folder} is at step {opened.step} of {stop}", flush=True)
  stem = f"{os.path.basename(opened.prefix)}-{evaluate.digest(config, opened)}"
  name = os.path.join("evaluations", f"{stem}.json")
  path = common.results_path(config, opened.prefix, name)
  tiles: list[canvas.Tile] = []
  if scenes or not os.path.exists(path):
    files.check_folder(os.path.dirname(path))
    strategy = replicas.make_strategy(config)
    dataset, batches = evaluate.open_scenes(config)
    models = evaluate.restore(config, opened, strategy)
    if not os.path.exists(path):
      result = evaluate.measure(config, models, dataset, batches, strategy)
      found = evaluate.as_json(config, opened, result)
      files.write_json(path, {**found, "scenes": result.scenes})
    (own, *_), unread = models.values(), dataset.batches("test")
    shown, _ = evaluation.decompose_scenes(
      own.model, unread, dataset.batch_size, scenes, seed=config["seed"]
    )
    tiles = plotting.compared_tiles(each.info for each in shown)
  # Also what was measured just now, so that it is the same the next time.
  found = files.read_json(path)
  run_folder = checkpoints.run_folder(opened.prefix)
  return Evaluated(folder, run_folder, config, found, tiles)


def group(
  runs: Sequence[Evaluated], otherwise: str
) -> dict[str, list[Evaluated]]:
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
  for name in dict.fromkeys(itertools.chain(*told)):
    # Of the parts, only what does not follow from names at the top.
    others = kept if "." in name else []
    if len({*labels([*others, name])}) > len({*labels(others)}):
      kept.append(name)
  groups = collections.defaultdict(list)
  for label, each in zip(labels(kept), runs, strict=True):
    groups[label or otherwise].append(each)
  return groups


def summarize(runs: Sequence[Evaluated]) -> dict[str, Any]:
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
  options = {"missingval": "-", "disable_numparse": True}
  headers = ["runs", "n", *METRICS.values()]
  return tabulate.tabulate(cells, headers, kind, **options) + "\n"


def compare(first: Evaluated, second: Evaluated, output: str) -> None:
  """Compares two runs scene by scene, in a table, if they saw the same."""
  ours, theirs = (each.found["scenes"] for each in (first, second))
  others = differ(first.config, second.config, ("data",), _NOT_OF_SCENES)
  if others or len(ours["mse"]) != len(theirs["mse"]):
    print(
      "not compared scene by scene, as they saw others "
      f"({others or 'not as many'}): give these entries, or "
      "`evaluation.num_scenes=`, in this call\n"
    )
    return
  rows = [[k, *paired(ours[k], theirs[k])] for k in ours if k in theirs]
  headers = ["metric", first.folder, second.folder, "difference"]
  headers += ["standard error", "scenes"]
  table = tabulate.tabulate(rows, headers, floatfmt=".4f", missingval="-")
  print(f"{table}\n\nthe first minus the second, scene by scene\n", flush=True)
  text = evaluation.tables.csv_text(headers, rows)
  files.write(os.path.join(output, "differences.csv"), text)


def paired(first: Sequence[Any], second: Sequence[Any]) -> list[float | None]:
  """Returns means, their difference and its error, and the number of scenes."""
  pairs = np.array([first, second], np.float64)
  # Scenes without objects have no value of some metrics.
  pairs = pairs[:, ~np.isnan(pairs).any(axis=0)]
  of_pairs = (*pairs, pairs[0] - pairs[1])
  ours, theirs, difference = map(evaluation.summarize, of_pairs)
  means = [ours.mean, theirs.mean, difference.mean]
  return [*means, difference.standard_error, pairs.shape[1]]


def _draw(
  options: Config, groups: Mapping[str, Sequence[Evaluated]], output: str
) -> None:
  """Draws what was logged, and the scenes that were decomposed."""
  panels: dict[str, dict[str, list[Any]]] = collections.defaultdict(dict)
  rows = []
  for label, members in groups.items():
    for each in members:
      title = f"{os.path.basename(each.folder)}: {label}"
      rows.append(canvas.Row(each.tiles, title))
      logged = training.read_scalars(each.run_folder, list(_LOGGED))
      for tag, curve in logged.items():
        panels[_LOGGED[tag]].setdefault(label, []).append(curve)
  with canvas.styled(options):
    if panels:
      figure = charts.groups_plot(panels, evaluation.catalogue.TITLES)
      canvas.save(figure, os.path.join(output, "curves"))
    if options["scenes"]:
      canvas.save(canvas.Tiles(rows).figure, os.path.join(output, "scenes"))
