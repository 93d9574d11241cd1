"""Operations of small graphs, against counts by hand."""

import functools

import helpers
import pytest
import tensorflow as tf

from iodine import benchmark, training


def count(function, *shapes):
  compiled = tf.function(function, autograph=False)
  specs = [tf.TensorSpec(shape) for shape in shapes]
  return benchmark.count(compiled.get_concrete_function(*specs))


def matmul(**options):
  return functools.partial(tf.matmul, **options)


def einsum(equation):
  return functools.partial(tf.einsum, equation)


@pytest.mark.parametrize(
  "function, shapes, expected",
  [
    (matmul(), [[2, 3], [3, 5]], {"MatMul": 60}),
    (matmul(transpose_a=True), [[3, 2], [3, 5]], {"MatMul": 60}),
    (matmul(transpose_b=True), [[2, 3], [5, 3]], {"MatMul": 60}),
    (
      matmul(transpose_a=True),
      [[7, 3, 2], [7, 3, 5]],
      {"BatchMatMulV2": 7 * 60},
    ),
    (
      einsum("blhw,bkhw->blk"),
      [[2, 3, 4, 5], [2, 7, 4, 5]],
      {"Einsum": 2 * 2 * 3 * 7 * 4 * 5},
    ),
    (
      einsum("...ij,...jk->...ik"),
      [[6, 1, 2, 3], [7, 3, 5]],
      {"Einsum": 2 * 6 * 7 * 2 * 3 * 5},
    ),
    # Nothing is summed over, or nothing multiplied.
    (einsum("i,j->ij"), [[2], [3]], {"Einsum": 0}),
    (einsum("ij->j"), [[2, 3]], {"Einsum": 0}),
    (lambda x: tf.nn.elu(x) * x + tf.reduce_sum(x), [[9, 9]], {}),
  ],
)
def test_products(function, shapes, expected):
  assert count(function, *shapes) == expected


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding, side", [("SAME", 8), ("VALID", 6)])
def test_a_convolution_and_its_gradients_cost_the_same(stride, padding, side):
  def gradients(x, w):
    with tf.GradientTape() as tape:
      tape.watch([x, w])
      y = tf.nn.conv2d(x, w, stride, padding)
    return y, *tape.gradient(y, [x, w])

  out = side // stride
  once = 2 * (2 * out * out * 5) * (3 * 3 * 4)
  assert count(gradients, [2, 8, 8, 4], [3, 3, 4, 5]) == {
    "Conv2D": once,
    "Conv2DBackpropInput": once,
    "Conv2DBackpropFilter": once,
  }


@pytest.mark.parametrize("jit_compile", [None, True])
def test_calls_are_followed_and_their_dead_outputs_are_not(jit_compile):
  @tf.function(autograph=False, jit_compile=jit_compile)
  def inner(x, y):
    return tf.matmul(x, x), tf.matmul(y, y), x

  def outer(x, y):
    first, _, same = inner(tf.matmul(x, x), tf.matmul(y, y))
    again, _, _ = inner(same, y)
    return first + again

  # x x, which goes through `inner` once more, and x x of the two calls.
  assert count(outer, [3, 3], [4, 4]) == {"MatMul": 3 * 2 * 27}


def test_side_effects_count():
  variable = tf.Variable(tf.zeros([3, 3]))

  @tf.function(autograph=False)
  def inner(x):
    variable.assign(tf.matmul(x, x))
    return tf.matmul(x, x)

  def outer(x):
    inner(tf.matmul(x, x))
    return x

  assert count(inner, [3, 3]) == {"MatMul": 2 * 2 * 27}
  # Its result is not needed.
  assert count(outer, [3, 3]) == {"MatMul": 2 * 2 * 27}


def test_branches_and_loops():
  def branch(x):
    return tf.cond(
      x[0, 0] > 0, lambda: tf.matmul(x, tf.matmul(x, x)), lambda: x
    )

  assert count(branch, [3, 3]) == {"MatMul": 2 * 2 * 27}

  def loop(x, limit):
    return tf.while_loop(
      lambda y: y[0, 0] < 1.0,
      lambda y: (tf.matmul(y, x),),
      [x],
      maximum_iterations=limit,
    )

  for limit, times in ((5, 5), (None, 1)):
    counts = count(functools.partial(loop, limit=limit), [3, 3])
    assert counts == {"MatMul": times * 2 * 27}


def test_unknown_kinds_are_errors():
  with pytest.raises(ValueError, match="Conv3D.* not counted yet"):
    count(
      lambda x, w: tf.nn.conv3d(x, w, [1] * 5, "SAME"),
      [1, 4, 4, 4, 1],
      [3, 3, 3, 1, 1],
    )


@pytest.mark.slow
def test_a_training_step_grows_with_batch_slots_and_iterations():
  def total(batch_size=2, **updates):
    model, optimizer = helpers.build_both(helpers.tiny_config(updates))
    step = tf.function(
      lambda data: training.train_step(
        model, optimizer, data, seed=tf.constant([0, 0])
      ),
      autograph=False,
    )
    data = helpers.make_batch(batch_size)
    return sum(benchmark.count(step.get_concrete_function(data)).values())

  # What does not grow is spent on kernels, whatever they are applied to.
  for name, (one, two, three) in {
    "batch_size": (2, 4, 6),
    "num_components": (2, 3, 4),
    "num_iters": (1, 2, 3),
  }.items():
    totals = [total(**{name: value}) for value in (one, two, three)]
    assert totals[2] - totals[1] == totals[1] - totals[0] > 0
