"""How fast a model is on this machine, and what it costs."""

from iodine.benchmark.operations import count
from iodine.benchmark.parts import measure, read_options
from iodine.benchmark.process_cost import seconds_since_start
from iodine.benchmark.sweep import read as read_sweep
from iodine.benchmark.sweep import require_all
from iodine.benchmark.sweep import run as measure_sweep
from iodine.benchmark.table import text

__all__ = [
  "count",
  "measure",
  "measure_sweep",
  "read_options",
  "read_sweep",
  "require_all",
  "seconds_since_start",
  "text",
]
