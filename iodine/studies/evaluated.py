"""Runs that are evaluated once: found, measured, kept as JSON beside them."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import iodine as project
from iodine import checkpoints, errors, evaluation, files, replicas
from iodine.commands import common, evaluate
from iodine.studies import sweep

Config = common.Config
# Takes a run's folder; returns the config that `evaluate` has, the checkpoint.
OpenRun = Callable[[str], tuple[Config, checkpoints.Opened | str]]

_FOLDER = "evaluations"
# Of a config, what decides about an evaluation, beside the checkpoint.
_DECIDE = ("data", "evaluation", "model", "seed", "strategy", "tf32")


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

  def mean(self, name: str) -> float | None:
    """Returns a metric over all scenes, None where it was not measured."""
    return self.found.get(name, {}).get("mean")


def find(runs: Any) -> list[str]:
  """Returns the folders of runs: of folders, sweeps, globs, or a list."""
  if runs is None:
    raise errors.UserError(
      "`runs` is not set: give folders of runs, such as `runs=runs/sweep` or "
      "`'runs=[runs/a,runs/b]'`"
    )
  if isinstance(runs, str):
    # A shell's `[runs/a,runs/b]` is no list to Sacred.
    is_list = runs.startswith("[") and runs.endswith("]")
    parts = runs[1:-1].split(",") if is_list else [runs]
    runs = [part.strip().strip("'\"") for part in parts]
  found = []
  for path in runs:
    places = sorted(glob.glob(path)) if glob.has_magic(path) else [path]
    inside = [run for place in places for run in _runs_in(place)]
    if not inside:
      raise errors.UserError(
        f"there is no checkpoint of a run at `{path}`: give `runs` the folders "
        "that trainings or `sweep` printed"
      )
    found += inside
  return list(dict.fromkeys(map(os.path.normpath, found)))


def _runs_in(place: str) -> list[str]:
  if os.path.exists(os.path.join(place, sweep.TABLE)):
    names = sweep.read_table(place)["runs"]
    return [x for name in names for x in _runs_in(os.path.join(place, name))]
  if os.path.isdir(place):
    return [place] if checkpoints.latest(place) else []
  return [place] if os.path.exists(f"{place}.index") else []


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
  name = os.path.join(_FOLDER, f"{_key(config, opened.prefix)}.json")
  path = common.results_path(config, opened.prefix, name)
  is_known = os.path.exists(path)
  shown: list[dict[str, Any]] = []
  if not is_known or scenes:
    files.check_folder(os.path.dirname(path))
    strategy = replicas.make_strategy(config)
    dataset, batches = evaluate.open_scenes(config)
    models = evaluate.restore(config, opened, strategy)
    if not is_known:
      result = evaluate.measure(config, models, dataset, batches, strategy)
      found = evaluate.as_json(config, opened, result)
      files.write_json(path, {**found, "scenes": result.scenes})
    if scenes:
      own, *_ = models.values()
      decomposed, _ = evaluation.decompose_scenes(
        own.model,
        dataset.batches("test"),
        dataset.batch_size,
        scenes,
        seed=config["seed"],
      )
      for scene in decomposed:
        outputs = scene.info["outputs"]
        kept = {name: outputs[name] for name in ("recons", "pred_mask")}
        shown.append({"data": scene.info["data"], "outputs": kept})
  # Also what was measured just now, so that it is the same the next time.
  found = json.loads(pathlib.Path(path).read_text("utf-8"))
  run_folder = checkpoints.run_folder(opened.prefix)
  return Evaluated(folder, run_folder, config, found, shown)


def _key(config: Config, prefix: str) -> str:
  """Returns a name of a checkpoint's content and of what is asked of it."""
  asked = {name: config[name] for name in _DECIDE}
  text = json.dumps([project.__version__, asked], sort_keys=True, default=str)
  # It has the sums of all tensors.
  content = pathlib.Path(f"{prefix}.index").read_bytes() + text.encode()
  digest = hashlib.sha256(content).hexdigest()[:16]
  return f"{os.path.basename(prefix)}-{digest}"
