"""Exact, faster forms of what the model computes; no module of the model."""

__all__ = ["convolutions", "precision", "recomputation", "resizing"]
