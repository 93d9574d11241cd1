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
import scipy.stats

from iodine import errors
from iodine.drawing import latent_plots

with errors.as_user_error(
  (ModuleNotFoundError,),
  lambda _: (
    "`probe` needs scikit-learn, which is not installed: run `pip install -r "
    "requirements-probe.txt`"
  ),
):
  import sklearn

# Of `match_by_loss`.
_ROUNDS = 10
# Of `_probes`. All latents at each branch: else those that say nothing get a
# share.
_FOREST = {"n_estimators": 50, "max_features": None}
_LAYERS = {"hidden_layer_sizes": (64, 64), "alpha": 1e-2, "max_iter": 500}


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
    kind = kinds.get(name) or latent_plots.guess_kind(seen)
    if kind == "angle":
      numbers = np.concatenate([np.cos(numbers), np.sin(numbers)], axis=-1)
    else:
      numbers = numbers[..., varies]
    if varies.any():
      factors.append(Factor(name, kind, numbers))
  return factors


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
  costs = generator.uniform(size=[*chosen.shape, mean.shape[1]])
  for _ in range(_ROUNDS + 1):
    slots = np.full(chosen.shape, -1)
    for n, cost in enumerate(costs):
      numbers = np.flatnonzero(chosen[n])
      rows, columns = scipy.optimize.linear_sum_assignment(cost[numbers])
      slots[n, numbers[rows]] = columns
    scene, number = np.nonzero((slots >= 0) & is_train[:, None])
    probe = sklearn.linear_model.Ridge().fit(
      mean[scene, slots[scene, number]], targets[scene, number]
    )
    said = probe.predict(mean.reshape(-1, mean.shape[-1]))
    said = said.reshape(len(mean), 1, mean.shape[1], -1)
    costs = np.square(targets[:, :, None] - said).sum(axis=-1)
  return slots


def _standardised(factor: Factor, chosen: np.ndarray) -> np.ndarray:
  """Returns [N, L, m] numbers of comparable sizes, classes as one-hot."""
  seen = factor.values[chosen]
  if factor.is_class:
    return (factor.values == np.unique(seen)).astype(np.float64)
  return (factor.values - seen.mean(axis=0)) / np.maximum(
    seen.std(axis=0), 1e-6
  )


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
  probes, y = _probes(factor.is_class, seed), factor.values.squeeze()
  names = ("linear", "mlp", "baseline")
  return {name: _score(probes[name], x, y, is_train) for name in names}


def _probes(is_class: bool, seed: int) -> dict[str, Any]:
  forest, mlp = ({**x, "random_state": seed} for x in (_FOREST, _LAYERS))
  if is_class:
    return {
      "linear": sklearn.linear_model.LogisticRegression(max_iter=1000),
      "mlp": sklearn.neural_network.MLPClassifier(**mlp),
      "forest": sklearn.ensemble.RandomForestClassifier(**forest),
      "baseline": sklearn.dummy.DummyClassifier(),
    }
  return {
    "linear": sklearn.linear_model.LinearRegression(),
    "mlp": sklearn.compose.TransformedTargetRegressor(
      sklearn.neural_network.MLPRegressor(**mlp),
      transformer=sklearn.preprocessing.StandardScaler(),
    ),
    "forest": sklearn.ensemble.RandomForestRegressor(**forest),
    "baseline": sklearn.dummy.DummyRegressor(),
  }


def _score(
  probe: Any, x: np.ndarray, y: np.ndarray, is_train: np.ndarray
) -> float:
  """Fits a probe, and returns its score on what is held out."""
  x = sklearn.preprocessing.StandardScaler().fit(x[is_train]).transform(x)
  with warnings.catch_warnings():
    # After so many iterations it is as good as it gets.
    warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
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
    is_split = factor.kind == "scalar" and factor.values.shape[1] > 1
    columns = factor.values.T if is_split else [factor.values.squeeze()]
    for i, y in enumerate(columns, start=1):
      forest = _probes(factor.is_class, seed)["forest"]
      scores.append(_score(forest, x, y, is_train))
      values.append(forest.feature_importances_)
      titles.append(f"{factor.name} {i}" if is_split else factor.name)
  return Importances(tuple(titles), np.array(values), np.array(scores))


def dci(found: Importances) -> dict[str, float]:
  """Returns disentanglement, completeness and informativeness.

  Disentanglement of a latent is 1 minus the entropy of its importances over
  the factors, in the unit of the largest one; the mean over latents is weighted
  by their importances. Completeness of a factor is that over the latents; the
  mean is over factors. Informativeness is the mean of the scores. What there is
  only one of has no entropy: nan.
  """
  weights = found.values.sum(axis=0)
  used = weights > 0
  return {
    "disentanglement": float(
      np.average(_order(found.values[:, used].T), weights=weights[used])
    ),
    "completeness": float(_order(found.values).mean()),
    "informativeness": float(found.scores.mean()),
  }


def _order(rows: np.ndarray) -> np.ndarray:
  """Returns 1 minus the entropy of each row, in the unit of the largest one."""
  with np.errstate(divide="ignore", invalid="ignore"):
    return 1.0 - scipy.stats.entropy(rows, axis=1) / np.log(rows.shape[1])
