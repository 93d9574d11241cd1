"""TF1 checkpoints under the name that scripts outside the project use."""

from iodine.checkpoints.tf1 import export, restore

__all__ = ["export", "restore"]
