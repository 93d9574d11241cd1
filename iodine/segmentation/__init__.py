"""Images from outside, decomposed: results as files, exports."""

from iodine.segmentation import film_files
from iodine.segmentation.saved_model import export
from iodine.segmentation.segmenter import (
  FilmSegmentation,
  FilmSegmenter,
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
  "FilmSegmentation",
  "FilmSegmenter",
  "Segmentation",
  "Segmenter",
  "are_all_ours",
  "export",
  "infer",
  "overlay",
  "overview",
  "film_files",
  "segment",
  "write",
]
