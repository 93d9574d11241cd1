"""The report on a checkpoint: one HTML page that needs nothing else."""

from iodine.report.content import write

__all__ = ["write"]
