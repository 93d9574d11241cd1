"""What latents tell of true factors, by scikit-learn.

Property prediction as in Dittadi et al. 2022 (arXiv:2107.00637), and DCI of
Eastwood & Williams 2018 by importances of a random forest.

Dimensions: N scenes, K slots, L objects, Z latent size, O objects that have a
slot, F columns of factors, n numbers of a factor.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import scipy.spatial.distance
from sklearn import (
  compose,
  dummy,
  ensemble,
  exceptions,
  linear_model,
  neural_network,
  pipeline,
  preprocessing,
)

# Of `match_by_loss`.
_ROUNDS = 10
_TREES = 50
# A factor of one whole number of so many values is a class.
_MAX_CLASSES = 20


class Factor(NamedTuple):
  """What is known of one factor.

  Attributes:
    name: of the factor.
    kind: "scalar", "categorical" or "angle".
    values: [..., n] classes [..., 1], or numbers; of angles cosine and sine.
  """

  name: str
  kind: str
  values: np.ndarray

  @property
  def is_class(self) -> bool:
    """Returns whether it is measured by the accuracy, not by R2."""
    return self.kind == "categorical"

  def at(self, rows: Any) -> Factor:
    """Returns the factor of some objects."""
    return self._replace(values=self.values[rows])


def factors_of(
  values: Mapping[str, np.ndarray],
  kinds: Mapping[str, str],
  chosen: np.ndarray,
) -> list[Factor]:
  """Returns the factors that differ between objects, columns likewise.

  Args:
    values: {name: [N, L, n]}.
    kinds: {name: kind}; a factor that is not in it is looked at.
    chosen: [N, L] which are objects that are to be seen.
  """
  factors = []
  for name, numbers in values.items():
    numbers = np.asarray(numbers, np.float64)
    seen = numbers[chosen]
    varies = np.ptp(seen, axis=0) > 1e-6 * np.abs(seen).max(axis=0, initial=0.0)
    kind = kinds.get(name) or _guess_kind(seen)
    if kind == "angle":
      numbers = np.concatenate([np.cos(numbers), np.sin(numbers)], axis=-1)
    elif varies.any():
      numbers = numbers[..., varies]
    if varies.any():
      factors.append(Factor(name, kind, numbers))
  return factors


def _guess_kind(values: np.ndarray) -> str:
  is_whole = values.shape[-1] == 1 and np.all(values == np.round(values))
  few = len(np.unique(values)) <= _MAX_CLASSES
  return "categorical" if is_whole and few else "scalar"


def match_by_loss(
  mean: np.ndarray,
  factors: Sequence[Factor],
  chosen: np.ndarray,
  is_train: np.ndarray,
  seed: int,
) -> np.ndarray:
  """Gives objects the slots that a linear probe predicts them best from.

  The probe is fitted to random pairs of slots and objects first, and then to
  those of the least squared error, some times over. Sides of the split are
  matched alike, the probe is fitted to one.

  Args:
    mean: [N, K, Z].
    factors: of [N, L, n] values.
    chosen: [N, L] which are objects that are to be seen.
    is_train: [N] which scenes the probe is fitted to.
    seed: of the first pairs.

  Returns:
    [N, L] slots, -1 for none.
  """
  targets = np.concatenate([_standardised(x, chosen) for x in factors], axis=-1)
  generator = np.random.default_rng(seed)
  costs = list(generator.uniform(size=[*chosen.shape, mean.shape[1]]))
  for _ in range(_ROUNDS + 1):
    slots = np.full(chosen.shape, -1)
    for n, cost in enumerate(costs):
      numbers = np.flatnonzero(chosen[n])
      rows, columns = scipy.optimize.linear_sum_assignment(cost[numbers])
      slots[n, numbers[rows]] = columns
    scene, number = np.nonzero((slots >= 0) & is_train[:, None])
    probe = linear_model.Ridge().fit(
      mean[scene, slots[scene, number]], targets[scene, number]
    )
    predicted = probe.predict(mean.reshape(-1, mean.shape[-1]))
    costs = [
      scipy.spatial.distance.cdist(truth, said, "sqeuclidean")
      for truth, said in zip(
        targets, predicted.reshape(*mean.shape[:2], -1), strict=True
      )
    ]
  return slots


def _standardised(factor: Factor, chosen: np.ndarray) -> np.ndarray:
  """Returns [N, L, m] numbers of comparable sizes, classes as one-hot."""
  values = factor.values
  if factor.is_class:
    classes = np.unique(values[chosen])
    return (values == classes).astype(np.float64)
  seen = values[chosen]
  return (values - seen.mean(axis=0)) / np.maximum(seen.std(axis=0), 1e-6)


def predict(
  x: np.ndarray, factor: Factor, is_train: np.ndarray, seed: int
) -> dict[str, float]:
  """Returns R2, or accuracy, on held-out objects.

  Args:
    x: [O, Z].
    factor: of [O, n] values.
    is_train: [O].
    seed: of the probes' initial values.

  Returns:
    {"linear", "mlp", "baseline": score}; the baseline knows nothing but the
    mean, or the most frequent class.
  """
  scale = preprocessing.StandardScaler
  layers = {"hidden_layer_sizes": (64, 64), "alpha": 1e-2, "max_iter": 500}
  if factor.is_class:
    probes = {
      "linear": linear_model.LogisticRegression(max_iter=1000),
      "mlp": neural_network.MLPClassifier(random_state=seed, **layers),
    }
    baseline = dummy.DummyClassifier(strategy="most_frequent")
  else:
    mlp = neural_network.MLPRegressor(random_state=seed, **layers)
    probes = {
      "linear": linear_model.LinearRegression(),
      "mlp": compose.TransformedTargetRegressor(mlp, transformer=scale()),
    }
    baseline = dummy.DummyRegressor()
  probes = {k: pipeline.make_pipeline(scale(), p) for k, p in probes.items()}
  y = _plain(factor)
  return {
    name: _score(probe, x, y, is_train)
    for name, probe in {**probes, "baseline": baseline}.items()
  }


def _plain(factor: Factor) -> np.ndarray:
  """Returns the values [O, n], [O] where n is 1."""
  values = factor.values
  return values[:, 0] if values.shape[1] == 1 else values


def _score(
  probe: Any, x: np.ndarray, y: np.ndarray, is_train: np.ndarray
) -> float:
  """Fits a probe, and returns its score on what is held out."""
  with warnings.catch_warnings():
    # After so many iterations it is as good as it gets.
    warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
    probe.fit(x[is_train], y[is_train])
  return float(probe.score(x[~is_train], y[~is_train]))


class Importances(NamedTuple):
  """How much forests make of every latent.

  Attributes:
    titles: of the F columns.
    values: [F, Z], each row sums to 1.
    scores: [F] R2, or accuracy, on held-out objects.
  """

  titles: tuple[str, ...]
  values: np.ndarray
  scores: np.ndarray


def importances(
  x: np.ndarray, factors: Sequence[Factor], is_train: np.ndarray, seed: int
) -> Importances:
  """Fits a random forest to every number of the factors.

  Args:
    x: [O, Z].
    factors: of [O, n] values.
    is_train: [O].
    seed: of the forests.
  """
  titles, values, scores = [], [], []
  for factor in factors:
    columns = [factor]
    if factor.kind == "scalar":
      columns = [
        factor.at(np.s_[:, [i]]) for i in range(factor.values.shape[1])
      ]
    for number, column in enumerate(columns, start=1):
      # All latents at each branch: else those that say nothing get a share.
      forest = ensemble.RandomForestRegressor
      if factor.is_class:
        forest = ensemble.RandomForestClassifier
      probe = forest(_TREES, max_features=None, random_state=seed)
      scores.append(_score(probe, x, _plain(column), is_train))
      values.append(probe.feature_importances_)
      is_one = len(columns) == 1
      titles.append(factor.name if is_one else f"{factor.name} {number}")
  return Importances(tuple(titles), np.array(values), np.array(scores))


def dci(found: Importances) -> dict[str, float]:
  """Returns disentanglement, completeness and informativeness.

  Disentanglement of a latent is 1 minus the entropy of its importances over
  the factors, in the unit of the largest one; the mean over latents is weighted
  by their importances. Completeness of a factor is that over the latents; the
  mean is over factors. Informativeness is the mean of the scores. What there is
  only one of has no entropy: nan.
  """
  values = found.values / np.maximum(found.values.sum(), 1e-12)
  weights = values.sum(axis=0)
  disentanglement = _order(values, axis=0)
  return {
    "disentanglement": float((weights * disentanglement).sum()),
    "completeness": float(_order(values, axis=1).mean()),
    "informativeness": float(found.scores.mean()),
  }


def _order(values: np.ndarray, axis: int) -> np.ndarray:
  """Returns 1 minus the normalised entropy along an axis."""
  if values.shape[axis] < 2:
    return np.full(values.shape[1 - axis], np.nan)
  sums = values.sum(axis=axis, keepdims=True)
  shares = np.divide(values, sums, out=np.zeros_like(values), where=sums > 0)
  logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
  entropy = -(shares * logs).sum(axis=axis)
  return 1.0 - entropy / np.log(values.shape[axis])
