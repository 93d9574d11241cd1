"""How scenes come from files: layouts, records, opening, streams, a cache."""

__all__ = [
  "arrays",
  "cache",
  "examples",
  "films",
  "globs",
  "image_files",
  "image_sets",
  "layouts",
  "opening",
  "soundness",
  "streams",
]
