"""One page with all that there is to know about a checkpoint."""

from __future__ import annotations

from iodine import checkpoints, evaluation, files, replicas, report, training
from iodine.commands import common, evaluate, plot

Config = common.Config

_FILE_NAME = "report.html"
# What was logged in training and is shown, with the metrics that they are.
_LOGGED = {"loss/total": "total", "loss/ari_nobg": "ari_nobg"}


def run(
  config: Config,
  checkpoint: common.Checkpoint,
  output: str | None,
  log_scalar: evaluate.LogScalar = lambda name, value, step: None,
) -> evaluation.Evaluation:
  """Evaluates a checkpoint, draws its pictures, and writes both as one page.

  The options are those of `evaluate` and `plot`; the pictures show the model
  as it is evaluated.

  Args:
    config: the complete config.
    checkpoint: a path, or what `checkpoints.open_checkpoint` returned.
    output: the file to write; None for report.html beside the checkpoint.
    log_scalar: takes name, value and iteration.

  Returns:
    The metrics, those of `evaluate`.
  """
  opened = checkpoints.open_checkpoint(checkpoint)
  evaluate.check(config)
  output = output or common.results_path(config, opened.prefix, _FILE_NAME)
  files.check_writable(output, "<!DOCTYPE html>")
  strategy = replicas.make_strategy(config)
  dataset, batches = evaluate.open_scenes(config)
  models = evaluate.restore(config, opened, strategy)
  own, *_ = models.values()
  print(f"looking at scenes with {opened.prefix}", flush=True)
  # Before the evaluation, which takes longer: a scene may not be there.
  scenes, statistics = plot.decompose(config, own.model, dataset)
  result = evaluate.measure(config, models, dataset, batches, strategy)
  evaluate.write_files(config, opened, result, log_scalar)
  decoder = evaluation.Decoder(own.model, dataset.batch_size)
  folder = checkpoints.run_folder(opened.prefix)
  logged = training.read_scalars(folder, list(_LOGGED))
  titles = evaluation.catalogue.TITLES
  # A page has stills and GIFs.
  film = config["plot"]["traversal_film"] and "gif"
  on_page = {**config, "plot": {**config["plot"], "traversal_film": film}}
  page = report.write(
    config,
    opened,
    own.step,
    own.model,
    dataset,
    result,
    scenes,
    statistics,
    plot.draw(on_page, decoder, scenes, statistics),
    evaluate.trained_with(config),
    {titles[_LOGGED[tag]]: curve for tag, curve in logged.items()},
  )
  files.write(output, page)
  print(f"report: {output} ({len(page) / 1e6:.1f} MB)", flush=True)
  return result
