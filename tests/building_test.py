"""Tests of the builder: what it builds and what it rejects."""

import copy
import sys
import traceback
import types

import helpers
import pytest

from iodine import building, errors


class Thing:
  """Keeps its arguments."""

  def __init__(self, part=None, options=None, *, size=3):
    self.part, self.options, self.size = part, options, size


def make_thing(needed, other=2):
  return Thing(part=(needed, other))


def take_anything(first, **others):
  return first, others


def fail(kind):
  if kind == "user":
    raise errors.UserError("`size` is -1: give a number above 0")
  raise KeyError("no such key")


def _here(name):
  return f"{__name__}.{name}"


def _thing(**arguments):
  return {"constructor": _here("Thing"), **arguments}


def test_nested_parts_are_built_first():
  thing = building.build(_thing(part=_thing(size=1), size=2))
  assert isinstance(thing, Thing) and isinstance(thing.part, Thing)
  assert (thing.size, thing.part.size) == (2, 1)
  assert thing.options is None and thing.part.part is None
  thing = building.build(_thing(part=[_thing(size=1), [2, _thing()], (3, "x")]))
  first, second, third = thing.part
  assert first.size == 1 and second[0] == 2 and isinstance(second[1], Thing)
  assert third == [3, "x"]  # lists, whatever they came as
  built = building.build({"a": {"b": _thing()}, "c": 1, "d": None})
  assert isinstance(built["a"]["b"], Thing)
  assert built["c"] == 1 and built["d"] is None


def test_functions_construct_too():
  config = {"constructor": _here("make_thing"), "needed": 1}
  assert building.build(config).part == (1, 2)
  config = {"constructor": _here("take_anything"), "first": 1, "second": 2}
  assert building.build(config) == (1, {"second": 2})


def test_the_config_is_left_unchanged_and_not_shared():
  config = _thing(part=_thing(), options={"sizes": [1, 2], "more": {"a": 1}})
  before = copy.deepcopy(config)
  thing, other = building.build(config), building.build(config)
  assert thing is not other and thing.part is not other.part
  thing.options["sizes"].append(3)
  thing.options["more"]["a"] = 2
  assert config == before and other.options == before["options"]


def _message(config, **options):
  with pytest.raises(errors.UserError) as error:
    building.build(config, **options)
  return str(error.value)


@pytest.mark.parametrize(
  "name",
  [
    *("iodine.modules.networks.Nothing", "iodine.modules.nothing.CNN"),
    *("nothing.CNN", "nodots", ".networks.CNN", "", None, 3, "math.pi"),
  ],
)
def test_unknown_constructors(name):
  message = _message({"a": [{"b": {"constructor": name}}]})
  assert "`config.a[0].b.constructor`" in message and str(name) in message


def test_a_broken_import_is_no_unknown_constructor(tmp_path, monkeypatch):
  (tmp_path / "broken_module.py").write_text("import does_not_exist_at_all\n")
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(ModuleNotFoundError, match="does_not_exist_at_all"):
    building.build({"constructor": "broken_module.Thing"})


def test_unknown_arguments():
  message = _message(_thing(part=_thing(sise=1)))
  assert "`config.part.sise` is not an argument" in message
  assert _here("Thing") in message and "part, options, size" in message
  assert "add `config.part.replace=True`" in message


def test_missing_arguments():
  message = _message([{"constructor": _here("make_thing"), "other": 1}])
  assert "`config[0].needed` is missing" in message
  assert _here("make_thing") in message


def test_user_errors_in_a_constructor_name_the_place():
  config = {"a": _thing(part={"constructor": _here("fail"), "kind": "user"})}
  assert _message(config, path="model") == (
    "in `model.a.part`: `size` is -1: give a number above 0"
  )


def test_other_errors_are_passed_on():
  config = {"a": {"constructor": _here("fail"), "kind": "key"}}
  with pytest.raises(KeyError, match="no such key") as info:
    building.build(config, "model")
  frames = [frame for frame, _ in traceback.walk_tb(info.tb)]
  paths = [building.path_of(frame) for frame in frames]
  assert [path for path in paths if path] == ["model.a"]


@pytest.mark.parametrize(
  "path, value, sentence",
  [
    (
      *("refinement_core.encoder_net.mode", "max"),
      "`model.refinement_core.encoder_net.mode` is 'max'",
    ),
    (
      *("decoder.pixel_decoder.cnn_opt.output_channels", [4, 4]),
      "in `model.decoder.pixel_decoder`: the last entry of `output_channels`",
    ),
    (
      *("factor_evaluator.mapping", [["shape", 4, "ordinal"]]),
      "`model.factor_evaluator.mapping` is [['shape', 4, 'ordinal']]",
    ),
  ],
)
def test_errors_of_the_model_name_the_place(path, value, sentence):
  config = helpers.tiny_config(replace={path: value})
  assert sentence in _message(config["model"], path="model")


def test_a_constructor_of_a_module_made_at_run_time(monkeypatch):
  module = types.ModuleType("made_at_run_time")
  module.Thing = Thing
  monkeypatch.setitem(sys.modules, "made_at_run_time", module)
  built = building.build({"constructor": "made_at_run_time.Thing"})
  assert isinstance(built, Thing)
