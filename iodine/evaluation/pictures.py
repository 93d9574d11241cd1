"""The pictures of a model, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from iodine.drawing import canvas, charts, latent_plots, plotting
from iodine.evaluation import catalogue, evaluator, inspection
from iodine.modules import iodine

_FEW = 4  # scenes in an overview
_FILM_VALUES = 25  # of a latent, from -3 to 3


class Picture(NamedTuple):
  """A picture that is drawn.

  Attributes:
    kind: example, iterations, inputs, traversal, refinement or traversal_film
      of a scene; overview, sequence, metrics, samples or latents of all.
    scene: its number in the test subset; None for a picture of all.
    figures: one, or the frames of a film.
    film: gif or mp4; None for a still.
    milliseconds: of a frame.
  """

  kind: str
  scene: int | None
  figures: Sequence[Figure]
  film: str | None = None
  milliseconds: int = 700

  @property
  def file_name(self) -> str:
    """Returns what the file is called."""
    start = "" if self.scene is None else f"scene_{self.scene}_"
    return f"{start}{self.kind}.{self.film or canvas.style().format}"

  def encode(self) -> bytes:
    """Returns the content of the file."""
    if self.film:
      encode = canvas.mp4 if self.film == "mp4" else canvas.gif
      return encode(self.figures, self.milliseconds)
    return canvas.encode(self.figures[0])


def draw(
  decoder: inspection.Decoder,
  scenes: Iterable[inspection.Scene],
  statistics: inspection.SceneStatistics,
  options: Mapping[str, Any],
  seed: int = 0,
) -> Iterator[Picture]:
  """Draws one picture after the other: of every scene, then of all.

  Args:
    decoder: of the model that decomposed the scenes.
    scenes: those to show, see `inspection.decompose_scenes`.
    statistics: see `inspection.decompose_scenes`.
    options: `plot` of the config.
    seed: samples from the prior follow from it.
  """
  masked, iterations = options["masked"], options["iterations"]
  slot = None if options["slot"] is None else options["slot"] - 1
  for scene in scenes:
    info, number = scene.info, scene.number
    figure = plotting.example_plot(info, masked=masked)
    yield Picture("example", number, [figure])
    figure = plotting.iterations_plot(info, 0, masked, iterations)
    yield Picture("iterations", number, [figure])
    if decoder.model.num_iters:
      yield Picture("inputs", number, [plotting.inputs_plot(info)])
    chosen = {"slot": slot, "latent": options["latent"]}
    traversal = inspection.traverse(decoder, scene, **chosen)
    figure = latent_plots.traversal_plot(traversal, masked)
    yield Picture("traversal", number, [figure])
    frames = plotting.refinement_frames(info, masked=masked)
    yield Picture("refinement", number, frames, "gif")
    if options["traversal_film"]:
      values = np.linspace(-3.0, 3.0, _FILM_VALUES).tolist()
      traversal = inspection.traverse(decoder, scene, **chosen, values=values)
      frames = latent_plots.traversal_frames(traversal, masked)
      film = options["traversal_film"]
      yield Picture("traversal_film", number, frames, film, 80)
  figure = charts.metrics_plot(statistics.info, catalogue.panels())
  yield Picture("metrics", None, [figure])
  yield _samples(decoder, seed)
  if statistics.latents is not None:
    regressor = decoder.model.factor_evaluator
    kinds = regressor.kinds if regressor is not None else {}
    latents, factors = statistics.latents, statistics.factors
    figure = latent_plots.latents_plot(latents, factors, kinds)
    yield Picture("latents", None, [figure])


def _samples(decoder: inspection.Decoder, seed: int) -> Picture:
  drawn = inspection.sample(decoder, seed=seed)
  figure = latent_plots.samples_plot(drawn.reconstruction[:, 0], drawn.masks)
  return Picture("samples", None, [figure])


def draw_few(
  model: iodine.IODINE,
  example: dict[str, Any],
  options: Mapping[str, Any],
  seed: int,
) -> Iterator[Picture]:
  """Draws the first scenes of a batch in one picture, and samples.

  Args:
    model: the model.
    example: the batch.
    options: `plot` of the config.
    seed: latents follow from it.
  """
  few = tf.nest.map_structure(lambda x: x[:_FEW], example)
  size = len(few["image"])
  scenes, _ = inspection.decompose_scenes(
    model, [few], size, range(size), seed=seed
  )
  infos = {scene.number: scene.info for scene in scenes}
  figure = plotting.overview_plot(infos, options["masked"])
  yield Picture("overview", None, [figure])
  two = dict(list(infos.items())[:2])
  figure = plotting.sequence_plot(two, options["iterations"])
  yield Picture("sequence", None, [figure])
  yield _samples(inspection.Decoder(model, size), seed)


def generalisation_plot(
  result: evaluator.Evaluation, trained: charts.Trained
) -> Figure:
  """Draws the curves of an evaluation with several numbers of slots."""
  runs = result.generalisation or (result,)
  curves = {r.num_components: (r.means(), r.standard_errors()) for r in runs}
  return charts.generalisation_plot(curves, trained, catalogue.TITLES)
