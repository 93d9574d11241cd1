"""How scenes come from files: layouts, records, opening, streams, a cache."""

__all__ = ["cache", "examples", "image_files", "layouts", "opening", "streams"]
