"""The pictures of a model, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from iodine.drawing import canvas, charts, latent_plots, plotting
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
    suffix = "gif" if self.kind == "refinement" else "png"
    return f"{start}{self.kind}.{suffix}"

  def encode(self) -> bytes:
    """Returns the content of the file."""
    if self.kind == "refinement":
      return canvas.gif(self.figures)
    return canvas.png(self.figures[0])


def draw(
  decoder: inspection.Decoder,
  scenes: Iterable[inspection.Scene],
  statistics: inspection.SceneStatistics,
  slot: int | None = None,
  seed: int = 0,
) -> Iterator[Picture]:
  """Draws one picture after the other: of every scene, then of all.

  Args:
    decoder: of the model that decomposed the scenes.
    scenes: those to show, see `inspection.decompose_scenes`.
    statistics: see `inspection.decompose_scenes`.
    slot: whose latents are traversed, from 0; None for `foreground_slot`.
    seed: samples from the prior follow from it.
  """
  for scene in scenes:
    info, number = scene.info, scene.number
    yield Picture("example", number, [plotting.example_plot(info)])
    yield Picture("iterations", number, [plotting.iterations_plot(info)])
    if decoder.model.num_iters:
      yield Picture("inputs", number, [plotting.inputs_plot(info)])
    traversal = inspection.traverse(decoder, scene, slot)
    figure = latent_plots.traversal_plot(traversal)
    yield Picture("traversal", number, [figure])
    yield Picture("refinement", number, plotting.refinement_frames(info))
  figure = charts.metrics_plot(statistics.info, catalogue.panels())
  yield Picture("metrics", None, [figure])
  samples = inspection.sample(decoder, seed=seed)
  figure = latent_plots.samples_plot(
    samples.reconstruction[:, 0], samples.masks
  )
  yield Picture("samples", None, [figure])
  if statistics.latents is not None:
    regressor = decoder.model.factor_evaluator
    kinds = regressor.kinds if regressor is not None else {}
    latents, factors = statistics.latents, statistics.factors
    figure = latent_plots.latents_plot(latents, factors, kinds)
    yield Picture("latents", None, [figure])


def generalisation_plot(
  result: evaluator.Evaluation, trained: charts.Trained
) -> Figure:
  """Draws the curves of an evaluation with several numbers of slots."""
  runs = result.generalisation or (result,)
  curves = {r.num_components: (r.means(), r.standard_errors()) for r in runs}
  return charts.generalisation_plot(curves, trained, catalogue.TITLES)
