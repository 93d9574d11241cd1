"""Trainings in stages: what the model's config is, and until when."""

import copy

import pytest

import main
from iodine import building, errors, training

MODEL = {
  "num_components": 3,
  "kl_weight": 1.0,
  "output_dist": {"num_components": 3, "name": "mixture"},
}


def plan(entries, stop=10):
  config = {"stages": entries, "model": MODEL, "stop_after_steps": stop}
  before = copy.deepcopy(config)
  result = training.plan(config)
  assert config == before
  return result


def test_without_stages_there_is_one_with_the_model_as_it_is():
  assert plan([]) == [training.Stage(10, MODEL, {})]


def test_a_stage_replaces_entries_and_keeps_the_others():
  changes = {"kl_weight": 0.5, "output_dist": {"num_components": 4}}
  first, second, last = plan(
    [{"until": 2, "model": changes}, {"until": 5, "model": {"kl_weight": 2}}]
  )
  assert first.last_step == 2 and first.changes == changes
  assert first.model == {
    "num_components": 3,
    "kl_weight": 0.5,
    "output_dist": {"num_components": 4, "name": "mixture"},
  }
  # Not of the stage before: each says all that differs.
  assert second == (5, {**MODEL, "kl_weight": 2}, {"kl_weight": 2})
  assert last == (10, MODEL, {})


def test_no_stage_outlasts_the_training():
  entries = [{"until": 2, "model": {}}, {"until": 20, "model": {}}]
  assert [stage.last_step for stage in plan(entries)] == [2, 10, 10]


@pytest.mark.parametrize(
  "entries, part",
  [
    ([{"until": 5}], r"`stages\[0\].model` is missing"),
    ([{"until": 5, "model": {}, "data": {}}], "use some of until, model"),
    ([{"until": 0, "model": {}}], r"`stages\[0\].until` is 0: .*above 0"),
    ([{"until": 5, "model": {}}] * 2, "an integer, above 5"),
    ([{"until": 5, "model": {"output_dist": 3}}], "output_dist` is 3"),
    (
      [{"until": 5, "model": {"output_dist": {"slots": 3}}}],
      "model.output_dist.slots` is not an entry of the config: use some of "
      "num_components, name",
    ),
  ],
)
def test_wrong_stages(entries, part):
  with pytest.raises(errors.UserError, match=part):
    plan(entries)


@pytest.mark.parametrize("name", ["tetrominoes", "clevr6", "multi_dsprites"])
def test_the_papers_trainings_have_none(name):
  assert main.get_config((name,))["stages"] == []


def test_the_stages_of_laptop_can_be_built():
  for stage in training.plan(main.get_config(("laptop",))):
    building.build(stage.model, "model")  # with as many slots in all parts
