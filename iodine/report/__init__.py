"""The report on a checkpoint: one HTML page that needs nothing else."""

from iodine.report.page import KINDS, Image, Report, Scene, flatten, render

__all__ = [
  "Image",
  "KINDS",
  "Report",
  "Scene",
  "flatten",
  "render",
]
