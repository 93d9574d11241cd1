"""What the command line says about itself; no TensorFlow here."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence

import iodine
from iodine import entries, errors

# Silence that nobody wonders about.
_PATIENCE_SECONDS = 5.0
_UNITS = (("days", 86400), ("hours", 3600), ("minutes", 60))

_TRAINED = ("checkpoint_dir", "seed")
_RESULTS = ("json_path", "csv_path", "results_dir", "pictures_dir")

# The entries that a command is about, and two examples. Commands that are not
# here are Sacred's.
_USES: dict[str, tuple[Sequence[str], str, str]] = {
  "train": (
    ("Parts", "Model and optimizer", "Training", "Devices"),
    "with laptop",
    "with tetrominoes batch_size=16 stop_after_steps=500",
  ),
  "make_data": (
    ("make_data",),
    "make_data with tetrominoes num_scenes=1000 seed=0",
    "make_data with clevr6 data_format=png data_dir=photos num_scenes=100",
  ),
  "load_checkpoint": (
    _TRAINED,
    "load_checkpoint",
    "load_checkpoint with checkpoint_dir=runs/laptop_1/best",
  ),
  "evaluate": (
    (*_TRAINED, "evaluate, report", "plot", *_RESULTS),
    "evaluate",
    "evaluate with checkpoint_dir=runs/laptop_1 evaluation.seeds=5",
  ),
  "plot": (
    (*_TRAINED, "plot", "pictures_dir"),
    "plot",
    "plot with checkpoint_dir=runs/laptop_1 'plot.scenes=[3,5]'",
  ),
  "report": (
    (*_TRAINED, "evaluate, report", "plot", "output", *_RESULTS),
    "report",
    "report with checkpoint_dir=runs/laptop_1 evaluation.num_scenes=320",
  ),
  "segment": (
    (*_TRAINED, "segment", "output", "json_path"),
    "segment with images=photos",
    "segment with checkpoint_dir=runs/own_1 images=photo.png output=out",
  ),
  "explore": (
    (*_TRAINED, "explore"),
    "explore",
    "explore with checkpoint_dir=runs/laptop_1 explore.port=8000",
  ),
  "encode": (
    (*_TRAINED, "encode", "output", "results_dir"),
    "encode with output=latents.h5 evaluation.num_scenes=32",
    "encode with checkpoint_dir=runs/own_1 data.path=photos output=photos.h5",
  ),
  "probe": (
    (*_TRAINED, "probe", "plot", "output", *_RESULTS),
    "probe with latents=latents.h5",
    "probe with checkpoint_dir=runs/laptop_1 json_path=probe.json",
  ),
  "pack": (
    (*_TRAINED, "pack", "evaluate, report", "output"),
    "pack with output=model.zip",
    "pack with checkpoint_dir=runs/laptop_1/best output=laptop.zip",
  ),
  "export_savedmodel": (
    ("checkpoint_dir", "output"),
    "export_savedmodel",
    "export_savedmodel with checkpoint_dir=runs/laptop_1 output=saved",
  ),
  "export_tf1": (
    ("checkpoint_dir", "output"),
    "export_tf1",
    "export_tf1 with checkpoint_dir=runs/laptop_1 output=tf1/model.ckpt",
  ),
  "compare": (
    ("checkpoint_dir", "compare", "json_path", "pictures_dir"),
    "compare with tetrominoes checkpoint_dir=tf1/model.ckpt reference=r.npz",
    "compare with clevr6 checkpoint_dir=tf1/model.ckpt reference=recorded",
  ),
  "benchmark": (
    ("benchmark", "Devices", "json_path"),
    "benchmark with tetrominoes",
    "benchmark with clevr6 batch_size=1",
  ),
  "sweep": (
    ("sweep", "Training"),
    "sweep with quick 'sweep.seed=[0,1,2]' checkpoint_dir=runs/seeds",
    "sweep with laptop 'sweep.seed=[0,1]' 'sweep.model.kl_weight=[0.5,1.0]'",
  ),
  "gather": (
    ("gather", "plot", "output", "evaluate, report"),
    "gather with runs=runs/tetrominoes_minutes",
    "gather with 'runs=[runs/a_1,runs/b_1]' evaluation.num_scenes=320",
  ),
  "quickstart": (
    ("checkpoint_dir",),
    "quickstart with quick",
    "quickstart with quick stop_after_steps=500",
  ),
}


def program() -> str:
  """Returns how this program was called."""
  name = os.path.basename(sys.argv[0])
  if name == "__main__.py":
    return "python -m iodine"
  return f"python {name}" if name.endswith(".py") else name


def answer(
  words: Sequence[str], commands: Mapping[str, str], configs: Mapping[str, str]
) -> str | None:
  """Returns what to say where nothing is to be run.

  Args:
    words: of the command line, after the program.
    commands: {name: what it does}.
    configs: likewise, the named ones.

  Returns:
    The text; None for a command that can be run.

  Raises:
    errors.UserError: if there is no such command, or `with` is missing.
  """
  if "--version" in words:
    return f"iodine-tf2 {iodine.__version__}"
  asks = not words or {"-h", "--help"} & {*words} or words[0] == "help"
  named = [word for word in words if word in commands]
  chosen = [word for word in words if word in configs]
  if asks and named:
    return of_command(named[0], commands[named[0]])
  if asks and chosen:
    command = f"{program()} print_config with {chosen[0]}"
    return f"{configs[chosen[0]]}\n\n`{command}` lists all of its entries."
  if asks:
    return overview(commands, configs)
  first, *rest = words
  if first.startswith("-") or first == "with":
    return None
  whole = [program(), *([first] if first in commands else []), "with"]
  if first not in commands and not (first in configs or "=" in first):
    close = difflib.get_close_matches(first, commands, n=1)
    meant = f"did you mean `{close[0]}`? " if close else ""
    raise errors.UserError(
      f"there is no command `{first}`: {meant}`{program()}` lists all"
    )
  given = rest if first in commands else list(words)
  if given and given[0] != "with" and not given[0].startswith("-"):
    raise errors.UserError(
      f"`with` is missing before `{given[0]}`: "
      f"`{' '.join([*whole, *(word for word in given if word != 'with')])}`"
    )
  return None


def overview(commands: Mapping[str, str], configs: Mapping[str, str]) -> str:
  """Returns the commands and the named configs, with a line each."""
  own = {name: commands[name] for name in _USES if name in commands}
  return "\n".join(
    [
      f"Usage: {program()} [COMMAND] with [CONFIG ...] [ENTRY=VALUE ...]",
      "\nCommands:",
      *_columns({k: text.partition("\n")[0] for k, text in own.items()}),
      "\nNamed configs:",
      *_columns(configs),
      f"\n`{program()} COMMAND --help` says more of a command, and `{program()}"
      " print_config with CONFIG` lists all entries of a config.",
    ]
  )


def of_command(name: str, text: str) -> str:
  """Returns what a command does, its entries and examples.

  Args:
    name: of the command.
    text: what it does.
  """
  uses, *examples = _USES.get(name, ((),))
  table = {k: v for use in uses for k, v in _entries(use).items()}
  lines = [f"{program()} {name} with [CONFIG ...] [ENTRY=VALUE ...]", "", text]
  if table:
    lines += ["\nEntries:", *_columns(table)]
  if examples:
    lines += ["\nExamples:", *(f"  {program()} {each}" for each in examples)]
  return "\n".join(lines)


def _entries(use: str) -> dict[str, str]:
  """Returns {entry = default: meaning} of a section or a single entry."""
  table = entries.SECTIONS.get(use) or {use: entries.ENTRIES[use]}
  return {
    name if name in _TRAINED else f"{name} = {entry.default!r}": entry.about
    for name, entry in entries.flat(table)
  }


def _columns(texts: Mapping[str, str]) -> list[str]:
  width = min(max(map(len, texts)), 38)
  return [f"  {name:{width}}  {text}" for name, text in texts.items()]


@contextlib.contextmanager
def while_waiting(what: str) -> Iterator[None]:
  """Says what is done, where that takes more than some seconds."""
  timer = threading.Timer(
    _PATIENCE_SECONDS, lambda: print(f"{what} ...", flush=True)
  )
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


def duration(seconds: float) -> str:
  """Returns a time in words, such as "26 days" or "90 minutes"."""
  for unit, size in _UNITS:
    if seconds >= 2 * size:
      number = seconds / size
      digits = 1 if unit != "minutes" and number < 10 else 0
      return f"{number:.{digits}f} {unit}"
  return f"{seconds:.0f} second{'' if round(seconds) == 1 else 's'}"
