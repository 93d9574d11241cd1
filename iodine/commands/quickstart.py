"""A first look: a trained model, then the whole way from data to pictures."""

from __future__ import annotations

import os
import shlex
import sys

from iodine import config_files, errors, evaluation
from iodine.commands import common, evaluate, help, make_data, plot, train
from iodine.training import run_folder

Config = common.Config


# The first look should not take longer than a minute or two.
_NUM_SHOWN = 32
# Of training, on any machine.
_MOST_SECONDS = 300


def show(config: Config) -> None:
  """Evaluates and draws a trained model, on some of the scenes made for it."""
  folder = config["checkpoint_dir"]
  print(f"A trained model, {folder}, on scenes it has not seen.", flush=True)
  few = {
    "data": {**config["data"], "batch_size": _NUM_SHOWN},
    "evaluation": {**config["evaluation"], "num_scenes": _NUM_SHOWN},
    "plot": {**config["plot"], "num_scenes_for_map": _NUM_SHOWN},
  }
  config = {**config_files.as_trained(config), **few}
  result = evaluate.run(config, folder)
  pictures = plot.run(config, folder)
  print(
    "\nThe trained model has a foreground ARI of "
    f"{result.metrics['ari_nobg'].mean:.3f}. See how it decomposes scenes in"
    + "".join(f"\n  {path}" for path in pictures if "example" in path)
    + "\nNow the same from scratch, for at most "
    f"{help.duration(_MOST_SECONDS)} of training.\n",
    flush=True,
  )


def run(
  config: Config, log_scalar: train.LogScalar, trained: Config
) -> evaluation.Evaluation:
  """Makes data, trains, evaluates and draws; reuses what is there.

  Args:
    config: the complete config.
    log_scalar: takes name, value and step.
    trained: that of a trained model, which is shown before.
  """
  config_files.require_experiment(config["data"])
  folder, path = config["checkpoint_dir"], config["data"]["path"]
  if not isinstance(path, str):
    raise errors.UserError(
      f"`data.path` is {path!r}: quickstart makes and reads a single file"
      + errors.quote_hint(path, "data.path")
    )
  with run_folder.locked(folder):
    show(trained)
    return _make(config, log_scalar)


def _make(config: Config, log_scalar: train.LogScalar) -> evaluation.Evaluation:
  """Makes what is missing, up to the pictures."""
  folder, path = config["checkpoint_dir"], config["data"]["path"]
  if os.path.exists(path):
    print(f"data: {path} (already there)", flush=True)
  else:
    make_data.run(config)
  outcome = train.run(
    config,
    run_folder.RunFolder.at(folder),
    log_scalar,
    max_seconds=_MOST_SECONDS,
  )
  if outcome.interrupted_by:
    raise KeyboardInterrupt(outcome.interrupted_by)
  if outcome.step < config["stop_after_steps"]:
    print(
      f"{help.duration(_MOST_SECONDS)} are over at step {outcome.step} of "
      f"{config['stop_after_steps']}; the same command goes on from there",
      flush=True,
    )
  result = evaluate.run(config, folder, log_scalar)
  pictures = evaluate.pictures_folder(config, str(outcome.checkpoint))
  binaries = os.path.dirname(os.path.relpath(sys.executable))
  python = f"{binaries}/python main.py"
  print(
    "\nDone. Look at"
    f"\n  pictures:     {pictures}/overview.png"
    f"\n  checkpoint:   {outcome.checkpoint}"
    f"\n  TensorBoard:  {binaries}/tensorboard --logdir {folder}"
    "\nNext, train this one on:"
    f"\n  {python} with quick continue_run=True "
    f"checkpoint_dir={shlex.quote(folder)} "
    f"stop_after_steps={10 * outcome.step}"
    "\nor one that finds the objects on two cores within the hour:"
    f"\n  {python} with laptop",
    flush=True,
  )
  return result
