"""A training on several devices is the training on one."""

import json

import golden_test
import helpers
import numpy as np
import pytest
import tensorflow as tf

from iodine import checkpoints, errors, evaluation, replicas, training

# Rounding: sums over a batch in another order.
BOUND = 5e-6


def options(strategy=None):
  return {"strategy": strategy, "virtual_devices": None, "worker_timeout": 60}


def mirrored(number):
  """A strategy of so many devices, all of which are the processor."""
  if number == 1:
    return replicas.make_strategy(options())
  # TensorFlow's collective operations, which `make_strategy` leads to, take one
  # number of devices in a process; the commands below use them.
  return tf.distribute.MirroredStrategy(
    [f"CPU:{i}" for i in range(number)],
    cross_device_ops=tf.distribute.ReductionToOneDevice(),
  )


class Scenes:
  """Batch i follows from i alone; `skip` of them are left out."""

  image_shape = (8, 8, 3)
  num_true_objects = 4

  def __init__(self, batch_size, bad_steps=()):
    self.batch_size = batch_size
    self._bad_steps = bad_steps

  def __call__(self, subset, skip_batches=0):
    assert subset == "train"
    batches = [
      helpers.make_batch(self.batch_size, seed=seed) for seed in range(10)
    ]
    for step in self._bad_steps:
      image = batches[step - 1]["image"].numpy()
      image[-1] = np.nan
      batches[step - 1]["image"] = tf.constant(image)
    stacked = tf.nest.map_structure(lambda *x: tf.stack(x), *batches)
    return (
      tf.data.Dataset.from_tensor_slices(stacked).repeat().skip(skip_batches)
    )


class BrokenScenes(Scenes):
  """The batch of a step, and all after it, cannot be read."""

  def __init__(self, batch_size, step):
    super().__init__(batch_size)
    self._num_good = step - 1

  def __call__(self, subset, skip_batches=0):
    def check(number, batch):
      is_good = tf.debugging.assert_less(number, last, "a broken record")
      with tf.control_dependencies([is_good]):
        return tf.nest.map_structure(tf.identity, batch)

    last = tf.constant(self._num_good - skip_batches, tf.int64)
    return super().__call__(subset, skip_batches).enumerate().map(check)


class Run:
  """A tiny model on so many devices, whose steps are compiled once.

  Updates that are not finite are left out.
  """

  def __init__(self, number):
    self.strategy = mirrored(number)
    tf.random.set_seed(0)
    config = helpers.tiny_config({"num_iters": 1})
    with replicas.scope(self.strategy):
      self.model, self.optimizer = helpers.build_both(config)
    step = training.compile_step(
      self.model, self.optimizer, 0, False, True, num_replicas=number
    )
    self._make_steps = training.compile_steps(step, self.strategy)
    self._start = self.state()

  @property
  def _variables(self):
    return [*self.model.variables, *self.optimizer.variables]

  def state(self):
    names = [f"{i} {v.name}" for i, v in enumerate(self._variables)]
    return dict(zip(names, [v.numpy() for v in self._variables], strict=True))

  def reset(self):
    for variable, value in zip(
      self._variables, self._start.values(), strict=True
    ):
      variable.assign(value)
    return self

  def train(self, last, steps_per_call=1, bad_steps=()):
    """Trains until a step; returns the scalars of every step."""
    step = int(self.optimizer.global_step.numpy())
    feed = training.Feed(Scenes(4, bad_steps), self.strategy, step)
    calls = []
    while step < last:
      number = min(steps_per_call, last - step)
      calls.append(self._make_steps(feed.batches, tf.constant(number)))
      step += number
    assert self._make_steps.experimental_get_tracing_count() == 1
    return {
      name: np.concatenate([call[name] for call in calls]) for name in calls[0]
    }

  def store(self, folder):
    return checkpoints.CheckpointStore(str(folder), self.model, self.optimizer)


@pytest.fixture(scope="module")
def runs():
  """One on a device, one on two."""
  return {number: Run(number) for number in (1, 2)}


def assert_near(actual, expected, bound=BOUND):
  assert actual.keys() == expected.keys()
  for name, value in expected.items():
    largest = max(np.abs(value).max(), 1e-30)
    assert np.abs(actual[name] - value).max() / largest <= bound, name


# ------------------------------------------------------------------ one step


def golden_run(name, number, batch, z):
  """One step of a recorded case on so many devices."""
  strategy = mirrored(number)
  with replicas.scope(strategy):
    case = golden_test.Case(name)
  size = batch["image"].shape[0] // number
  per_replica = strategy.experimental_distribute_values_from_function
  parts = per_replica(
    lambda context: tf.nest.map_structure(
      lambda x: x[context.replica_id_in_sync_group * size :][:size], batch
    )
  )

  def step(data):
    seed, samples = None, None
    if z is None:
      seed = tf.constant([0, 1])
    else:
      first = tf.distribute.get_replica_context().replica_id_in_sync_group
      samples = tf.constant(z)[:, first * size :][:, :size]
    return training.train_step(
      case.model, case.optimizer, data, z=samples, seed=seed
    )

  scalars = strategy.run(step, args=(parts,))  # no graph takes less time
  return case, {
    key: strategy.experimental_local_results(value)[0].numpy()
    for key, value in scalars.items()
  }


@pytest.mark.parametrize(
  "name, number",
  [("tiny_tetrominoes", 2), ("tiny_dsprites", 3), ("tiny_clevr", 2)],
)
def test_the_recorded_step_of_the_original(name, number):
  """Its bounds are those of one device; a replica has one image."""
  recorded = golden_test.Case(name).load("train.npz")
  case, scalars = golden_run(
    name, number, golden_test.Case(name).data, recorded["z"]
  )
  golden_test.assert_step_as_recorded(case, scalars, recorded)


@pytest.mark.parametrize("name", golden_test.CASES)
def test_a_drawn_step_is_that_of_one_device(name):
  data = golden_test.Case(name).data
  size = data["image"].shape[0]
  # Four different images of the two or three that were recorded.
  images = [data["image"][i % size] * (1.0 - 0.1 * i) for i in range(4)]
  index = [i % size for i in range(4)]
  batch = tf.nest.map_structure(lambda x: tf.gather(x, index), data)
  batch["image"] = tf.stack(images)
  states, scalars = {}, {}
  for number in (1, 2, 4):
    case, scalars[number] = golden_run(name, number, batch, None)
    variables = [*case.model.variables, *case.optimizer.variables]
    states[number] = {
      f"{i} {v.name}": v.numpy() for i, v in enumerate(variables)
    }
  for number in (2, 4):
    assert_near(scalars[number], scalars[1], 1e-5)
    assert_near(states[number], states[1])


# ---------------------------------------------------------------- many steps


@pytest.mark.parametrize("number", [1, 2])
def test_several_steps_in_a_call_are_the_same_to_the_bit(runs, number):
  """With their samples, schedule, statistics and an update that is left out."""
  run = runs[number].reset()
  scalars = run.train(7, bad_steps=[4])
  state = run.state()
  assert scalars["debug/skipped_updates"].tolist() == [0, 0, 0, 1, 0, 0, 0]
  assert len(set(scalars["debug/learning_rate"])) == 7
  run.reset()
  in_one_call = run.train(7, steps_per_call=10, bad_steps=[4])
  helpers.assert_same_bits(in_one_call, scalars)
  helpers.assert_same_bits(run.state(), state)
  run.reset()
  run.train(7, steps_per_call=3, bad_steps=[4])
  helpers.assert_same_bits(run.state(), state)


def test_fifty_steps_differ_by_rounding(runs):
  one, two = (runs[number].reset().train(50, 10) for number in (1, 2))
  assert_near(two, one, 1e-3)
  assert one["loss/total"][-1] < 0.7 * one["loss/total"][0]
  assert_near(runs[2].state(), runs[1].state(), 1e-3)


def test_an_update_is_left_out_by_all_or_none(runs):
  """The image that is not finite is in the second part of the batch."""
  run = runs[2].reset()
  run.train(1)
  before = run.state()
  run.train(2, bad_steps=[2])
  after = run.state()
  changed = [name for name in before if np.any(before[name] != after[name])]
  assert [name.split()[1] for name in changed] == ["adam/global_step:0"]
  for variable in [*run.model.variables, *run.optimizer.variables]:
    first, second = run.strategy.experimental_local_results(variable)
    np.testing.assert_array_equal(first, second, variable.name)


@pytest.mark.parametrize("number", [1, 2])
def test_a_reader_that_fails_leaves_the_call_before(runs, number, tmp_path):
  """Of a step, what does not need the batch may have run."""
  run = runs[number].reset()
  run.train(6)
  expected = run.state()
  run.reset()
  model, adam, store = run.model, run.optimizer, run.store(tmp_path)
  feed = training.Feed(BrokenScenes(4, step=4), run.strategy)
  with pytest.raises(tf.errors.InvalidArgumentError, match="a broken record"):
    training.Loop(
      lambda num_steps: run._make_steps(feed.batches, num_steps),
      [*model.trainable_variables, *adam.m, *adam.v],
      4,
      store,
      training.Schedule(6),
      steps_per_call=2,
    ).run()
  assert store.latest == str(tmp_path / "ckpt-2")
  for variable in [*model.variables, *adam.variables]:
    first, *others = run.strategy.experimental_local_results(variable)
    for other in others:
      np.testing.assert_array_equal(first, other, variable.name)
  run.reset()
  store.restore()
  run.train(6)
  helpers.assert_same_bits(run.state(), expected)


def test_a_checkpoint_goes_on_with_any_number_of_devices(runs, tmp_path):
  expected = {}
  for number in (1, 2):
    run = runs[number].reset()
    run.train(3)
    run.store(tmp_path / str(number)).save()
    run.train(6)
    expected[number] = run.state()
  for saved_by in (1, 2):
    for number in (1, 2):
      run = runs[number].reset()
      run.store(tmp_path / str(saved_by)).restore()
      assert run.optimizer.global_step.numpy() == 3
      run.train(6)
      if number == saved_by:
        helpers.assert_same_bits(run.state(), expected[number])
      else:
        assert_near(run.state(), expected[saved_by], 1e-4)


# ---------------------------------------------------------------- evaluation


def test_an_evaluation_is_that_of_one_device(runs):
  run = runs[2].reset()
  model = helpers.tiny_model({"num_iters": 1, "model.refinement_batch_size": 4})
  model.initialize(Scenes.image_shape)
  batches = [helpers.make_batch(4, seed=0), helpers.make_batch(2, seed=1)]
  one, two = (
    evaluation.evaluate(model, batches, 4, strategy=strategy).as_json()
    for strategy in (None, run.strategy)
  )
  assert one["num_scenes"] == two["num_scenes"] == 6
  for name in ("mse", "recons", "kl", "factor", "r2/color"):
    for part in ("mean", "standard_error"):
      if one[name].get(part) is not None:
        np.testing.assert_allclose(two[name][part], one[name][part], 1e-5)


# -------------------------------------------------------------------- errors


def test_several_workers_have_to_be_told(monkeypatch):
  for name in ("TF_CONFIG", "SLURM_PROCID"):
    monkeypatch.delenv(name, raising=False)
  with pytest.raises(
    errors.UserError, match="TF_CONFIG nor Slurm .*scaling.md"
  ):
    replicas.make_strategy(options("multi_worker"))


TWO = {"worker": ["localhost:1234", "localhost:1235"]}
FIRST = {"type": "worker", "index": 0}


@pytest.mark.parametrize(
  "told",
  [
    *("", "no JSON", "[]", "{}", "null", '{"cluster": {}}'),
    *({"cluster": TWO}, {"cluster": TWO, "task": None}),
    {"cluster": TWO, "task": []},
    {"cluster": TWO, "task": {"type": "worker"}},
    {"cluster": TWO, "task": {"type": "worker", "index": 2}},
    {"cluster": TWO, "task": {"type": "worker", "index": -1}},
    {"cluster": TWO, "task": {"type": "worker", "index": "first"}},
    {"cluster": TWO, "task": {"type": "ps", "index": 0}},
    {"cluster": TWO["worker"], "task": FIRST},
    {"cluster": {"worker": {"0": "localhost:1234"}}, "task": FIRST},
    {"cluster": {"worker": "localhost:1234"}, "task": FIRST},
    {"cluster": {"worker": []}, "task": FIRST},
    {"cluster": {"worker": ["localhost"]}, "task": FIRST},
    {"cluster": {"worker": ["localhost:x"]}, "task": FIRST},
    {"cluster": {"worker": ["localhost:99999"]}, "task": FIRST},
    {"cluster": {"worker": ["localhost:12"] * 2}, "task": FIRST},
    {"cluster": {**TWO, "ps": ["localhost:1"]}, "task": FIRST},
  ],
  ids=str,
)
def test_tf_config_has_one_form(monkeypatch, told):
  text = told if isinstance(told, str) else json.dumps(told)
  monkeypatch.setenv("TF_CONFIG", text)
  with pytest.raises(errors.UserError, match="TF_CONFIG is .*: give JSON as"):
    replicas.make_strategy(options("multi_worker"))


def test_slurm_tells_of_the_others(monkeypatch):
  monkeypatch.delenv("TF_CONFIG", raising=False)
  for name, value in {
    "PROCID": "1",
    "STEP_NODELIST": "node[01-02]",
    "STEP_NUM_TASKS": "3",
    "STEP_TASKS_PER_NODE": "2,1",
  }.items():
    monkeypatch.setenv(f"SLURM_{name}", value)
  cluster = replicas.find_cluster()
  assert cluster.cluster_spec().as_dict() == {
    "worker": ["node01:8888", "node01:8889", "node02:8888"]
  }
  assert (cluster.task_type, cluster.task_id) == ("worker", 1)
  assert not replicas.is_chief(options("multi_worker"))
  monkeypatch.setenv("SLURM_PROCID", "0")
  assert replicas.is_chief(options("multi_worker"))


def test_a_batch_has_to_be_divisible():
  two = mirrored(2)
  replicas.check_batch_size(two, 4)
  with pytest.raises(errors.UserError, match="`batch_size` is 5: .*2, the n"):
    replicas.check_batch_size(two, 5)
  replicas.check_refinement_batch_size(two, 4)
  with pytest.raises(errors.UserError, match="refinement_batch_size. is None"):
    replicas.check_refinement_batch_size(two, None)
