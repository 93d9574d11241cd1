'''The catalogue of metrics: all that is said about a metric stands here.

Tables, CSV and JSON files, charts and the report read it. A new metric is an
entry of one of the tuples that `STANDARD` consists of, with a row in
`docs/evaluation.md`.

A metric of your own is a function in a file of your own, which the config names
by its dotted path, `evaluation.metrics=["mypackage.purity"]`:

  def purity(scores):
    """Returns the share of pixels whose slot is mostly their entity's."""
    counts = scores["contingency"]
    return counts.max(axis=-2).sum(axis=-1) / counts.sum(axis=(-2, -1))

Its name and the first line of its docstring stand in all tables; a `Metric`
under that path instead of the function says more.

What `scores` has, in float64, is what `scores.score_batch` gives for all scenes
and seeds: ari, ari_nobg, mse, recons, num_active_slots [S, N, T]; kl/slot
[S, N, T, K]; contingency [S, N, T, L, K], the numbers of pixels that true
entities and slots share (the background first in both, the slots' as
`utils.background_first` says); total [S, N]; frame [S, N, T], the number of the
frame, which differs between the iterations of a sequential model only; and with
a factor regressor factor [S, N, T], objects [S, N, T, L], hits/<factor>
[S, N, T], residual/<factor> [S, N, T, n] and target/<factor> [S, N, T, L, n].

Dimensions: S seeds, N scenes, T iterations + 1, K slots, L true entities, n
values of a factor.
'''

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from iodine import building, errors
from iodine.evaluation import scores as scores_lib
from iodine.evaluation.scores import Arrays
from iodine.modules import metrics as metrics_lib


class Metric(NamedTuple):
  """What there is to say about a metric.

  Attributes:
    name: in files and tables. That of a family has {} in the place of what
      tells its members apart, as have its title and its meaning.
    title: of a chart, without the unit.
    meaning: in a line; `docs/evaluation.md` says it exactly.
    compute: takes the scores (see above) and returns values [S, N, T], or
      [S, N] where the iterations have one together; of a family a dict of them,
      by what stands for {}; None where the model or the scenes do not have it.
      A metric without it is the score of its name.
    unit: empty for none.
    needs_objects: whether a scene without objects has no value (nan), and does
      not count. In all other metrics nan is an error that must not be hidden.
    of_scenes: whether the value of a scene says something by itself; not that
      of a quotient over all scenes at once, see `scores.linearize`.
    main: whether it stands in the tables with a row for each iteration.
    charted: whether it has a panel in the charts over the iterations.
    of_films: whether it is of films only.

  `main` and `charted` say nothing of a metric that has one value for all
  iterations.
  """

  name: str
  title: str
  meaning: str
  compute: (
    Callable[[Arrays], np.ndarray | Mapping[str, np.ndarray] | None] | None
  ) = None
  unit: str = ""
  needs_objects: bool = False
  of_scenes: bool = True
  main: bool = False
  charted: bool = False
  of_films: bool = False

  @property
  def label(self) -> str:
    """Returns the title with the unit."""
    return f"{self.title} [{self.unit}]" if self.unit else self.title

  def member(self, part: str) -> Metric:
    """Returns one of a family."""
    name, title, meaning = (
      text.replace("{}", part) for text in (self.name, self.title, self.meaning)
    )
    return self._replace(name=name, title=title, meaning=meaning)


def measure(
  scores: Arrays, metrics: Iterable[Metric]
) -> list[tuple[Metric, np.ndarray]]:
  """Computes metrics, and leaves out what model and scenes do not have.

  Args:
    scores: see the top of the file.
    metrics: which; of families come their members.

  Returns:
    Metrics with their values [S, N, T] or [S, N].

  Raises:
    errors.UserError: if one gives values of another shape, or two have one
      name.
  """
  shape = scores["mse"].shape
  measured: dict[str, tuple[Metric, np.ndarray]] = {}
  for metric in metrics:
    compute = metric.compute
    found = compute(scores) if compute else scores.get(metric.name)
    if found is None:
      continue
    members = found if isinstance(found, Mapping) else {"": found}
    for part, values in members.items():
      member = metric.member(part)
      if np.shape(values) not in (shape, shape[:2]):
        raise errors.UserError(
          f"the metric `{member.name}` gives values of shape "
          f"{np.shape(values)}: give one for each of {shape}, which are seeds, "
          "scenes and iterations"
        )
      if member.name in measured:
        raise errors.UserError(
          f"there are two metrics `{member.name}`: give yours another name"
        )
      if np.ndim(values) == 2:
        member = member._replace(main=False, charted=False)
      measured[member.name] = (member, np.asarray(values, np.float64))
  return list(measured.values())


def find_metric(path: Any, entry: str) -> Metric:
  """Returns the metric that a config names.

  Args:
    path: the dotted path of a function or `Metric`.
    entry: of the config that has it, for error messages.

  Raises:
    errors.UserError: if there is neither.
  """
  found = building.resolve(path)
  if isinstance(found, Metric):
    return found
  if not callable(found):
    raise errors.UserError(
      f"`{entry}` names `{path}`, which is not a function or does not exist: "
      "give the dotted path of a function of the scores, such as "
      "`mypackage.purity`"
    )
  name = str(path).rpartition(".")[2]
  meaning = (inspect.getdoc(found) or str(path)).splitlines()[0]
  return Metric(
    name, name.replace("_", " "), meaning, found, main=True, charted=True
  )


# -------------------------------------------------------------------- computing


def _of_tables(
  function: Callable[[np.ndarray], float],
) -> Callable[[Arrays], np.ndarray | None]:
  """Computes a function of one contingency table [L, K] for all of them."""
  of_each = np.vectorize(function, [np.float64], signature="(l,k)->()")
  return lambda scores: (
    of_each(scores["contingency"]) if "contingency" in scores else None
  )


def _recall(counts: np.ndarray) -> float:
  """Returns the share of visible objects found; a slot finds one at most."""
  is_visible = counts[1:].sum(axis=1) > 0
  if not is_visible.any():
    return float("nan")
  best = metrics_lib.pairwise_iou(counts)[1:].max(axis=1)[is_visible]
  return float(np.mean(best > 0.5))


def _video_ari(scores: Arrays, first_entity: int) -> np.ndarray | None:
  """Computes the ARI of all pixels of all frames, as if of one image."""
  if "contingency" not in scores or not scores["frame"].any():
    return None
  tables = scores["contingency"][..., first_entity:, :].sum(axis=2)
  folded = tables.reshape(-1, *tables.shape[2:])
  ari = metrics_lib.ari_of_contingency(folded)
  return np.reshape(ari, tables.shape[:2])


def _kl_of_slots(scores: Arrays) -> Arrays:
  kl = scores["kl/slot"]
  return {str(k + 1): kl[..., k] for k in range(kl.shape[-1])}


def _accuracies(scores: Arrays) -> Arrays:
  return {
    factor: scores_lib.linearize(hits, _truth(scores, "objects").sum(axis=1))
    for factor, hits in _of_factors(scores, "hits/")
  }


def _r2s(scores: Arrays) -> Arrays:
  return {
    factor: scores_lib.r2(
      residual, _truth(scores, f"target/{factor}"), _truth(scores, "objects")
    )
    for factor, residual in _of_factors(scores, "residual/")
  }


def _truth(scores: Arrays, name: str) -> np.ndarray:
  """Returns [N, ...] of what is the same for all seeds and iterations."""
  return scores[name][0, :, 0]


def _of_factors(scores: Arrays, start: str) -> Iterator[tuple[str, np.ndarray]]:
  """Yields factors with those of their scores whose names begin so."""
  for name, values in scores.items():
    if name.startswith(start):
      yield name.removeprefix(start), values


# ---------------------------------------------------------------- the catalogue

# What scenes without true masks do not have.
_OF_MASKS = (
  Metric(
    "ari",
    "ARI",
    "adjusted Rand index of all pixels: 1 is perfect, 0 is chance",
    main=True,
    charted=True,
  ),
  Metric(
    "ari_nobg",
    "ARI, foreground",
    "the same over the pixels of objects only, as papers give it",
    main=True,
    charted=True,
  ),
  Metric(
    "video_ari",
    "video ARI",
    "ARI of all frames of a film together: a slot has to keep its object",
    lambda scores: _video_ari(scores, 0),
    of_films=True,
  ),
  Metric(
    "video_ari_nobg",
    "video ARI, foreground",
    "the same over the pixels of objects only: the field's video ARI, FG-ARI",
    lambda scores: _video_ari(scores, 1),
    of_films=True,
  ),
  Metric(
    "miou",
    "mean IoU",
    "intersection over union, slots matched one to one to the truth",
    _of_tables(metrics_lib.mean_iou),
    needs_objects=True,
    main=True,
  ),
  Metric(
    "msc",
    "mean segmentation covering",
    "segmentation covering: best IoU of each object, mean over objects (mBO)",
    _of_tables(lambda x: metrics_lib.segmentation_covering(x).unweighted),
    needs_objects=True,
    main=True,
  ),
  Metric(
    "sc",
    "segmentation covering",
    "the same, weighted by the sizes of the objects",
    _of_tables(lambda x: metrics_lib.segmentation_covering(x).weighted),
    needs_objects=True,
  ),
  Metric(
    "recall",
    "objects found",
    "share of the objects of which a slot has an IoU above 1/2",
    _of_tables(_recall),
    needs_objects=True,
  ),
)

_OF_ALL = (
  Metric(
    "mse",
    "mean squared error",
    "squared error of the reconstruction, mean over pixels and channels",
    main=True,
    charted=True,
  ),
  Metric(
    "recons",
    "reconstruction loss",
    "-log p(x), how badly the image is explained, in nats",
    unit="nats",
    main=True,
    charted=True,
  ),
  Metric(
    "kl",
    "KL divergence, sum over slots",
    "KL divergence of the latents from the prior, all slots, in nats",
    lambda scores: scores["kl/slot"].sum(axis=-1),
    unit="nats",
    main=True,
    charted=True,
  ),
  Metric(
    "kl/slot_{}",
    "KL divergence, slot {}",
    "KL divergence of slot {}, in nats",
    _kl_of_slots,
    unit="nats",
  ),
  Metric(
    "total",
    "training loss",
    "training loss: recons + kl, weighted over the iterations, in nats",
    unit="nats",
  ),
  Metric(
    "num_active_slots",
    "active slots",
    "slots that own at least one pixel",
    main=True,
  ),
)

# What scenes without true factors do not have.
_OF_FACTORS = (
  Metric(
    "factor",
    "factor loss",
    "loss of the regressor from latents to true factors",
    charted=True,
  ),
  Metric(
    "accuracy/{}",
    "accuracy, {}",
    "{}: share of visible objects whose class the regressor finds",
    _accuracies,
    of_scenes=False,
  ),
  Metric(
    "r2/{}",
    "R2, {}",
    "{}: variance of the factor, over visible objects, that it explains",
    _r2s,
    of_scenes=False,
  ),
)


def left_out(scores: Arrays, has_regressor: bool) -> tuple[str, ...]:
  """Returns sentences on the standard metrics that scenes do not have.

  Args:
    scores: see the top of the file.
    has_regressor: whether the model regresses factors where there are some.
  """
  of_films = bool(scores["frame"].any())
  missing: dict[str, Iterable[Metric]] = {}
  if "contingency" not in scores:
    missing["masks"] = [m for m in _OF_MASKS if of_films or not m.of_films]
  if has_regressor and "factor" not in scores:
    missing["factors"] = _OF_FACTORS
  return tuple(
    f"the scenes have no {truth}: left out are "
    + "; ".join(metric.title.removesuffix(", {}") for metric in metrics)
    for truth, metrics in missing.items()
  )


STANDARD = (*_OF_MASKS, *_OF_ALL, *_OF_FACTORS)
TITLES = {metric.name: metric.title for metric in STANDARD}


def panels(metrics: Iterable[Metric] = ()) -> dict[str, str]:
  """Returns titles of the charts over the iterations, by name.

  Args:
    metrics: beside the standard ones, those that are theirs already count once.
  """
  return {m.name: m.label for m in (*STANDARD, *metrics) if m.charted}
