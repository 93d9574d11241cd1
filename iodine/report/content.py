"""What stands in the page of a report, from an evaluation and its pictures."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from iodine import devices, errors, evaluation
from iodine.drawing import canvas, charts, curves
from iodine.modules import data as data_lib
from iodine.modules import iodine
from iodine.report import captions, page

_PACKAGES = (
  "tensorflow",
  "tensorflow-probability",
  "dm-sonnet",
  "numpy",
  "scipy",
  "matplotlib",
  "sacred",
)
# Charts have thin lines and small letters, pictures have the model's pixels.
_CHART_SCALE = 2


class Subject(NamedTuple):
  """What the report is on.

  Attributes:
    prefix: of the checkpoint.
    is_tf1: whether it is one of the original.
    step: of the checkpoint.
    model: as it is evaluated.
    dataset: whose test subset has the scenes.
    seed: the latents are sampled from it.
    trained: what is marked among other numbers of slots or refinements; None
      where these are not asked for.
    logged: what was logged in training, {title: [(step, value)]}.
    trained_on: see `devices.describe`; None where it is not known.
  """

  prefix: str
  is_tf1: bool
  step: int
  model: iodine.IODINE
  dataset: data_lib.IODINEDataset
  seed: int
  trained: curves.Trained | None
  logged: Mapping[str, Sequence[tuple[int, float]]]
  trained_on: Mapping[str, str] | None = None


def collect(
  config: Mapping[str, Any],
  subject: Subject,
  result: evaluation.Evaluation,
  view: evaluation.View,
  pictures: Iterable[evaluation.Picture],
) -> page.Report:
  """Puts words and pictures beside the metrics.

  Args:
    config: the complete config.
    subject: what the report is on.
    result: the evaluation.
    view: what the pictures show.
    pictures: all of them, as from `evaluation.draw`.
  """
  drawn = {(picture.kind, picture.scene): picture for picture in pictures}
  return page.Report(
    title=f"IODINE on {type(subject.dataset).__name__}",
    facts=_facts(config, subject, result),
    notes=captions.notes(
      subject.dataset.test is not None,
      "factor" in result.metrics,
      result.left_out,
    ),
    result=result,
    spread_titles=evaluation.spread_titles(result),
    curves=_curves(result),
    generalisation=_generalisation(subject, result),
    training=_training(subject),
    scenes=[
      page.Scene(
        scene.number,
        _final_metrics(scene),
        [
          _image(drawn[kind, scene.number], captions.scene(kind, scene.number))
          for kind in captions.SCENE_KINDS
          if (kind, scene.number) in drawn
        ],
      )
      for scene in view.scenes
    ],
    samples=_image(drawn["samples", None], captions.SAMPLES),
    latents=_latents(drawn.get(("latents", None)), view.survey),
    config=page.flatten(config),
  )


# ----------------------------------------------------------------------- words


def _facts(
  config: Mapping[str, Any], subject: Subject, result: evaluation.Evaluation
) -> list[tuple[str, str]]:
  """Returns what was evaluated, and with what."""
  trained_on = subject.trained_on
  dataset = subject.dataset
  first, last = subject.seed, subject.seed + result.seeds - 1
  kind = "TF1, of the original" if subject.is_tf1 else "TF2"
  parameters = sum(
    v.shape.num_elements() for v in subject.model.trainable_variables
  )
  versions = [f"Python {platform.python_version()}"]
  for name in _PACKAGES:
    versions.append(f"{name} {importlib.metadata.version(name)}")
  return [
    ("checkpoint", f"{subject.prefix} ({kind})"),
    ("training step", f"{subject.step:,}"),
    ("parameters", f"{parameters:,}"),
    ("data", f"{type(dataset).__name__}, {_paths(dataset.path)}"),
    ("test subset", _range(dataset.test)),
    ("scenes", f"{result.num_scenes}, each once, {dataset.batch_size} a batch"),
    ("image", " × ".join(map(str, dataset.image_shape))),
    ("slots", str(result.num_components)),
    ("refinements", str(result.num_iters)),
    ("seed of sampling", str(first) if first == last else f"{first} to {last}"),
    ("evaluated on", _environment(devices.describe(config))),
    *([("trained on", _environment(trained_on))] if trained_on else []),
    ("versions", ", ".join(versions)),
    (
      "written",
      f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC",
    ),
  ]


def _environment(environment: Mapping[str, str]) -> str:
  return (
    f"{environment['device']}, {environment['precision']}, "
    f"TensorFlow {environment['tensorflow']}"
  )


def _paths(path: str | Sequence[str]) -> str:
  return (
    path if isinstance(path, str) else errors.join_some(path, separator=", ")
  )


def _range(test: str | Sequence[int | None] | None) -> str:
  """Returns the range of scene indices, or the name of the subset, in words."""
  if test is None:
    return "all scenes"
  if isinstance(test, str):
    return f"all scenes in {test}"
  start, stop = test
  end = "to the end" if stop is None else f"to {stop - 1}"
  return f"scenes {start or 0} {end} of the file, those that pass its filter"


def _final_metrics(scene: evaluation.Scene) -> dict[str, float]:
  """Returns the metrics of one scene's final decode."""
  losses = scene.info["losses"]
  return {
    **{name: float(v[0, -1]) for name, v in scene.info["metrics"].items()},
    "recons": float(losses["recons"][0, -1]),
    "kl": float(losses["kl"][0, -1].sum()),
  }


# -------------------------------------------------------------------- pictures


def _image(
  picture: evaluation.Picture, caption: captions.Caption, scale: int = 1
) -> page.Image:
  return page.Image(picture.encode(scale), caption, scale)


def _chart(figure: Figure, caption: captions.Caption) -> page.Image:
  return page.Image(canvas.png(figure, _CHART_SCALE), caption, _CHART_SCALE)


def _latents(
  picture: evaluation.Picture | None, survey: evaluation.Survey
) -> page.Image | None:
  if picture is None:
    return None
  return _image(picture, captions.latents(survey), _CHART_SCALE)


def _curves(result: evaluation.Evaluation) -> page.Image:
  titles = {
    name: title
    for name, title in evaluation.panels(result.catalogue).items()
    if name in result.per_iteration or name == "factor"
  }
  return _chart(
    charts.evaluation_plot(
      result.means(), result.standard_errors(), titles, result.num_scenes
    ),
    captions.curves(titles.values()),
  )


def _generalisation(
  subject: Subject, result: evaluation.Evaluation
) -> page.Image | None:
  if subject.trained is None:
    return None
  figure = evaluation.generalisation_plot(
    result.generalisation or (result,), subject.trained
  )
  return _chart(figure, captions.GENERALISATION)


def _training(subject: Subject) -> page.Image | None:
  if not subject.logged:
    return None
  return _chart(
    charts.training_plot(subject.logged, subject.step),
    captions.training(subject.logged),
  )
