"""What the commands of `main.py` do, without Sacred.

Each function gets plain config entries, prints what it does, and returns what
it made. `main.py` wires them to the command line.
"""

from iodine.commands.benchmark_command import benchmark
from iodine.commands.checkpoint_command import export_tf1, load_checkpoint
from iodine.commands.common import build_dataset, build_model, start_tensorflow
from iodine.commands.compare_command import compare
from iodine.commands.evaluate_command import evaluate
from iodine.commands.export_savedmodel_command import export_savedmodel
from iodine.commands.make_data_command import make_data, make_from
from iodine.commands.plot_command import plot
from iodine.commands.quickstart_command import quickstart, show
from iodine.commands.report_command import report
from iodine.commands.segment_command import segment
from iodine.commands.train_command import Place, find_place, train

__all__ = [
  "Place",
  "benchmark",
  "build_dataset",
  "build_model",
  "compare",
  "evaluate",
  "export_savedmodel",
  "export_tf1",
  "find_place",
  "load_checkpoint",
  "make_data",
  "make_from",
  "plot",
  "quickstart",
  "report",
  "segment",
  "show",
  "start_tensorflow",
  "train",
]
