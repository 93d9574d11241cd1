"""Finding checkpoints, opening them once, and what is assigned from them.

A run's folder holds `ckpt-<step>.*` with TensorFlow's state file, `checkpoint`,
and the same for the best one in `best/`. The original's (TF1) are name-based
and look alike from outside. What counts are the files that are there: a state
file that is lost, or was written elsewhere, only says less about their order.
"""

from __future__ import annotations

import glob
import os
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine import config_files, errors, files
from iodine.checkpoints import packed

BEST_FOLDER = "best"
STATE_FILE = "checkpoint"
# Of a variable's name in a TF2 checkpoint.
VALUE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_INDEX = ".index"
# What TensorFlow raises for files that are broken in one way or another.
_READ_ERRORS = (
  tf.errors.OpError,
  AssertionError,
  IndexError,
  RuntimeError,
  UnicodeDecodeError,
)
_NUMBERED = re.compile(r"(?P<stem>.*)-(?P<number>[0-9]+)", re.DOTALL)
_NEWEST = re.compile(r'^model_checkpoint_path: "(.+)"', re.MULTILINE)


class Opened(NamedTuple):
  """A checkpoint that was read.

  Attributes:
    prefix: of its files.
    tensors: all that is saved, by the names in the file.
  """

  prefix: str
  tensors: Mapping[str, Any]

  @property
  def shapes(self) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all tensors."""
    return {name: np.shape(value) for name, value in self.tensors.items()}

  @property
  def is_tf1(self) -> bool:
    """Returns whether it is name-based, as the original's are."""
    return "_CHECKPOINTABLE_OBJECT_GRAPH" not in self.tensors

  @property
  def step(self) -> int:
    """Returns after how many updates it was saved."""
    name = "global_step"
    if not self.is_tf1:
      name = f"optimizer/{name}{VALUE_SUFFIX}"
    return int(self.tensors.get(name, 0))

  @property
  def seed(self) -> int:
    """Returns the seed of its run; 0 of TF1's, which have none."""
    return int(self.tensors.get(f"seed{VALUE_SUFFIX}", 0))


class Report(NamedTuple):
  """What a restore did, by names in the checkpoint.

  Attributes:
    status: "restored"; "left fresh" of what the optimizer has and the
      checkpoint has not, zero moments and t = 0; or "unused" of what is in the
      checkpoint for an optimizer that was not given.
    shapes: of all of these.
  """

  status: dict[str, str]
  shapes: dict[str, tuple[int, ...]]


Path = str | os.PathLike[str] | Opened


def open_checkpoint(path: Path) -> Opened:
  """Opens a checkpoint and reads all of it, by which its sums are checked.

  Args:
    path: a checkpoint prefix, or a folder, of which the newest that can be read
      counts; where others are newer, that is printed. Or a packed model, which
      is unpacked. Or what this function returned, which is returned as it is.

  Raises:
    errors.UserError: if there is none, or its files are broken.
  """
  if isinstance(path, Opened):
    return path
  path = packed.unpack(os.fspath(path))
  check_name(path)
  is_folder = os.path.isdir(path)
  found = candidates(path) if is_folder else [path]
  if not found or not tf.io.gfile.exists(found[0] + _INDEX):
    raise errors.UserError(
      f"there is no checkpoint {'in' if is_folder else 'at'} `{path}`: "
      f"{config_files.CHECKPOINT_REMEDY}"
    )
  broken = []
  for prefix in found:
    try:
      opened = _read(prefix)
    except _READ_ERRORS as error:
      broken.append(f"`{prefix}` ({errors.reason(error)})")
    else:
      if broken:
        print(
          f"{errors.join_some(broken)} cannot be read: the newest checkpoint "
          f"that can be read is used, `{prefix}`",
          flush=True,
        )
      return opened
  raise errors.UserError(
    f"the checkpoint {errors.join_some(broken)} cannot be read, its files are "
    "broken or incomplete: put a copy of them back, or give an older one, such "
    f"as one in `{BEST_FOLDER}`"
  )


def _read(prefix: str) -> Opened:
  for path in [prefix + _INDEX, *glob.glob(f"{prefix}.data-*")]:
    if os.path.exists(path) and not os.path.isfile(path):
      # Of a pipe TensorFlow would wait for another end.
      raise RuntimeError(f"{os.path.basename(path)} is not a file")
  reader = tf.train.load_checkpoint(prefix)
  names = reader.get_variable_to_shape_map()
  return Opened(prefix, {name: reader.get_tensor(name) for name in names})


def assign(
  prefix: str,
  values: Mapping[str, Any],
  variables: Mapping[str, tf.Variable],
  optional: Collection[str] = (),
) -> None:
  """Assigns values to variables, all of them or none.

  Args:
    prefix: of the checkpoint, for the message.
    values: by names, each of which is that of a variable.
    variables: by names, each of which has a value.
    optional: names of variables that may have none.

  Raises:
    errors.UserError: if names or shapes differ, with all of them.
  """
  there = {name: list(np.shape(value)) for name, value in values.items()}
  here = {name: v.shape.as_list() for name, v in variables.items()}
  differences = [
    *(f"{k} {here[k]} is only here" for k in {*here} - {*there, *optional}),
    *(f"{k} {there[k]} is only there" for k in {*there} - {*here}),
    *(
      f"{k} is {there[k]} there and {here[k]} here"
      for k in {*there} & {*here}
      if there[k] != here[k]
    ),
  ]
  if differences:
    # What differs in the optimizer follows from the model.
    differences.sort(key=lambda line: (line.startswith("optimizer/"), line))
    raise errors.UserError(
      f"the checkpoint `{prefix}` does not fit this configuration, give the "
      "named config and updates it was trained with, of which `num_components` "
      f"and `num_iters` do not matter: {errors.join_some(differences)}"
    )
  for name, value in values.items():
    variables[name].assign(value)


def check_name(path: str) -> None:
  """Checks that TensorFlow does not take a path for one of several.

  Raises:
    errors.UserError: if it would.
  """
  if re.search(r"[][?*]", path):
    raise errors.UserError(
      f"`{path}` has one of [ ] ? * in its name, and TensorFlow takes that for "
      "a pattern: rename it, or choose another name"
    )


def latest(folder: str | os.PathLike[str]) -> str | None:
  """Returns the prefix of the newest checkpoint of a folder, None for none.

  It is not read; `open_checkpoint` may find it broken.
  """
  return next(iter(candidates(folder)), None)


def identity(path: str | os.PathLike[str]) -> tuple[Any, ...]:
  """Returns what changes where a checkpoint, or the config beside it, does.

  Args:
    path: see `open_checkpoint`.

  Returns:
    Path, time and size of its files.
  """
  prefix = os.path.abspath(path)
  if os.path.isdir(prefix):
    prefix = latest(prefix) or prefix
  found = sorted(glob.glob(f"{glob.escape(prefix)}.*"))
  places = [prefix, *found, os.path.abspath(config_path(prefix))]
  stats = [(p, os.stat(p)) for p in places if os.path.exists(p)]
  return tuple((p, stat.st_mtime_ns, stat.st_size) for p, stat in stats)


def candidates(folder: str | os.PathLike[str]) -> list[str]:
  """Returns the prefixes of a folder's checkpoints, newest first.

  That which the state file calls the newest comes first, then the others by
  number. Its path may be of another machine: the last part counts.

  Raises:
    errors.UserError: if the folder holds several, and neither a state file nor
      numbers tell which one is the newest.
  """
  names = {path.stem for path in pathlib.Path(folder).glob(f"*{_INDEX}")}
  path = pathlib.Path(folder, STATE_FILE)
  state = path.read_text("utf-8", "replace") if path.is_file() else ""
  newest = [os.path.basename(path) for path in _NEWEST.findall(state)]
  stems = {_numbered(name)[0] for name in names.intersection(newest) or names}
  if len(stems) > 1:
    raise errors.UserError(
      f"the folder `{folder}` holds {len(names)} checkpoints and no state file "
      f"that names one: give a prefix, such as "
      f"`{os.path.join(folder, max(names))}`"
    )
  found = [name for name in names if _numbered(name)[0] in stems]
  found.sort(key=lambda name: (name in newest, _numbered(name)), reverse=True)
  return [os.path.join(folder, name) for name in found]


def write_state(
  folder: str, names: Sequence[str], times: Sequence[float] | None = None
) -> None:
  """Writes a state file of checkpoints by their names, the newest last.

  Its paths are relative, so that the folder can be moved.
  """
  make = tf.compat.v1.train.generate_checkpoint_state_proto
  state = make(os.curdir, names[-1], names, times)
  files.write(os.path.join(folder, STATE_FILE), str(state))


def _numbered(name: str) -> tuple[str, int]:
  """Returns a name without its number, and the number, -1 for none."""
  match = _NUMBERED.fullmatch(name)
  return (match["stem"], int(match["number"])) if match else (name, -1)


def run_folder(prefix: str) -> str:
  """Returns the folder of the run that a checkpoint is of."""
  folder = os.path.dirname(prefix) or "."
  parent = os.path.normpath(os.path.join(folder, os.pardir))
  # A folder of that name may have been copied, with its own config.
  is_within = os.path.exists(os.path.join(parent, files.RUN_CONFIG))
  is_best = os.path.basename(os.path.abspath(folder)) == BEST_FOLDER
  return parent if is_best and is_within else folder


def config_path(prefix: str) -> str:
  """Returns where a training leaves the config of its checkpoints."""
  folder = os.path.dirname(prefix) or "."
  own = os.path.join(folder, files.RUN_CONFIG)  # of the best one, too
  if os.path.exists(own):
    return own
  return os.path.join(run_folder(prefix), files.RUN_CONFIG)


def config_beside(prefix: str) -> dict[str, Any]:
  """Reads the config that the training of a checkpoint left beside it.

  Raises:
    errors.UserError: if there is none, it cannot be read, or it names code that
      is not trusted, see `building.trust`.
  """
  return config_files.read_beside(os.path.dirname(config_path(prefix)))
