"""Decoding again in the backward pass: less memory, the same gradients."""

import helpers
import numpy as np
import pytest
import tensorflow as tf

from iodine import training
from iodine.modules import recomputation, refinement_inputs


def _operations(graph, kind):
  return [op for op in graph.get_operations() if op.type == kind]


@pytest.mark.parametrize("stop", [refinement_inputs.NORMALIZED, ()])
@pytest.mark.parametrize("compiled", [False, True])
def test_the_gradients_are_those_without(compiled, stop):
  data = helpers.make_batch()
  z = tf.random.stateless_normal([3, 2, 3, 3], [0, 0])
  results = []
  for recompute in (False, True):
    tf.random.set_seed(0)
    model = helpers.tiny_model(
      {"model.decoder.recompute": recompute}, {"stop_gradients": list(stop)}
    )
    model.initialize((8, 8, 3))
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


def test_all_but_the_last_decode_are_repeated():
  data = helpers.make_batch()
  counts = []
  for recompute in (False, True):
    model = helpers.tiny_model({"model.decoder.recompute": recompute})
    model.initialize((8, 8, 3))
    graph = (
      tf.function(
        lambda model=model: training.compute_gradients(model, data).gradients,
        autograph=False,
      )
      .get_concrete_function()
      .graph
    )
    counts.append(len(_operations(graph, "Conv2D")))
  # Two refinements, and one convolution each: the decoder's first layer is a
  # matrix product.
  assert counts[1] == counts[0] + 2


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


def test_recompute_is_true_or_false():
  with pytest.raises(Exception, match="`recompute` is 'yes'"):
    helpers.tiny_model({"model.decoder.recompute": "yes"})
