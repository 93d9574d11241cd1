"""How scenes come from files: layouts, records, opening, streams."""

__all__ = ["examples", "layouts", "opening", "streams"]
