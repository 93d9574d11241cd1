"""A Sacred experiment whose user errors are sentences, not tracebacks."""

from __future__ import annotations

import atexit
import contextlib
import copy
import difflib
import errno
import functools
import gc
import importlib
import itertools
import logging
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple, TypeVar

import sacred
from sacred import (
  arg_parser,
  commandline_options,
  dependencies,
  observers,
  serializer,
)
from sacred import utils as sacred_utils
from sacred.config import config_dict, custom_containers

from iodine import building, config_files, errors, files, nvidia, validation

# What Sacred says at every run, and what it adds to our own error messages. A
# named config adds all of its entries to the few defaults; what is misspelt is
# found by `building` and by Sacred itself.
_IDLE_WARNINGS = (
  "Added new config entry",
  "No observers have been added",
  "Failed after",
)
# What native code says wherever TensorFlow starts.
_GREETINGS = (
  "All log messages before absl::InitializeLog() is called",
  "oneDNN custom operations are on",
  "Unable to register cuDNN factory",
  "Unable to register cuFFT factory",
  "Unable to register cuBLAS factory",
  "computation placer already registered",
  "This TensorFlow binary is optimized to use available CPU instructions",
  "To enable the following instructions:",
  "Could not find TensorRT",
  "successful NUMA node read from SysFS had negative value",
  "Your kernel may have been built without NUMA support",
)
# What it says where there is no GPU, and to whom there is one it is the reason
# why that is not used.
_NO_GPU = (
  "Could not find cuda drivers on your machine",
  "Failed call to cuInit",
  "Cannot dlopen some GPU libraries",
  "Skipping registering GPU devices",
)

# Beside "constructor" in an update: not to be merged into the entry.
_REPLACE = "replace"

# The config beside a checkpoint, while a run is made of it.
_STORED = "config beside the checkpoint"
# Those that `with FILE` names, likewise, by their numbers.
_FILE = "config of file {}"

# By which a command writes, besides `config_files`: where it trains or draws.
_PLACES = {
  "make_data": ("data.path",),
  **dict.fromkeys(
    (
      "compare",
      "evaluate",
      "export_savedmodel",
      "export_tf1",
      "plot",
      "quickstart",
      "report",
    ),
    ("checkpoint_dir",),
  ),
}


@commandline_options.cli_option("-T", "--trust")
def trust_option(args: str, run: Any) -> None:
  """Let config files name code of these packages or modules, which is run.

  Several are separated by commas.
  """
  del args, run  # `Experiment` has read it by then


_Command = TypeVar("_Command", bound=Callable[..., Any])


class Reading(NamedTuple):
  """How a command reads a checkpoint.

  Attributes:
    shown: named configs where neither a config nor a checkpoint is given.
    decomposes: whether images are decomposed, as in the training then.
  """

  shown: tuple[str, ...]
  decomposes: bool


def git_tells(folder: str) -> bool:
  """Returns whether git can be asked about a folder.

  It may not be installed, and says nothing about folders of somebody else, such
  as those mounted into a container. Sacred would end then.
  """
  git = shutil.which("git")
  command = (str(git), "-C", folder, "rev-parse", "HEAD")
  return (
    git is not None
    and not subprocess.run(command, capture_output=True, check=False).returncode
  )


class Experiment(sacred.Experiment):
  """`sacred.Experiment` that ends in one sentence where the user can help it.

  From Python, `run` raises `errors.UserError` as it is. At the command line
  the sentence is printed and the exit status is 1; 128 plus the signal's
  number after an interruption. Any other error is shown with its traceback,
  after a line that says which part of the config it comes from.

  An update with `"replace": True` beside "constructor" takes the place of the
  entry; other updates are merged into what is there.
  """

  # At the class, since Sacred takes the file that calls its own `__init__` for
  # the main file: that has to be main.py.
  _at_command_line = False

  def records(self, *folders: str, packages: Iterable[str] = ()) -> None:
    """Adds to what observers record of every run.

    Args:
      *folders: whose Python files are sources.
      packages: whose versions are recorded, where they are installed.
    """
    for folder in folders:
      for path in sorted(pathlib.Path(folder).rglob("*.py")):
        # Without the state of the git repository, which Sacred would ask for
        # every file; it is the main file's.
        digest = dependencies.get_digest(str(path))
        self.sources.add(
          dependencies.Source(str(path), digest, None, None, None)
        )
    for package in packages:
      # A variant of TensorFlow may be installed under another name.
      with contextlib.suppress(metadata.PackageNotFoundError):
        self.dependencies.add(
          dependencies.PackageDependency(package, metadata.version(package))
        )

  def reads(
    self, *shown: str, decomposes: bool = True
  ) -> Callable[[_Command], _Command]:
    """Marks a command that reads the checkpoint `checkpoint_dir`.

    Its config is the `config.json` beside the checkpoint. What named configs
    and updates change in it, and what changes results, is told.

    Args:
      *shown: see `Reading`.
      decomposes: see there.
    """

    def mark(command: _Command) -> _Command:
      command.reading = Reading(shown, decomposes)  # type: ignore[attr-defined]
      return command

    return mark

  def adds_entries(self, name: str, entries: Iterable[str]) -> None:
    """Lets a named config have entries that others do not have."""
    self.named_configs[name].entries = tuple(entries)

  def run_commandline(self, argv: Any = None) -> Any:
    """Runs the command line, see the class."""
    self._at_command_line = True
    _open_streams()
    handlers = {
      signal.SIGTERM: _interrupt,
      signal.SIGINT: signal.default_int_handler,
      signal.SIGHUP: _interrupt,
    }
    previous = {
      number: signal.signal(number, handler)
      for number, handler in handlers.items()
      # With `nohup` a command outlives its terminal.
      if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    }
    try:
      problem = errors.message_of(lambda: _check_updates(argv))
      if problem is not None:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(1)
      return super().run_commandline(argv)
    except KeyboardInterrupt as interrupt:
      signal.signal(signal.SIGINT, errors.end_at_once)
      sys.stdout.flush()
      signal_number = interrupt.args[0] if interrupt.args else 2
      print("interrupted", file=sys.stderr)
      sys.exit(128 + int(signal_number))
    finally:
      _let_go(sys.exc_info()[1])
      for number, handler in previous.items():
        signal.signal(number, handler)
      self._at_command_line = False

  def run(
    self,
    command_name: str | None = None,
    config_updates: dict[str, Any] | None = None,
    named_configs: Sequence[str] = (),
    info: dict[str, Any] | None = None,
    meta_info: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
  ) -> Any:
    """Runs a command, see `sacred.Experiment.run`."""

    def run_it() -> Any:
      with building.trusting(_named_by_user(config_updates, options)):
        return super(Experiment, self).run(
          command_name, config_updates, named_configs, info, meta_info, options
        )

    if not self._at_command_line:
      return run_it()
    try:
      return run_it()
    except BrokenPipeError:
      # Whoever read the output (`| head`) has seen enough.
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
      sys.exit(1)
    except Exception as error:
      sys.stdout.flush()
      sentence = _sentence(error)
      if sentence is None:
        run = self.current_run
        place = _place(error, run.config if run else {})
        if place:
          print(place, file=sys.stderr)
        raise
      print(f"error: {sentence}", file=sys.stderr)
      sys.exit(1)

  def _create_run(
    self,
    command_name: str | None = None,
    config_updates: dict[str, Any] | None = None,
    named_configs: Sequence[str] = (),
    info: Any = None,
    meta_info: Any = None,
    options: dict[str, Any] | None = None,
  ) -> Any:
    updates = sacred_utils.convert_to_nested_dict(config_updates or {})
    with (
      building.trusting(_named_by_user(updates, options)),
      self._read_files(command_name, updates, named_configs) as names,
    ):
      return self._make_run(
        command_name, updates, names, info, meta_info, options
      )

  @contextlib.contextmanager
  def _read_files(
    self,
    command_name: str | None,
    updates: Mapping[str, Any],
    named_configs: Sequence[str],
  ) -> Iterator[list[str]]:
    """Reads those named configs that are files, for as long as a run is made.

    Sacred would unpickle them.

    Raises:
      errors.UserError: if one is no config, or is not to be followed, see
        `config_files`.
    """
    names: list[str] = []
    read: dict[str, tuple[Any, str]] = {}
    for name in named_configs:
      if name not in self.named_configs and not os.path.exists(name):
        raise errors.UserError(
          f"there is no named config `{name}`: use one of "
          f"{', '.join(sorted(self.named_configs))}"
        )
      if name not in self.named_configs:
        config = config_files.read(name)
        places = _PLACES.get(command_name or "", ())
        config_files.check_named(config, name, updates, places)
        # Not the name of the file: Sacred would read that.
        place, name = f"config of file `{name}`", _FILE.format(len(read))
        read[name] = config, place
      names.append(name)
    try:
      for name, (config, place) in read.items():
        self._add_read_config(name, config, place)
      yield names
    finally:
      for name in read:
        self.named_configs.pop(name, None)

  def _add_read_config(
    self, name: str, config: Mapping[str, Any], place: str
  ) -> None:
    """Adds a named config from a file, which may have all entries there are.

    Args:
      name: that it gets.
      config: what is in the file.
      place: what errors call it.

    Raises:
      errors.UserError: if its keys are not those of a config.
    """
    with errors.as_user_error(
      (KeyError, TypeError, ValueError),
      lambda error: f"the {place} is not a config ({error}): write it again",
    ):
      self.named_configs[name] = config_dict.ConfigDict(config)
    _check_seed(config, f"in the {place} ")
    known = self._added_entries(self.named_configs)
    self.adds_entries(name, known.keys() & config.keys())

  def _make_run(
    self,
    command_name: str | None,
    config_updates: dict[str, Any],
    named_configs: Sequence[str],
    *args: Any,
  ) -> Any:
    """Makes a run; arguments as for Sacred, without files."""
    _check_seed(config_updates)
    updates, parts = _split_off_parts(config_updates)
    reading: Reading | None = getattr(
      self.commands.get(command_name), "reading", None
    )
    if reading is None:
      run = self._plain_run(command_name, updates, named_configs, *args)
      _put_all(run, parts)
    else:
      run = self._reading_run(
        reading, command_name, updates, parts, named_configs, *args
      )
    if run.observers:
      _describe_host(run)
    for observer in run.observers:
      if isinstance(observer, observers.FileStorageObserver):
        files.check_folder(observer.basedir)
        save = functools.partial(_save_json, observer)
        observer.save_json = save  # type: ignore[method-assign]
    # Sacred gave them the config when it made the run.
    for function in self.captured_functions:
      function.config = custom_containers.make_read_only(run.config)
    return run

  def _reading_run(
    self,
    reading: Reading,
    command_name: str | None,
    updates: Mapping[str, Any],
    parts: Mapping[str, Any],
    named_configs: Sequence[str],
    *args: Any,
  ) -> Any:
    """Makes the run of a command that reads a checkpoint, see `reads`."""
    if not (named_configs or "model" in updates or "checkpoint_dir" in updates):
      named_configs = reading.shown
    folder = updates.get("checkpoint_dir")
    if folder is None:
      plain = self._plain_run(command_name, updates, named_configs)
      folder = plain.config["checkpoint_dir"]
    library = _import("iodine.commands.reading")
    stored = library.find_config(folder, named_configs or updates.get("model"))
    updates = library.follow(updates, stored, named_configs)
    trained = stored
    if reading.decomposes and trained is None:
      # Without the updates, of which `batch_size` is that of the reading.
      trained = self._plain_run(command_name, {}, named_configs).config
    # The run that is made last is the current one to Sacred.
    if stored is None:
      run = self._plain_run(command_name, updates, named_configs, *args)
    else:
      try:
        self._add_read_config(_STORED, stored, _STORED)
        names = [_STORED, *named_configs]
        run = self._plain_run(command_name, updates, names, *args)
      finally:
        self.named_configs.pop(_STORED, None)
    _put_all(run, parts)
    if reading.decomposes:
      library.decompose_as_trained(run.config, trained, updates)
    if stored is not None:
      library.tell_differences(run.config, stored, folder, reading.decomposes)
    return run

  def _plain_run(
    self,
    command_name: str | None,
    updates: Mapping[str, Any],
    named_configs: Sequence[str],
    *args: Any,
  ) -> Any:
    """Makes a run as Sacred does."""
    # Sacred takes what is in named configs only for mistakes.
    added = config_dict.ConfigDict(self._added_entries(named_configs))
    self.configurations.insert(0, added)
    try:
      run = super()._create_run(
        command_name, copy.deepcopy(updates), named_configs, *args
      )
    except sacred_utils.ConfigAddedError as error:
      name = next(iter(error.__conflicting_configs__))
      raise errors.UserError(_unknown_entry(name, error.__config__)) from error
    except (TypeError, ValueError, ArithmeticError, KeyError) as error:
      if "not in preset" in str(error):
        raise errors.UserError(
          f"`{named_configs[0]}` refines another named config: give it after "
          "that, as in `with clevr6 paper_data` or `with tetrominoes minutes`"
        ) from error
      raise errors.UserError(
        f"the config cannot be made with these updates ({error}): check that "
        "numbers are numbers and dicts are dicts, `python main.py "
        "print_config with CONFIG` shows them"
      ) from error
    finally:
      self.configurations.remove(added)
    defaults = self.configurations[0]() if self.configurations else {}
    for name, default in defaults.items():
      value = run.config[name]
      if not isinstance(default, Mapping):
        continue
      entry = f"{name}.{next(iter(default), 'NAME')}=..."
      if not default and not isinstance(value, Mapping):
        raise errors.UserError(
          f"no experiment is chosen, as `{name}` is {value!r}: name one, such "
          f"as `with tetrominoes`, and give entries, such as `{entry}`"
        )
      need = f"its entries, such as `{entry}`"
      validation.require(isinstance(value, Mapping), name, value, need)
    validation.check_storable("", run.config)
    return run

  def _added_entries(self, named_configs: Iterable[str]) -> dict[str, None]:
    """Returns the entries of `adds_entries`."""
    configs = [self.named_configs.get(name) for name in named_configs]
    entries = [getattr(config, "entries", ()) for config in configs]
    return dict.fromkeys(itertools.chain(*entries))


def _open_streams() -> None:
  """Has standard streams that somebody closed lead to nowhere.

  The next files would have their numbers, and get what goes to the streams.
  """
  number = os.open(os.devnull, os.O_RDWR)
  if number <= 2:
    os.set_inheritable(number, True)
    _open_streams()
  else:
    os.close(number)


def _check_seed(config: Mapping[str, Any], place: str = "") -> None:
  """Checks the seed of a config, which Sacred reads before anything else.

  Raises:
    errors.UserError: if it is not one.
  """
  seed = config.get("seed", 0)
  if not validation.is_whole(seed, 0, 2**32 - 1):
    raise errors.UserError(
      f"{place}`seed` is {seed!r}: give a whole number from 0 to {2**32 - 1}"
    )


def _let_go(error: BaseException | None) -> None:
  """Drops what is held by the frames that led to the end of the process.

  That may be batches that are being read, whose end waits for threads. Once
  Python ends, it stops these where they are, and the wait never does.

  Args:
    error: what is being raised; any but SystemExit somebody may want to debug.
  """
  if isinstance(error, SystemExit):
    cause: BaseException | None = error
    while cause is not None:
      traceback.clear_frames(cause.__traceback__)
      cause.__traceback__ = None
      cause = cause.__context__
    # Sacred's own frames refer to themselves. Once, where callers go on.
    atexit.unregister(gc.collect)
    atexit.register(gc.collect)


def _named_by_user(
  updates: Mapping[str, Any] | None, options: Mapping[str, Any] | None
) -> list[str]:
  """Returns what code a call names, in its updates and by `--trust`."""
  named = [name for _, name in building.foreign_names(updates or {})]
  flag = (options or {}).get(trust_option.get_flag())
  return [
    *filter(building.is_dotted, named),
    *(flag.split(",") if flag else ()),
  ]


def _check_updates(argv: Any) -> None:
  """Checks that Sacred can read the updates of a command line.

  Raises:
    errors.UserError: if not.
  """
  words = sacred_utils.ensure_wellformed_argv(argv)
  start = words.index("with") + 1 if "with" in words else len(words)
  updates = [word for word in words[start:] if "=" in word]
  with errors.as_user_error(
    (TypeError, ValueError, RecursionError, MemoryError),
    lambda error: (
      f"the updates of the config cannot be read ({error}): give NAME=VALUE, "
      "each once, with a number, text, a list or a dict"
    ),
  ):
    arg_parser.get_config_updates(updates)


def _save_json(
  observer: observers.FileStorageObserver, content: Any, name: str
) -> None:
  """Writes a file of a run's record; Sacred itself would write `NaN`."""
  path = os.path.join(str(observer.dir), name)
  files.write_json(path, serializer.flatten(content))


def _describe_host(run: Any) -> None:
  """Has a run's record say on what it runs; of several workers one records."""
  if not _import("iodine.replicas").is_chief(run.config):
    run.observers.clear()
  run.host_info["tensorflow"] = _import("iodine.devices").describe(run.config)


def _import(name: str) -> Any:
  """Imports a module that needs TensorFlow."""
  with filtered_native_output():
    return importlib.import_module(name)


def quiet_logger() -> logging.Logger:
  """Returns a logger that leaves out what Sacred says at every run."""
  logger = sacred_utils.create_basic_stream_logger()
  for handler in logger.handlers:
    handler.addFilter(_is_worth_saying)
  logger.setLevel(logging.WARNING)
  return logger


def _is_worth_saying(record: logging.LogRecord) -> bool:
  """Returns whether a message is shown; shortens that of a full disk."""
  *traceback_lines, last = record.getMessage().strip().split("\n")
  if traceback_lines and "[Errno" in last:
    # Of an observer that records the end of a run.
    record.msg, record.args = f"the run is not recorded in full: {last}", ()
  return not record.getMessage().startswith(_IDLE_WARNINGS)


def _split_off_parts(
  updates: Mapping[str, Any], path: str = ""
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Splits updates into those to merge and those that replace an entry.

  Args:
    updates: a nested dict. The dicts with `"replace": True` in it stand for
      whole parts of the model, data or optimizer.
    path: of this dict in the config.

  Returns:
    What Sacred merges into the config, and {dotted path: part}.
  """
  merged, parts = {}, {}
  for key, value in updates.items():
    place = f"{path}.{key}" if path else key
    if not isinstance(value, Mapping):
      merged[key] = value
    elif value.get(_REPLACE) is True:
      if building.CONSTRUCTOR not in value:
        raise errors.UserError(
          f"`{place}.{_REPLACE}` is True: give `{place}.constructor`, too, and "
          "all of its arguments"
        )
      parts[place] = _without_marker(value)
    else:
      merged[key], below = _split_off_parts(value, place)
      parts.update(below)
      if below and not merged[key]:
        del merged[key]
  return merged, parts


def _without_marker(part: Mapping[str, Any]) -> dict[str, Any]:
  return {
    key: _without_marker(value) if isinstance(value, Mapping) else value
    for key, value in part.items()
    if (key, value) != (_REPLACE, True)
  }


def _put_all(run: Any, parts: Mapping[str, Any]) -> None:
  """Puts parts, by their paths, in place of entries of a run's config."""
  for path, part in parts.items():
    _put(run.config, path, part)
    run.config_modifications.modified.add(path)


def _put(config: dict[str, Any], path: str, part: Any) -> None:
  """Puts a part in place of an entry, which has to be there."""
  *parents, last = path.split(".")
  entry: Any = config
  for key in parents:
    entry = entry.get(key) if isinstance(entry, Mapping) else None
  if not isinstance(entry, dict) or last not in entry:
    raise errors.UserError(_unknown_entry(path, config))
  entry[last] = copy.deepcopy(part)


def _place(error: Exception, config: Mapping[str, Any]) -> str | None:
  """Says which part of the config an error comes from, if from one.

  That is the part that was being built, or else the innermost one on whose
  behalf code ran.
  """
  frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][::-1]
  for frame in frames:
    path = building.path_of(frame)
    if path is not None:
      return f"while building `{path}`:"
  parts: dict[str, list[str]] = {}
  for key, name in sacred_utils.iterate_flattened(dict(config)):
    path, _, last = key.rpartition(".")
    if last == building.CONSTRUCTOR:
      parts.setdefault(name, []).append(path)
  for frame in frames:
    kind = type(frame.f_locals.get("self"))
    for name, paths in parts.items():
      module, _, attribute = str(name).rpartition(".")
      if getattr(sys.modules.get(module), attribute, None) is kind:
        places = " or ".join(f"`{path}`" for path in paths)
        return f"while tracing {places} ({name}):"
  return None


def _interrupt(number: int, _: Any) -> None:
  """Makes a signal end a command as Ctrl-C does, cleaning up on the way."""
  raise KeyboardInterrupt(number)


def _sentence(error: Exception) -> str | None:
  """Returns the sentence for what a user can mend; None for a bug."""
  if isinstance(error, errors.UserError):
    return str(error)
  if isinstance(error, ModuleNotFoundError) and error.name == "pymongo":
    return (
      "Sacred's MongoDB observer needs pymongo: run `pip install 'pymongo>=4'`"
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
  if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
    return (
      f"the output of this command cannot be written ({error.strerror}): make "
      "room where it goes"
    )
  return None


def _unknown_entry(name: str, config: Mapping[str, Any]) -> str:
  known = sacred_utils.iterate_flattened(config)
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
def _held_signals() -> Iterator[None]:
  """Holds a signal back until the end; a second one ends the process at once.

  An import that is broken off within native code fails in any way.
  """
  caught: list[int] = []

  def hold(number: int, frame: Any) -> None:
    if caught:
      errors.end_at_once(number, frame)
    caught.append(number)

  if threading.current_thread() is not threading.main_thread():
    yield
    return
  numbers = (signal.SIGINT, signal.SIGTERM)
  previous = {number: signal.signal(number, hold) for number in numbers}
  try:
    yield
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)
  if caught:
    raise KeyboardInterrupt(*caught)


@contextlib.contextmanager
def filtered_native_output() -> Iterator[None]:
  """Drops the greetings of native code from the standard error stream.

  TensorFlow's libraries greet with a page about processors and drivers, and
  no setting stops them. Whatever else they write follows at the end. Python's
  own messages get through at once, and signals are held back.
  """
  saved = os.dup(2)
  python_stderr = sys.stderr
  with (
    _held_signals(),
    tempfile.TemporaryFile() as written,
    os.fdopen(saved, "w") as stderr,
  ):
    sys.stderr = stderr
    os.dup2(written.fileno(), 2)
    try:
      yield
    finally:
      os.dup2(saved, 2)
      sys.stderr = python_stderr
      written.seek(0)
      lines = written.read().decode(errors="replace").splitlines(keepends=True)
      stderr.writelines(line for line in lines if not _is_greeting(line))
      stderr.flush()


def _is_greeting(line: str) -> bool:
  idle = _GREETINGS if nvidia.is_there() else (*_GREETINGS, *_NO_GPU)
  return not line.strip() or any(part in line for part in idle)
