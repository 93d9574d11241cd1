"""How fast a model is on this machine, and what it costs."""

from __future__ import annotations

from typing import Any

from iodine import benchmark, config_files, files, replicas
from iodine.commands import common, make_data
from iodine.modules import data

Config = common.Config


def run(config: Config) -> dict[str, Any]:
  """Measures a config; table and JSON.

  Args:
    config: the complete config. No checkpoint is needed, nor are scenes, but
      where their files say how large they are.

  Returns:
    The measurements that `json_path` gets, see `benchmark.measure`.
  """
  json_path = config["json_path"]
  config_files.require_experiment(config["model"])
  if json_path is not None:
    files.check_writable(json_path, "{")
  if isinstance(common.build_dataset(config["data"], 0), data.Arrays):
    make_data.ensure_dataset(config)
  result = benchmark.measure(config)
  print(benchmark.text(result), flush=True)
  if json_path is not None and replicas.is_chief(config):
    files.write_json(json_path, result)
    print(f"measurements: {json_path}", flush=True)
  return result
