"""Config files: those beside checkpoints, and those that `with FILE` names.

A stranger may have written them. So they are JSON and nothing that is run when
it is read, as a pickle would be; they name only code that is trusted; and they
do not say where to write.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from iodine import building, errors

# Entries by which something is written, and what they are where nothing is.
_WRITES = {
  "continue_run": False,
  "csv_path": None,
  "data.cache": None,
  "data_dir": None,
  "evaluation.scenes_csv": None,
  "generated_path": None,
  "json_path": None,
  "output": None,
  "pictures_dir": None,
  "results_dir": None,
}
# Of dicts and lists in each other; configs of the project have eight.
_MOST_LEVELS = 40
# Generated scenes may be kept here, whoever asks for them.
_OF_GENERATED = os.path.join("runs", "data", "")


def read(path: str, remedy: str = "write it again") -> Any:
  """Reads a config file.

  Args:
    path: of the file.
    remedy: what to do where it cannot be read.

  Returns:
    What is in it; a nested dict, as a rule.

  Raises:
    errors.UserError: if it is not a JSON file, or names code that is not
      trusted.
  """
  if not path.endswith(".json"):
    raise errors.UserError(
      f"`{path}` is not a config file: give a JSON file, whose name ends in "
      "`.json`, or the name of a config"
    )
  if not os.path.isfile(path):
    raise errors.UserError(f"`{path}` is not a file: give a JSON file")

  def explain(error: Exception) -> str:
    if isinstance(error, PermissionError):
      return f"`{path}` may not be read: change its permissions"
    return f"`{path}` cannot be read ({error}): {remedy}"

  # Not JSON, or nested too deeply.
  kinds = (OSError, ValueError, RecursionError)
  with (
    errors.as_user_error(kinds, explain),
    open(path, encoding="utf-8") as file,
  ):
    config = json.load(file, object_pairs_hook=_entries)
    _check_depth(config, _MOST_LEVELS)
  building.check_trusted(config, f"`{path}`")
  return config


def _check_depth(value: Any, levels: int) -> None:
  """Raises a ValueError where a value is nested in more than so many levels."""
  if isinstance(value, (dict, list)):
    if levels == 0:
      raise ValueError(f"it has more than {_MOST_LEVELS} levels")
    for each in value.values() if isinstance(value, dict) else value:
      _check_depth(each, levels - 1)


def _entries(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
  """Returns a JSON object, whose keys have to be names."""
  config = dict(pairs)
  if "" in config:
    raise ValueError("an entry is called ''")
  return config


def writing_entries(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the entries by which something is written, and their values."""
  values = {entry: get(config, entry) for entry in _WRITES}
  return {
    entry: value
    for entry, value in values.items()
    if value is not None
    and value != _WRITES[entry]
    and not (
      entry == "generated_path"
      and (
        os.path.exists(str(value))
        or os.path.normpath(str(value)).startswith(_OF_GENERATED)
      )
    )
  }


def without_writing_entries(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a copy of a config without those entries."""
  copied = copy.deepcopy(dict(config))
  for entry in writing_entries(config):
    *parents, last = entry.split(".")
    place = copied[parents[0]] if parents else copied
    del place[last]
  return copied


def check_named(
  config: Any,
  path: str,
  updates: Mapping[str, Any],
  further: tuple[str, ...] = (),
) -> None:
  """Checks that a file can be a named config, and does not say where to write.

  Args:
    config: what is in the file.
    path: of the file.
    updates: of the user, who may say it: a nested dict.
    further: more entries by which the command at hand writes.

  Raises:
    errors.UserError: if it is not a dict, or says what the updates do not.
  """
  if not isinstance(config, dict):
    raise errors.UserError(
      f"`{path}` has a {type(config).__name__} in the place of a dict of "
      f"entries: write it again"
    )
  found = writing_entries(config)
  found |= {e: get(config, e) for e in further if get(config, e) is not None}
  for entry, value in found.items():
    if get(updates, entry, Ellipsis) is Ellipsis:
      raise errors.UserError(
        f"`{path}` has `{entry}` {repr(value)[:80]}, by which something is "
        "written, and a file does not decide that: give the entry in this "
        f"call, such as `{entry}={_WRITES.get(entry, 'NAME')}`"
      )


def get(config: Any, entry: str, default: Any = None) -> Any:
  """Returns an entry of a nested dict by its dotted path."""
  for key in entry.split("."):
    if not isinstance(config, Mapping) or key not in config:
      return default
    config = config[key]
  return config
