"""Evaluation on held-out scenes."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine import (
  checkpoints,
  errors,
  evaluation,
  files,
  replicas,
  training,
  validation,
)
from iodine.commands import common, make_data
from iodine.drawing import canvas, curves, image_files
from iodine.modules import data as data_lib
from iodine.modules import iodine

Config = common.Config
LogScalar = Callable[[str, float, int], None]


class Options(NamedTuple):
  """What the config says about an evaluation.

  Attributes:
    num_scenes: how many; None for all of the test subset.
    seeds: how often the latents are sampled.
    num_components: numbers of slots to compare.
    num_iters: refinements; None for as many as the model has.
    files: paths under json_path, csv_path, scenes_csv; None for no file.
    metrics: further ones, of the user.
  """

  num_scenes: int | None
  seeds: int
  num_components: tuple[int, ...]
  num_iters: int | None
  files: dict[str, str | None]
  metrics: tuple[evaluation.Metric, ...] = ()


def read_options(config: Config) -> Options:
  """Reads `evaluation` and the paths of the files to write.

  Raises:
    errors.UserError: if an entry makes no sense or a file cannot be written.
  """
  given = config["evaluation"]
  validation.require(
    isinstance(given, Mapping),
    "evaluation",
    given,
    "its entries one by one, such as `evaluation.num_scenes=320`",
  )
  num_scenes, seeds = given.get("num_scenes"), given.get("seeds", 1)
  slots = _read_list(given, "num_components")
  validation.check_whole(
    "evaluation.num_scenes", num_scenes, 1, "None for all scenes"
  )
  num_iters = given.get("num_iters")
  validation.check_whole("evaluation.seeds", seeds, 1)
  validation.require(
    validation.is_list(slots) and all(validation.is_whole(k, 1) for k in slots),
    "evaluation.num_components",
    slots,
    "a list of whole numbers, at least 1, such as "
    "`evaluation.num_components=[4,5,7]`",
  )
  metrics = _read_list(given, "metrics")
  validation.require(
    validation.is_list(metrics),
    "evaluation.metrics",
    metrics,
    'a list of dotted paths, such as `evaluation.metrics=["mypackage.purity"]`',
  )
  paths = {
    "json_path": config["json_path"],
    "csv_path": config.get("csv_path"),
    "scenes_csv": given.get("scenes_csv"),
  }
  begins = {
    "json_path": "{",
    "csv_path": ",".join(evaluation.CSV_HEADERS),
    "scenes_csv": "scene,",
  }
  for name, path in paths.items():
    if path is not None:
      files.check_writable(path, begins[name])
  written = [os.path.realpath(path) for path in paths.values() if path]
  # All may go to /dev/null.
  written = [p for p in written if os.path.isfile(p) or not os.path.exists(p)]
  if len(set(written)) < len(written):
    raise errors.UserError(
      "two of `json_path`, `csv_path` and `evaluation.scenes_csv` are the same "
      "file: give each its own"
    )
  return Options(
    num_scenes,
    seeds,
    tuple(dict.fromkeys(slots)),
    num_iters,
    paths,
    tuple(
      evaluation.find_metric(path, "evaluation.metrics") for path in metrics
    ),
  )


def _read_list(given: Mapping[str, Any], name: str) -> Any:
  """Returns an entry, an empty list for None or none."""
  value = given.get(name)
  return [] if value is None else value


def run(
  config: Config,
  checkpoint_dir: str,
  log_scalar: LogScalar = lambda name, value, step: None,
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
  files.check_folder(folder)
  subject = restore(config, prefix, options)
  workers = replicas.Workers(subject.strategy)
  with workers.explained_loss(lambda: "start all of them again"):
    result = measure(subject)
  if not workers.is_chief:
    return result  # the chief writes
  write_files(result, options.files)
  log_scalars(result, log_scalar)
  logs = common.results_path(config, prefix, "evaluation")
  write_summaries(result, logs, subject.own.step)
  if subject.is_generalisation:
    path = os.path.join(folder, "generalisation.png")
    runs = result.generalisation or (result,)
    canvas.save(evaluation.generalisation_plot(runs, subject.trained), path)
    print(f"curves: {path}", flush=True)
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
    strategy: where it runs.
  """

  prefix: str
  options: Options
  dataset: data_lib.IODINEDataset
  batches: Iterator[evaluation.Data]
  models: dict[int, common.Restored]
  trained: curves.Trained
  seed: int
  strategy: tf.distribute.Strategy

  @property
  def own(self) -> common.Restored:
    """Returns the model with as many slots as in the config."""
    return next(iter(self.models.values()))

  @property
  def is_generalisation(self) -> bool:
    """Returns whether other numbers of slots or refinements are asked for."""
    options = self.options
    return bool(options.num_components) or options.num_iters is not None


def restore(config: Config, prefix: str, options: Options) -> Subject:
  """Restores all models before the first is evaluated.

  A wrong number at the end of the list, or a missing file, should not cost the
  work on the others.

  Raises:
    errors.UserError: see `checkpoints.restore` and `common.build_model`.
  """
  # Before TensorFlow computes anything.
  strategy = replicas.make_strategy(config)
  workers = replicas.Workers(strategy)
  size = config["model"].get("refinement_batch_size")
  replicas.check_refinement_batch_size(strategy, size)
  # Where none is given, each process has drawn its own.
  seed = workers.of_chief(config["seed"])
  dataset, batches = workers.chief_first(lambda: _open_scenes(config))
  evaluated = checkpoints.as_evaluated(config)
  with replicas.scope(strategy):
    own = common.restore(evaluated, prefix)
    models = {own.model.num_components: own}
    for k in options.num_components:
      if k not in models:
        models[k] = common.restore(_with_slots(evaluated, k), prefix)
  trained = curves.Trained(
    own.model.num_components, config["model"]["num_iters"]
  )
  return Subject(
    prefix,
    options,
    dataset,
    batches,
    models,
    trained,
    seed,
    strategy,
  )


def _open_scenes(
  config: Config,
) -> tuple[data_lib.IODINEDataset, Iterator[evaluation.Data]]:
  """Builds the data set and begins to read what is evaluated."""
  make_data.ensure_dataset(config)
  dataset = common.build_dataset(
    config["data"], config["seed"], config["model"]
  )
  return dataset, dataset.batches("test")


def measure(subject: Subject) -> evaluation.Evaluation:
  """Evaluates one model after the other, with tables on the terminal.

  Returns:
    The metrics of the first model, which has those of the others.

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
  for sentence in own.left_out:
    print(sentence, flush=True)
  return own


def pictures_folder(config: Config, prefix: str) -> str:
  """Returns where the pictures of a checkpoint go."""
  return config["pictures_dir"] or common.results_path(
    config, prefix, "pictures"
  )


def _with_slots(config: Config, num_components: int) -> dict[str, Any]:
  """Returns the config with another number of slots."""
  result = copy.deepcopy(dict(config))
  result["model"]["num_components"] = num_components
  result["model"]["output_dist"]["num_components"] = num_components
  return result


def _evaluate_model(
  subject: Subject,
  model: iodine.IODINE,
  batches: Iterator[evaluation.Data],
) -> evaluation.Evaluation:
  """Evaluates one model, with progress on the terminal."""
  options = subject.options
  print(
    f"{model.num_components} slots, {model.num_iters} refinements, "
    f"{options.seeds} seed{'s' if options.seeds > 1 else ''}",
    flush=True,
  )
  return evaluation.evaluate(
    model,
    batches,
    subject.dataset.batch_size,
    seed=subject.seed,
    num_scenes=options.num_scenes,
    on_progress=lambda done: print(f"  {done} scenes", flush=True),
    seeds=options.seeds,
    metrics=options.metrics,
    strategy=subject.strategy,
  )


def _print_tables(result: evaluation.Evaluation) -> None:
  print(f"\n{evaluation.final_table(result)}")
  print(f"\n{evaluation.iteration_table(result)}")
  if result.generalisation:
    table = evaluation.generalisation_table(result.generalisation)
    print(f"\n{table}")
  print(flush=True)


def write_files(
  result: evaluation.Evaluation, paths: Mapping[str, str | None]
) -> None:
  """Writes those files that are asked for, and says which.

  Args:
    result: the evaluation.
    paths: paths under json_path, csv_path and scenes_csv; None for no file.

  Raises:
    errors.UserError: if one cannot be written.
  """
  if paths["json_path"] is not None:
    files.write_json(paths["json_path"], result.as_json())
    print(f"metrics: {paths['json_path']}", flush=True)
  if paths["csv_path"] is not None:
    files.write(paths["csv_path"], evaluation.as_csv(result))
    print(f"metrics: {paths['csv_path']}", flush=True)
  if paths["scenes_csv"] is not None:
    files.write(paths["scenes_csv"], evaluation.scenes_as_csv(result))
    print(f"metrics of every scene: {paths['scenes_csv']}", flush=True)


def log_scalars(result: evaluation.Evaluation, log_scalar: LogScalar) -> None:
  """Sends the means of all iterations to Sacred, as evaluation/<metric>."""
  for name, summaries_over_time in result.per_iteration.items():
    for t, summary in enumerate(summaries_over_time):
      log_scalar(f"evaluation/{name}", summary.mean, t)
  for name, summary in result.metrics.items():
    if name not in result.per_iteration:
      log_scalar(f"evaluation/{name}", summary.mean, result.num_iters)


def write_summaries(
  result: evaluation.Evaluation, folder: str, step: int
) -> None:
  """Writes the final means for TensorBoard, as evaluation/<metric>.

  Where the folder cannot be written there are none.

  Args:
    result: the evaluation.
    folder: for TensorBoard.
    step: of the checkpoint.
  """
  means = {
    f"evaluation/{name}": value.mean for name, value in result.metrics.items()
  }
  try:
    files.make_folder(folder)
    training.SummaryWriter(folder).scalars(step, means)
  except (errors.UserError, tf.errors.OpError):
    # What was measured is on the terminal and in the files.
    print(f"no TensorBoard scalars: `{folder}` cannot be written", flush=True)
  else:
    print(f"TensorBoard scalars: {folder}", flush=True)


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
