"""Runs the commands of main.py: `python -m iodine [COMMAND] with CONFIG...`."""

import importlib
import signal

from iodine import errors

if __name__ == "__main__":
  # As in main.py.
  signal.signal(signal.SIGINT, errors.end_at_once)
  importlib.import_module("iodine.main").ex.run_commandline()
