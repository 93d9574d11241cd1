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
from iodine import checkpoints, errors, evaluation, files, kinds, replicas
from iodine.commands import common, evaluate
from iodine.readers import paths

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
  """Returns the runs that folders are, or have in them; or globs, or a list."""
  kinds.check("runs", runs, kinds.Path | list[kinds.Path])
  if isinstance(runs, str):
    # A shell's `[runs/a,runs/b]` is no list to Sacred.
    runs = re.sub(r"^\[(.*)\]$", r"\1", runs).split(",")
  found: dict[str, None] = {}
  for path in (each.strip(" '\"") for each in runs):
    inside = [x.removesuffix(".index") for x in glob.glob(f"{path}.index")]
    for pattern in (f"{path}/*.index", f"{path}/*_*/*.index"):
      inside += map(os.path.dirname, glob.glob(pattern))
    if not inside:
      raise errors.UserError(
        f"there is no checkpoint of a run at `{path}`: give `runs` the folders "
        "that trainings or `sweep` printed"
      )
    begun = map(os.path.dirname, glob.glob(f"{path}/*_*/config.json"))
    if lacking := sorted({*begun} - {*inside}):
      told = errors.join_some(lacking)
      print(f"left out, as there is no checkpoint yet: {told}", flush=True)
    inside.sort(key=paths.by_number)
    found |= dict.fromkeys(map(os.path.normpath, inside))
  return list(found)


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
  shown: list[evaluation.Scene] = []
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
  # Also what was measured just now, so that it is the same the next time.
  found = files.read_json(path)
  run_folder = checkpoints.run_folder(opened.prefix)
  return Evaluated(folder, run_folder, config, found, [_few(x) for x in shown])


def _few(scene: evaluation.Scene) -> dict[str, Any]:
  """Returns what a picture of masks needs, as of many runs all is too much."""
  outputs = {k: scene.info["outputs"][k] for k in ("recons", "pred_mask")}
  return {"data": scene.info["data"], "outputs": outputs}


def digest(
  config: Config, opened: checkpoints.Opened, names: Sequence[str]
) -> str:
  """Returns a name of what a checkpoint holds and entries of a config."""
  asked = [project.__version__, {name: config[name] for name in names}]
  text = json.dumps(asked, sort_keys=True, default=str)
  # The index has the sums of all tensors.
  content = pathlib.Path(f"{opened.prefix}.index").read_bytes() + text.encode()
  return hashlib.sha256(content).hexdigest()[:16]
