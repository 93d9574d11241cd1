"""What the latents of slots tell of the objects that they stand for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tabulate
import tensorflow as tf
import tqdm

from iodine import config_files, errors, evaluation, files
from iodine.commands import common, evaluate
from iodine.drawing import canvas, charts
from iodine.studies import encode, latents, probing

Config = common.Config
Found = Mapping[str, np.ndarray]

# Fewer objects than this say nothing.
_LEAST_OBJECTS = 10
_FACTORS = "entities/factors/"


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
  evaluate.check(config)
  path = path or encode.run(config, checkpoint, config["output"])
  folder = config["pictures_dir"] or config["results_dir"]
  picture = os.path.join(folder or os.path.dirname(path), "probe")
  files.check_folder(os.path.dirname(picture))
  stop = config["evaluation"]["num_scenes"]
  found = {
    name: values[:stop]
    for name, values in latents.read_latents(path, lazy=True).items()
    if name == "mean" or name.startswith("entities/")
  }
  told = json.loads(latents.about(path).get("config", "{}"))
  mapping = config_files.get(told, "model.factor_evaluator.mapping") or ()
  kinds = {name: kind for name, _, kind in mapping}
  measured = measure(found, kinds, config["probe"], path)
  print(f"\n{table(measured)}\n", flush=True)
  with canvas.styled(config["plot"]):
    figure = charts.importance_plot(**measured["importance"])
    picture = canvas.save(figure, picture)
  print(f"importance of latents: {picture}", flush=True)
  result = {"latents": path, **measured}
  if config["json_path"] is not None:
    files.write_json(config["json_path"], result)
    print(f"metrics: {config['json_path']}", flush=True)
  return result


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
  values = {
    name.removeprefix(_FACTORS): x[:, 1:]
    for name, x in found.items()
    if name.startswith(_FACTORS)
  }
  if "entities/slot" in found:
    seen = found["entities/visibility"] * found["entities/pixels"]
    chosen = seen[:, 1:] > 0  # objects that are to be seen
  elif options["matching"] == "masks":
    raise errors.UserError(
      f"in `{path}` no slot is matched to an object, as the scenes have no "
      "masks: encode scenes with masks, or give `probe.matching=loss`"
    )
  else:
    any_of_them, *_ = [*values.values(), found["mean"]]
    chosen = np.ones(any_of_them.shape[:2], bool)
  factors = probing.factors_of(values, kinds, chosen)
  if not factors:
    raise errors.UserError(
      f"in `{path}` there are no factors that differ between objects: encode "
      "scenes that have some, see docs/data.md"
    )
  with errors.as_user_error(
    (ValueError,),
    lambda error: (
      f"scikit-learn cannot probe `{path}` ({errors.reason(error)}): encode "
      "more scenes, with factors that are numbers"
    ),
  ):
    rounds = [
      _measure_once(found, factors, chosen, options, path, seed)
      for seed in tqdm.trange(options["seeds"], unit=" seeds")
    ]
  numbers, scores, whole = zip(*rounds, strict=True)
  result = tf.nest.map_structure(_spread, *scores)
  for factor in factors:
    kind = "accuracy" if factor.is_class else "r2"
    result["factors"][factor.name]["score"] = kind
  return {
    "matching": options["matching"],
    "seeds": options["seeds"],
    "num_scenes": len(chosen),
    "num_objects": int(chosen.sum()),
    "num_matched": float(np.mean(numbers)),
    **result,
    "importance": {
      "factors": list(whole[0].titles),
      "values": np.mean([x.values for x in whole], axis=0).tolist(),
    },
  }


def _measure_once(
  found: Found,
  factors: Sequence[probing.Factor],
  chosen: np.ndarray,
  options: Config,
  path: str,
  seed: int,
) -> tuple[int, dict[str, Any], probing.Importances]:
  """Returns how many objects have a slot, scores with DCI, importances."""
  # At random, but so many.
  order = np.random.default_rng(seed).permutation(len(chosen))
  is_train = order >= round(options["held_out"] * len(chosen))
  if options["matching"] == "masks":
    slots = np.where(chosen, found["entities/slot"][:, 1:], -1)
  else:
    slots = probing.match_by_loss(
      found["mean"], factors, chosen, is_train, seed
    )
  scene, number = np.nonzero(slots >= 0)
  sides = is_train[scene]
  if min(sides.sum(), (~sides).sum()) < _LEAST_OBJECTS:
    raise errors.UserError(
      f"in `{path}` {len(scene)} objects have a slot, {sides.sum()} of them "
      f"to learn from: encode more scenes, so that both sides of the split "
      f"have {_LEAST_OBJECTS}"
    )
  x = found["mean"][scene, slots[scene, number]]
  rows = [f._replace(values=f.values[scene, number]) for f in factors]
  scores = {f.name: probing.predict(x, f, sides, seed) for f in rows}
  whole = probing.importances(x, rows, sides, seed)
  result = {"factors": scores, "dci": probing.dci(whole)}
  return len(scene), result, whole


def _spread(*values: float) -> dict[str, float | None]:
  """Returns mean and standard deviation over the seeds."""
  deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
  return {"mean": float(np.mean(values)), "standard_deviation": deviation}


def table(result: Mapping[str, Any]) -> str:
  """Returns the tables of what `measure` returned."""
  spread = evaluation.tables.spread
  rows = [
    [
      name,
      of["score"],
      *(spread(**of[x]) for x in ("linear", "mlp", "baseline")),
    ]
    for name, of in result["factors"].items()
  ]
  rows += [["DCI", name, spread(**x)] for name, x in result["dci"].items()]
  headers = ["factor", "score", "linear", "MLP", "knows nothing"]
  head = (
    f"{result['num_matched']:.0f} of {result['num_objects']} visible "
    f"objects of {result['num_scenes']} scenes have a slot, matched by "
    f"{result['matching']}"
  )
  return f"{head}\n\n{tabulate.tabulate(rows, headers, disable_numparse=True)}"
