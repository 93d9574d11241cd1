"""What entries and arguments may be: one table, and a sentence for the rest."""

import copy
import inspect
import json
import math
import pathlib
import typing
from collections.abc import Sequence
from typing import Annotated, Literal

import helpers
import numpy as np
import pytest

import main
from iodine import building, config_files, entries, errors, kinds, pretrained
from iodine.modules import types

ROOT = pathlib.Path(__file__).parents[1]
PRETRAINED = pathlib.Path(pretrained.TETROMINOES) / "config.json"
# What neither JSON, TensorFlow nor the file system holds.
NOWHERE = [math.inf, math.nan, 2**130, "a\0b", "\udcff", b"a", {1, 2}, ...]
ALL = dict(entries.flat({**entries.ENTRIES, **entries.OF_NAMED["own"]}))


@pytest.mark.parametrize(
  "kind, fitting, other, words",
  [
    (int, [0, -1, np.int64(2)], [1.0, True, "1", 2**63], "an integer"),
    (float, [1, 0.5], ["1", True, math.inf, 1e39], "a number"),
    (bool, [True, False], [1, "True", None], "True or False"),
    (str, ["a", "Ä", pathlib.Path("a")], ["", 5, None, "\0"], "text"),
    (dict, [{}, {"a": 1}], [[], None, 5], "a dict"),
    (list[int], [[], (1, 2)], [3, [3, "a"], "ab"], "each entry an integer"),
    (Sequence[str], [["a"]], ["a", [1]], "each entry text"),
    (int | None, [1, None], ["a"], "an integer, or None"),
    (Literal["a", None], ["a", None], ["b", 1], "one of 'a', None"),
    (Literal[1], [1], [True, 1.0], "one of 1"),
    (tuple[str, int], [["a", 1]], [["a"], ["a", "b"], 3], "[text, an integer]"),
    (kinds.Positive, [1], [0, -1, 1.5], "an integer, at least 1"),
    (kinds.PositiveFloat, [1e-9], [0.0], "a number, above 0"),
    (Annotated[float, kinds.Below(1)], [0.5], [1], "a number, below 1"),
    (kinds.Sizes, [[1, 2]], [[], [0], [2**31]], "not empty"),
    (Annotated[list, kinds.Length(2, 2)], [[1, 2]], [[1]], "2 of them"),
    (kinds.Path, ["a"], [5], "a path; quote a name"),
    (types.Head, [print], [5], "as `iodine.modules.types.Head` describes it"),
    (typing.Any, [None, {"a": [1.5]}, -(2**62)], NOWHERE, "finite numbers"),
  ],
)
def test_kinds(kind, fitting, other, words):
  for value in fitting:
    kinds.check("x", value, kind)
  for value in other:
    with pytest.raises(errors.UserError) as error:
      kinds.check("x", value, kind)
    assert str(error.value).startswith("`x` is ")
    assert words in str(error.value)


def test_a_name_that_there_is_not_is_a_key_error_too():
  with pytest.raises(KeyError) as error:
    kinds.check("mode", "x", Literal["a", "b"])
  assert str(error.value) == "`mode` is 'x': give one of 'a', 'b'"


@pytest.mark.parametrize(
  "value, path", [(2024, "2024"), (1e3, "NAME"), ([1], "NAME"), (True, "NAME")]
)
def test_what_was_a_path_is_to_be_quoted(value, path):
  with pytest.raises(errors.UserError) as error:
    kinds.check("images", value, kinds.Path)
  assert f"""`images='"{path}"'` or `images=./{path}`""" in str(error.value)


# ----------------------------------------------------------------- the table


def test_the_page_is_printed_from_the_table(capsys):
  helpers.run_main("print_entries")
  printed = capsys.readouterr().out
  assert printed == (ROOT / "docs/config.md").read_text()
  for name in ALL:
    assert f"`{name}`" in printed


@pytest.mark.parametrize("path", ALL)
def test_an_entry_refuses_what_it_may_not_be(path):
  *parents, last = path.split(".")
  assert ALL[path].about[-1] != "."
  if path != "seed":
    kinds.check(path, ALL[path].default, ALL[path].kind)
  name = "own" if path in entries.OF_NAMED["own"] else "tetrominoes"
  for value in NOWHERE[:5]:
    update = {last: value}
    for key in reversed(parents):
      update = {key: update}
    with pytest.raises(errors.UserError, match=f"`{path}` is "):
      main.get_config((name,), update)


@pytest.mark.parametrize(
  "update, part",
  [
    ({"n_z": 0}, "`n_z` is 0: give an integer, at least 1"),
    ({"learn_rate": "fast"}, "`learn_rate` is 'fast': give a number"),
    ({"seed": 2**32}, "`seed` is 4294967296"),
    ({"seed": True}, "`seed` is True"),
    ({"plot": 5}, "`plot` is 5: give a dict"),
    ({"plot": {"scenes": [-1]}}, "`plot.scenes` is [-1]"),
    ({"plot": {"slot": 0}}, "`plot.slot` is 0"),
    ({"evaluation.metrics": "mine"}, "`evaluation.metrics` is 'mine'"),
    ({"benchmark.parts": ["all"]}, "'segmentation', 'input'"),
    ({"strategy": "both"}, "`strategy` is 'both': give one of None"),
    ({"compute_dtype": "float16"}, "'bfloat16', 'auto'"),
    ({"save_checkpoint_steps": 0.5}, "`save_checkpoint_steps` is 0.5"),
    ({"stages": 5}, "`stages` is 5: give a list, each entry a dict"),
    ({"model": 5}, "`model` is 5: give a dict"),
    ({"image_dim": [3, 3]}, "no config entry `image_dim`"),
    ({"evaluation.sedes": 3}, "did you mean `evaluation.seeds`?"),
  ],
)
def test_sentences(update, part):
  with pytest.raises(errors.UserError) as error:
    main.get_config(("tetrominoes",), update)
  assert part in str(error.value)


def test_steps_may_be_written_as_powers_of_ten():
  config = main.get_config(("quick",), {"stop_after_steps": 1e3})
  assert isinstance(config["stop_after_steps"], int)
  assert config["stop_after_steps"] == 1000


def test_what_is_of_one_call_is_not_taken_over():
  config = {**main.get_config(("quick",)), "json_path": "a", "tolerance": 1}
  config["data"] = {**config["data"], "cache": "b"}
  stored = config_files.for_another_call(config)
  assert {"checkpoint_dir", "json_path", "tolerance"}.isdisjoint(stored)
  assert "cache" not in stored["data"] and stored["seed"] == 0
  assert "scenes_csv" not in stored["evaluation"]


def test_a_file_may_have_the_entries_of_one_named_config(tmp_path):
  path = tmp_path / "own.json"
  config = main.get_config(("own",), {"image_dim": [14, 14]})
  path.write_text(json.dumps({**config, "checkpoint_dir": "runs/own"}))
  again = main.get_config((str(path),), {"seed": 3})
  assert again == {**config, "seed": 3}
  with pytest.raises(errors.UserError, match="`channels` is 0"):
    path.write_text(json.dumps({**config, "channels": 0}))
    main.get_config((str(path),))


def test_entries_that_are_gone(tmp_path):
  path = tmp_path / "config.json"
  config = json.loads(PRETRAINED.read_text())
  assert config["optimizer"]["loss_scale"] is False
  path.write_text(json.dumps(config))
  assert "loss_scale" not in config_files.read(str(path))["optimizer"]
  config["optimizer"]["loss_scale"] = True
  path.write_text(json.dumps(config))
  with pytest.raises(
    errors.UserError, match="`optimizer.loss_scale`, which is"
  ):
    config_files.read(str(path))


# ------------------------------------------------- arguments of constructors


def paths_of(config, path=()):
  """The paths of all arguments of all constructors in a config."""
  keys = dict.fromkeys(config)
  if "constructor" in config:
    constructor = building.resolve(config["constructor"])
    keys |= inspect.signature(constructor.__init__).parameters
    del keys["self"], keys["constructor"]
  for key in keys:
    yield (*path, key)
    if isinstance(config.get(key), dict):
      yield from paths_of(config[key], (*path, key))


@pytest.mark.parametrize(
  "name, part",
  [
    *(("tetrominoes", part) for part in ("model", "optimizer", "data")),
    *((name, "data") for name in ("clevr6", "multi_dsprites", "own")),
    ("moving_sprites", "data"),
    ("quick", "model"),
  ],
)
def test_every_argument_refuses_what_it_may_not_be(name, part):
  config = main.get_config((name,))[part]
  paths = list(paths_of(config))
  assert len(paths) > 8
  for path in paths:
    for value in (math.inf, "a\0b", {"x": [2**70]}):
      wrong = copy.deepcopy(config)
      place = wrong
      for key in path[:-1]:
        place = place[key]
      place[path[-1]] = value
      with pytest.raises(errors.UserError, match=f"`{part}"):
        building.build(wrong, part)
