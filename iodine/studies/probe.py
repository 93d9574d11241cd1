"""What the latents of slots tell of the objects that they stand for.

Property prediction as in Dittadi et al. 2022 (arXiv:2107.00637), and DCI of
Eastwood & Williams 2018 by importances of a random forest.

Dimensions: N scenes, K slots, L objects of a scene, Z latent size, O objects
that are to be seen, in the end those that have a slot, n numbers of a factor.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import scipy.stats
import tabulate
import tensorflow as tf
import tqdm

from iodine import config_files, errors, evaluation, files
from iodine.commands import common, evaluate
from iodine.drawing import canvas, charts, latent_plots
from iodine.studies import encode, latents

with errors.as_user_error(
  (ModuleNotFoundError,),
  lambda _: (
    "`probe` needs scikit-learn, which is not installed: run `pip install -r "
    "requirements-probe.txt`"
  ),
):
  import sklearn

Config = common.Config
Found = Mapping[str, np.ndarray]

_LEAST_OBJECTS = 10  # of a side; fewer say nothing
_ROUNDS = 10  # of `match_by_loss`
_FACTORS = "entities/factors/"
# All latents at each branch: else those that say nothing get a share.
_FOREST = {"n_estimators": 50, "max_features": None}
_LAYERS = {"hidden_layer_sizes": (64, 64), "alpha": 1e-2, "max_iter": 500}


class Factor(NamedTuple):
  """What is known of one factor.

  Attributes:
    kind: "scalar", "categorical" or "angle".
    values: [O, n] classes [O, 1], or numbers; of angles cosine and sine.
  """

  kind: str
  values: np.ndarray


def run(
  config: Config, checkpoint: common.Checkpoint, path: str | None
) -> dict[str, Any]:
  """Probes the latents of a file, or of a checkpoint, which are encoded first.

  Args:
    config: the complete config.
    checkpoint: see `checkpoints.open_checkpoint`; not used where there is a
      file.
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
  with errors.as_user_error(
    (ValueError,),
    lambda error: (
      f"scikit-learn cannot probe `{path}` ({errors.reason(error)}): encode "
      "more scenes, with factors that are numbers"
    ),
  ):
    measured = measure(found, kinds, config["probe"])
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
  found: Found, kinds: Mapping[str, str], options: Config
) -> dict[str, Any]:
  """Measures all that there is to measure.

  Args:
    found: what `latents.read_latents` gives.
    kinds: of factors, where they are known.
    options: `probe` of the config.
  """
  values = {k: x[:, 1:] for k, x in found.items() if k.startswith(_FACTORS)}
  if "entities/slot" in found:
    seen = found["entities/visibility"] * found["entities/pixels"]
    chosen = seen[:, 1:] > 0  # objects that are to be seen
  elif options["matching"] == "masks":
    raise errors.UserError(
      "no slot is matched to an object, as the scenes have no masks: encode "
      "scenes with masks, or give `probe.matching=loss`"
    )
  else:
    chosen = np.ones([*values.values(), found["mean"]][0].shape[:2], bool)
  factors = factors_of(values, kinds, chosen)
  if not factors:
    raise errors.UserError(
      "there are no factors that differ between objects: encode scenes that "
      "have some, see docs/data.md"
    )
  with warnings.catch_warnings():
    # After so many iterations a probe is as good as it gets.
    warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
    rounds = [
      _measure_once(found, factors, chosen, options, seed)
      for seed in tqdm.trange(options["seeds"], unit=" seeds")
    ]
  scores, importance, numbers = (
    tf.nest.map_structure(_spread, *each) for each in zip(*rounds, strict=True)
  )
  for name, factor in factors.items():
    is_class = factor.kind == "categorical"
    scores["factors"][name]["score"] = "accuracy" if is_class else "r2"
  return {
    "matching": options["matching"],
    "seeds": options["seeds"],
    "num_scenes": len(chosen),
    "num_objects": int(chosen.sum()),
    "num_matched": numbers["mean"],
    **scores,
    "importance": {
      "factors": list(importance),
      "values": [x["mean"] for x in importance.values()],
    },
  }


def factors_of(
  values: Mapping[str, np.ndarray],
  kinds: Mapping[str, str],
  chosen: np.ndarray,
) -> dict[str, Factor]:
  """Returns the factors that differ between objects, columns likewise.

  Args:
    values: {name in the file: [N, L, n]}.
    kinds: {name: kind}; a factor that is not in it is looked at.
    chosen: [N, L] which are objects that are to be seen.
  """
  factors = {}
  for path, of_all in values.items():
    name, numbers = path.removeprefix(_FACTORS), of_all[chosen].astype(float)
    varies = numbers.std(axis=0) > 1e-6
    if varies.any():
      kind = kinds.get(name) or latent_plots.guess_kind(numbers)
      if kind == "angle":
        numbers = np.concatenate([np.cos(numbers), np.sin(numbers)], axis=1)
      else:
        numbers = numbers[:, varies]
      factors[name] = Factor(kind, numbers)
  return factors


def _measure_once(
  found: Found,
  factors: Mapping[str, Factor],
  chosen: np.ndarray,
  options: Config,
  seed: int,
) -> tuple[dict[str, Any], dict[str, np.ndarray], int]:
  """Returns scores with DCI, importances, how many objects have a slot."""
  # At random, but so many.
  order = np.random.default_rng(seed).permutation(len(chosen))
  scene, _ = np.nonzero(chosen)
  side = (order >= round(options["held_out"] * len(chosen)))[scene]
  if options["matching"] == "masks":
    slot = found["entities/slot"][:, 1:][chosen]
  else:
    slot = match_by_loss(found["mean"], factors, scene, side, seed)
  has_slot = slot >= 0
  x, side = found["mean"][scene, slot][has_slot], side[has_slot]
  if min(side.sum(), (~side).sum()) < _LEAST_OBJECTS:
    raise errors.UserError(
      f"{len(x)} objects have a slot, {side.sum()} of them to learn from: "
      f"encode more scenes, so that both sides of the split have "
      f"{_LEAST_OBJECTS}"
    )
  scores, importance, informativeness = {}, {}, []
  for name, (kind, values) in factors.items():
    y, probes = values[has_slot].squeeze(), _probes(kind, seed)
    forest = probes.pop("forest")
    scores[name] = {k: _score(probes[k], x, y, side) for k in probes}
    columns = {name: y}
    if kind == "scalar" and y.ndim > 1:
      columns = {f"{name} {i}": each for i, each in enumerate(y.T, start=1)}
    for title, each in columns.items():
      informativeness.append(_score(forest, x, each, side))
      importance[title] = forest[-1].feature_importances_
  whole = dci(np.array(list(importance.values())), informativeness)
  return {"factors": scores, "dci": whole}, importance, len(x)


def match_by_loss(
  mean: np.ndarray,
  factors: Mapping[str, Factor],
  scene: np.ndarray,
  side: np.ndarray,
  seed: int,
) -> np.ndarray:
  """Gives objects the slots that a linear probe predicts them best from.

  The probe is fitted to random pairs of slots and objects first, and then to
  those of the least squared error, some times over. Sides of the split are
  matched alike, the probe is fitted to one.

  Args:
    mean: [N, K, Z].
    factors: what is to be predicted, in comparable sizes, classes as one-hot.
    scene: [O] of the objects, whose numbers do not decrease.
    side: [O] which objects the probe is fitted to.
    seed: of the first pairs.

  Returns:
    [O] slots, -1 for none.
  """
  scale = sklearn.preprocessing.StandardScaler().fit_transform
  targets = np.concatenate(
    [
      y == np.unique(y) if kind == "categorical" else scale(y)
      for kind, y in factors.values()
    ],
    axis=1,
  )
  objects = np.split(np.arange(len(scene)), np.flatnonzero(np.diff(scene)) + 1)
  costs = np.random.default_rng(seed).uniform(size=[len(scene), mean.shape[1]])
  for _ in range(_ROUNDS + 1):
    slot = np.full(len(scene), -1)
    for mine in objects:
      rows, columns = scipy.optimize.linear_sum_assignment(costs[mine])
      slot[mine[rows]] = columns
    chosen = side & (slot >= 0)
    probe = sklearn.linear_model.Ridge()
    probe.fit(mean[scene, slot][chosen], targets[chosen])
    said = [probe.predict(slots) for slots in mean]
    costs = np.square(targets[:, None] - np.array(said)[scene]).sum(axis=-1)
  return slot


def _probes(kind: str, seed: int) -> dict[str, Any]:
  """Returns probes for a factor; the baseline knows no latents."""
  forest, mlp = ({**x, "random_state": seed} for x in (_FOREST, _LAYERS))
  if kind == "categorical":
    probes = {
      "linear": sklearn.linear_model.LogisticRegression(max_iter=1000),
      "mlp": sklearn.neural_network.MLPClassifier(**mlp),
      "baseline": sklearn.dummy.DummyClassifier(),
      "forest": sklearn.ensemble.RandomForestClassifier(**forest),
    }
  else:
    probes = {
      "linear": sklearn.linear_model.LinearRegression(),
      "mlp": sklearn.compose.TransformedTargetRegressor(
        sklearn.neural_network.MLPRegressor(**mlp),
        transformer=sklearn.preprocessing.StandardScaler(),
      ),
      "baseline": sklearn.dummy.DummyRegressor(),
      "forest": sklearn.ensemble.RandomForestRegressor(**forest),
    }
  scaler = sklearn.preprocessing.StandardScaler
  make = sklearn.pipeline.make_pipeline
  return {name: make(scaler(), probe) for name, probe in probes.items()}


def _score(probe: Any, x: np.ndarray, y: np.ndarray, side: np.ndarray) -> float:
  """Fits a probe; returns R2, or accuracy, on what is held out."""
  return float(probe.fit(x[side], y[side]).score(x[~side], y[~side]))


def dci(importance: np.ndarray, scores: Sequence[float]) -> dict[str, float]:
  """Returns disentanglement, completeness and informativeness.

  Disentanglement of a latent is 1 minus the entropy of its importances over
  the factors, in the unit of the largest one; the mean over latents is weighted
  by their importances. Completeness of a factor is that over the latents; the
  mean is over factors. Informativeness is the mean of the scores. What there is
  only one of has no entropy: nan.

  Args:
    importance: [F, Z] of latents for factors, each row sums to 1.
    scores: [F] R2, or accuracy, on held-out objects.
  """
  used = importance[:, importance.sum(axis=0) > 0]
  with np.errstate(divide="ignore", invalid="ignore"):
    of_latents, of_factors = (
      1.0 - scipy.stats.entropy(x) / np.log(len(x))
      for x in (used, importance.T)
    )
  return {
    "disentanglement": float(np.average(of_latents, weights=used.sum(axis=0))),
    "completeness": float(of_factors.mean()),
    "informativeness": float(np.mean(scores)),
  }


def _spread(*values: Any) -> dict[str, Any]:
  """Returns mean and standard deviation over the seeds."""
  deviation = np.std(values, axis=0, ddof=1).tolist() if values[1:] else None
  return {
    "mean": np.mean(values, axis=0).tolist(),
    "standard_deviation": deviation,
  }


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
