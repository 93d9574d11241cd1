"""Images and films from outside, decomposed: results as files, exports."""

from iodine.segmentation.saved_model import export
from iodine.segmentation.segmenter import (
  Segmentation,
  Segmenter,
  decompose,
  opened,
  prepare,
)
from iodine.segmentation.user_files import draw_film, overlay, overview, write

__all__ = [
  "Segmentation",
  "Segmenter",
  "decompose",
  "draw_film",
  "export",
  "opened",
  "overlay",
  "overview",
  "prepare",
  "write",
]
