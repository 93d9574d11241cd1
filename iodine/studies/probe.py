"""What the latents of slots tell of the objects that they stand for."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tabulate
import tqdm

from iodine import errors, files
from iodine.commands import common
from iodine.drawing import canvas, charts
from iodine.studies import encode, latents

Config = common.Config
Found = Mapping[str, np.ndarray]

# Fewer objects than this say nothing.
_LEAST_OBJECTS = 10


def run(
  config: Config, checkpoint: common.Checkpoint, path: str | None
) -> dict[str, Any]:
  """Probes the latents of a file, or of a checkpoint, which are encoded first.

  Args:
    config: the complete config.
    checkpoint: a path, or what `checkpoints.open_checkpoint` returned; not
      used where there is a file.
    path: of a file that `encode` wrote, or None.

  Returns:
    What `json_path` gets: scores by factor, DCI, importances.
  """
  if importlib.util.find_spec("sklearn") is None:
    raise errors.UserError(
      "`probe` needs scikit-learn, which is not installed: run `pip install -r "
      "requirements-probe.txt`"
    )
  json_path = config["json_path"]
  if json_path is not None:
    files.check_writable(json_path, "{")
  path = path or encode.run(config, checkpoint, config["output"])
  folder = config["pictures_dir"] or config["results_dir"]
  folder = folder or os.path.dirname(path)
  files.check_folder(folder)
  found = latents.read_latents(path, lazy=True)
  number = config["evaluation"]["num_scenes"]
  named = {k: v[:number] for k, v in found.items() if _is_used(k)}
  told = json.loads(latents.about(path).get("config", "{}"))
  options = config["probe"]
  result = {"latents": path, **measure(named, kinds_of(told), options, path)}
  print(f"\n{table(result)}\n", flush=True)
  importance = result["importance"]
  with canvas.styled(config["plot"]):
    figure = charts.importance_plot(
      np.array(importance["values"]), importance["factors"]
    )
    picture = canvas.save(figure, os.path.join(folder, "probe"))
  print(f"importance of latents: {picture}", flush=True)
  if json_path is not None:
    files.write_json(json_path, result)
    print(f"metrics: {json_path}", flush=True)
  return result


def _is_used(name: str) -> bool:
  return name == "mean" or name.startswith("entities/")


def kinds_of(config: Mapping[str, Any]) -> dict[str, str]:
  """Returns the kinds of factors, as the config's regressor has them."""
  regressor = (config.get("model") or {}).get("factor_evaluator") or {}
  return {name: kind for name, _, kind in regressor.get("mapping", ())}


def measure(
  found: Found, kinds: Mapping[str, str], options: Config, path: str
) -> dict[str, Any]:
  """Measures all that there is to measure.

  Args:
    found: what `latents.read_latents` gives.
    kinds: of factors, where they are known.
    options: `probe` of the config.
    path: of the file, for messages.
  """
  from iodine.studies import probing

  chosen = _objects(found, options["matching"], path)
  start = "entities/factors/"
  values = {
    name.removeprefix(start): x[:, 1:]
    for name, x in found.items()
    if name.startswith(start)
  }
  factors = probing.factors_of(values, kinds, chosen)
  if not factors:
    raise errors.UserError(
      f"in `{path}` there are no factors that differ between objects: encode "
      "scenes that have some, see docs/data.md"
    )
  scores: dict[str, list[dict[str, float]]] = {x.name: [] for x in factors}
  orders, all_importances, counts = [], [], []
  for seed in tqdm.trange(options["seeds"], unit=" seeds"):
    is_train = _split(len(chosen), options["held_out"], seed)
    if options["matching"] == "masks":
      slots = np.where(chosen, found["entities/slot"][:, 1:], -1)
    else:
      slots = probing.match_by_loss(
        found["mean"], factors, chosen, is_train, seed
      )
    scene, number = np.nonzero(slots >= 0)
    counts.append(len(scene))
    sides = is_train[scene]
    if min(sides.sum(), (~sides).sum()) < _LEAST_OBJECTS:
      raise errors.UserError(
        f"in `{path}` {len(scene)} objects have a slot, {sides.sum()} of them "
        f"to learn from: encode more scenes, so that both sides of the split "
        f"have {_LEAST_OBJECTS}"
      )
    x = found["mean"][scene, slots[scene, number]]
    rows = [factor.at((scene, number)) for factor in factors]
    with errors.as_user_error(
      (ValueError,),
      lambda error: (
        f"scikit-learn cannot probe `{path}` ({errors.reason(error)}): encode "
        "more scenes, with factors that are numbers"
      ),
    ):
      for factor in rows:
        scores[factor.name].append(probing.predict(x, factor, sides, seed))
      all_importances.append(probing.importances(x, rows, sides, seed))
    orders.append(probing.dci(all_importances[-1]))
  return {
    "matching": options["matching"],
    "seeds": options["seeds"],
    "num_scenes": len(chosen),
    "num_objects": int(chosen.sum()),
    "num_matched": float(np.mean(counts)),
    "factors": {
      factor.name: {
        "score": "accuracy" if factor.is_class else "r2",
        **_spread(scores[factor.name]),
      }
      for factor in factors
    },
    "dci": _spread(orders),
    "importance": {
      "factors": list(all_importances[0].titles),
      "values": np.mean([x.values for x in all_importances], axis=0).tolist(),
    },
  }


def _objects(found: Found, matching: str, path: str) -> np.ndarray:
  """Returns [N, L - 1] which objects are to be seen."""
  if "entities/slot" in found:
    seen = found["entities/visibility"] * found["entities/pixels"]
    return seen[:, 1:] > 0
  if matching == "masks":
    raise errors.UserError(
      f"in `{path}` no slot is matched to an object, as the scenes have no "
      "masks: encode scenes with masks, or give `probe.matching=loss`"
    )
  factors = [x for name, x in found.items() if name.startswith("entities/")]
  shape = factors[0].shape[:2] if factors else (len(found["mean"]), 1)
  return np.ones([shape[0], shape[1] - 1], bool)


def _split(num_scenes: int, held_out: float, seed: int) -> np.ndarray:
  """Returns [N] which scenes are learnt from; at random, but so many."""
  order = np.random.default_rng(seed).permutation(num_scenes)
  return order >= round(held_out * num_scenes)


def _spread(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
  """Returns mean and standard deviation of each over the seeds."""
  result = {}
  for name in rows[0]:
    values = np.array([row[name] for row in rows])
    result[name] = {"mean": float(values.mean())}
    if len(rows) > 1:
      result[name]["standard_deviation"] = float(values.std(ddof=1))
  return result


def table(result: Mapping[str, Any]) -> str:
  """Returns the tables of what `measure` returned."""

  def cell(spread: Mapping[str, float]) -> str:
    deviation = spread.get("standard_deviation")
    text = f"{spread['mean']:.3f}"
    return text if deviation is None else f"{text} ± {deviation:.3f}"

  probes = ("linear", "mlp", "baseline")
  rows = [
    [name, scores["score"], *(cell(scores[probe]) for probe in probes)]
    for name, scores in result["factors"].items()
  ]
  rows += [["DCI", name, cell(x)] for name, x in result["dci"].items()]
  headers = ["factor", "score", "linear", "MLP", "knows nothing"]
  head = (
    f"{result['num_matched']:.0f} of {result['num_objects']} visible objects "
    f"of {result['num_scenes']} scenes have a slot, matched by "
    f"{result['matching']}"
  )
  return f"{head}\n\n{tabulate.tabulate(rows, headers, disable_numparse=True)}"
