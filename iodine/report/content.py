"""What stands in the page of a report, from an evaluation and its pictures."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sacred.utils
from matplotlib.figure import Figure

from iodine import checkpoints, devices, errors, evaluation
from iodine.drawing import canvas, charts, sheet
from iodine.modules import data, datasets, iodine
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


def write(
  config: Mapping[str, Any],
  opened: checkpoints.Opened,
  step: int,
  model: iodine.IODINE,
  dataset: datasets.SceneDataset,
  result: evaluation.Evaluation,
  scenes: Sequence[evaluation.Scene],
  statistics: evaluation.SceneStatistics,
  pictures: Iterable[evaluation.Picture],
  trained: charts.Trained | None,
  logged: Mapping[str, Sequence[tuple[int, float]]],
) -> str:
  """Puts words and pictures beside the metrics.

  Args:
    config: the complete config.
    opened: the checkpoint.
    step: of the checkpoint.
    model: as it is evaluated.
    dataset: whose test subset has the scenes.
    result: the evaluation.
    scenes: what is shown.
    statistics: of more scenes.
    pictures: all of them, as from `evaluation.draw`.
    trained: what is marked among other numbers of slots or refinements; None
      where these are not asked for.
    logged: what was logged in training, {title: [(step, value)]}.

  Returns:
    The page as HTML.
  """
  masked = config["plot"]["masked"]
  drawn = {(picture.kind, picture.scene): picture for picture in pictures}
  charts_drawn = _charts(result, trained, logged, step)
  if ("latents", None) in drawn:
    (figure,) = drawn["latents", None].figures
    charts_drawn["latents"] = _chart(figure, captions.latents(statistics))
  return page.render(
    title=_title(dataset, result.num_scenes),
    facts=_facts(config, opened, step, model, dataset, result),
    notes=captions.notes(
      datasets.ranges_of(dataset)[1] is not None,
      "factor" in result.metrics,
      result.left_out,
    ),
    result=result,
    others=_others(result, trained),
    spread_titles=evaluation.tables.spread_titles(result),
    scenes=[
      {
        "number": scene.number,
        "metrics": _final_metrics(scene),
        "data": sheet.of_scene(scene.info),
        "images": [
          page.Image(
            picture.encode(), captions.scene(kind, scene.number, masked)
          )
          for kind in captions.SCENE_KINDS
          if (picture := drawn.get((kind, scene.number)))
        ],
      }
      for scene in scenes
    ],
    samples=page.Image(drawn["samples", None].encode(), captions.SAMPLES),
    config=dict(sacred.utils.iterate_flattened(config)),
    **charts_drawn,
  )


# ----------------------------------------------------------------------- words


def _title(dataset: datasets.SceneDataset, number: int) -> str:
  """Returns how many scenes there are of what."""
  noun = "photo" if isinstance(dataset, data.Images) else "scene"
  counted = f"{number:,} {noun}{'' if number == 1 else 's'}"
  paths = _paths(dataset)
  if isinstance(dataset, data.IODINEDataset) or not paths:
    return f"{counted} of {type(dataset).__name__}"
  names = [
    os.path.basename(os.path.normpath(path)) + "/" * os.path.isdir(path)
    for path in paths
  ]
  return f"{counted} from {errors.join_some(names, separator=', ')}"


def _paths(dataset: datasets.SceneDataset) -> Sequence[str]:
  path: Any = getattr(dataset, "path", None) or getattr(dataset, "name", ())
  return [path] if isinstance(path, str) else path


def _facts(
  config: Mapping[str, Any],
  opened: checkpoints.Opened,
  step: int,
  model: iodine.IODINE,
  dataset: datasets.SceneDataset,
  result: evaluation.Evaluation,
) -> dict[str, str]:
  """Returns what was evaluated, and with what."""
  kind = "TF1, of the original" if opened.is_tf1 else "TF2"
  parameters = sum(v.shape.num_elements() for v in model.trainable_variables)
  first, last = config["seed"], config["seed"] + result.seeds - 1
  shown_paths = errors.join_some(_paths(dataset), separator=", ")
  facts = {
    "checkpoint": f"{opened.prefix} ({kind})",
    "training step": f"{step:,}",
    "parameters": f"{parameters:,}",
    "data": f"{type(dataset).__name__}, {shown_paths}",
    "test subset": _range(datasets.ranges_of(dataset)[1]),
    "scenes": f"{result.num_scenes}, each once, {dataset.batch_size} a batch",
    "image": " × ".join(map(str, dataset.image_shape)),
    "slots": str(result.num_components),
    "refinements": str(result.num_iters),
    "seed of sampling": str(first) if first == last else f"{first} to {last}",
    "evaluated on": _environment(devices.describe(config)),
  }
  # Where the config of the training is there.
  if os.path.exists(checkpoints.config_path(opened.prefix)):
    trained_on = checkpoints.config_beside(opened.prefix).get("environment")
    if isinstance(trained_on, Mapping):
      facts["trained on"] = _environment(trained_on)
  versions = [f"{p} {importlib.metadata.version(p)}" for p in _PACKAGES]
  now = datetime.datetime.now(datetime.timezone.utc)
  return {
    **facts,
    "versions": ", ".join([f"Python {platform.python_version()}", *versions]),
    "written": f"{now:%Y-%m-%d %H:%M} UTC",
  }


def _environment(environment: Mapping[str, Any]) -> str:
  return ", ".join(f"{name}: {value}" for name, value in environment.items())


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


def _others(
  result: evaluation.Evaluation, trained: charts.Trained | None
) -> str:
  """Returns what the evaluation has other numbers of than the training."""
  iters = {result.num_iters, trained.num_iters} if trained else {0}
  slots = {each.num_components for each in (result, *result.generalisation)}
  names = {"slots": slots, "refinements": iters}
  return " and ".join(name for name, each in names.items() if len(each) > 1)


# -------------------------------------------------------------------- pictures


def _chart(figure: Figure, caption: captions.Caption) -> page.Image:
  return page.Image(canvas.png(figure, _CHART_SCALE), caption, _CHART_SCALE)


def _charts(
  result: evaluation.Evaluation,
  trained: charts.Trained | None,
  logged: Mapping[str, Sequence[tuple[int, float]]],
  step: int,
) -> dict[str, page.Image]:
  """Draws those charts that there are numbers for, see `page.render`."""
  titles = {
    name: title
    for name, title in evaluation.panels(result.catalogue).items()
    if name in result.per_iteration
  }
  figure = charts.evaluation_plot(
    result.means(), result.standard_errors(), titles, result.num_scenes
  )
  found = {"curves": _chart(figure, captions.curves(titles.values()))}
  if trained is not None:
    figure = evaluation.generalisation_plot(result, trained)
    found["generalisation"] = _chart(figure, captions.GENERALISATION)
  if logged:
    figure = charts.training_plot(logged, step)
    found["training"] = _chart(figure, captions.training(logged))
  return found
