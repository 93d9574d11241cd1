"""Runs the commands of main.py: `python -m iodine [COMMAND] with CONFIG...`."""

import importlib

if __name__ == "__main__":
  importlib.import_module("iodine.main").ex.run_commandline()
