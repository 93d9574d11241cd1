"""What the model computes with: exact, faster forms; number types, memory."""

__all__ = ["convolutions", "memory", "precision", "recomputation", "resizing"]
