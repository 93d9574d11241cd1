"""How scenes come from files: layouts, records, opening, streams, a cache."""

__all__ = ["cache", "examples", "layouts", "opening", "streams"]
