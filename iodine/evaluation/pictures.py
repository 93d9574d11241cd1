"""The pictures of a model, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from iodine.drawing import canvas, charts, curves, latent_plots, plotting
from iodine.evaluation import catalogue, evaluator, inspection


class Picture(NamedTuple):
  """A picture that is drawn.

  Attributes:
    kind: example, iterations, inputs, traversal or refinement of a scene;
      metrics, samples or latents of all of them.
    scene: its number in the test subset; None for a picture of all.
    figures: of refinement the frames, else one.
  """

  kind: str
  scene: int | None
  figures: Sequence[Figure]

  @property
  def file_name(self) -> str:
    """Returns what the file is called."""
    start = "" if self.scene is None else f"scene_{self.scene}_"
    return f"{start}{self.kind}.{'gif' if self.is_animated else 'png'}"

  @property
  def is_animated(self) -> bool:
    """Returns whether it is a GIF."""
    return self.kind == "refinement"

  def encode(self, scale: int = 1) -> bytes:
    """Returns the content of the file; `scale` as for `canvas.png`."""
    if self.is_animated:
      return canvas.gif(self.figures)
    return canvas.png(self.figures[0], scale)


class View(NamedTuple):
  """What there is to draw, see `inspection`."""

  decoder: inspection.Decoder
  scenes: Sequence[inspection.Scene]
  survey: inspection.Survey


def draw(
  view: View, slot: int | None = None, seed: int = 0
) -> Iterator[Picture]:
  """Draws one picture after the other: of every scene, then of all.

  Args:
    view: what there is to draw.
    slot: whose latents are traversed, from 0; None for `foreground_slot`.
    seed: samples from the prior follow from it.
  """
  for scene in view.scenes:
    for kind, figures in _draw_scene(view.decoder, scene, slot):
      yield Picture(kind, scene.number, figures)
  for kind, figure in _draw_model(view.decoder, view.survey, seed):
    yield Picture(kind, None, [figure])


def _draw_scene(
  decoder: inspection.Decoder, scene: inspection.Scene, slot: int | None
) -> Iterator[tuple[str, list[Figure]]]:
  """Draws what concerns one scene."""
  yield "example", [plotting.example_plot(scene.info)]
  yield "iterations", [plotting.iterations_plot(scene.info)]
  if decoder.model.num_iters:
    yield "inputs", [plotting.inputs_plot(scene.info)]
  traversal = inspection.traverse(decoder, scene, slot)
  yield "traversal", [latent_plots.traversal_plot(traversal)]
  yield "refinement", plotting.refinement_frames(scene.info)


def _draw_model(
  decoder: inspection.Decoder, survey: inspection.Survey, seed: int
) -> Iterator[tuple[str, Figure]]:
  """Draws what concerns more than one scene."""
  yield "metrics", charts.metrics_plot(survey.info, catalogue.panels())
  samples = inspection.sample(decoder, seed=seed)
  yield "samples", latent_plots.samples_plot(samples.recons, samples.masks)
  if survey.latents is None:
    return
  regressor = decoder.model.factor_evaluator
  kinds = regressor.kinds if regressor is not None else {}
  yield (
    "latents",
    latent_plots.latents_plot(survey.latents, survey.factors, kinds),
  )


def generalisation_plot(
  results: Sequence[evaluator.Evaluation], trained: curves.Trained
) -> Figure:
  """Draws the curves of several numbers of slots."""
  return curves.generalisation_plot(
    [
      curves.SlotCurve(r.num_components, r.means(), r.standard_errors())
      for r in results
    ],
    trained,
    catalogue.TITLES,
  )
