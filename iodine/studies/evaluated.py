"""Runs that are evaluated once: found, measured, kept as JSON beside them."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import iodine as project
from iodine import checkpoints, errors, evaluation, files, replicas
from iodine.commands import common, evaluate
from iodine.studies import sweep

Config = common.Config
# Takes a run's folder; returns the config that `evaluate` has, the checkpoint.
OpenRun = Callable[[str], tuple[Config, checkpoints.Opened | str]]

# Of a config, what decides about an evaluation, beside the checkpoint.
DECIDE = ("data", "evaluation", "model", "seed", "strategy", "tf32")


class Evaluated(NamedTuple):
  """A run with its evaluation.

  Attributes:
    folder: as it was given, or the prefix of one checkpoint.
    run_folder: the folder with its logs.
    config: the one that it was evaluated with.
    found: what `json_path` of `evaluate` has, and `scenes`: by the name of a
      metric the values of all scenes.
    shown: decomposed scenes: of `Scene.info` what a picture of masks needs.
  """

  folder: str
  run_folder: str
  config: Config
  found: dict[str, Any]
  shown: list[dict[str, Any]]


def find(runs: Any) -> list[str]:
  """Returns the folders of runs: of folders, sweeps, globs, or a list."""
  if runs is None:
    raise errors.UserError(
      "`runs` is not set: give folders of runs, such as `runs=runs/sweep` or "
      "`'runs=[runs/a,runs/b]'`"
    )
  if isinstance(runs, str):
    # A shell's `[runs/a,runs/b]` is no list to Sacred.
    listed = re.fullmatch(r"\[(.+)\]", runs)
    parts = listed[1].split(",") if listed else [runs]
    runs = [part.strip(" '\"") for part in parts]
  found = []
  for path in runs:
    places = sorted(glob.glob(path)) or [path]
    inside = [run for place in places for run in _runs_in(place)]
    if not inside:
      raise errors.UserError(
        f"there is no checkpoint of a run at `{path}`: give `runs` the folders "
        "that trainings or `sweep` printed"
      )
    found += inside
  return list(dict.fromkeys(map(os.path.normpath, found)))


def _runs_in(place: str) -> list[str]:
  if table := sweep.read_table(place):
    names = [os.path.join(place, name) for name in table["runs"]]
    return [run for name in names for run in _runs_in(name)]
  is_one = checkpoints.latest(place) or os.path.exists(f"{place}.index")
  return [place] if is_one else []


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
  stem = f"{os.path.basename(opened.prefix)}-{digest(config, opened, DECIDE)}"
  name = os.path.join("evaluations", f"{stem}.json")
  path = common.results_path(config, opened.prefix, name)
  shown: list[dict[str, Any]] = []
  if scenes or not os.path.exists(path):
    files.check_folder(os.path.dirname(path))
    strategy = replicas.make_strategy(config)
    dataset, batches = evaluate.open_scenes(config)
    models = evaluate.restore(config, opened, strategy)
    if not os.path.exists(path):
      result = evaluate.measure(config, models, dataset, batches, strategy)
      found = evaluate.as_json(config, opened, result)
      files.write_json(path, {**found, "scenes": result.scenes})
    own, *_ = models.values()
    unread, size = dataset.batches("test"), dataset.batch_size
    decomposed, _ = evaluation.decompose_scenes(
      own.model, unread, size, scenes, seed=config["seed"]
    )
    for scene in decomposed:
      outputs = scene.info["outputs"]
      kept = {name: outputs[name] for name in ("recons", "pred_mask")}
      shown.append({"data": scene.info["data"], "outputs": kept})
  # Also what was measured just now, so that it is the same the next time.
  found = json.loads(pathlib.Path(path).read_text("utf-8"))
  run_folder = checkpoints.run_folder(opened.prefix)
  return Evaluated(folder, run_folder, config, found, shown)


def digest(
  config: Config, opened: checkpoints.Opened, names: Sequence[str]
) -> str:
  """Returns a name of what a checkpoint holds and entries of a config."""
  asked = [project.__version__, {name: config[name] for name in names}]
  text = json.dumps(asked, sort_keys=True, default=str)
  # The index has the sums of all tensors.
  content = pathlib.Path(f"{opened.prefix}.index").read_bytes() + text.encode()
  return hashlib.sha256(content).hexdigest()[:16]
