"""A Sacred experiment that reads configs from files and ends in sentences."""

from __future__ import annotations

import contextlib
import copy
import difflib
import errno
import importlib
import inspect
import logging
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple, TypeVar

import sacred
from sacred import commandline_options, dependencies
from sacred import utils as sacred_utils
from sacred.config import config_dict, custom_containers

from iodine import building, config_files, entries, errors, kinds, nvidia
from iodine.commands import help

Config = Mapping[str, Any]

# What Sacred says at every run, and what it adds to our own error messages. A
# named config adds all of its entries to the few defaults; what is misspelt is
# found by `building` and by Sacred itself.
_IDLE_WARNINGS = (
  "Aborted after",
  "Added new config entry",
  "No observers have been added",
  "Failed after",
)
# What native code says wherever TensorFlow starts, and where there is no GPU.
_GREETING = re.compile(
  r"WARNING: All log messages before absl|I\d{4} |\d{4}-\d\d-\d\d .*: I |"
  r".*(Unable to register cu|placer already registered|find TensorRT)|\s*$"
)
_NO_GPU = re.compile(r".*(cuInit|[Cc]annot dlopen|registering GPU)")

# Packages that observers of Sacred need, and what to install for them.
_TINY_DB = ("TinyDB", "tinydb tinydb-serialization hashfs")
_OBSERVERS = {
  "pymongo": ("MongoDB", "'pymongo>=4'"),
  "tinydb": _TINY_DB,
  "tinydb_serialization": _TINY_DB,
  "hashfs": _TINY_DB,
  "sqlalchemy": ("SQL", "sqlalchemy"),
}

# Beside "constructor" in an update: not to be merged into the entry.
_REPLACE = "replace"

# By which a command writes besides `entries.WRITES`; commands that read a
# checkpoint write beside it.
_WRITES_TO = {"make_data": ("data.path",), "quickstart": ("checkpoint_dir",)}


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
    check: told what the user gave, raises an error before TensorFlow starts.
    unless: an entry; where the user gives it, no checkpoint is read.
  """

  shown: tuple[str, ...]
  decomposes: bool
  check: Callable[[Config], None]
  unless: str | None = None


class Given(NamedTuple):
  """What a call was given.

  Attributes:
    names: of named configs and config files.
    updates: of the config, a nested dict.
    trusted: what `--trust` names.
  """

  names: list[str]
  updates: dict[str, Any]
  trusted: str | None

  @property
  def words(self) -> list[str]:
    """Returns it as words of a command line, after `with`."""
    leaves = config_files.leaves(self.updates)
    trust = [f"--trust={self.trusted}"] if self.trusted else []
    return [*self.names, *(f"{k}={v!r}" for k, v in leaves), *trust]


_CONTINUED = Reading((), False, lambda updates: None)


def git_refusal(folder: str) -> str | None:
  """Returns why git does not tell the commit of a folder, None if it does.

  It may not be installed, and says nothing about folders of somebody else, such
  as those mounted into a container. Sacred would end then.
  """
  git = shutil.which("git")
  if git is None:
    return "git is not installed"
  command = (git, "-C", folder, "rev-parse", "HEAD")
  asked = subprocess.run(command, capture_output=True, text=True, check=False)
  return asked.stderr if asked.returncode else None


class Experiment(sacred.Experiment):
  """`sacred.Experiment` that ends in one sentence where the user can help it.

  From Python, `run` raises `errors.UserError` as it is. At the command line
  the sentence is printed and the exit status is 1; 128 plus the signal's
  number after an interruption. Any other error is shown with its traceback,
  after a line that says which part of the config it comes from.

  Configs are read before Sacred runs: the `config.json` beside a checkpoint and
  files in the place of named configs are named configs to it.

  An update with `"replace": True` beside "constructor" takes the place of the
  entry; other updates are merged into what is there.
  """

  # At the class, since Sacred takes the file that calls its own `__init__` for
  # the main file: that has to be main.py.
  _at_command_line = False
  _interrupted_by: int | None = None
  _opened: Any = None
  given = Given([], {}, None)  # the last call
  git_refusal: str | None = None

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
        source = dependencies.Source(str(path), digest, None, None, None)
        self.sources.add(source)
    for package in packages:
      # A variant of TensorFlow may be installed under another name.
      with contextlib.suppress(metadata.PackageNotFoundError):
        version = metadata.version(package)
        self.dependencies.add(dependencies.PackageDependency(package, version))

  def reads(
    self,
    *shown: str,
    decomposes: bool = True,
    check: Callable[[Config], None] = lambda updates: None,
    unless: str | None = None,
  ) -> Callable[[_Command], _Command]:
    """Marks a command that reads the checkpoint `checkpoint_dir`.

    Its config is the `config.json` beside the checkpoint. What named configs
    and updates change in it, and what changes results, is told.

    Args:
      *shown: named configs where neither a config nor a checkpoint is given.
      decomposes: whether images are decomposed, as in the training then.
      check: see `Reading`.
      unless: see `Reading`.
    """

    def mark(command: _Command) -> _Command:
      command.reading = Reading(shown, decomposes, check, unless)  # type: ignore[attr-defined]
      return command

    return mark

  def checkpoint(self, checkpoint_dir: str) -> Any:
    """Returns the checkpoint that was opened for its config, else the path."""
    opened, self._opened = self._opened, None
    return checkpoint_dir if opened is None else opened

  def run_commandline(self, argv: Any = None) -> Any:
    """Runs the command line, see the class."""
    self._answer(list(sys.argv if argv is None else argv)[1:])
    self._at_command_line = True
    handlers = dict.fromkeys((signal.SIGTERM, signal.SIGINT), self._interrupt)
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    # With `nohup` a command outlives its terminal.
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
      handlers[hangup] = self._interrupt
    previous = {n: signal.signal(n, handler) for n, handler in handlers.items()}
    try:
      return super().run_commandline(argv)
    except KeyboardInterrupt as interrupt:
      signal.signal(signal.SIGINT, errors.end_at_once)
      sys.stdout.flush()
      number, *told = interrupt.args or [signal.SIGINT]
      if not told:
        print("interrupted", file=sys.stderr)
      sys.exit(128 + int(number))
    finally:
      for number, handler in previous.items():
        signal.signal(number, handler)
      self._at_command_line, self._interrupted_by = False, None

  def _answer(self, words: Sequence[str]) -> None:
    """Ends here where a command line asks for help, or makes no sense."""
    commands, configs = (
      {
        name: inspect.cleandoc(what.__doc__ or "")
        for name, what in all_.items()
      }
      for all_ in (self.commands, self.named_configs)
    )
    try:
      text = help.answer(words, commands, configs)
    except errors.UserError as error:
      print(f"error: {error}", file=sys.stderr)
      sys.exit(1)
    if text is not None:
      with contextlib.suppress(BrokenPipeError):  # as by `| head`
        print(text, flush=True)
        sys.exit(0)
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
      sys.exit(1)

  def _interrupt(self, number: int, _: Any) -> None:
    """Makes a signal end a command as Ctrl-C does, cleaning up on the way."""
    self._interrupted_by = number
    raise KeyboardInterrupt(number)

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
    try:
      with building.trusting(_named_by_user(config_updates, options)):
        return super().run(
          command_name, config_updates, named_configs, info, meta_info, options
        )
    except BrokenPipeError:
      # Whoever read the output (`| head`) has seen enough.
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
      sys.exit(1)
    except Exception as error:
      if not self._at_command_line:
        raise
      if self._interrupted_by is not None:
        # It passed through TensorFlow, which made another error of it.
        raise KeyboardInterrupt(self._interrupted_by) from None
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
    info: dict[str, Any] | None = None,
    meta_info: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
  ) -> Any:
    """Makes a run of a config that was read, completed and checked."""
    updates = sacred_utils.convert_to_nested_dict(config_updates or {})
    updates = entries.with_integers(updates)
    flag = (options or {}).get(trust_option.get_flag())
    self.given = Given(list(named_configs), copy.deepcopy(updates), flag)
    self._opened = None  # that of a command which came to nothing
    command = self.commands.get(command_name)
    reading: Reading | None = getattr(command, "reading", None)
    # A run that goes on has its own config, where no other is named.
    continues = updates.get("continue_run") and command_name == "train"
    if continues and not named_configs:
      reading = _CONTINUED
    elif reading is not None and updates.get(reading.unless or ""):
      reading = None
    writes = _WRITES_TO.get(command_name or "", ())
    named = dict(self.named_configs)
    stored = None
    with building.trusting(_named_by_user(updates, options)):
      entries.check(updates, entries.table_of(named_configs))
      try:
        names = self._read_files(
          named_configs, updates, ("checkpoint_dir",) if reading else writes
        )
        if reading is not None:
          # A file in the place of a named config may say it, too.
          if self._at_command_line and not named_configs:
            reading.check(updates)
          names, updates, stored = self._read_beside(names, updates, reading)
        run = self._make_run(
          command_name, updates, names, info, meta_info, options
        )
      finally:
        self.named_configs.clear()
        self.named_configs.update(named)
    if command_name == "train" and self._at_command_line:
      config_files.require_scenes(run.config, named_configs)
    # A training tells what it does otherwise.
    if reading not in (None, _CONTINUED) and stored is not None:
      as_read = (
        config_files.as_trained(stored) if reading.decomposes else stored
      )
      found = config_files.differences(run.config, as_read)
      if found:
        folder = run.config["checkpoint_dir"]
        print(f"unlike the config of `{folder}`: {found}", flush=True)
    return run

  def _read_files(
    self, names: Sequence[str], updates: Config, writes: Sequence[str]
  ) -> list[str]:
    """Has files be named configs, which Sacred would unpickle.

    Returns:
      The names of all named configs.
    """
    result: list[str] = []
    for name in names:
      if name not in self.named_configs and not os.path.exists(name):
        raise errors.UserError(
          f"there is no named config `{name}`: use one of "
          f"{', '.join(sorted(self.named_configs))}"
        )
      if name not in self.named_configs:
        _import("iodine.modules.iodine")  # the classes that it may name
        config = config_files.read_named(name, updates, writes)
        # Not the name of the file: Sacred would read that.
        name = self._add_config(f"config of file {len(result)}", config, name)
      result.append(name)
    return result

  def _add_config(self, name: str, config: Config, source: str) -> str:
    """Has a config from a file be a named config; returns its name."""
    with errors.as_user_error(
      (KeyError, TypeError, ValueError),
      lambda error: f"`{source}` is not a config ({error}): write it again",
    ):
      self.named_configs[name] = config_dict.ConfigDict(config)
      self.named_configs[name].read = tuple(config)
    return name

  def _read_beside(
    self, names: list[str], updates: dict[str, Any], reading: Reading
  ) -> tuple[list[str], dict[str, Any], Config | None]:
    """Opens a checkpoint, and has the config beside it be a named config.

    Returns:
      The names of all named configs, the updates with what follows from them,
      and the config beside the checkpoint, None where there need not be one.
    """
    if not (names or "model" in updates or "checkpoint_dir" in updates):
      names = list(reading.shown)
    if "checkpoint_dir" not in updates:
      plain = self._make_run(None, {}, names).config
      updates["checkpoint_dir"] = plain["checkpoint_dir"]
    folder = updates["checkpoint_dir"]
    config_files.require_checkpoint(folder)
    checkpoints = _import("iodine.checkpoints")
    self._opened = checkpoints.open_checkpoint(folder)
    path = checkpoints.config_path(self._opened.prefix)
    stored = None
    if os.path.exists(path) or not (names or "model" in updates):
      stored = checkpoints.config_beside(self._opened.prefix)
      stored = config_files.for_another_call(stored)
      if reading is not _CONTINUED:
        stored, told = config_files.at_step(stored, self._opened.step)
        if told:
          print(told, flush=True)
      stored["model"].setdefault("refinement_batch_size", None)
      beside = self._add_config("config beside the checkpoint", stored, path)
      updates = config_files.follow(updates, stored, names)
      names = [beside, *names]
    if not reading.decomposes:
      return names, updates, stored
    trained = stored or self._make_run(None, {}, names).config
    if trained["model"]:
      model = updates.setdefault("model", {})
      as_trained = config_files.as_trained(trained)["model"]
      key = "refinement_batch_size"
      model.setdefault(key, as_trained[key])
    return names, updates, stored

  def _make_run(
    self,
    command_name: str | None,
    updates: Config,
    names: list[str],
    *args: Any,
  ) -> Any:
    """Makes a run as Sacred does; puts parts in place, checks its config."""
    merged, parts = _split_off_parts(updates)
    configs = [self.named_configs[name] for name in names]
    read = [key for each in configs for key in getattr(each, "read", ())]
    table = entries.table_of(names, read)
    self.configurations[:] = [config_dict.ConfigDict(entries.defaults(table))]
    try:
      run = super()._create_run(command_name, merged, names, *args)
    except sacred_utils.ConfigAddedError as error:
      name = next(iter(error.__conflicting_configs__))
      raise errors.UserError(_unknown_entry(name, error.__config__)) from error
    except TypeError as error:
      if "item assignment" not in str(error):
        raise
      raise errors.UserError(
        f"the named configs {', '.join(names)} do not go together: name one "
        "experiment, and give entries on top of it"
      ) from error
    except KeyError as error:
      if "not in preset" not in str(error):
        raise
      raise errors.UserError(
        f"`{names[0]}` refines another named config: give it after "
        "that, as in `with clevr6 paper_data` or `with tetrominoes minutes`"
      ) from error
    _leave_out_foreign(run.config, merged)
    for path, part in parts.items():
      _put(run.config, path, part)
      run.config_modifications.modified.add(path)
    entries.check(run.config, table)
    for name, entry in entries.flat(table):
      run.config_modifications.docs[name] = entry.about
    if run.observers:
      if "dubious ownership" in (self.git_refusal or ""):
        print(
          "the commit is not recorded, as git refuses a checkout of another "
          "owner: `git config --global --add safe.directory FOLDER` allows it",
          flush=True,
        )
      if not _import("iodine.replicas").is_chief(run.config):
        run.observers.clear()  # of several workers one records
      environment = _import("iodine.devices").describe(run.config)
      run.host_info["tensorflow"] = environment
    # Sacred gave them the config when it made the run.
    for function in self.captured_functions:
      function.config = custom_containers.make_read_only(run.config)
    return run


def _named_by_user(updates: Any, options: Any) -> list[str]:
  """Returns what code a call names, in its updates and by `--trust`."""
  named = [name for _, name in building.named_code(updates or {})]
  flag = (options or {}).get(trust_option.get_flag())
  return [
    *filter(building.is_dotted, named),
    *(flag.split(",") if flag else ()),
  ]


def _import(name: str) -> Any:
  """Imports a module that needs TensorFlow."""
  with filtered_native_output(), help.while_waiting("starting TensorFlow"):
    return importlib.import_module(name)


def quiet_logger() -> logging.Logger:
  """Returns a logger that leaves out what Sacred says at every run."""
  logger = sacred_utils.create_basic_stream_logger()
  for handler in logger.handlers:
    handler.addFilter(
      lambda record: not record.getMessage().startswith(_IDLE_WARNINGS)
    )
  logger.setLevel(logging.WARNING)
  return logger


def _split_off_parts(
  updates: Config, path: str = ""
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


def _without_marker(part: Config) -> dict[str, Any]:
  return {
    key: _without_marker(value) if isinstance(value, Mapping) else value
    for key, value in part.items()
    if (key, value) != (_REPLACE, True)
  }


def _leave_out_foreign(config: dict[str, Any], updates: Config) -> None:
  """Leaves arguments out that a data set of the user's choice does not take.

  Those are meant that the named config gives to its own.

  Args:
    config: the complete config.
    updates: of the user, nested.
  """
  given = config_files.get(updates, "data")
  if not isinstance(given, Mapping) or building.CONSTRUCTOR not in given:
    return
  with filtered_native_output(), help.while_waiting("starting TensorFlow"):
    constructor = building.resolve(given[building.CONSTRUCTOR])
  if callable(constructor):
    config["data"] = {
      key: value
      for key, value in config["data"].items()
      if key in given or kinds.takes(constructor, key)
    }


def _put(config: dict[str, Any], path: str, part: Any) -> None:
  """Puts a part in place of an entry, which has to be there."""
  parents, _, last = path.rpartition(".")
  entry = config_files.get(config, parents)
  if not isinstance(entry, dict) or last not in entry:
    raise errors.UserError(_unknown_entry(path, config))
  entry[last] = copy.deepcopy(part)


def _place(error: Exception, config: Config) -> str | None:
  """Says which part of the config an error comes from, if from one.

  That is the part that was being built, or else the innermost one on whose
  behalf code ran.
  """
  frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][::-1]
  for frame in frames:
    path = building.path_of(frame)
    if path is not None:
      return f"while building `{path}`:"
  for frame in frames:
    kind = type(frame.f_locals.get("self"))
    name = f"{kind.__module__}.{kind.__qualname__}"
    places = [
      f"`{path.rpartition('.')[0]}`"
      for path, value in config_files.leaves(config)
      if path.endswith(f".{building.CONSTRUCTOR}") and value == name
    ]
    if places:
      return f"while tracing {' or '.join(places)} ({name}):"
  return None


def _sentence(error: Exception) -> str | None:
  """Returns the sentence for what a user can mend; None for a bug."""
  if isinstance(error, errors.UserError):
    return str(error)
  if isinstance(error, ModuleNotFoundError):
    package = str(error.name).partition(".")[0]
    if package in _OBSERVERS:
      title, needed = _OBSERVERS[package]
      return (
        f"Sacred's {title} observer needs {package}: run `pip install {needed}`"
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


def _unknown_entry(name: str, config: Config) -> str:
  paths = [path.split(".") for path, _ in config_files.leaves(config)]
  names = {".".join(p[: i + 1]) for p in paths for i in range(len(p))} - {name}
  close = difflib.get_close_matches(name, sorted(names), n=1)
  meant = f"did you mean `{close[0]}`? " if close else ""
  return (
    f"there is no config entry `{name}`: {meant}`python main.py print_config "
    "with CONFIG` lists all entries"
  )


@contextlib.contextmanager
def filtered_native_output() -> Iterator[None]:
  """Drops the greetings of native code from the standard error stream.

  TensorFlow's libraries greet with a page about processors and drivers, and
  no setting stops them. Whatever else they write follows at the end. Python's
  own messages get through at once.
  """
  saved = os.dup(2)
  python_stderr = sys.stderr
  with tempfile.TemporaryFile() as written, os.fdopen(saved, "w") as stderr:
    sys.stderr = stderr
    os.dup2(written.fileno(), 2)
    try:
      yield
    finally:
      os.dup2(saved, 2)
      sys.stderr = python_stderr
      written.seek(0)
      for line in written.read().decode(errors="replace").splitlines(True):
        is_idle = _GREETING.match(line) or (
          not nvidia.is_there() and _NO_GPU.match(line)
        )
        if not is_idle:
          stderr.write(line)
      stderr.flush()
