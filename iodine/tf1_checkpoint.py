"""TF1 checkpoints under the name that scripts outside the project use."""

from iodine.checkpoints import tf1

__all__ = ["export", "restore"]

export = tf1.export
restore = tf1.restore
