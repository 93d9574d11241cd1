"""Pictures of chosen scenes, of the prior and of the latents."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from iodine import checkpoints, errors, evaluation, files, validation
from iodine.commands import common, make_data
from iodine.drawing import canvas, charts, latent_plots, plotting
from iodine.modules import data as data_lib
from iodine.modules import iodine

Config = common.Config


class Options(NamedTuple):
  """What is drawn, see `configs/defaults.py`."""

  scenes: tuple[int, ...]
  slot: int | None
  num_scenes_for_map: int


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
    """What the file is called."""
    start = "" if self.scene is None else f"scene_{self.scene}_"
    return f"{start}{self.kind}.{'gif' if self.is_animated else 'png'}"

  @property
  def is_animated(self) -> bool:
    """Whether it is a GIF."""
    return self.kind == "refinement"

  def encode(self, scale: int = 1) -> bytes:
    """The content of the file; `scale` as for `canvas.png`."""
    if self.is_animated:
      return canvas.gif(self.figures)
    return canvas.png(self.figures[0], scale)


class View(NamedTuple):
  """What there is to draw."""

  decoder: evaluation.Decoder
  scenes: Sequence[evaluation.Scene]
  survey: evaluation.Survey


def run(config: Config, checkpoint_dir: str) -> list[str]:
  """Draws a checkpoint's scenes, metrics, prior samples and latents.

  Returns:
    The paths of the pictures.

  Raises:
    errors.UserError: if an option makes no sense or a scene is not there.
  """
  options = read_options(config)
  prefix = checkpoints.find(checkpoint_dir)
  folder = config["pictures_dir"] or common.results_path(
    config, prefix, "plots"
  )
  files.make_folder(folder)
  make_data.provide(config)
  dataset = common.build_dataset(config["data"], config["seed"])
  batches = dataset.batches("test")
  model = common.restore(config, prefix).model
  print(f"plotting {prefix}", flush=True)
  view = look(model, dataset, batches, options, config["seed"])
  paths = []
  for picture in draw(view, options, config["seed"]):
    path = os.path.join(folder, picture.file_name)
    files.write(path, picture.encode())
    print(f"wrote {path}", flush=True)
    paths.append(path)
  return paths


def look(
  model: iodine.IODINE,
  dataset: data_lib.IODINEDataset,
  batches: Iterable[dict[str, Any]],
  options: Options,
  seed: int,
) -> View:
  """Decomposes what is to be drawn, with progress on the terminal.

  Raises:
    errors.UserError: if a scene or a slot is not there, or the model does not
      fit the scenes.
  """
  if options.slot is not None and options.slot > model.num_components:
    raise errors.UserError(
      f"`plot.slot` is {options.slot}, and the model has "
      f"{model.num_components} slots: give one of them, or None"
    )
  try:
    scenes, survey = evaluation.look(
      model,
      batches,
      dataset.batch_size,
      options.scenes,
      options.num_scenes_for_map,
      seed=seed,
      on_progress=lambda done: print(f"{done} scenes", flush=True),
    )
  except common.CONFIG_ERRORS as error:
    raise common.misfit(dataset.image_shape, error) from error
  assert survey is not None  # at least one scene is surveyed
  return View(evaluation.Decoder(model, dataset.batch_size), scenes, survey)


def read_options(config: Config) -> Options:
  """Reads `plot`.

  Raises:
    errors.UserError: if an entry makes no sense.
  """
  options = config["plot"]
  if not isinstance(options, Mapping):
    raise errors.UserError(
      f"`plot` is {options!r}: give its entries, such as `plot.scenes=[0,1]`"
    )
  scenes = options["scenes"]
  if not isinstance(scenes, (list, tuple)) or not all(
    validation.is_whole(number, 0) for number in scenes
  ):
    raise errors.UserError(
      f"`plot.scenes` is {scenes!r}: give a list of scenes of the test subset, "
      "such as [0,1,2]; they count from 0"
    )
  slot = options["slot"]
  if slot is not None and not validation.is_whole(slot, 1):
    raise errors.UserError(
      f"`plot.slot` is {slot!r}: give the number of a slot as in the "
      "pictures, from 1, or None"
    )
  num_scenes = options["num_scenes_for_map"]
  if not validation.is_whole(num_scenes, 1):
    raise errors.UserError(
      f"`plot.num_scenes_for_map` is {num_scenes!r}: give a whole number, at "
      "least 1"
    )
  return Options(tuple(dict.fromkeys(scenes)), slot, num_scenes)


def draw(view: View, options: Options, seed: int) -> Iterator[Picture]:
  """Draws one picture after the other: of every scene, then of all.

  Args:
    view: what there is to draw.
    options: which slot is traversed.
    seed: samples from the prior follow from it.
  """
  for scene in view.scenes:
    for kind, figures in _draw_scene(view.decoder, scene, options.slot):
      yield Picture(kind, scene.number, figures)
  for kind, figure in _draw_model(view.decoder, view.survey, seed):
    yield Picture(kind, None, [figure])


def _draw_scene(
  decoder: evaluation.Decoder, scene: evaluation.Scene, slot: int | None
) -> Iterator[tuple[str, list[Figure]]]:
  """Draws what concerns one scene."""
  yield "example", [plotting.example_plot(scene.info)]
  yield "iterations", [plotting.iterations_plot(scene.info)]
  if decoder.model.num_iters:
    yield "inputs", [plotting.inputs_plot(scene.info)]
  traversal = evaluation.traverse(
    decoder, scene, None if slot is None else slot - 1
  )
  yield "traversal", [latent_plots.traversal_plot(traversal)]
  yield "refinement", plotting.refinement_frames(scene.info)


def _draw_model(
  decoder: evaluation.Decoder, survey: evaluation.Survey, seed: int
) -> Iterator[tuple[str, Figure]]:
  """Draws what concerns more than one scene."""
  yield "metrics", charts.metrics_plot(survey.info, evaluation.panels())
  samples = evaluation.sample(decoder, seed=seed)
  yield "samples", latent_plots.samples_plot(samples.recons, samples.masks)
  evaluator = decoder.model.factor_evaluator
  kinds = evaluator.kinds if evaluator is not None else {}
  yield (
    "latents",
    latent_plots.latents_plot(survey.latents, survey.factors, kinds),
  )
