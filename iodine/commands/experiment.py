"""A Sacred experiment whose user errors are sentences, not tracebacks."""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import sacred
from sacred import utils as sacred_utils

from iodine import errors

# What Sacred says at every run, and what it adds to our own error messages. A
# named config adds all of its entries to the few defaults; what is misspelt is
# found by `building` and by Sacred itself.
_IDLE_WARNINGS = (
  "Added new config entry",
  "No observers have been added",
  "Failed after",
)


_Command = TypeVar("_Command", bound=Callable[..., Any])


class Experiment(sacred.Experiment):
  """`sacred.Experiment` that ends in one sentence where the user can help it.

  From Python, `run` raises `errors.UserError` as it is. At the command line
  the sentence is printed and the exit status is 1; 128 plus the signal's
  number after an interruption.
  """

  def __init__(self, *args: Any, **kwargs: Any):
    """Takes the arguments of `sacred.Experiment`."""
    super().__init__(*args, **kwargs)
    logger = sacred_utils.create_basic_stream_logger()
    for handler in logger.handlers:
      handler.addFilter(
        lambda record: not record.getMessage().startswith(_IDLE_WARNINGS)
      )
    logger.setLevel(logging.WARNING)
    self.logger = logger
    self._at_command_line = False
    self._shown: dict[str, tuple[str, ...]] = {}

  def shows(self, *named_configs: str) -> Callable[[_Command], _Command]:
    """Marks a command that takes these configs where none is given.

    Nor may the updates have a `model`, which is an experiment of its own.
    """

    def mark(command: _Command) -> _Command:
      self._shown[command.__name__] = named_configs
      return command

    return mark

  def run_commandline(self, argv: Any = None) -> Any:
    """Runs the command line, see the class."""
    self._at_command_line = True
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
      return super().run_commandline(argv)
    except KeyboardInterrupt as interrupt:
      sys.stdout.flush()
      signal_number = interrupt.args[0] if interrupt.args else 2
      print("interrupted", file=sys.stderr)
      sys.exit(128 + int(signal_number))
    finally:
      signal.signal(signal.SIGTERM, previous)
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
    except Exception as error:
      sentence = _environment_error(error)
      if sentence is None:
        raise
      print(f"error: {sentence}", file=sys.stderr)
      sys.exit(1)

  def _create_run(
    self,
    command_name: str | None = None,
    config_updates: dict[str, Any] | None = None,
    named_configs: Sequence[str] = (),
    *args: Any,
    **kwargs: Any,
  ) -> Any:
    for name in named_configs:
      if name not in self.named_configs and not os.path.exists(name):
        raise errors.UserError(
          f"there is no named config `{name}`: use one of "
          f"{', '.join(sorted(self.named_configs))}"
        )
    if not named_configs and "model" not in (config_updates or {}):
      named_configs = self._shown.get(command_name or "", ())
    seed = (config_updates or {}).get("seed", 0)
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
      raise errors.UserError(
        f"`seed` is {seed!r}: give a whole number from 0 to {2**32 - 1}"
      )
    try:
      return super()._create_run(
        command_name, config_updates, named_configs, *args, **kwargs
      )
    except sacred_utils.ConfigAddedError as error:
      raise errors.UserError(_unknown_entry(error)) from error
    except (TypeError, ValueError, ArithmeticError, KeyError) as error:
      if "not in preset" in str(error):
        raise errors.UserError(
          f"`{named_configs[0]}` refines another named config: give it after "
          "that, as in `with clevr6 paper_data` or `with laptop pretrained`"
        ) from error
      raise errors.UserError(
        f"the config cannot be made with these updates ({error}): check that "
        "numbers are numbers and dicts are dicts, `python main.py "
        "print_config with CONFIG` shows them"
      ) from error


def _interrupt(number: int, _: Any) -> None:
  """Makes SIGTERM end a command as Ctrl-C does, cleaning up on the way."""
  raise KeyboardInterrupt(number)


def _environment_error(error: Exception) -> str | None:
  """The sentence for what is wrong outside of the program, if it is that."""
  if isinstance(error, ModuleNotFoundError) and error.name == "pymongo":
    return (
      "Sacred's MongoDB observer needs pymongo: run `pip install -r "
      "requirements-mongo.txt`"
    )
  if type(error).__module__.startswith("pymongo"):
    reason = str(error).split(",")[0]
    return (
      f"the MongoDB server of `-m` cannot be used ({reason}): start it, or "
      "check its address"
    )
  if isinstance(error, OSError) and error.filename is not None:
    return (
      f"`{error.filename}` cannot be used ({error.strerror}): check that the "
      "path is right, and that you may read and write there"
    )
  return None


def _unknown_entry(error: Any) -> str:
  name = next(iter(error.__conflicting_configs__))
  known = sacred_utils.iterate_flattened(error.__config__)
  names = {prefix for path, _ in known for prefix in _prefixes(path)} - {name}
  close = difflib.get_close_matches(name, sorted(names), n=1)
  meant = f"did you mean `{close[0]}`? " if close else ""
  return (
    f"there is no config entry `{name}`: {meant}`python main.py print_config "
    "with CONFIG` lists all entries"
  )


def _prefixes(path: str) -> list[str]:
  parts = path.split(".")
  return [".".join(parts[: i + 1]) for i in range(len(parts))]


@contextlib.contextmanager
def quiet_native_output() -> Iterator[None]:
  """Drops what native code writes to the standard error stream.

  TensorFlow's libraries greet with a page about processors and drivers, and
  no setting stops them. Python's own messages still get through, as
  exceptions do.
  """
  saved = os.dup(2)
  python_stderr = sys.stderr
  with open(os.devnull, "wb") as null, os.fdopen(saved, "w") as stderr:
    sys.stderr = stderr
    os.dup2(null.fileno(), 2)
    try:
      yield
    finally:
      stderr.flush()
      os.dup2(saved, 2)
      sys.stderr = python_stderr
