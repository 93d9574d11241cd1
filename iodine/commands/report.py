"""One page with all that there is to know about a checkpoint."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from iodine import checkpoints, evaluation, files, report, training
from iodine.commands import common, evaluate, plot
from iodine.drawing import canvas, charts

Config = common.Config

_FILE_NAME = "report.html"
_PACKAGES = (
  *("tensorflow", "tensorflow-probability", "dm-sonnet", "numpy"),
  *("scipy", "matplotlib", "sacred"),
)
# Charts have thin lines and small letters, pictures have the model's pixels.
_CHART_SCALE = 2
_TRAINING = {
  "loss/total": evaluation.TITLES["total"],
  "loss/ari_nobg": evaluation.TITLES["ari_nobg"],
}


def run(
  config: Config,
  checkpoint_dir: str,
  output: Any,
  log_scalar: evaluation.LogScalar = lambda name, value, step: None,
) -> evaluation.Evaluation:
  """Evaluates a checkpoint, draws its pictures, and writes both as one page.

  The options are those of `evaluate` and `plot`; the pictures show the model
  as it is evaluated.

  Args:
    config: the complete config.
    checkpoint_dir: folder or prefix of a checkpoint.
    output: the file to write; None for report.html beside the checkpoint.
    log_scalar: takes name, value and iteration.

  Returns:
    The figures, those of `evaluate`.

  Raises:
    errors.UserError: see there and `plot`; and if the file cannot be written.
  """
  prefix = checkpoints.find(checkpoint_dir)
  options = evaluate.read_options(config)
  plot_options = plot.read_options(config)
  if output is None:
    output = common.results_path(config, prefix, _FILE_NAME)
  files.check_writable(output)
  subject = evaluate.restore(config, prefix, options)
  print(f"looking at scenes with {prefix}", flush=True)
  # Before the evaluation, which takes longer: a scene may not be there.
  view = plot.look(
    subject.own.model,
    subject.dataset,
    subject.dataset.batches("test"),
    plot_options,
    subject.seed,
  )
  result = evaluate.measure(subject)
  evaluation.write_files(result, options.files)
  evaluation.log_scalars(result, log_scalar)
  content = _collect(config, subject, result, view, plot_options)
  page = report.render(content)
  files.write(output, page)
  print(f"report: {output} ({len(page) / 1e6:.1f} MB)", flush=True)
  return result


def _collect(
  config: Config,
  subject: evaluate.Subject,
  result: evaluation.Evaluation,
  view: plot.View,
  options: plot.Options,
) -> report.Report:
  """Draws all pictures, and puts them beside the figures."""
  images: dict[int, dict[str, report.Image]] = {
    scene.number: {} for scene in view.scenes
  }
  drawn = {}
  for picture in plot.draw(view, options, subject.seed):
    print(f"drew {picture.file_name}", flush=True)
    if picture.scene is None:
      drawn[picture.kind] = picture
    else:
      images[picture.scene][picture.kind] = _scene_image(picture)
  return report.Report(
    title=f"IODINE on {type(subject.dataset).__name__}",
    facts=_facts(subject, result),
    notes=_notes(subject, result),
    result=result,
    spread_titles=evaluation.spread_titles(result),
    curves=_curves(result),
    generalisation=_generalisation(subject, result),
    training=_training(subject),
    scenes=[
      report.Scene(
        s.number,
        _final_metrics(s),
        [images[s.number][k] for k in report.KINDS if k in images[s.number]],
      )
      for s in view.scenes
    ],
    samples=_samples(drawn["samples"]),
    latents=_latents(drawn["latents"], view.survey),
    config=report.flatten(config),
  )


# ----------------------------------------------------------------------- words


def _facts(
  subject: evaluate.Subject, result: evaluation.Evaluation
) -> list[tuple[str, str]]:
  """What was evaluated, and with what."""
  dataset, own = subject.dataset, subject.own
  first, last = subject.seed, subject.seed + result.seeds - 1
  kind = "TF1, of the original" if own.report is not None else "TF2"
  parameters = sum(
    v.shape.num_elements() for v in own.model.trainable_variables
  )
  versions = [f"Python {platform.python_version()}"]
  for name in _PACKAGES:
    versions.append(f"{name} {importlib.metadata.version(name)}")
  return [
    ("checkpoint", f"{subject.prefix} ({kind})"),
    ("training step", f"{own.step:,}"),
    ("parameters", f"{parameters:,}"),
    ("data", f"{type(dataset).__name__}, {_paths(dataset.path)}"),
    ("test subset", _range(dataset.test)),
    ("scenes", f"{result.num_scenes}, each once, {dataset.batch_size} a batch"),
    ("image", " × ".join(map(str, dataset.image_shape))),
    ("slots", str(result.num_components)),
    ("refinements", str(result.num_iters)),
    ("seed of sampling", str(first) if first == last else f"{first} to {last}"),
    ("versions", ", ".join(versions)),
    (
      "written",
      f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC",
    ),
  ]


def _paths(path: str | Sequence[str]) -> str:
  return path if isinstance(path, str) else ", ".join(path)


def _range(test: Sequence[int | None] | None) -> str:
  """The range of scene indices in words."""
  if test is None:
    return "all scenes"
  start, stop = test
  end = "to the end" if stop is None else f"to {stop - 1}"
  return f"scenes {start or 0} {end} of the file, those that pass its filter"


def _notes(
  subject: evaluate.Subject, result: evaluation.Evaluation
) -> list[str]:
  """What a reader of the figures has to know."""
  notes = []
  if subject.dataset.test is None:
    notes.append(
      "data.test is not set: these are all scenes of the file, seen in "
      "training or not."
    )
  if "factor" in result.metrics:
    notes.append(
      "Accuracy and R2 are over the visible objects of all scenes at once, "
      "without the background; the training scalars factor/* are of single "
      "batches and include it."
    )
  return notes


def _final_metrics(scene: evaluation.Scene) -> dict[str, float]:
  """The metrics of one scene's final decode."""
  losses = scene.info["losses"]
  return {
    **{name: float(v[0, -1]) for name, v in scene.info["metrics"].items()},
    "recons": float(losses["recons"][0, -1]),
    "kl": float(losses["kl"][0, -1].sum()),
  }


# -------------------------------------------------------------------- pictures


def _chart(figure: Figure, alt: str, caption: str = "") -> report.Image:
  content = canvas.png(figure, _CHART_SCALE)
  return report.Image(content, alt, caption=caption, scale=_CHART_SCALE)


def _curves(result: evaluation.Evaluation) -> report.Image:
  return _chart(
    charts.evaluation_plot(
      result.means(),
      result.standard_errors(),
      evaluation.panels(result.catalogue),
      result.num_scenes,
    ),
    "Six panels with reconstruction loss, squared error, KL, ARI, foreground "
    "ARI and factor loss over the iterations; the table below has the numbers.",
    "Iteration 0 is the first guess, before any refinement. Bands are standard "
    "errors over the scenes.",
  )


def _generalisation(
  subject: evaluate.Subject, result: evaluation.Evaluation
) -> report.Image | None:
  if not subject.is_generalisation:
    return None
  return _chart(
    evaluation.generalisation_plot(
      result.generalisation or (result,), subject.trained
    ),
    "Foreground ARI and squared error over the refinements, a line for each "
    "number of slots, and over the number of slots.",
    "Neither the number of slots nor that of refinements is in the weights. "
    "Dashed lines mark what the config says.",
  )


def _training(subject: evaluate.Subject) -> report.Image | None:
  """The curves of the training, if its event files are there."""
  folder = os.path.dirname(subject.prefix) or "."
  if os.path.basename(os.path.abspath(folder)) == checkpoints.BEST_FOLDER:
    folder = os.path.join(folder, os.pardir)
  logged = training.read_scalars(folder, list(_TRAINING))
  if not logged:
    return None
  curves = {_TRAINING[tag]: curve for tag, curve in logged.items()}
  ends = [f"{title} {curve[-1][1]:.4g}" for title, curve in curves.items()]
  return _chart(
    charts.training_plot(curves, subject.own.step),
    f"Curves over the training steps; at the last one {', '.join(ends)}",
    "From the TensorBoard logs beside the checkpoint. Pale: as logged; line: "
    "mean over the nearest twentieth of the training.",
  )


def _scene_image(picture: plot.Picture) -> report.Image:
  title, caption = report.KINDS[picture.kind]
  alt = f"{title}, scene {picture.scene}"
  return report.Image(picture.encode(), alt, title, caption)


def _samples(picture: plot.Picture) -> report.Image:
  return report.Image(
    picture.encode(),
    "Images decoded from random latents, each beside its masks",
    caption="Latents drawn from the prior and decoded, each image beside its "
    "masks. The slots are drawn independently, so that they need not agree on "
    "who owns which pixel.",
  )


def _latents(picture: plot.Picture, survey: evaluation.Survey) -> report.Image:
  objects = len(survey.latents)
  return report.Image(
    picture.encode(_CHART_SCALE),
    f"Map of the latents of {objects} objects, coloured by their true factors",
    caption=f"The latents of {objects} objects in {survey.num_scenes} scenes, "
    "on the two directions in which they differ most (principal components), "
    "coloured by one true factor in each panel. Where the colours are in "
    "order, the latents know the factor.",
    scale=_CHART_SCALE,
  )
