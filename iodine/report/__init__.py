"""The report on a checkpoint: one HTML page that needs nothing else."""

from iodine.report.content import write
from iodine.report.page import ASSETS

__all__ = ["ASSETS", "write"]
