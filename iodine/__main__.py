"""Runs the commands of main.py: `python -m iodine [COMMAND] with CONFIG...`."""

import atexit
import gc
import importlib
import signal

from iodine import errors


def main() -> None:
  """Runs the command line, as main.py does."""
  gc.set_threshold(100_000)
  atexit.register(gc.freeze)
  signal.signal(signal.SIGINT, errors.end_at_once)
  importlib.import_module("iodine.main").ex.run_commandline()


if __name__ == "__main__":
  main()
