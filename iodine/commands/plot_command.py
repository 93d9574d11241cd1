"""Pictures of chosen scenes, of the prior and of the latents."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from iodine import checkpoints, errors, pictures
from iodine.commands import common
from iodine.modules import canvas, charts, latent_plots, plotting

Config = common.Config


class Options(NamedTuple):
  """What is drawn, see `configs/defaults.py`."""

  scenes: tuple[int, ...]
  slot: int | None
  num_scenes_for_map: int


def plot(config: Config, checkpoint_dir: str) -> list[str]:
  """Draws a checkpoint's scenes, metrics, prior samples and latents.

  Returns:
    The paths of the pictures.

  Raises:
    errors.UserError: if an option makes no sense or a scene is not there.
  """
  options = _options(config["plot"])
  prefix = checkpoints.find(checkpoint_dir)
  folder = config["pictures_dir"] or os.path.join(
    os.path.dirname(prefix), "plots"
  )
  checkpoints.make_folder(folder)
  dataset = common.build_dataset(config["data"], config["seed"])
  batches = dataset.batches("test")
  model = common.restore(config, prefix).model
  if options.slot is not None and options.slot > model.num_components:
    raise errors.UserError(
      f"`plot.slot` is {options.slot}, and the model has "
      f"{model.num_components} slots: give one of them, or None"
    )
  print(f"plotting {prefix}", flush=True)
  try:
    scenes, survey = pictures.look(
      model,
      batches,
      dataset.batch_size,
      options.scenes,
      options.num_scenes_for_map,
      seed=config["seed"],
      on_progress=lambda done: print(f"{done} scenes", flush=True),
    )
  except common.CONFIG_ERRORS as error:
    raise common.misfit(dataset.image_shape, error) from error
  assert survey is not None  # at least one scene is surveyed
  decoder = pictures.Decoder(model, dataset.batch_size)
  paths = []
  for scene in scenes:
    paths += _write_scene(decoder, scene, options.slot, folder)
  drawn = _draw_model(decoder, survey, config["seed"])
  return paths + _write(drawn, folder)


def _options(options: Any) -> Options:
  if not isinstance(options, Mapping):
    raise errors.UserError(
      f"`plot` is {options!r}: give its entries, such as `plot.scenes=[0,1]`"
    )
  scenes = options["scenes"]
  if not isinstance(scenes, (list, tuple)) or not all(
    _is_whole(number, 0) for number in scenes
  ):
    raise errors.UserError(
      f"`plot.scenes` is {scenes!r}: give a list of scenes of the test subset, "
      "such as [0,1,2]; they count from 0"
    )
  slot = options["slot"]
  if slot is not None and not _is_whole(slot, 1):
    raise errors.UserError(
      f"`plot.slot` is {slot!r}: give the number of a slot as in the "
      "pictures, from 1, or None"
    )
  num_scenes = options["num_scenes_for_map"]
  if not _is_whole(num_scenes, 1):
    raise errors.UserError(
      f"`plot.num_scenes_for_map` is {num_scenes!r}: give a whole number, at "
      "least 1"
    )
  return Options(tuple(dict.fromkeys(scenes)), slot, num_scenes)


def _is_whole(value: Any, least: int) -> bool:
  is_whole = isinstance(value, int) and not isinstance(value, bool)
  return is_whole and value >= least


def _write_scene(
  decoder: pictures.Decoder,
  scene: pictures.Scene,
  slot: int | None,
  folder: str,
) -> list[str]:
  """Writes the pictures of one scene."""
  name = f"scene_{scene.number}"

  def draw() -> Iterator[tuple[str, Figure]]:
    yield f"{name}_example", plotting.example_plot(scene.info)
    yield f"{name}_iterations", plotting.iterations_plot(scene.info)
    if decoder.model.num_iters:
      yield f"{name}_inputs", plotting.inputs_plot(scene.info)
    traversal = pictures.traverse(
      decoder, scene, None if slot is None else slot - 1
    )
    yield f"{name}_traversal", latent_plots.traversal_plot(traversal)

  paths = _write(draw(), folder)
  path = os.path.join(folder, f"{name}_refinement.gif")
  canvas.save_animation(plotting.refinement_frames(scene.info), path)
  print(f"wrote {path}", flush=True)
  return [*paths, path]


def _draw_model(
  decoder: pictures.Decoder, survey: pictures.Survey, seed: int
) -> Iterator[tuple[str, Figure]]:
  """Draws what concerns more than one scene."""
  yield "metrics", charts.metrics_plot(survey.info)
  samples = pictures.sample(decoder, seed=seed)
  yield "samples", latent_plots.samples_plot(samples.recons, samples.masks)
  evaluator = decoder.model.factor_evaluator
  kinds = evaluator.kinds if evaluator is not None else {}
  yield (
    "latents",
    latent_plots.latents_plot(survey.latents, survey.factors, kinds),
  )


def _write(drawn: Iterable[tuple[str, Figure]], folder: str) -> list[str]:
  """Writes figures one after the other, by their names."""
  paths = []
  for name, figure in drawn:
    path = os.path.join(folder, f"{name}.png")
    canvas.save(figure, path)
    print(f"wrote {path}", flush=True)
    paths.append(path)
  return paths
