"""TF1 checkpoints under the name that scripts outside the project use."""

from iodine.checkpoints import tf1

export = tf1.export
restore = tf1.restore

__all__ = ["export", "restore"]
