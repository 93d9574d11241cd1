"""A Sacred experiment whose user errors are sentences, not tracebacks."""

from __future__ import annotations

import difflib
import logging
import os
import sys
from typing import Any

import sacred
from sacred import utils as sacred_utils

from iodine import errors

_ADDED_ENTRY = "Added new config entry"


class Experiment(sacred.Experiment):
  """`sacred.Experiment` that ends in one sentence where the user can help it.

  From Python, `run` raises `errors.UserError` as it is. At the command line
  the sentence is printed and the exit status is 1; 128 plus the signal's
  number after an interruption.
  """

  def __init__(self, *args: Any, **kwargs: Any):
    """Takes the arguments of `sacred.Experiment`."""
    super().__init__(*args, **kwargs)
    self.logger = sacred_utils.create_basic_stream_logger()
    # A named config adds all of its entries to the few defaults. What is
    # misspelt is found by `building` and by Sacred itself.
    self.logger.addFilter(
      lambda record: not record.getMessage().startswith(_ADDED_ENTRY)
    )
    self.logger.setLevel(logging.WARNING)
    self._at_command_line = False

  def run_commandline(self, argv: Any = None) -> Any:
    """Runs the command line, see the class."""
    self._at_command_line = True
    try:
      return super().run_commandline(argv)
    except KeyboardInterrupt as interrupt:
      sys.stdout.flush()
      signal_number = interrupt.args[0] if interrupt.args else 2
      sys.exit(128 + int(signal_number))
    finally:
      self._at_command_line = False

  def run(self, *args: Any, **kwargs: Any) -> Any:
    """Runs a command, see `sacred.Experiment.run`."""
    if not self._at_command_line:
      return super().run(*args, **kwargs)
    try:
      return super().run(*args, **kwargs)
    except errors.UserError as error:
      sys.stdout.flush()
      print(f"error: {error}", file=sys.stderr)
      sys.exit(1)
    except BrokenPipeError:
      # Whoever read the output (`| head`) has seen enough.
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
      sys.exit(1)

  def _create_run(self, *args: Any, **kwargs: Any) -> Any:
    try:
      return super()._create_run(*args, **kwargs)
    except sacred_utils.ConfigAddedError as error:
      raise errors.UserError(_unknown_entry(error)) from error
    except sacred_utils.NamedConfigNotFoundError as error:
      raise errors.UserError(
        f"there is no named config `{error.named_config}`: use one of "
        f"{', '.join(sorted(self.named_configs))}"
      ) from error
    except (TypeError, ValueError, ArithmeticError, KeyError) as error:
      raise errors.UserError(
        f"the config cannot be made with these updates ({error}): check that "
        "numbers are numbers and dicts are dicts, `python main.py "
        "print_config with CONFIG` shows them"
      ) from error


def _unknown_entry(error: sacred_utils.ConfigAddedError) -> str:
  (name, *_) = error.conflicting_configs
  known = _names(error.config or {}) - {name}
  close = difflib.get_close_matches(name, sorted(known), n=1)
  meant = f", did you mean `{close[0]}`?" if close else ":"
  return (
    f"there is no config entry `{name}`{meant} `python main.py print_config "
    "with CONFIG` lists all entries"
  )


def _names(config: dict[str, Any]) -> set[str]:
  return {path for path, _ in sacred_utils.iterate_flattened(config)} | set(
    config
  )
