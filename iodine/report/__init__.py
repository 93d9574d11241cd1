"""The report on a checkpoint: one HTML page that needs nothing else."""

from iodine.report.content import Subject, collect
from iodine.report.page import render

__all__ = ["Subject", "collect", "render"]
