"""What the commands of `main.py` do, without Sacred.

Each function gets plain config entries, prints what it does, and returns what
it made. `main.py` wires them to the command line.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import shapeguard
import tabulate
import tensorflow as tf

from iodine import (
  building,
  checkpoints,
  comparison,
  errors,
  evaluation,
  optimizers,
  summaries,
  synthetic,
  tf1_checkpoint,
  training,
)
from iodine.modules import data as data_lib
from iodine.modules import iodine, plotting

Config = Mapping[str, Any]


def start_tensorflow() -> None:
  """Looks for devices, which makes some drivers write to the terminal."""
  tf.config.list_physical_devices()


# ------------------------------------------------------------------ building


def build_dataset(config: Config, seed: int) -> data_lib.IODINEDataset:
  """Builds the data set; its order follows the seed of the run.

  Raises:
    errors.UserError: if no experiment was chosen or an entry is wrong.
  """
  _require_experiment(config)
  return building.build({"seed": seed, **config}, "data")


def build_model(config: Config, image_shape: tuple[int, ...]) -> iodine.IODINE:
  """Builds the model with all of its variables.

  Raises:
    errors.UserError: if an entry is wrong or entries contradict each other.
  """
  _require_experiment(config)
  model = building.build(config, "model")
  try:
    model.initialize(image_shape)
  except (ValueError, KeyError, shapeguard.ShapeError) as error:
    reason = str(error).replace("\n", " ")
    raise errors.UserError(
      f"the parts of `model` do not fit each other or images of shape "
      f"{tuple(image_shape)}: {reason}"
    ) from error
  return model


def _require_experiment(config: Config) -> None:
  if not config:
    raise errors.UserError(
      "no experiment is chosen: name one, such as `python main.py with "
      "tetrominoes`; `python main.py print_named_configs` lists them"
    )


# ------------------------------------------------------------------ training


class Place(NamedTuple):
  """Where a run lives.

  Attributes:
    folder: for checkpoints and TensorBoard logs.
    start: prefix of the checkpoint to begin with; None to begin afresh.
  """

  folder: str
  start: str | None


def find_place(checkpoint_dir: str, run_id: Any, continue_run: bool) -> Place:
  """Where a run goes, and what it begins with.

  A continued run goes on in exactly `checkpoint_dir`. A new one, and one that
  goes on from a TF1 checkpoint, gets `<checkpoint_dir>_<run_id>`, 1 if no
  observer gave an id, and the next free number where that folder holds another
  run's checkpoints.

  Raises:
    errors.UserError: if a run is to be continued that is not there.
  """
  start = None
  if continue_run:
    start = checkpoints.find(checkpoint_dir)
    if not tf1_checkpoint.is_tf1(start):
      if not os.path.isdir(checkpoint_dir):
        raise errors.UserError(
          f"`{checkpoint_dir}` is a checkpoint, and a run is continued in its "
          f"folder: give `checkpoint_dir={os.path.dirname(start) or '.'}`"
        )
      return Place(checkpoint_dir, start)
    checkpoint_dir = checkpoint_dir.rstrip("/")
  folder = f"{checkpoint_dir}_{run_id or 1}"
  number = 1
  while os.path.exists(os.path.join(folder, "checkpoint")):
    number += 1
    folder = f"{checkpoint_dir}_{number}"
  return Place(folder, start)


def train(
  config: Config,
  place: Place,
  log_scalar: Callable[[str, float, int], None],
) -> training.Outcome:
  """Trains, with progress on the terminal, TensorBoard and Sacred.

  Args:
    config: the complete config.
    place: where the run lives and what it begins with.
    log_scalar: takes name, value and step.

  Raises:
    errors.UserError: see `training.train` and `checkpoints.restore`.
  """
  folder, start = place
  seed = config["seed"]
  if start and not tf1_checkpoint.is_tf1(start):
    # Samples and the order of scenes go on as they would have.
    seed = checkpoints.read_seed(start)
    print(f"the run's own seed {seed} is used", flush=True)
  tf.random.set_seed(seed)
  dataset = build_dataset(config["data"], seed)
  batches = dataset.batches("summary")  # fails early where a file is missing
  model = build_model(config["model"], dataset.image_shape)
  optimizer: optimizers.Adam = building.build(config["optimizer"], "optimizer")
  optimizer.initialize(model.trainable_variables)
  if start and tf1_checkpoint.is_tf1(start):
    report = tf1_checkpoint.restore(start, model, optimizer)
    fresh = ", Adam starts afresh" if report.left_fresh else ""
    print(f"continuing from the TF1 checkpoint {start}{fresh}", flush=True)
  store = checkpoints.CheckpointStore(folder, model, optimizer, seed)
  if start and not tf1_checkpoint.is_tf1(start):
    print(f"continuing from {store.restore()}", flush=True)
  _save_config(config, folder)

  step = int(optimizer.global_step)
  schedule = _schedule(config)
  writer = summaries.SummaryWriter(folder)
  draw = summaries.OverviewImages(model)
  example = next(iter(batches))

  def on_report(report: training.Report) -> None:
    print(_progress_line(report, schedule.stop_after_steps), flush=True)
    writer.scalars(
      report.step,
      {**report.means, "debug/images_per_second": report.images_per_second},
    )
    log_scalar("loss", report.means["loss/total"], report.step)
    log_scalar("ari_nobg", report.means["loss/ari_nobg"], report.step)

  num_parameters = sum(
    v.shape.num_elements() for v in model.trainable_variables
  )
  print(
    f"training {num_parameters:,} parameters, step {step} to "
    f"{schedule.stop_after_steps}, into {folder}",
    flush=True,
  )
  outcome = training.train(
    training.CompiledStep(model, optimizer, seed),
    dataset,
    store,
    schedule,
    start_step=step,
    on_report=on_report,
    on_images=lambda at: writer.images(at, draw(example)),
  )
  if outcome.interrupted_by:
    print(
      f"stopped by {outcome.interrupted_by.name} at step {outcome.step}; go on "
      f"with `continue_run=True checkpoint_dir={shlex.quote(folder)}`",
      flush=True,
    )
  print(f"checkpoint: {outcome.checkpoint}", flush=True)
  return outcome


def _schedule(config: Config) -> training.Schedule:
  fields = {}
  for name in training.Schedule._fields:
    value = config[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
      value = -1
    if value < 1 or value != int(value):
      raise errors.UserError(
        f"`{name}` is {config[name]!r}: give a whole number of steps, at "
        "least 1"
      )
    fields[name] = int(value)
  return training.Schedule(**fields)


def _progress_line(report: training.Report, last_step: int) -> str:
  minutes, seconds = divmod(int(report.seconds_left), 60)
  return (
    f"step {report.step}/{last_step}"
    f"  loss {report.means['loss/total']:.1f}"
    f"  ARI {report.means['loss/ari']:.3f}"
    f"  ARI-nobg {report.means['loss/ari_nobg']:.3f}"
    f"  {report.images_per_second:.1f} images/s"
    f"  {minutes}:{seconds:02d} left"
  )


def _save_config(config: Config, folder: str) -> None:
  """Leaves the config beside the checkpoints, for whoever finds them."""
  _write_json(dict(config), os.path.join(folder, "config.json"))


# ---------------------------------------------------------------- make_data


def make_data(
  config: Config, data_dir: str | None, num_scenes: int, seed: int
) -> str:
  """Generates a data set that stands in for the public one.

  Args:
    config: the config of the data set that it is for.
    data_dir: folder to write to, under the public file's name; None writes
      the file that the config reads.
    num_scenes: how many scenes.
    seed: the scenes follow from it.

  Returns:
    The path of the file.

  Raises:
    errors.UserError: if there is no generator for this data set, or the file
      cannot be written.
  """
  dataset = build_dataset(config, seed)
  name = dataset.generator_name
  if name is None:
    raise errors.UserError(
      "there is no generator for this data set: use the public files, or "
      "another named config"
    )
  if data_dir is not None:
    path = os.path.join(data_dir, synthetic.DATASETS[name].file_name)
  elif isinstance(dataset.path, str):
    path = dataset.path
  else:
    raise errors.UserError(
      "`data.path` names several files: give `data_dir`, the folder to write "
      "the generated file to"
    )
  print(f"generating {num_scenes} scenes of {name}", flush=True)
  synthetic.write_dataset(
    name, path, num_scenes, seed, progress=_Progress("scenes")
  )
  print(f"data: {path}", flush=True)
  return path


class _Progress:
  """Prints how far a command is, about twenty times in all."""

  def __init__(self, unit: str):
    self._unit = unit
    self._shown = 0.0

  def __call__(self, done: int, total: int) -> None:
    if done == total or done >= self._shown + total / 20:
      self._shown = done
      print(f"{done}/{total} {self._unit}", flush=True)


# ------------------------------------------------------- looking at checkpoints


def load_checkpoint(config: Config, checkpoint_dir: str) -> iodine.IODINE:
  """Restores a TF1 or TF2 checkpoint and prints its variables.

  Raises:
    errors.UserError: see `checkpoints.restore`.
  """
  restored = _restore(config, checkpoint_dir)
  model, prefix = restored.model, restored.prefix
  if restored.report is None:
    variables = checkpoints.variables_by_path(model)
    shapes = {name: tuple(v.shape) for name, v in variables.items()}
    fates = dict.fromkeys(shapes, "restored")
  else:
    shapes = restored.report.shapes
    fates = {
      name: fate.replace("_", " ")
      for fate in ("restored", "left_fresh", "unused")
      for name in getattr(restored.report, fate)
    }
  rows = [
    (name, fate, shapes[name], int(np.prod(shapes[name])))
    for name, fate in sorted(fates.items())
  ]
  trainable = sum(v.shape.num_elements() for v in model.trainable_variables)
  total = sum(v.shape.num_elements() for v in model.variables)
  print(tabulate.tabulate(rows, headers=("variable", "", "shape", "count")))
  print(f"trainable: {trainable:,} of {total:,} numbers")
  print(f"global step: {int(restored.optimizer.global_step)}")
  print(f"restored: {prefix}")
  return model


def export_tf1(config: Config, checkpoint_dir: str, output: str | None) -> str:
  """Writes a checkpoint as the original would have; returns its prefix.

  Raises:
    errors.UserError: see `checkpoints.restore` and `tf1_checkpoint.export`.
  """
  if not output:
    raise errors.UserError(
      "`output` is not set: give the prefix of the checkpoint to write, such "
      "as `output=tf1/model.ckpt`"
    )
  restored = _restore(config, checkpoint_dir)
  prefix = tf1_checkpoint.export(output, restored.model, restored.optimizer)
  print(f"written: {prefix}", flush=True)
  return prefix


class _Restored(NamedTuple):
  """A model and its optimizer as a checkpoint has them."""

  model: iodine.IODINE
  optimizer: optimizers.Adam
  prefix: str
  report: tf1_checkpoint.Report | None  # of a TF1 checkpoint


def _restore(
  config: Config,
  checkpoint_dir: str,
  image_shape: tuple[int, ...] | None = None,
) -> _Restored:
  """Restores a TF1 or TF2 checkpoint, which tell themselves apart.

  The image shape is the data set's if it is not given.
  """
  # Before the model is built: a misspelt path should not cost seconds.
  prefix = checkpoints.find(checkpoint_dir)
  dataset = build_dataset(config["data"], config["seed"])
  model = build_model(config["model"], image_shape or dataset.image_shape)
  optimizer: optimizers.Adam = building.build(config["optimizer"], "optimizer")
  optimizer.initialize(model.trainable_variables)
  report = None
  if tf1_checkpoint.is_tf1(prefix):
    report = tf1_checkpoint.restore(prefix, model, optimizer)
  else:
    checkpoints.restore(prefix, model=model, optimizer=optimizer)
  return _Restored(model, optimizer, prefix, report)


# ----------------------------------------------------------------- evaluation


def evaluate(config: Config, checkpoint_dir: str) -> evaluation.Evaluation:
  """Evaluates a checkpoint on the test subset; table, JSON and pictures.

  Raises:
    errors.UserError: see `checkpoints.restore` and `evaluation.evaluate`.
  """
  checkpoints.find(checkpoint_dir)
  dataset = build_dataset(config["data"], config["seed"])
  batches = dataset.batches("test")
  model, _, prefix, _ = _restore(config, checkpoint_dir)
  print(f"evaluating {prefix}", flush=True)
  if dataset.test is None:
    print(
      "`data.test` is not set: these are all scenes of the file, seen in "
      "training or not",
      flush=True,
    )
  num_scenes = config["evaluation"]["num_scenes"]
  if num_scenes is not None and (
    not isinstance(num_scenes, int) or num_scenes < 1
  ):
    raise errors.UserError(
      f"`evaluation.num_scenes` is {num_scenes!r}: give a whole number, at "
      "least 1, or None for all scenes"
    )
  result = evaluation.evaluate(
    model,
    batches,
    dataset.batch_size,
    seed=config["seed"],
    num_scenes=num_scenes,
    on_progress=lambda done: print(f"{done} scenes", flush=True),
  )
  rows = [
    (name, value.mean, value.standard_error)
    for name, value in result.metrics.items()
  ]
  print(
    tabulate.tabulate(
      rows,
      headers=(f"{result.num_scenes} scenes", "mean", "standard error"),
      floatfmt=".4f",
      missingval="-",
    )
  )
  if config["json_path"] is not None:
    _write_json(result.as_json(), config["json_path"])
    print(f"figures: {config['json_path']}")
  folder = config["pictures_dir"] or os.path.join(
    os.path.dirname(prefix), "pictures"
  )
  _write_pictures(model, dataset, folder)
  print(f"pictures: {folder}", flush=True)
  return result


def _write_pictures(
  model: iodine.IODINE, dataset: data_lib.IODINEDataset, folder: str
) -> None:
  """Writes overview.png, sequence.png and samples.png."""
  checkpoints.make_folder(folder)
  example = next(iter(dataset.batches("test")))
  images = {
    name: np.asarray(image[0])
    for name, image in summaries.OverviewImages(model)(example).items()
  }
  slots = [f"slot {k + 1}" for k in range(model.num_components)]
  titles = {
    "overview": ["image", "reconstruction", "mask", *slots],
    "sequence": [f"step {t}" for t in range(model.num_iters + 1)],
    "samples": [],
  }
  for name, image in images.items():
    plotting.save_titled_image(
      os.path.join(folder, f"{name}.png"), image, titles[name]
    )


# ------------------------------------------------------------------- compare


def compare(
  config: Config, checkpoint_dir: str, reference: str | None
) -> dict[str, Any]:
  """Compares a checkpoint with recorded tensors; table, JSON and a picture.

  Returns:
    See `comparison.as_json`.

  Raises:
    errors.UserError: see `comparison` and `checkpoints.restore`.
  """
  if not reference:
    raise errors.UserError(
      "`reference` is not set: give an npz file or a folder of recorded "
      "tensors, docs/comparing.md says how to make one"
    )
  tolerance = config["tolerance"]
  if not isinstance(tolerance, float) or not tolerance > 0:
    raise errors.UserError(
      f"`tolerance` is {tolerance!r}: give a positive number, such as 1e-4"
    )
  recorded = comparison.read_reference(reference)
  image_shape = tuple(recorded.data["image"].shape[2:])
  restored = _restore(config, checkpoint_dir, image_shape)
  print(f"comparing {restored.prefix} with {reference}", flush=True)
  deviations: list[comparison.Deviation] = []
  if recorded.info:
    found, info = comparison.compare_info(restored.model, recorded, tolerance)
    deviations += found
    folder = config["pictures_dir"] or "comparison"
    checkpoints.make_folder(folder)
    picture = os.path.join(folder, "comparison.png")
    rows = comparison.picture_rows(info, recorded.info)
    steps = [f"step {t}" for t in range(restored.model.num_iters + 1)]
    plotting.save_image_rows(picture, rows, steps)
    print(f"picture: {picture}", flush=True)
  if recorded.train:
    deviations += comparison.compare_train_step(
      restored.model, restored.optimizer, recorded
    )
  print(
    tabulate.tabulate(
      comparison.table_rows(deviations),
      headers=("tensor", "step", "deviation", "bound", "at", ""),
      floatfmt=".1e",
      disable_numparse=[4],
    )
  )
  result = comparison.as_json(deviations)
  if config["json_path"] is not None:
    _write_json(result, config["json_path"])
    print(f"figures: {config['json_path']}")
  worst = comparison.worst(deviations)
  failed = sum(not each.passed for each in deviations)
  print(
    f"{len(deviations)} tensors, {failed} beyond "
    f"their bounds; closest to its bound or furthest beyond: {worst.name}, "
    f"{worst.deviation:.1e} of {worst.bound:.1e}",
    flush=True,
  )
  return result


# ----------------------------------------------------------------- quickstart


def quickstart(
  config: Config, log_scalar: Callable[[str, float, int], None]
) -> evaluation.Evaluation:
  """Data, training, evaluation and pictures; reuses what is there.

  Raises:
    errors.UserError: see the commands that it runs.
  """
  _require_experiment(config["data"])
  path = config["data"]["path"]
  if os.path.exists(path):
    print(f"data: {path} (already there)", flush=True)
  else:
    make_data(config["data"], None, config["num_scenes"], config["seed"])
  folder = config["checkpoint_dir"]
  start = tf.train.latest_checkpoint(folder) if os.path.isdir(folder) else None
  outcome = train(config, Place(folder, start), log_scalar)
  if outcome.interrupted_by:
    raise KeyboardInterrupt(outcome.interrupted_by)
  result = evaluate(config, folder)
  pictures = config["pictures_dir"] or os.path.join(folder, "pictures")
  print(
    "\nDone. Look at"
    f"\n  pictures:     {pictures}/overview.png"
    f"\n  checkpoint:   {outcome.checkpoint}"
    f"\n  TensorBoard:  .venv/bin/tensorboard --logdir {folder}"
    "\nNext, train on for better objects:"
    f"\n  .venv/bin/python main.py with quick continue_run=True "
    f"checkpoint_dir={folder} stop_after_steps="
    f"{10 * int(config['stop_after_steps'])}",
    flush=True,
  )
  return result


# ---------------------------------------------------------------------- files


def _write_json(content: Any, path: str) -> None:
  """Writes a JSON file at once, or leaves an older one as it is.

  Raises:
    errors.UserError: if it cannot be written.
  """
  temporary = f"{path}.tmp"
  try:
    checkpoints.make_folder(os.path.dirname(path) or ".")
    with open(temporary, "w", encoding="utf-8") as file:
      json.dump(content, file, indent=2)
      file.write("\n")
    os.replace(temporary, path)
  except OSError as error:
    raise errors.UserError(
      f"cannot write `{path}` ({error.strerror}): give a path in a folder "
      "that you may write to"
    ) from error
