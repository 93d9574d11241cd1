"""All entries of a config but the arguments of model, data and optimizer.

An entry says its default, what it may be, what it is for, whether it is of one
call (what lies beside a checkpoint does not decide it), and whether something
is written by it (no config file decides it). Defaults, checks, the page
docs/config.md and what a command takes from a checkpoint's config are read off
this table. A new entry stands here and where it is used; `python main.py
print_entries > docs/config.md` makes its page anew.

The arguments of model, data and optimizer have their kinds at the constructors
that a config names; `iodine.building` checks them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from iodine.kinds import (
  Above,
  AtLeast,
  Below,
  Count,
  Length,
  Limit,
  NonNegative,
  Path,
  Positive,
  PositiveFloat,
  fits,
  words,
)
from iodine.kinds import (
  check as check_kind,
)

Config = Mapping[str, Any]


class Entry(NamedTuple):
  """What there is to say about an entry.

  Attributes:
    default: its value where nothing else is said.
    kind: what it may be, an annotation; see `iodine.kinds`.
    about: what it is for, for docs/config.md.
    marks: "call" if it belongs to one call, "writes" if something is written
      by it, or both.
  """

  default: Any
  kind: Any
  about: str
  marks: str = ""


Table = dict[str, Any]  # of entries, and of tables for nested ones

_Paths = Path | Annotated[list[Path], Length(1)]
_Seed = Annotated[int, AtLeast(0), Below(2**32)]

PARTS: Table = {
  "model": Entry({}, dict, "IODINE and its parts"),
  "data": Entry({}, dict, "the scenes, see docs/data.md"),
  "optimizer": Entry({}, dict, "Adam and its learning rate"),
}
MODEL: Table = {
  "n_z": Entry(64, Positive, "Z, size of a slot's latent"),
  "num_components": Entry(7, Positive, "K, slots"),
  "num_iters": Entry(5, Count, "refinements"),
  "learn_rate": Entry(0.001, NonNegative, "the full learning rate"),
  "batch_size": Entry(4, Positive, "scenes in a batch"),
  "compute_dtype": Entry(
    "float32",
    Literal["float32", "bfloat16", "auto"],
    'of convolutions; "auto": bfloat16 where it is fast',
  ),
  "recompute": Entry(
    False, bool, "decode again for gradients: less memory, more time"
  ),
}
TRAINING: Table = {
  "checkpoint_dir": Entry(
    "iodine/checkpoints/iodine",
    Path,
    "the run, or what to read: left out, the model that comes along",
    "call",
  ),
  "continue_run": Entry(
    False, bool, "go on in exactly `checkpoint_dir`", "call, writes"
  ),
  "stop_after_steps": Entry(int(1e6), Positive, "the last step"),
  "save_summaries_steps": Entry(10, Positive, "steps between two reports"),
  "save_checkpoint_steps": Entry(
    1000, Positive, "steps between two checkpoints"
  ),
  "save_images_steps": Entry(
    1000, Positive, "steps between two sets of pictures"
  ),
  "skip_nonfinite": Entry(
    None, Positive | None, "updates in a row that may be left out; None: none"
  ),
  "validate_every": Entry(
    None, Positive | None, "steps between two validations; None: none"
  ),
  "validate_scenes": Entry(32, Positive, "scenes of a validation"),
  "stages": Entry(
    [], list[dict], "what of the model differs at first: docs/training.md"
  ),
  "steps_per_call": Entry(
    None,
    Positive | None,
    "updates in a call; None: 10 on a GPU, else 1",
    "call",
  ),
  "seed": Entry(
    None, _Seed | None, "of weights, samples, order of scenes; None: drawn"
  ),
}
DEVICES: Table = {
  "jit_compile": Entry(
    None, bool | None, "XLA, which draws other samples; None: on GPUs", "call"
  ),
  "memory_growth": Entry(
    True, bool, "take a GPU's memory as it is needed", "call"
  ),
  "tf32": Entry(
    True, bool, "round float32 to TF32 in products on GPUs", "call"
  ),
  "deterministic": Entry(
    False, bool, "the same bits each time, slower", "call"
  ),
  "strategy": Entry(
    None,
    Literal[None, "mirrored", "multi_worker"],
    "which devices share the work, see docs/scaling.md",
    "call",
  ),
  "virtual_devices": Entry(
    None,
    Annotated[int, AtLeast(1), Below(65)] | None,
    'into how many devices "mirrored" splits the CPU',
    "call",
  ),
  "worker_timeout": Entry(
    60,
    Annotated[float, Above(0), Below(1e9)],
    "seconds that workers wait for each other at the start",
    "call",
  ),
  "environment": Entry(
    {}, dict, "filled in by a training: on what it ran", "call"
  ),
}
MAKE_DATA: Table = {
  "data_dir": Entry(
    None, Path | None, "where to write; None: to `data.path`", "call, writes"
  ),
  "data_format": Entry(
    None,
    Literal[None, "tfrecords", "npz", "png"],
    "of the scenes; None: as the data set reads them",
    "call",
  ),
  "generator": Entry(
    None, str | None, "the name of a generator; None: the data set's own"
  ),
  "num_scenes": Entry(1000, Positive, "scenes to generate"),
  "data_seed": Entry(None, Count | None, "of the scenes; None: `seed`"),
  "generated_path": Entry(
    None, Path | None, "if this is `data.path`, its reader makes it", "writes"
  ),
}
SEGMENT: Table = {
  "images": Entry(
    None, _Paths | None, "a file, a folder, a glob, or a list of those", "call"
  ),
  "films": Entry(
    None, _Paths | None, "GIFs, videos or folders of frames", "call"
  ),
  "segment": {
    "batch_size": Entry(1, Positive, "images that are decomposed at a time"),
  },
}
COMPARE: Table = {
  "reference": Entry(
    None, Path | None, "recorded tensors: an npz file or a folder", "call"
  ),
  "tolerance": Entry(1e-4, PositiveFloat, "of the tensors of `eval`", "call"),
}
BENCHMARK: Table = {
  "benchmark": {
    "steps": Entry(10, Positive, "timed ones"),
    "warmup": Entry(2, Count, "steps before them, after the first"),
    "parts": Entry(
      ["eval", "segmentation", "input"],
      list[Literal["eval", "segmentation", "input"]],
      "what is measured besides the training step",
    ),
  },
}
PLOT: Table = {
  "plot": {
    "scenes": Entry(
      [0, 1, 2], list[Count], "of the test subset, which count from 0"
    ),
    "slot": Entry(
      None,
      Annotated[int, AtLeast(1), Limit("as in the pictures")] | None,
      "whose latents are traversed; None: of the second largest area",
    ),
    "latent": Entry(
      None, Count | None, "the one traversed, from 0; None: eight of most KL"
    ),
    "traversal_film": Entry(
      None, Literal[None, "gif", "mp4"], "traversals as films, too"
    ),
    "num_scenes_for_map": Entry(64, Positive, "in `latents` and `metrics`"),
    "masked": Entry(
      True, bool, "slots are cut out by their masks; False: they are whole"
    ),
    "iterations": Entry(
      None,
      Annotated[list[Count], Length(1)] | None,
      "rows of `iterations`, columns of `sequence`; None: all",
    ),
    "format": Entry(
      "png", Literal["png", "pdf", "svg"], "of pictures and curves, not films"
    ),
    "dpi": Entry(
      None, Positive | None, "pixels an inch; None: 100, on paper 300"
    ),
    "style": Entry(
      "screen",
      Literal["screen", "paper"],
      "paper: columns of 3.25 and 6.75 inches, 8 points, no titles",
    ),
  },
}
EVALUATION: Table = {
  "evaluation": {
    "num_scenes": Entry(None, Positive | None, "None: the whole test subset"),
    "seeds": Entry(1, Positive, "how often the latents are sampled"),
    "num_components": Entry(
      None, list[Positive] | None, "numbers of slots to compare"
    ),
    "num_iters": Entry(
      None, Count | None, "refinements; None: as many as in training"
    ),
    "scenes_csv": Entry(
      None, Path | None, "a file with a row for every scene", "call, writes"
    ),
    "metrics": Entry(
      None, list[str] | None, "dotted paths of metrics of your own"
    ),
  },
}
SWEEP: Table = {
  "sweep": Entry({}, dict, "entries with lists of their values", "call"),
  "sweep_zip": Entry(False, bool, "the lists side by side, no grid", "call"),
  "sweep_parallel": Entry(
    None, Positive | None, "runs at a time; None: 1 here, all by Slurm", "call"
  ),
  "sweep_launcher": Entry(
    None, Literal[None, "slurm"], "None: this machine", "call"
  ),
  "sweep_slurm": Entry({}, dict, "partition, gpus, hours, other names", "call"),
}
GATHER: Table = {
  "runs": Entry(None, _Paths | None, "folders of runs, sweeps, globs", "call"),
}
ENCODE: Table = {
  "encode": {
    "masks": Entry(
      "labels", Literal["labels", "probabilities"], "the slots of pixels"
    ),
  },
}
PROBE: Table = {
  "latents": Entry(
    None, Path | None, "a file of `encode`; None: it is made first", "call"
  ),
  "probe": {
    "matching": Entry("masks", Literal["masks", "loss"], "of slots to objects"),
    "seeds": Entry(3, Positive, "of splits and probes, from 0 on"),
    "held_out": Entry(
      0.25, Annotated[float, Above(0), Below(1)], "share of scenes to test on"
    ),
  },
}
PACK: Table = {
  "pack_optimizer": Entry(False, bool, "pack Adam's moments, too", "call"),
}
EXPLORE: Table = {
  "explore": {
    "host": Entry("127.0.0.1", str, "this machine alone sees it", "call"),
    "port": Entry(8035, Count, "of the page; 0: a free one", "call"),
  },
}
RESULTS: Table = {
  "output": Entry(
    None, Path | None, "a folder, file or prefix to write", "call, writes"
  ),
  "json_path": Entry(None, Path | None, "metrics as JSON, too", "call, writes"),
  "csv_path": Entry(None, Path | None, "metrics as CSV, too", "call, writes"),
  "results_dir": Entry(
    None, Path | None, "of results; None: beside the checkpoint", "call, writes"
  ),
  "pictures_dir": Entry(
    None,
    Path | None,
    "of pictures; None: beside the checkpoint",
    "call, writes",
  ),
}
# By the titles that docs/config.md has.
SECTIONS: dict[str, Table] = {
  "Parts": PARTS,
  "Model and optimizer": MODEL,
  "Training": TRAINING,
  "Devices": DEVICES,
  "make_data": MAKE_DATA,
  "segment": SEGMENT,
  "compare": COMPARE,
  "benchmark": BENCHMARK,
  "Pictures: plot, report, evaluate, gather, probe": PLOT,
  "evaluate, report": EVALUATION,
  "sweep": SWEEP,
  "gather": GATHER,
  "encode": ENCODE,
  "probe": PROBE,
  "pack": PACK,
  "explore": EXPLORE,
  "Results": RESULTS,
}
ENTRIES: Table = {k: v for table in SECTIONS.values() for k, v in table.items()}

# Entries that only one named config has.
OF_NAMED: dict[str, Table] = {
  "own": {
    "image_dim": Entry(
      [64, 64],
      Annotated[list[Positive], Length(2, 2)] | None,
      "height and width that images are brought to; None: as they are",
    ),
    "factors": Entry(
      None,
      list[tuple[str, int, str]] | None,
      "what is known of objects: [name, size, kind] of each",
    ),
    "channels": Entry(32, Positive, "of all convolutions"),
    "kernel": Entry(5, Positive, "size of all kernels"),
    "kl_weight": Entry(1.0, NonNegative, "of the KL divergence"),
    "scale_val": Entry(0.1, PositiveFloat, "standard deviation of the pixels"),
  },
}

# Entries that older versions had. In a saved config they are ignored where they
# have this value, by which they did nothing; any other is refused.
GONE: dict[str, Any] = {
  "optimizer.loss_scale": False,
  "benchmark.sweep": dict.fromkeys(
    ("batch_size", "num_components", "image_size", "num_iters")
  ),
}


def flat(table: Table = ENTRIES, path: str = "") -> Iterator[tuple[str, Entry]]:
  """Yields the dotted path and the entry of all in a table."""
  for name, entry in table.items():
    place = f"{path}.{name}" if path else name
    if isinstance(entry, Entry):
      yield place, entry
    else:
      yield from flat(entry, place)


# `data.cache` and `data.download` are arguments of data sets.
WRITES = (
  *("data.cache", "data.download"),
  *(name for name, entry in flat() if "writes" in entry.marks),
)
OF_CALL = tuple(name for name, entry in flat() if "call" in entry.marks)


def table_of(named_configs: Sequence[str], read: Sequence[str] = ()) -> Table:
  """Returns the table of all entries that a config has.

  Args:
    named_configs: of which it is made.
    read: names of entries in config files, of which it is made, too.
  """
  table = dict(ENTRIES)
  for name, own in OF_NAMED.items():
    is_named = name in named_configs
    table |= {k: v for k, v in own.items() if is_named or k in read}
  return table


def defaults(table: Table = ENTRIES) -> dict[str, Any]:
  """Returns a nested dict of the defaults."""
  return {
    name: entry.default if isinstance(entry, Entry) else defaults(entry)
    for name, entry in table.items()
    if name != "seed"  # Sacred draws it
  }


def check(
  config: Config, table: Table = ENTRIES, path: str = "", source: str = ""
) -> None:
  """Checks those entries of the table that a config has.

  Args:
    config: a nested dict, or a part of one.
    table: what its entries may be.
    path: of this part in the whole, with a dot at its end.
    source: the file that the config is of, if any.
  """
  for name in table.keys() & config.keys():
    entry, value = table[name], config[name]
    place = f"{path}{name}` of `{source}" if source else f"{path}{name}"
    if isinstance(entry, Entry):
      check_kind(place, value, entry.kind)
    else:
      check_kind(place, value, dict)
      check(value, entry, f"{path}{name}.", source)


def with_integers(updates: Config, table: Table = ENTRIES) -> dict[str, Any]:
  """Returns updates with 1e6 as 1000000 where an integer is wanted."""
  result = dict(updates)
  for name, value in updates.items():
    entry = table.get(name)
    if isinstance(entry, dict) and isinstance(value, Mapping):
      result[name] = with_integers(value, entry)
    elif isinstance(value, float) and isinstance(entry, Entry):
      is_wrong = not fits(value, entry.kind) and value.is_integer()
      result[name] = int(value) if is_wrong else value
  return result


def page() -> str:
  """Returns docs/config.md, as `python main.py print_entries` prints it."""
  text = """# The entries of a config

```sh
python main.py print_config with tetrominoes
```

prints a config with all of its entries. This page says what they are for.
`python main.py print_entries` prints it from the table in `iodine/entries.py`.
Any entry can be given in a call, such as `with tetrominoes batch_size=16
evaluation.num_scenes=32`, and what depends on it follows. The arguments of
`model`, `data` and `optimizer` stand at the classes that their `constructor`
names.

*Call*: it belongs to one call, and the config beside a checkpoint does not
decide it. *Writes*: something is written by it, and no config file decides it,
but for generated scenes under `runs/data`. A named config gives many entries
another default.
"""
  named = {f"The config `{name}` alone": t for name, t in OF_NAMED.items()}
  for title, table in {**SECTIONS, **named}.items():
    rows = [_row(name, entry) for name, entry in flat(table)]
    text += "\n".join(["", f"## {title}", "", *rows, ""])
  return text


def _row(name: str, entry: Entry) -> str:
  """Returns an entry's line of the page."""
  default = "" if name == "seed" else f" = `{entry.default!r}`"
  marks = f" *{entry.marks.capitalize()}*." if entry.marks else ""
  return f"* `{name}`{default}: {entry.about}; {words(entry.kind)}.{marks}"
