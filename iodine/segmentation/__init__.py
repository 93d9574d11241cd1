"""Images from outside, decomposed: reading them, results as files, exports."""

from iodine.segmentation.image_reading import (
  center_region,
  find,
  find_problem,
  read,
  to_channels,
)
from iodine.segmentation.saved_model import export
from iodine.segmentation.segmenter import (
  Segmentation,
  Segmenter,
  infer,
  segment,
)
from iodine.segmentation.user_files import (
  are_all_ours,
  overlay,
  overview,
  write,
)

__all__ = [
  "Segmentation",
  "Segmenter",
  "are_all_ours",
  "center_region",
  "export",
  "find",
  "find_problem",
  "infer",
  "overlay",
  "overview",
  "read",
  "segment",
  "to_channels",
  "write",
]
