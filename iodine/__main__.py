"""Runs the commands of main.py: `python -m iodine [COMMAND] with CONFIG...`."""

import atexit
import gc
import importlib
import signal

from iodine import errors

if __name__ == "__main__":
  # As in main.py.
  gc.set_threshold(100_000)
  atexit.register(gc.freeze)
  signal.signal(signal.SIGINT, errors.end_at_once)
  importlib.import_module("iodine.main").ex.run_commandline()
