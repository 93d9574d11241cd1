"""How fast a model is on this machine, and what it costs."""

from __future__ import annotations

from typing import Any

from iodine import benchmark, files, replicas
from iodine.commands import common, make_data
from iodine.modules import data

Config = common.Config


def run(config: Config, script: str) -> dict[str, Any]:
  """Measures a config; table and JSON, and a picture of a sweep.

  Args:
    config: the complete config. No checkpoint is needed, nor are scenes, but
      where their files say how large they are.
    script: path of `main.py`, which measures every point of a sweep in a
      process of its own.

  Returns:
    The measurements that `json_path` gets, see `benchmark.measure`.

  Raises:
    errors.UserError: if an option or the model's config makes no sense, or a
      point of a sweep could not be measured.
  """
  options = benchmark.read_options(config["benchmark"])
  points = benchmark.read_sweep(config["benchmark"])
  common.require_experiment(config["data"])
  common.require_experiment(config["model"])
  if config["json_path"] is not None:
    files.check_json(config["json_path"])
  if isinstance(common.build_dataset(config["data"], 0), data.Arrays):
    make_data.ensure_dataset(config)
  if points:
    result = benchmark.measure_sweep(config, options.parts, points, script)
  else:
    result = benchmark.measure(config, options)
    print(benchmark.text(result), flush=True)
  if config["json_path"] is not None and replicas.is_chief(config):
    files.write_json(config["json_path"], result)
    print(f"measurements: {config['json_path']}", flush=True)
  benchmark.require_all(result.get("sweep", ()))
  return result
