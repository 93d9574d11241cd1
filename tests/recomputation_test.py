"""Decoding again in the backward pass: less memory, the same gradients."""

import helpers
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from iodine import training
from iodine.modules import refinement_inputs
from iodine.ops import recomputation


@pytest.mark.parametrize("stop", [refinement_inputs.NORMALIZED, ()])
@pytest.mark.parametrize("compiled", [False, True])
def test_the_gradients_are_those_without(compiled, stop):
  data = helpers.make_batch()
  z = tf.random.stateless_normal([3, 2, 3, 3], [0, 0])
  results = []
  for recompute in (False, True):
    tf.random.set_seed(0)
    model = helpers.tiny_model(
      {"model.decoder.recompute": recompute},
      {"stop_gradients": list(stop)},
      image_shape=(8, 8, 3),
    )
    helpers.perturb(model)

    def step(model=model):
      result = training.compute_gradients(model, data, z=z)
      return result.loss, result.gradients

    if compiled:
      step = tf.function(step, autograph=False)
    loss, gradients = step()
    assert len(gradients) == len(model.trainable_variables)
    results.append((model.trainable_variables, loss, gradients))
  (variables, loss, gradients), (_, again_loss, again_gradients) = results
  assert loss == again_loss
  for variable, expected, actual in zip(
    variables, gradients, again_gradients, strict=True
  ):
    assert np.any(expected), f"{variable.name} has no gradient"
    helpers.assert_near(actual, expected, 1e-5)


def _gradients_function(recompute, **options):
  data = helpers.make_batch()
  channels = "model.decoder.pixel_decoder.cnn_opt.output_channels"
  model = helpers.tiny_model(
    {"model.decoder.recompute": recompute, channels: [4, 4, 4, None]},
    image_shape=(8, 8, 3),
  )
  return tf.function(
    lambda: training.compute_gradients(model, data).gradients,
    autograph=False,
    **options,
  )


def _num_executed_convolutions(recompute):
  """In the graph that is left when TensorFlow has optimised it."""
  function = _gradients_function(recompute)
  context.enable_run_metadata()
  try:
    function()
    metadata = context.export_run_metadata()
  finally:
    context.disable_run_metadata()
  # One of the functions that ran is this one, by far the largest.
  graphs = [g for f in metadata.function_graphs for g in f.partition_graphs]
  largest = max(graphs, key=lambda graph: len(graph.node))
  return sum(
    "Conv2D" in node.op and "Backprop" not in node.op for node in largest.node
  )


def _num_xla_convolutions(recompute):
  """In what XLA makes of the graph."""
  function = _gradients_function(recompute, jit_compile=True)
  return function.experimental_get_compiler_ir()(stage="optimized_hlo").count(
    "convolution("
  )


@pytest.mark.parametrize(
  "num_convolutions", [_num_executed_convolutions, _num_xla_convolutions]
)
def test_all_but_the_last_decode_are_repeated(num_convolutions):
  # Two refinements, and two convolutions each: the decoder's first layer is a
  # matrix product, and no gradient needs the result of the last.
  assert num_convolutions(True) == num_convolutions(False) + 4


def test_only_the_first_gradient_uses_what_is_stored():
  calls = []

  def square(x):
    calls.append(1)
    return x * x

  x = tf.constant([1.0, 3.0])
  with tf.GradientTape(persistent=True) as tape:
    tape.watch(x)
    y = recomputation.recompute_later(square)(x)
  assert len(calls) == 1
  for expected_calls in (1, 2, 3):
    np.testing.assert_array_equal(tape.gradient(y, x), [2.0, 6.0])
    assert len(calls) == expected_calls
