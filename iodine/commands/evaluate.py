"""Evaluation on held-out scenes."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
import tqdm

import iodine as project
from iodine import (
  checkpoints,
  errors,
  evaluation,
  files,
  replicas,
  training,
)
from iodine.commands import common, help, make_data
from iodine.drawing import canvas, charts
from iodine.modules import datasets, iodine

Config = common.Config
LogScalar = Callable[[str, float, int], None]


def run(
  config: Config,
  checkpoint: common.Checkpoint,
  log_scalar: LogScalar = lambda name, value, step: None,
) -> evaluation.Evaluation:
  """Evaluates a checkpoint on the test subset; table, files and pictures.

  Args:
    config: the complete config.
    checkpoint: a path, or what `checkpoints.open_checkpoint` returned.
    log_scalar: takes name, value and iteration.
  """
  opened = checkpoints.open_checkpoint(checkpoint)
  check(config)
  folder = pictures_folder(config, opened.prefix)
  logs = common.results_path(config, opened.prefix, "evaluation")
  for place in (folder, logs):
    files.check_folder(place)
  # Before TensorFlow computes anything.
  strategy = replicas.make_strategy(config)
  workers = replicas.Workers(strategy)
  # Where none is given, each process has drawn its own.
  config = {**config, "seed": workers.of_chief(config["seed"])}
  dataset, batches = workers.chief_first(lambda: open_scenes(config))
  models = restore(config, opened, strategy)
  with workers.explained_loss(lambda: "start all of them again"):
    result = measure(config, models, dataset, batches, strategy)
  if not workers.is_chief:
    return result  # the chief writes
  own, *_ = models.values()
  write_files(config, opened, result, log_scalar)
  means = {f"evaluation/{k}": value.mean for k, value in result.metrics.items()}
  training.SummaryWriter(logs).scalars(own.step, means)
  print(f"TensorBoard scalars: {logs}", flush=True)
  trained, example = trained_with(config), next(iter(dataset.batches("test")))
  with canvas.styled(config["plot"]):
    write_pictures(config, own.model, example, folder)
    if trained is not None:
      figure = evaluation.generalisation_plot(result, trained)
      path = canvas.save(figure, os.path.join(folder, "generalisation"))
      print(f"curves: {path}", flush=True)
  print(f"pictures: {folder}", flush=True)
  return result


def check(config: Config) -> None:
  """Checks early what would fail late."""
  _own_metrics(config)
  places = set()
  for path, begin in (
    (config["json_path"], "{"),
    (config["csv_path"], ",".join(evaluation.tables.CSV_HEADERS)),
    (config["evaluation"]["scenes_csv"], "scene,"),
  ):
    if path is None:
      continue
    files.check_writable(path, begin)
    if os.path.realpath(path) in places:
      raise errors.UserError(
        "two of `json_path`, `csv_path` and `evaluation.scenes_csv` are "
        f"`{path}`: give each a file of its own"
      )
    places.add(os.path.realpath(path))


def _own_metrics(config: Config) -> list[evaluation.Metric]:
  return [
    evaluation.catalogue.find_metric(path, "evaluation.metrics")
    for path in config["evaluation"]["metrics"] or ()
  ]


def build_dataset(config: Config) -> datasets.SceneDataset:
  """Builds the data set of a config, which is generated where it can be."""
  make_data.ensure_dataset(config)
  return common.build_dataset(config["data"], config["seed"], config["model"])


def open_scenes(
  config: Config,
) -> tuple[datasets.SceneDataset, Iterator[dict[str, Any]]]:
  """Builds the data set and begins to read what is evaluated."""
  dataset = build_dataset(config)
  common.tell_scenes(dataset)
  with help.while_waiting("reading the first scenes"):
    return dataset, iter(dataset.batches("test"))


def restore(
  config: Config, opened: checkpoints.Opened, strategy: tf.distribute.Strategy
) -> dict[int, common.Restored]:
  """Restores all models before the first is evaluated.

  A wrong number at the end of the list should not cost the work on the others.

  Returns:
    Models by their numbers of slots: that of the config, then those of
    `evaluation.num_components`.
  """
  replicas.check_refinement_batch_size(
    strategy, config["model"].get("refinement_batch_size")
  )
  evaluated = checkpoints.as_evaluated(config)
  with replicas.scope(strategy):
    own = common.restore(evaluated, opened)
    check_pictures(config, own.model)
    models = {own.model.num_components: own}
    for number in config["evaluation"]["num_components"] or ():
      if number not in models:
        models[number] = common.restore(_with_slots(evaluated, number), opened)
  return models


def _with_slots(config: Config, num_components: int) -> dict[str, Any]:
  """Returns the config with another number of slots."""
  slots = {"num_components": num_components}
  output_dist = {**config["model"]["output_dist"], **slots}
  model = {**config["model"], **slots, "output_dist": output_dist}
  return {**config, "model": model}


def trained_with(config: Config) -> charts.Trained | None:
  """Returns the numbers of slots and refinements that a model learnt with.

  None where no others are asked for.
  """
  options = config["evaluation"]
  names = ("num_components", "num_iters")
  learnt = charts.Trained(*(config["model"][name] for name in names))
  slots = {*(options["num_components"] or ())} - {learnt.num_components}
  is_same = options["num_iters"] in (None, learnt.num_iters)
  return None if is_same and not slots else learnt


def measure(
  config: Config,
  models: dict[int, common.Restored],
  dataset: datasets.SceneDataset,
  batches: Iterator[dict[str, Any]],
  strategy: tf.distribute.Strategy,
) -> evaluation.Evaluation:
  """Evaluates one model after the other, with tables on the terminal.

  Args:
    config: the complete config.
    models: see `restore`.
    dataset: whose test subset has the scenes.
    batches: those scenes, of which the first are read already.
    strategy: where it runs.

  Returns:
    The metrics of the first model, which has those of the others.
  """
  options = config["evaluation"]
  own, *_ = models.values()
  print(f"evaluating {own.prefix}", flush=True)
  if datasets.ranges_of(dataset)[1] is None:
    print(
      "no scenes are held out by `data.test`: these are all there are, seen in "
      "training or not",
      flush=True,
    )
  results: dict[int, evaluation.Evaluation] = {}
  for number, restored in models.items():
    model = restored.model
    title = f"{number} slots, {model.num_iters} refinements"
    unread = dataset.batches("test") if results else batches
    results[number] = evaluation.evaluate(
      model,
      tqdm.tqdm(unread, title, unit=" batches"),
      dataset.batch_size,
      config["seed"],
      options["num_scenes"],
      options["seeds"],
      _own_metrics(config),
      strategy,
    )
  numbers = dict.fromkeys(options["num_components"] or ())
  result = results[own.model.num_components]._replace(
    generalisation=tuple(results[number] for number in numbers)
  )
  _print_tables(result)
  return result


def _print_tables(result: evaluation.Evaluation) -> None:
  tables = evaluation.tables
  print(f"\n{tables.final_table(result)}\n\n{tables.iteration_table(result)}")
  if result.generalisation:
    print(f"\n{tables.generalisation_table(result.generalisation)}")
  print("", *result.left_out, sep="\n", flush=True)


def pictures_folder(config: Config, prefix: str, name: str = "pictures") -> str:
  """Returns where the pictures of a checkpoint go."""
  return config["pictures_dir"] or common.results_path(config, prefix, name)


def as_json(
  config: Config, opened: checkpoints.Opened, result: evaluation.Evaluation
) -> dict[str, Any]:
  """Returns what `json_path` gets: metrics, and what they are of."""
  return {**origin(opened), "config": config, **result.as_json()}


def origin(opened: checkpoints.Opened) -> dict[str, Any]:
  """Returns what a result follows from, beside the config."""
  version = project.__version__
  return {"checkpoint": opened.prefix, "step": opened.step, "version": version}


def digest(
  config: Config, opened: checkpoints.Opened, further: Sequence[str] = ()
) -> str:
  """Returns a name of all that a result follows from.

  Args:
    config: the complete config.
    opened: the checkpoint.
    further: entries that count, too.
  """
  entries = ("data", "evaluation", "model", "seed", "strategy", "tf32")
  decisive = {name: config[name] for name in (*entries, *further)}
  asked = [project.__version__, decisive]
  text = json.dumps(asked, sort_keys=True, default=str)
  # The index has the sums of all tensors.
  content = pathlib.Path(f"{opened.prefix}.index").read_bytes()
  return hashlib.sha256(content + text.encode()).hexdigest()[:16]


def write_files(
  config: Config,
  opened: checkpoints.Opened,
  result: evaluation.Evaluation,
  log_scalar: LogScalar,
) -> None:
  """Writes those files that are asked for, and tells Sacred the means.

  Args:
    config: the complete config.
    opened: the checkpoint.
    result: the evaluation.
    log_scalar: gets evaluation/<metric> of all iterations.
  """
  scenes_csv = config["evaluation"]["scenes_csv"]
  if config["json_path"] is not None:
    files.write_json(config["json_path"], as_json(config, opened, result))
    print(f"metrics: {config['json_path']}", flush=True)
  if config["csv_path"] is not None:
    files.write(config["csv_path"], evaluation.tables.as_csv(result))
    print(f"metrics: {config['csv_path']}", flush=True)
  if scenes_csv is not None:
    files.write(scenes_csv, evaluation.tables.scenes_as_csv(result))
    print(f"metrics of every scene: {scenes_csv}", flush=True)
  for name, summary in result.metrics.items():
    over_time = dict(enumerate(result.per_iteration.get(name, ())))
    for t, each in (over_time or {result.num_iters: summary}).items():
      log_scalar(f"evaluation/{name}", each.mean, t)


def check_pictures(config: Config, model: iodine.IODINE) -> None:
  """Checks what `plot` of the config says against a model."""
  options = config["plot"]
  for name, found, most, first in (
    ("slot", options["slot"], model.num_components, 1),
    ("latent", options["latent"], model.latent_dist.output_shape[0] - 1, 0),
    ("iterations", max(options["iterations"] or [0]), model.num_iters, 0),
  ):
    if (found or 0) > most:
      raise errors.UserError(
        f"`plot.{name}` is {options[name]}, and the model has {first} to "
        f"{most}: give some of these, or None"
      )


def write_pictures(
  config: Config, model: iodine.IODINE, example: dict[str, Any], folder: str
) -> None:
  """Writes overview, sequence and samples.

  Args:
    config: the complete config, of which `plot` counts, and the seed.
    model: the model.
    example: a batch, whose first scenes are drawn.
    folder: where to write.
  """
  drawn = evaluation.draw_few(model, example, config["plot"], config["seed"])
  for picture in drawn:
    files.write(os.path.join(folder, picture.file_name), picture.encode())
