"""What the latents of slots tell of the objects that they stand for.

Property prediction as in Dittadi et al. 2022 (arXiv:2107.00637), and DCI of
Eastwood & Williams 2018 by importances of random forests.

Dimensions: N scenes, K slots, L objects of a scene, O objects of all scenes, Z
latent size, n numbers of a factor, F numbers of all factors.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

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

# After so many iterations a probe is as good as it gets; classes may be few.
warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
warnings.filterwarnings("ignore", "The number of unique classes")

Config = common.Config
Array = np.ndarray
# By name [O] classes, or [O, n] numbers.
Factors = Mapping[str, Array]

# The last one knows nothing but the mean, or the most frequent class.
_PROBES = ("linear", "mlp", "baseline")
_MLP = {"hidden_layer_sizes": (64, 64), "alpha": 1e-2, "max_iter": 200}
_MLP |= {"solver": "lbfgs"}  # the others catch Ctrl-C and give what they have
# All latents at each branch: else those that say nothing get a share.
_FOREST = {"n_estimators": 50, "max_features": None}
_LEAST_OBJECTS = 10  # on each side of a split; fewer say nothing
_ROUNDS = 10  # of `match_by_loss`


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
  found = latents.read_latents(path, lazy=True)
  told = json.loads(latents.about(path).get("config", "{}"))
  mapping = config_files.get(told, "model.factor_evaluator.mapping") or ()
  kinds = {name: kind for name, _, kind in mapping}
  with errors.as_user_error(
    (ValueError,),
    lambda error: (
      f"`{path}` cannot be probed ({errors.reason(error)}): encode more "
      "scenes, with factors that are numbers, see docs/latents.md"
    ),
  ):
    stop = config["evaluation"]["num_scenes"]
    measured = measure(found, kinds, config["probe"], stop)
  result = {"latents": path, **measured}
  print(f"\n{table(result)}\n", flush=True)
  with canvas.styled(config["plot"]):
    figure = charts.importance_plot(**result["importance"])
    picture = canvas.save(figure, picture)
  print(f"importance of latents: {picture}", flush=True)
  if config["json_path"] is not None:
    files.write_json(config["json_path"], result)
    print(f"metrics: {config['json_path']}", flush=True)
  return result


def measure(
  found: Mapping[str, Any],
  kinds: Mapping[str, str],
  options: Config,
  stop: int | None = None,
) -> dict[str, Any]:
  """Measures all that there is to measure, over splits of the scenes.

  Args:
    found: what `latents.read_latents` gives.
    kinds: of factors, where they are known.
    options: `probe` of the config.
    stop: how many scenes count; None for all.

  Raises:
    ValueError: if masks, factors or scenes do not suffice.
  """
  mean, by_masks = found["mean"][:stop], options["matching"] == "masks"
  # The background is no object.
  values = {
    name.removeprefix("factors/"): x[:stop, 1:]
    for name, x in found.items()
    if name.startswith("factors/")
  }
  if "slot" in found:
    slots, chosen = found["slot"][:stop, 1:], found["pixels"][:stop, 1:] > 0
  elif by_masks:
    raise ValueError("it has no masks, and `probe.matching=loss` needs none")
  else:
    chosen = np.ones([*values.values(), mean][0].shape[:2], bool)
  factors = factors_of({k: x[chosen] for k, x in values.items()}, kinds)
  scene, _ = np.nonzero(chosen)
  rounds = []
  for seed in tqdm.trange(options["seeds"], unit=" seeds"):
    # At random, but so many.
    order = np.random.default_rng(seed).permutation(len(chosen))
    is_train = (order >= round(options["held_out"] * len(chosen)))[scene]
    if by_masks:
      slot = slots[chosen]
    else:
      slot = match_by_loss(mean, factors, scene, is_train, seed)
    train, test = is_train & (slot >= 0), ~is_train & (slot >= 0)
    rounds.append(probe(mean[scene, slot], factors, train, test, seed))
  result = tf.nest.map_structure(_spread, *rounds)
  for name, y in factors.items():
    result["factors"][name]["score"] = "r2" if y.ndim > 1 else "accuracy"
  importance = {
    "factors": list(result["importance"]),
    "values": [x["mean"] for x in result["importance"].values()],
  }
  counts = {"num_scenes": len(chosen), "num_objects": len(scene)}
  return {**options, **counts, **result, "importance": importance}


def factors_of(values: Factors, kinds: Mapping[str, str]) -> Factors:
  """Returns the factors that differ between objects, columns likewise.

  Args:
    values: {name: [O, n]}.
    kinds: {name: kind}; a factor that is not in it is looked at.

  Returns:
    Classes, or numbers, of angles cosine and sine. Numbers have mean 0 and
    variance 1, which R2 does not see.
  """
  factors = {}
  for name, of_objects in values.items():
    y = of_objects.astype(np.float64)
    kind = kinds.get(name) or latent_plots.guess_kind(y)
    varies = y.std(axis=0) > 1e-6
    if varies.any():
      y = y[:, varies]
      if kind == "angle":
        y = np.concatenate([np.cos(y), np.sin(y)], axis=1)
      is_class = kind == "categorical"
      factors[name] = y[:, 0] if is_class else sklearn.preprocessing.scale(y)
  if not factors:
    raise ValueError("it has no factors that differ between objects")
  return factors


def probe(
  x: Array, factors: Factors, train: Array, test: Array, seed: int
) -> dict[str, Any]:
  """Fits probes to some objects, and scores them by others.

  Args:
    x: [O, Z].
    factors: of them.
    train: [O] which to fit to.
    test: [O] which to score by: R2, or accuracy.
    seed: of the probes' initial values.

  Returns:
    factors: {name: {probe: score}}; dci; importance: {title: [Z]} of every
    number of the factors, by random forests; and num_matched.
  """
  if min(train.sum(), test.sum()) < _LEAST_OBJECTS:
    raise ValueError(f"slots have {train.sum()} and {test.sum()} objects")
  x = sklearn.preprocessing.StandardScaler().fit(x[train]).transform(x)
  scores: dict[str, dict[str, float]] = {}
  importance, informativeness = {}, []
  for name, y in factors.items():
    probes = _probes(y.ndim == 1, seed)
    scores[name] = {
      key: probes[key].fit(x[train], y[train]).score(x[test], y[test])
      for key in _PROBES
    }
    columns = y.reshape(len(y), -1).T
    for i, column in enumerate(columns, start=1):
      forest = probes["forest"].fit(x[train], column[train])
      title = f"{name} {i}" if len(columns) > 1 else name
      importance[title] = forest.feature_importances_
      informativeness.append(forest.score(x[test], column[test]))
  return {
    "num_matched": train.sum() + test.sum(),
    "factors": scores,
    "dci": dci(np.array(list(importance.values())), informativeness),
    "importance": importance,
  }


def _probes(of_classes: bool, seed: int) -> dict[str, Any]:
  forest, mlp = ({**x, "random_state": seed} for x in (_FOREST, _MLP))
  if of_classes:
    return {
      "linear": sklearn.linear_model.LogisticRegression(max_iter=1000),
      "mlp": sklearn.neural_network.MLPClassifier(**mlp),
      "baseline": sklearn.dummy.DummyClassifier(),
      "forest": sklearn.ensemble.RandomForestClassifier(**forest),
    }
  return {
    "linear": sklearn.linear_model.LinearRegression(),
    "mlp": sklearn.neural_network.MLPRegressor(**mlp),
    "baseline": sklearn.dummy.DummyRegressor(),
    "forest": sklearn.ensemble.RandomForestRegressor(**forest),
  }


def dci(importance: Array, scores: Sequence[float]) -> dict[str, float]:
  """Returns disentanglement, completeness and informativeness.

  Disentanglement of a latent is 1 minus the entropy of its importances over
  the factors, in the unit of the largest one; the mean over latents is weighted
  by their importances. Completeness of a factor is that over the latents; the
  mean is over factors. Informativeness is the mean of the scores. What there is
  only one of has no entropy: nan.

  Args:
    importance: [F, Z], each row sums to 1.
    scores: [F] R2, or accuracy.
  """
  importance = importance.clip(0.0)  # rounding leaves some just below
  used = importance[:, importance.sum(axis=0) > 0]
  with np.errstate(divide="ignore", invalid="ignore"):
    of_latents, of_factors = (
      1.0 - scipy.stats.entropy(x) / np.log(len(x))
      for x in (used, importance.T)
    )
  return {
    "disentanglement": np.average(of_latents, weights=used.sum(axis=0)),
    "completeness": of_factors.mean(),
    "informativeness": np.mean(scores),
  }


def match_by_loss(
  mean: Array, factors: Factors, scene: Array, is_train: Array, seed: int
) -> Array:
  """Gives objects the slots that a linear probe predicts them best from.

  The probe is fitted to random pairs of slots and objects first, and then to
  those of the least squared error, some times over. Sides of the split are
  matched alike, the probe is fitted to one.

  Args:
    mean: [N, K, Z].
    factors: to be predicted, classes as one-hot.
    scene: [O] of the objects.
    is_train: [O] which objects the probe is fitted to.
    seed: of the first pairs.

  Returns:
    [O] slots, -1 for none.
  """
  targets = [
    y if y.ndim > 1 else y[:, None] == np.unique(y) for y in factors.values()
  ]
  target = np.concatenate(targets, axis=1)
  costs = np.random.default_rng(seed).uniform(size=[len(scene), mean.shape[1]])
  for _ in range(_ROUNDS + 1):
    slot = np.full(len(scene), -1)
    for n in range(len(mean)):
      objects = np.arange(*np.searchsorted(scene, [n, n + 1]))
      rows, columns = scipy.optimize.linear_sum_assignment(costs[objects])
      slot[objects[rows]] = columns
    known = is_train & (slot >= 0)
    ridge = sklearn.linear_model.Ridge()
    ridge.fit(mean[scene, slot][known], target[known])
    said = np.array([ridge.predict(slots) for slots in mean])
    costs = np.square(target[:, None] - said[scene]).sum(axis=-1)
  return slot


def _spread(*values: Any) -> dict[str, Any]:
  """Returns mean and standard deviation over the seeds."""
  deviation = np.std(values, axis=0, ddof=1).tolist() if values[1:] else None
  mean = np.mean(values, axis=0).tolist()
  return {"mean": mean, "standard_deviation": deviation}


def table(result: Mapping[str, Any]) -> str:
  """Returns the table of what `measure` returned, and what it is of."""
  spread = evaluation.tables.spread
  rows = [
    [name, of["score"], *(spread(**of[key]) for key in _PROBES)]
    for name, of in result["factors"].items()
  ]
  rows += [["DCI", name, spread(**x)] for name, x in result["dci"].items()]
  headers = ["factor", "score", *_PROBES]
  head = (
    f"{result['num_matched']['mean']:.0f} of {result['num_objects']} visible "
    f"objects have a slot, matched by {result['matching']}"
  )
  return f"{head}\n\n{tabulate.tabulate(rows, headers, disable_numparse=True)}"
