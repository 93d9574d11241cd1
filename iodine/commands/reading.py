"""What commands that read a checkpoint take from the config beside it."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from typing import Any

from sacred import utils as sacred_utils
from sacred.config import utils as config_utils

from iodine import checkpoints, config_files, errors

Config = Mapping[str, Any]

# Entries that say what one call does, and on what: those of the training do not
# count.
_OF_ONE_CALL = (
  "checkpoint_dir",
  "continue_run",
  "csv_path",
  "data_dir",
  "data_format",
  "deterministic",
  "environment",
  "films",
  "images",
  "jit_compile",
  "json_path",
  "memory_growth",
  "output",
  "pictures_dir",
  "reference",
  "results_dir",
  "steps_per_call",
  "strategy",
  "tf32",
  "virtual_devices",
  "worker_timeout",
)
# What scenes are chosen and how they are computed does not change a result
# behind anybody's back.
_MAY_DIFFER = (
  "data.batch_size",
  "data.cache",
  "data.num_test_scenes",
  "data.path",
  "data.seed",
  "data.shuffle_buffer",
  "data.test",
  "data.train",
  "model.decoder.recompute",
)


def find_config(checkpoint_dir: Any, is_named: Any) -> dict[str, Any] | None:
  """Reads the config beside a checkpoint, without what one call does.

  Args:
    checkpoint_dir: folder or prefix of the checkpoint.
    is_named: true where there is a config without it.

  Returns:
    None if there is none, nor need there be.

  Raises:
    errors.UserError: if there is no checkpoint, no config at all, or it cannot
      be read.
  """
  prefix = checkpoints.find(checkpoint_dir)
  if is_named and not os.path.exists(checkpoints.config_path(prefix)):
    return None
  config = checkpoints.config_beside(prefix)
  config["model"].setdefault("refinement_batch_size", None)
  # The cache is of the machine that trained, and so on.
  config = config_files.without_writing_entries(config)
  return {k: v for k, v in config.items() if k not in _OF_ONE_CALL}


def follow(
  updates: Config, stored: Config | None, is_named: Any
) -> dict[str, Any]:
  """Returns updates with what follows from them.

  A named config passes its entries on, such as `num_iters` to
  `model.num_iters`. In a stored one both are written out: parts of the same
  name and value take the new value, too.

  Args:
    updates: a nested dict.
    stored: the config beside the checkpoint, if there is one.
    is_named: true where a named config refines it.

  Raises:
    errors.UserError: if it cannot be known what follows from an update.
  """
  followers: dict[str, Any] = {}
  for name, value in updates.items():
    for path in _followers(stored or {}, name):
      sacred_utils.set_by_dotted_path(followers, path, value)
  generates = (stored or {}).get("generated_path") is not None
  for name in ("data_seed", "num_scenes"):
    if name in updates and generates and not is_named:
      raise errors.UserError(
        f"`{name}` does not change `data.path`, which the config beside the "
        "checkpoint names: give `data.path`, or name the config, too, as in "
        "`with laptop`"
      )
  # Who asks for a number of refinements gets it.
  model = updates.get("model")
  if "num_iters" in updates or (
    isinstance(model, Mapping) and "num_iters" in model
  ):
    followers["evaluation"] = {"num_iters": None}
  # What the updates say themselves stays.
  result = copy.deepcopy(dict(updates))
  config_utils.recursive_fill_in(result, followers)
  return result


def _followers(stored: Config, name: str) -> Iterator[str]:
  """Yields the paths of parts that have the name and value of an entry."""
  if name not in stored or isinstance(stored[name], Mapping):
    return
  parts = {top: stored.get(top) for top in ("data", "model", "optimizer")}
  for path, value in checkpoints.leaves(parts):
    if path.split(".")[-1] == name and value == stored[name]:
      yield path


def tell_differences(
  config: Config, stored: Config, folder: str, decomposes: bool
) -> None:
  """Prints in one line what differs from a stored config and matters.

  Args:
    config: the complete config.
    stored: the one beside the checkpoint.
    folder: what it is called by.
    decomposes: whether images are decomposed, as in the training by default.
  """
  if decomposes:
    stored = checkpoints.as_trained(stored)
  found = checkpoints.differences(
    config, stored, ("data", "model"), _MAY_DIFFER
  )
  if found:
    print(
      f"unlike the config of `{folder}`: {errors.join_some(found)}", flush=True
    )


def tell_changes(config: Config, prefix: str) -> None:
  """Prints in one line what a continued run does otherwise from now on.

  Args:
    config: the complete config.
    prefix: of the checkpoint that it goes on from.
  """
  if not os.path.exists(checkpoints.config_path(prefix)):
    return
  stored = checkpoints.config_beside(prefix)
  # Not known of older runs.
  environment = ["environment"] if stored.get("environment") else []
  found = checkpoints.differences(
    config,
    stored,
    ("data", "model", "optimizer", "stages", *environment),
    ("data.cache", "data.seed", "model.refinement_batch_size"),
  )
  if found:
    print(f"unlike the run so far: {errors.join_some(found)}", flush=True)


def decompose_as_trained(
  config: dict[str, Any], trained: Config, updates: Config
) -> None:
  """Lets the model decompose images as in the batches of its training.

  Args:
    config: the complete config, which is changed.
    trained: that of the training.
    updates: of the user, who may want another `refinement_batch_size`.
  """
  model = updates.get("model")
  is_given = isinstance(model, Mapping) and "refinement_batch_size" in model
  if config["model"] and not is_given:
    config.update(checkpoints.as_trained(config, trained.get("batch_size")))
