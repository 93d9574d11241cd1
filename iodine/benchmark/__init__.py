"""How fast a model is on this machine, and what it costs."""

from iodine.benchmark.measuring import (
  MatmulRate,
  first_call,
  has_files,
  measure,
  measure_decoding,
  measure_pipeline,
  segment,
  synthetic_batch,
)
from iodine.benchmark.operations import count
from iodine.benchmark.process_cost import (
  gpu_peak_memory_bytes,
  peak_memory_bytes,
  seconds_since_start,
)
from iodine.benchmark.sweep import (
  measure_in_child,
  pictures_folder,
  read,
  require_all,
  run,
)

__all__ = [
  "MatmulRate",
  "count",
  "first_call",
  "gpu_peak_memory_bytes",
  "has_files",
  "measure",
  "measure_decoding",
  "measure_in_child",
  "measure_pipeline",
  "peak_memory_bytes",
  "pictures_folder",
  "read",
  "require_all",
  "run",
  "seconds_since_start",
  "segment",
  "synthetic_batch",
]
