"""Images from outside, decomposed: results as files, exports."""

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
  "export",
  "infer",
  "overlay",
  "overview",
  "segment",
  "write",
]
