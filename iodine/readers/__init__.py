"""How scenes come from files: layouts, records, opening, streams, a cache."""

__all__ = [
  "arrays",
  "cache",
  "examples",
  "films",
  "image_files",
  "image_sets",
  "layouts",
  "opening",
  "paths",
  "tfds",
  "validity",
  "streams",
]
