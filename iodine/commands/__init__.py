"""What the commands of `main.py` do, without Sacred; one file a command.

Each has a function `run`, which gets plain config entries, prints what it does,
and returns what it made. `main.py` wires them to the command line.
"""

__all__ = ["common", "evaluate", "experiment", "help", "train"]
