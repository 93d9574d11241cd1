"""How fast a model is on this machine, and what it costs."""

from iodine.benchmark.operations import count
from iodine.benchmark.parts import measure
from iodine.benchmark.process_cost import seconds_since_start
from iodine.benchmark.table import text

__all__ = ["count", "measure", "seconds_since_start", "text"]
