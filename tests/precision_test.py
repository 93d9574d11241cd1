"""Networks in bfloat16 on float32 variables, against float32."""

import helpers
import numpy as np
import pytest
import tensorflow as tf

import main
from iodine import training
from iodine.modules import networks
from iodine.ops import precision

EPSILON = 2.0**-8  # half a unit in the last of 8 bits
CNN_OPT = {
  "output_channels": [8, 6],
  "kernel_shapes": [3],
  "strides": [2],
  "activation": "elu",
}
DECODER_OPT = {**CNN_OPT, "output_channels": [8, None]}


def cnn(dtype, **options):
  return networks.CNN(
    CNN_OPT, {"output_sizes": [10, 4]}, compute_dtype=dtype, **options
  )


def decoder(constructor, dtype):
  if constructor is networks.DeConv:
    mlp_opt = {"output_sizes": [12, 2 * 2 * 5]}
  else:
    mlp_opt = {"output_sizes": [12]}
  module = constructor(DECODER_OPT, mlp_opt, compute_dtype=dtype)
  module.set_output_shape((8, 8, 4))
  return module


def normal(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return tf.constant(rng.normal(size=shape), tf.float32)


CASES = {
  "cnn": (cnn, lambda net, x: net(x), [normal(6, 8, 8, 5)]),
  "cnn of slots": (
    cnn,
    lambda net, *planes: net.apply_to_slots(planes),
    [normal(2, 3, 8, 8, 2), normal(2, 1, 8, 8, 3)],
  ),
  "cnn with pooling": (
    lambda dtype: cnn(dtype, mode="avg_pool"),
    lambda net, x: net(x),
    [normal(6, 8, 8, 5)],
  ),
  "broadcast": (
    lambda dtype: decoder(networks.BroadcastConv, dtype),
    lambda net, x: net(x),
    [normal(6, 7)],
  ),
  "deconv": (
    lambda dtype: decoder(networks.DeConv, dtype),
    lambda net, x: net(x),
    [normal(6, 7)],
  ),
}


def run(case, dtype):
  """The result, and gradients of the inputs and variables."""
  make, call, inputs = CASES[case]
  net = make(dtype)
  call(net, *inputs)
  for seed, variable in enumerate(net.trainable_variables):
    fan_in = max(variable.shape[:-1].num_elements(), 1)
    variable.assign(normal(*variable.shape, seed=seed) / np.sqrt(fan_in))
  with tf.GradientTape() as tape:
    tape.watch(inputs)
    y = call(net, *inputs)
    loss = tf.reduce_sum(y * normal(*y.shape, seed=100))
  return net, y, tape.gradient(loss, [*inputs, *net.trainable_variables])


def cosine(a, b):
  a, b = np.ravel(a).astype(float), np.ravel(b).astype(float)
  return a @ b / np.sqrt((a @ a) * (b @ b))


@pytest.mark.parametrize("case", CASES)
def test_close_to_float32_and_not_the_same(case):
  _, expected, expected_gradients = run(case, "float32")
  net, actual, gradients = run(case, "bfloat16")
  assert actual.dtype == tf.float32
  assert all(v.dtype == tf.float32 for v in net.variables)
  # Four layers round inputs, weights and results each, at random.
  bound = 8 * EPSILON
  helpers.assert_near(actual, expected, bound)
  # If not for rounding, nothing was computed in fewer bits.
  error = np.abs(actual - expected).max() / np.abs(expected).max()
  assert error > EPSILON / 50
  for a, b in zip(gradients, expected_gradients, strict=True):
    assert a.dtype == tf.float32
    assert cosine(a, b) > 1 - 64 * EPSILON**2
    if a.shape.rank == 4:  # of a kernel
      assert np.any(a != b)


@pytest.mark.parametrize("case", CASES)
def test_convolutions_compute_in_it_and_nothing_else(case):
  make, call, inputs = CASES[case]
  net = make("bfloat16")
  call(net, *inputs)
  graph = tf.function(lambda *x: call(net, *x)).get_concrete_function(*inputs)
  types_of = {"low": set(), "float32": set()}
  low = ("Conv2D", "Conv2DBackpropInput", "BatchMatMulV2", "Elu", "BiasAdd")
  for op in graph.graph.get_operations():
    if op.type in low and "mlp" not in op.name:
      types_of["low"].add(op.outputs[0].dtype)
    elif op.type in ("MatMul", "Mean"):
      types_of["float32"].add(op.outputs[0].dtype)
  assert types_of == {"low": {tf.bfloat16}, "float32": {tf.float32}}


@pytest.mark.parametrize("case", CASES)
def test_in_float32_nothing_is_cast(case):
  make, call, inputs = CASES[case]
  net = make("float32")
  call(net, *inputs)
  graph = tf.function(lambda *x: call(net, *x)).get_concrete_function(*inputs)
  assert not [op for op in graph.graph.get_operations() if op.type == "Cast"]


@pytest.mark.parametrize("name", ["Conv2D", "Conv2DTranspose"])
def test_gradients_of_biases_are_summed_in_float32(name):
  if name == "Conv2D":
    layer = networks.Conv2D(3, 1)
  else:
    layer = networks.Conv2DTranspose(3, 1, output_shape=[64, 64])
  x = tf.zeros([16, 64, 64, 2])
  layer(x)
  dy = normal(16, 64, 64, 3) + 0.1
  with tf.GradientTape() as tape:
    y = precision.to_float32(layer(tf.cast(x, tf.bfloat16)))
  actual = tape.gradient(y, layer.b, output_gradients=dy)
  # The elements and the sum are rounded, no partial sum is.
  helpers.assert_near(actual, np.sum(dy, (0, 1, 2)), 2 * EPSILON)


# ------------------------------------------------------------ the model


def tiny(dtype):
  tf.random.set_seed(0)
  model = helpers.tiny_model({"compute_dtype": dtype}, image_shape=(8, 8, 3))
  return model


Z = normal(3, 2, 3, 3)


def test_the_model(monkeypatch):
  batch = helpers.make_batch()
  norm_inputs = []
  call = networks.snt.LayerNorm.__call__

  def layer_norm(self, x, *args):
    norm_inputs.append(x.dtype)
    return call(self, x, *args)

  expected = training.compute_gradients(tiny("float32"), batch, z=Z)
  model = tiny("bfloat16")
  monkeypatch.setattr(networks.snt.LayerNorm, "__call__", layer_norm)
  actual = training.compute_gradients(model, batch, z=Z)
  assert set(norm_inputs) == {tf.float32}
  assert {v.dtype for v in model.variables} == {tf.float32}
  assert {x.dtype for x in actual.scalars.values()} == {tf.float32}
  assert {g.dtype for g in actual.gradients} == {tf.float32}
  estimates, _ = model.encode(batch["image"], z=Z)
  floats = [[e.zp, e.z, e.params, e.scores, e.kl, e.re] for e in estimates]
  assert {x.dtype for x in tf.nest.flatten(floats)} == {tf.float32}
  # Errors of single pixels, of about an epsilon, average out.
  np.testing.assert_allclose(actual.loss, expected.loss, rtol=EPSILON)
  assert actual.loss != expected.loss
  for a, b in zip(actual.gradients, expected.gradients, strict=True):
    if np.any(b):
      assert cosine(a, b) > 0.99


# ------------------------------------------------------------ configs


@pytest.mark.parametrize(
  "updates, dtype",
  [({}, "float32"), ({"compute_dtype": "bfloat16"}, "bfloat16")],
)
@pytest.mark.parametrize(
  "name", ["clevr6", "multi_dsprites", "tetrominoes", "quick", "laptop"]
)
def test_one_entry_sets_it_everywhere(name, updates, dtype):
  model = main.get_config((name,), updates)["model"]
  assert model["decoder"]["pixel_decoder"]["compute_dtype"] == dtype
  assert model["refinement_core"]["encoder_net"]["compute_dtype"] == dtype


@pytest.mark.parametrize(
  "capabilities, tpus, expected",
  [
    ([], [], "float32"),
    ([(8, 0)], [], "bfloat16"),
    ([(9, 0), (8, 6)], [], "bfloat16"),
    ([(7, 5)], [], "float32"),
    ([(9, 0), (7, 5)], [], "float32"),  # one that would be slow
    ([None], [], "float32"),  # no GPU of NVIDIA
    ([], ["TPU"], "bfloat16"),
  ],
)
def test_auto_is_bfloat16_where_all_devices_have_it(
  capabilities, tpus, expected, monkeypatch
):
  devices = {"GPU": list(range(len(capabilities))), "TPU": tpus}

  def details(gpu):
    found = capabilities[gpu]
    return {} if found is None else {"compute_capability": found}

  config = tf.config
  monkeypatch.setattr(config, "list_physical_devices", devices.__getitem__)
  monkeypatch.setattr(config.experimental, "get_device_details", details)
  assert precision.dtype_named("auto").name == expected
