"""Two checkpoints on the same scenes."""

from __future__ import annotations

from typing import Any

import numpy as np
import tabulate

from iodine import config_files, errors, evaluation, files
from iodine.commands import common
from iodine.studies import evaluated

# In these the data of two runs may differ, and the scenes are the same.
_NOT_OF_SCENES = ("batch_size", "cache", "seed", "shuffle_buffer", "train")


def run(config: common.Config, open_run: evaluated.OpenRun) -> dict[str, Any]:
  """Compares two runs scene by scene, in a table and as JSON.

  Args:
    config: the complete config, with `runs`.
    open_run: see `evaluated.OpenRun`.

  Returns:
    By the name of a metric: the means, their difference, its standard error.
  """
  folders, json_path = evaluated.find(config["runs"]), config["json_path"]
  if len(folders) != 2:
    raise errors.UserError(
      f"`runs` has {len(folders)} runs: give two, such as "
      "`'runs=[runs/a,runs/b]'`"
    )
  first, second = (evaluated.measure_once(x, open_run) for x in folders)
  ignored = [f"data.{name}" for name in _NOT_OF_SCENES]
  differences = config_files.differences(
    first.config, second.config, ("data",), ignored
  )
  if differences or first.found["num_scenes"] != second.found["num_scenes"]:
    raise errors.UserError(
      "the runs are not evaluated on the same scenes "
      f"({differences or 'there are not as many'}): give these entries in "
      "this call, such as `data.path=` and `evaluation.num_scenes=`"
    )
  theirs = second.found["scenes"]
  ours = {k: v for k, v in first.found["scenes"].items() if k in theirs}
  result = {name: _compare(ours[name], theirs[name]) for name in ours}
  headers = ["metric", *folders, "difference", "standard error", "scenes"]
  rows = [[name, *row.values()] for name, row in result.items()]
  table = tabulate.tabulate(rows, headers, floatfmt=".4f", missingval="-")
  print(f"\n{table}\n\nthe first minus the second, scene by scene", flush=True)
  if json_path is not None:
    files.write_json(json_path, {"runs": folders, **result})
    print(f"differences: {json_path}", flush=True)
  return result


def _compare(first: list[Any], second: list[Any]) -> dict[str, Any]:
  """Returns means, their difference, and its error over pairs of scenes."""
  pairs = np.array([first, second], np.float64)
  # Scenes without objects have no value of some metrics.
  pairs = pairs[:, ~np.isnan(pairs).any(axis=0)]
  of_pairs = (*pairs, pairs[0] - pairs[1])
  ours, theirs, difference = map(evaluation.summarize, of_pairs)
  found = {"first": ours.mean, "second": theirs.mean}
  found |= {"difference": difference.mean, "error": difference.standard_error}
  return {**found, "scenes": pairs.shape[1]}
