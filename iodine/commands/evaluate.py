"""Evaluation on held-out scenes."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from iodine import checkpoints, errors, evaluation, files, training, validation
from iodine.commands import common, make_data
from iodine.drawing import curves, image_files
from iodine.modules import data as data_lib
from iodine.modules import iodine

Config = common.Config


class Options(NamedTuple):
  """What the config says about an evaluation.

  Attributes:
    num_scenes: how many; None for all of the test subset.
    seeds: how often the latents are sampled.
    num_components: numbers of slots to compare.
    num_iters: refinements; None for as many as the model has.
    files: paths under json_path, csv_path, scenes_csv; None for no file.
  """

  num_scenes: int | None
  seeds: int
  num_components: tuple[int, ...]
  num_iters: int | None
  files: dict[str, str | None]


def read_options(config: Config) -> Options:
  """Reads `evaluation` and the paths of the files to write.

  Raises:
    errors.UserError: if an entry makes no sense or a file cannot be written.
  """
  given = config["evaluation"]
  if not isinstance(given, Mapping):
    raise errors.UserError(
      f"`evaluation` is {given!r}: give its entries one by one, such as "
      "`evaluation.num_scenes=320`"
    )
  _require_whole(given, "num_scenes", 1, "None for all scenes")
  _require_whole(given, "num_iters", 0, "None for the model's own")
  seeds = given.get("seeds", 1)
  if not validation.is_whole(seeds, 1):
    raise errors.UserError(
      f"`evaluation.seeds` is {seeds!r}: give a whole number, at least 1"
    )
  slots = given.get("num_components")
  slots = [] if slots is None else slots
  is_list = isinstance(slots, (list, tuple))
  if not is_list or not all(validation.is_whole(k, 1) for k in slots):
    raise errors.UserError(
      f"`evaluation.num_components` is {slots!r}: give a list of whole "
      "numbers, at least 1, such as `evaluation.num_components=[4,5,7]`"
    )
  paths = {
    "json_path": config["json_path"],
    "csv_path": config.get("csv_path"),
    "scenes_csv": given.get("scenes_csv"),
  }
  for path in paths.values():
    if path is not None:
      files.check_writable(path)
  return Options(
    given.get("num_scenes"),
    seeds,
    tuple(dict.fromkeys(slots)),
    given.get("num_iters"),
    paths,
  )


def _require_whole(
  given: Mapping[str, Any], name: str, least: int, otherwise: str
) -> None:
  value = given.get(name)
  if value is not None and not validation.is_whole(value, least):
    raise errors.UserError(
      f"`evaluation.{name}` is {value!r}: give a whole number, at least "
      f"{least}, or {otherwise}"
    )


def run(
  config: Config,
  checkpoint_dir: str,
  log_scalar: evaluation.LogScalar = lambda name, value, step: None,
) -> evaluation.Evaluation:
  """Evaluates a checkpoint on the test subset; table, files and pictures.

  Args:
    config: the complete config.
    checkpoint_dir: folder or prefix of a checkpoint.
    log_scalar: takes name, value and iteration.

  Raises:
    errors.UserError: see `checkpoints.restore` and `evaluation.evaluate`.
  """
  prefix = checkpoints.find(checkpoint_dir)
  options = read_options(config)
  folder = pictures_folder(config, prefix)
  files.make_folder(folder)
  subject = restore(config, prefix, options)
  result = measure(subject)
  evaluation.write_files(result, options.files)
  logs = common.results_path(config, prefix, "evaluation")
  evaluation.log(result, logs, subject.own.step, log_scalar)
  if subject.is_generalisation:
    evaluation.draw_curves(
      result.generalisation or (result,), subject.trained, folder
    )
  dataset = subject.dataset
  _write_pictures(subject.own.model, next(dataset.batches("test")), folder)
  print(f"pictures: {folder}", flush=True)
  return result


class Subject(NamedTuple):
  """What is evaluated.

  Attributes:
    prefix: of the checkpoint.
    options: see there.
    dataset: whose test subset has the scenes.
    batches: those scenes, of which the first are read already.
    models: by their numbers of slots, first that of the config.
    trained: what the config says, before the options change it.
    seed: the latents are sampled from it.
  """

  prefix: str
  options: Options
  dataset: data_lib.IODINEDataset
  batches: Iterator[evaluation.Data]
  models: dict[int, common.Restored]
  trained: curves.Trained
  seed: int

  @property
  def own(self) -> common.Restored:
    """The model with as many slots as in the config."""
    return next(iter(self.models.values()))

  @property
  def is_generalisation(self) -> bool:
    """Whether other numbers of slots or refinements are asked for."""
    options = self.options
    return bool(options.num_components) or options.num_iters is not None


def restore(config: Config, prefix: str, options: Options) -> Subject:
  """Restores all models before the first is evaluated.

  A wrong number at the end of the list, or a missing file, should not cost the
  work on the others.

  Raises:
    errors.UserError: see `checkpoints.restore` and `common.build_model`.
  """
  make_data.provide(config)
  dataset = common.build_dataset(config["data"], config["seed"])
  batches = dataset.batches("test")
  own = common.restore(_adapt(config, None, options.num_iters), prefix)
  models = {own.model.num_components: own}
  for k in options.num_components:
    if k not in models:
      models[k] = common.restore(_adapt(config, k, options.num_iters), prefix)
  trained = curves.Trained(
    own.model.num_components, config["model"]["num_iters"]
  )
  return Subject(
    prefix, options, dataset, batches, models, trained, config["seed"]
  )


def measure(subject: Subject) -> evaluation.Evaluation:
  """Evaluates one model after the other, with tables on the terminal.

  Returns:
    The figures of the first model, which has those of the others.

  Raises:
    errors.UserError: see `evaluation.evaluate`.
  """
  print(f"evaluating {subject.prefix}", flush=True)
  if subject.dataset.test is None:
    print(
      "`data.test` is not set: these are all scenes of the file, seen in "
      "training or not",
      flush=True,
    )
  results: dict[int, evaluation.Evaluation] = {}
  for k, restored in subject.models.items():
    batches = subject.dataset.batches("test") if results else subject.batches
    results[k] = _evaluate_model(subject, restored.model, batches)
  own = results[subject.own.model.num_components]._replace(
    generalisation=tuple(results[k] for k in subject.options.num_components)
  )
  _print_tables(own)
  return own


def pictures_folder(config: Config, prefix: str) -> str:
  """Where the pictures of a checkpoint go."""
  return config["pictures_dir"] or common.results_path(
    config, prefix, "pictures"
  )


def _adapt(
  config: Config, num_components: int | None, num_iters: int | None
) -> dict[str, Any]:
  """The config with other numbers of slots and refinements; None: its own."""
  common.require_experiment(config["model"])
  result = copy.deepcopy(dict(config))
  model = result["model"]
  if num_iters is not None:
    model["num_iters"] = num_iters
  if num_components is not None:
    model["num_components"] = num_components
    model["output_dist"]["num_components"] = num_components
  return result


def _evaluate_model(
  subject: Subject,
  model: iodine.IODINE,
  batches: Iterator[evaluation.Data],
) -> evaluation.Evaluation:
  """Evaluates one model, with progress on the terminal."""
  dataset, options = subject.dataset, subject.options
  print(
    f"{model.num_components} slots, {model.num_iters} refinements, "
    f"{options.seeds} seed{'s' if options.seeds > 1 else ''}",
    flush=True,
  )
  try:
    return evaluation.evaluate(
      model,
      batches,
      dataset.batch_size,
      seed=subject.seed,
      num_scenes=options.num_scenes,
      on_progress=lambda done: print(f"  {done} scenes", flush=True),
      seeds=options.seeds,
    )
  except common.CONFIG_ERRORS as error:
    raise common.misfit(dataset.image_shape, error) from error


def _print_tables(result: evaluation.Evaluation) -> None:
  print(f"\n{evaluation.final_table(result)}")
  print(f"\n{evaluation.iteration_table(result)}")
  if result.generalisation:
    table = evaluation.generalisation_table(result.generalisation)
    print(f"\n{table}")
  print(flush=True)


def _write_pictures(
  model: iodine.IODINE, example: evaluation.Data, folder: str
) -> None:
  """Writes overview.png, sequence.png and samples.png."""
  images = {
    name: np.asarray(image[0])
    for name, image in training.OverviewImages(model)(example).items()
  }
  slots = [f"slot {k + 1}" for k in range(model.num_components)]
  titles = {
    "overview": ["image", "reconstruction", "mask", *slots],
    "sequence": [f"iteration {t}" for t in range(model.num_iters + 1)],
    "samples": [],
  }
  for name, image in images.items():
    image_files.save_titled_image(
      os.path.join(folder, f"{name}.png"), image, titles[name]
    )
