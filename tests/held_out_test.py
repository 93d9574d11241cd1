"""Validation during a training: what it says, what it keeps, what it leaves."""

import json
import os
import pathlib
import re

import helpers
import numpy as np
import pytest
import tensorflow as tf
import training_test

from iodine import checkpoints, errors, evaluation, training


class Scenes:
  """A researcher's own data set, which is all that `types.DataSet` asks for."""

  image_shape = (8, 8, 3)
  batch_size = 2
  num_true_objects = 4

  def __init__(self, sizes=(2, 2, 2, 1), **ranges):
    self.read = 0
    self._sizes = sizes
    vars(self).update(ranges)

  def batches(self, subset, skip_batches=0):
    assert (subset, skip_batches) == ("test", 0)
    for seed, size in enumerate(self._sizes):
      self.read += 1
      yield helpers.make_batch(size, seed=seed)


def held_out(num_scenes, **options):
  result = training.HeldOut(Scenes(**options), num_scenes)
  result.read()
  return result


def one_device():
  return tf.distribute.get_strategy()


# --------------------------------------------------------------- the scenes


def test_no_more_scenes_are_read_than_are_wanted():
  scenes = Scenes()
  held_out = training.HeldOut(scenes, 3)
  for _ in range(2):
    held_out.read()
  assert scenes.read == 2


@pytest.mark.parametrize(
  "train, test, is_held_out",
  [
    *((None, None, False), ([0, 9], None, False), (None, [9, 12], False)),
    *(([0, 9], [8, 12], False), (None, "test", False), ("all", "all", False)),
    *(([0, 9], [9, None], True), ([3, None], [0, 3], True)),
    ("train", "test", True),
  ],
)
def test_what_is_trained_on_is_not_held_out(train, test, is_held_out):
  if is_held_out:
    assert held_out(3, train=train, test=test)
    return
  with pytest.raises(errors.UserError, match="`data.test` is .*leaves out"):
    training.HeldOut(Scenes(train=train, test=test), 3)


def test_there_has_to_be_a_scene():
  with pytest.raises(errors.UserError, match="no scene to validate on"):
    held_out(3, sizes=())


# --------------------------------------------------------------- the scores


def test_scores_are_an_evaluation_and_change_nothing(tmp_path):
  run = training_test.Run(tmp_path)
  scorer = held_out(5).scorer(run.model, one_device())
  tf.random.set_seed(4)
  before = run.state()
  first, again = scorer(), scorer()
  helpers.assert_same_bits(before, run.state())
  drawn = tf.random.uniform([3]).numpy()
  tf.random.set_seed(4)
  np.testing.assert_array_equal(drawn, tf.random.uniform([3]))
  assert first == again
  expected = evaluation.evaluate(
    run.model, Scenes().batches("test"), 2, num_scenes=5
  )
  assert first == {n: value.mean for n, value in expected.metrics.items()}
  helpers.perturb(run.model)
  assert scorer()["total"] != first["total"]


def test_a_validated_training_is_the_same_and_makes_one_more_graph(tmp_path):
  plain = training_test.Run(tmp_path / "plain", updates={"num_iters": 1})
  plain.train(4)
  run = training_test.Run(tmp_path / "run", updates={"num_iters": 1})
  scorer = held_out(3).scorer(run.model, one_device())
  traced, encode = [], run.model.encode
  run.model.encode = lambda *args, **kwargs: (
    traced.append(args) or encode(*args, **kwargs)
  )
  validated = []

  def validate(step):
    validated.append((step, scorer()["total"]))
    return validated[-1][1]

  run.train(4, validate=validate, save_checkpoint_steps=3, validate_every=1)
  helpers.assert_same_bits(plain.state(), run.state())
  assert [step for step, _ in validated] == [1, 2, 3, 4]
  assert len({loss for _, loss in validated}) == 4
  assert len(traced) == 2  # of the step and of the evaluation


# ----------------------------------------------------------------- what is best


def losses(*values):
  return lambda step: values[step - 1]


def test_steps_until_a_validation_is_due():
  schedule = training.Schedule(10, 100, 100, 100)
  assert schedule.steps_until_due(0) == 10
  assert schedule._replace(validate_every=3).steps_until_due(4) == 2


def validating(folder, **options):
  run = training_test.Run(folder)
  run.store = checkpoints.CheckpointStore(
    str(folder), run.model, run.optimizer, validates=True, **options
  )
  return run


def test_the_best_is_that_of_the_lowest_loss_on_held_out_scenes(tmp_path):
  run = validating(tmp_path)
  # Those of the training fall, and say nothing.
  step = run.fake_step(**{"loss/total": {n: 9.0 - n for n in range(1, 8)}})
  seen = losses(5.0, np.nan, 3.0, 4.0, 6.0, 3.0, 2.0)
  run.train(6, step=step, validate=seen, validate_every=1)
  assert checkpoints.latest(tmp_path / "best") == str(tmp_path / "best/ckpt-3")
  # A continued run knows it, though the step was not saved otherwise.
  again = validating(tmp_path)
  again.store.restore()
  seen = losses(*[3.5] * 7)
  again.train(7, step=again.fake_step(), validate=seen, validate_every=1)
  assert checkpoints.latest(tmp_path / "best") == str(tmp_path / "best/ckpt-3")
  again.store.save_if_best(2.5)
  assert checkpoints.latest(tmp_path / "best") == str(tmp_path / "best/ckpt-7")


def test_a_run_may_begin_and_cease_to_validate(tmp_path):
  run = training_test.Run(tmp_path)
  run.train(2, step=run.fake_step())  # whose loss is 1
  assert checkpoints.latest(tmp_path / "best") == str(tmp_path / "best/ckpt-2")
  run = validating(tmp_path)
  run.store.restore()
  run.train(
    4, step=run.fake_step(), validate=losses(*[7.0] * 4), validate_every=4
  )
  assert checkpoints.latest(tmp_path / "best") == str(tmp_path / "best/ckpt-4")
  run = training_test.Run(tmp_path)
  run.store.restore()
  run.store.save(0.5)
  assert checkpoints.latest(tmp_path / "best") == str(tmp_path / "best/ckpt-4")


def test_what_was_best_can_be_forgotten(tmp_path):
  run = validating(tmp_path)
  run.store.save_if_best(1.0)
  run.optimizer.global_step.assign(3)
  run.store.save_if_best(2.0)
  assert checkpoints.latest(tmp_path / "best") == str(tmp_path / "best/ckpt-0")
  run.store.forget_best()
  run.store.save_if_best(2.0)
  assert checkpoints.latest(tmp_path / "best") == str(tmp_path / "best/ckpt-3")


def test_who_does_not_write_keeps_nothing(tmp_path):
  validating(tmp_path, writes=False).store.save_if_best(1.0)
  assert not os.path.exists(tmp_path / "best/checkpoint")


# ------------------------------------------------------------------ the command


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
  return helpers.make_scenes(tmp_path_factory.mktemp("data"), 12)


def words(scenes, folder, **updates):
  updates |= {"num_iters": 0, "model.iter_loss_weight": 1.0}
  ranges = {"data.train": [3, None], "data.test": [0, 3], "validate_scenes": 3}
  return helpers.training_words(scenes, folder, **{**ranges, **updates})


def test_a_training_validates_in_all_its_stages(scenes, tmp_path, capsys):
  stages = [{"until": 2, "model": {"iter_loss_weight": 0.01}}]
  updates = {"validate_every": 2, "steps_per_call": 5, "stop_after_steps": 3}
  helpers.run_main(
    *words(scenes, f"{tmp_path}/run", stages=stages, **updates),
    f"-F{tmp_path}/sacred",
  )
  lines = [
    line
    for line in capsys.readouterr().out.splitlines()
    if line.startswith("validation at step")
  ]
  # At the end of a stage, too.
  tags = ["validation/ari_nobg", "validation/mse", "validation/total"]
  curves = training.read_scalars(f"{tmp_path}/run_1", tags)
  assert [step for step, _ in curves["validation/total"]] == [2, 3]
  for i, line in enumerate(lines):
    step, total = curves["validation/total"][i]
    ari, mse = (curves[tag][i][1] for tag in tags[:2])
    assert line == (
      f"validation at step {step}: ARI-nobg {ari:.3f}, squared error "
      f"{mse:.4f}, total {total:.1f}"
    )
  assert len(lines) == 2
  (path,) = pathlib.Path(tmp_path, "sacred").glob("1/metrics.json")
  metrics = json.loads(path.read_text())
  assert metrics["validation/total"]["steps"] == [2, 3]
  # Worse, but of the model that the config has.
  assert curves["validation/total"][1][1] > curves["validation/total"][0][1]
  assert checkpoints.open_checkpoint(f"{tmp_path}/run_1/best").prefix.endswith(
    "ckpt-3"
  )


@pytest.mark.parametrize(
  "updates, part",
  [
    ({"data.test": None}, "`data.test` is None"),
    (
      {"strategy": "mirrored", "virtual_devices": 2},
      "`model.refinement_batch_size` is None: .*a part of the batch",
    ),
  ],
)
def test_errors_come_before_anything_is_written(
  capsys, scenes, tmp_path, updates, part
):
  updates = {"validate_every": 1, **updates}
  message = helpers.fails_with_sentence(
    capsys, *words(scenes, f"{tmp_path}/run", **updates)
  )
  assert re.search(part, message), message
  assert os.listdir(tmp_path) == []
