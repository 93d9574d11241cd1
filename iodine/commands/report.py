"""One page with all that there is to know about a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from iodine import checkpoints, evaluation, files, report, training
from iodine.commands import common, evaluate, plot

Config = common.Config

_FILE_NAME = "report.html"
# What was logged in training and is shown, with the metrics that they are.
_LOGGED = {"loss/total": "total", "loss/ari_nobg": "ari_nobg"}


def run(
  config: Config,
  checkpoint_dir: str,
  output: Any,
  log_scalar: evaluate.LogScalar = lambda name, value, step: None,
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
    The metrics, those of `evaluate`.

  Raises:
    errors.UserError: see there and `plot`; and if the file cannot be written.
  """
  prefix = checkpoints.find(checkpoint_dir)
  options = evaluate.read_options(config)
  plot_options = plot.read_options(config)
  if output is None:
    output = common.results_path(config, prefix, _FILE_NAME)
  files.check_writable(output, "<!DOCTYPE html>")
  measured = evaluate.restore(config, prefix, options)
  own, seed = measured.own, measured.seed
  print(f"looking at scenes with {prefix}", flush=True)
  # Before the evaluation, which takes longer: a scene may not be there.
  batches = measured.dataset.batches("test")
  view = plot.look(own.model, measured.dataset, batches, plot_options, seed)
  result = evaluate.measure(measured)
  evaluate.write_files(result, options.files)
  evaluate.log_scalars(result, log_scalar)
  subject = report.Subject(
    prefix=prefix,
    is_tf1=checkpoints.open_checkpoint(prefix).is_tf1,
    step=own.step,
    model=own.model,
    dataset=measured.dataset,
    seed=seed,
    trained=measured.trained if measured.is_generalisation else None,
    logged=_logged(prefix),
    trained_on=_trained_on(prefix),
  )
  pictures = _narrated(evaluation.draw(view, plot_options.slot, seed))
  page = report.render(report.collect(config, subject, result, view, pictures))
  files.write(output, page)
  print(f"report: {output} ({len(page) / 1e6:.1f} MB)", flush=True)
  return result


def _narrated(
  pictures: Iterable[evaluation.Picture],
) -> Iterator[evaluation.Picture]:
  """Passes pictures on, with progress on the terminal."""
  for picture in pictures:
    print(f"drew {picture.file_name}", flush=True)
    yield picture


def _trained_on(prefix: str) -> dict[str, str] | None:
  """Returns on what a checkpoint was trained, if its config is there."""
  if not os.path.exists(checkpoints.config_path(prefix)):
    return None
  return checkpoints.config_beside(prefix).get("environment")


def _logged(prefix: str) -> dict[str, list[tuple[int, float]]]:
  """Returns the curves of the training, if its event files are there."""
  folder = checkpoints.run_folder(prefix)
  logged = training.read_scalars(folder, list(_LOGGED))
  return {
    evaluation.TITLES[_LOGGED[tag]]: curve for tag, curve in logged.items()
  }
