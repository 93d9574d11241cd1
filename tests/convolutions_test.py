"""Fast convolutions against the plain ones."""

import helpers
import numpy as np
import oracles
import pytest
import tensorflow as tf

from iodine.modules import utils
from iodine.ops import convolutions


def _normal(rng, *shape):
  return tf.constant(rng.standard_normal(shape), tf.float32)


def _with_gradients(function, arguments, dy):
  with tf.GradientTape() as tape:
    tape.watch(arguments)
    y = function(*arguments)
  return [y, *tape.gradient(y, arguments, output_gradients=dy)]


def _assert_same(fast, plain, arguments, rng):
  """Result and all gradients agree up to the order of their sums."""
  dy = _normal(rng, *plain(*arguments).shape)
  results = _with_gradients(fast, arguments, dy)
  expected = _with_gradients(plain, arguments, dy)
  for result, reference in zip(results, expected, strict=True):
    helpers.assert_near(result, reference, 1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 4, 5])
@pytest.mark.parametrize("outputs", [2, 5, 7])
def test_conv2d(kernel, outputs, stride):
  rng = np.random.default_rng(0)
  arguments = [
    _normal(rng, 2, 7, 9, 5),
    _normal(rng, kernel, kernel, 5, outputs),
  ]
  _assert_same(
    lambda x, w: convolutions.conv2d(x, w, stride),
    lambda x, w: oracles.conv2d(x, w, stride),
    arguments,
    rng,
  )


@pytest.fixture(params=[False, True], ids=["wider", "avx2"])
def widest_is_avx2(request, monkeypatch):
  """Pretends that the processor has AVX2 alone, or something wider."""
  monkeypatch.setattr(convolutions, "_widest_is_avx2", lambda: request.param)
  return request.param


@pytest.mark.parametrize(
  "shape", [(2, 45, 37, 64, 48), (3, 40, 41, 32, 64), (1, 48, 48, 32, 32)]
)
@pytest.mark.parametrize("kernel", [3, 5])
def test_kernel_gradient_by_shifts(kernel, shape, widest_is_avx2):
  num, height, width, inputs, outputs = shape
  rng = np.random.default_rng(0)
  x = _normal(rng, num, height, width, inputs)
  dy = _normal(rng, num, height, width, outputs)
  kernel_shape = tf.TensorShape([kernel, kernel, inputs, outputs])

  @tf.function(autograph=False)
  def gradient(x, dy):
    return convolutions.kernel_gradient(x, kernel_shape, dy, 1)

  types = {
    op.type
    for op in gradient.get_concrete_function(x, dy).graph.get_operations()
  }
  assert ("StatelessWhile" in types) == widest_is_avx2
  assert ("Conv2DBackpropFilter" in types) != widest_is_avx2
  plain = convolutions.plain_kernel_gradient(x, kernel_shape, dy, 1)
  helpers.assert_near(gradient(x, dy), plain, 1e-5)


@pytest.mark.parametrize(
  "shape,dtype",
  [
    ((2, 45, 37, 64, 16), tf.float32),  # few outputs
    ((2, 45, 37, 16, 64), tf.float32),  # few inputs
    ((2, 35, 35, 64, 64), tf.float32),  # few pixels
    ((2, 45, 37, 64, 64), tf.bfloat16),  # whose products would be rounded
  ],
)
def test_kernel_gradient_without_shifts(shape, dtype, monkeypatch):
  monkeypatch.setattr(convolutions, "_widest_is_avx2", lambda: True)
  num, height, width, inputs, outputs = shape
  with tf.Graph().as_default() as graph:
    convolutions.kernel_gradient(
      tf.zeros([num, height, width, inputs], dtype),
      tf.TensorShape([3, 3, inputs, outputs]),
      tf.zeros([num, height, width, outputs], dtype),
      1,
    )
  types = [op.type for op in graph.get_operations()]
  assert "Conv2DBackpropFilter" in types and "StatelessWhile" not in types


@pytest.mark.parametrize(
  "found,is_widest",
  [
    (["SSE42", "AVX", "AVX2"], True),
    (["AVX2", "AVX512F", "AVX512_SKX"], False),
    (["X86_V2", "X86_V3"], True),
    (["X86_V3", "X86_V4"], False),
    (["SSE42", "AVX"], False),
    (["NEON", "ASIMD"], False),
  ],
)
def test_widest_is_avx2(found, is_widest, monkeypatch):
  simd = {"baseline": ["SSE"], "found": found, "not found": ["AVX512_SPR"]}
  monkeypatch.setattr(np, "show_config", lambda mode: {"SIMD Extensions": simd})
  assert convolutions._widest_is_avx2.__wrapped__() == is_widest


@pytest.mark.parametrize("kernel", [3, 5])
def test_kernel_gradient_in_tiles(kernel, monkeypatch):
  monkeypatch.setattr(convolutions, "_widest_is_avx2", lambda: False)
  rng = np.random.default_rng(0)
  x, dy = _normal(rng, 2, 64, 128, 64), _normal(rng, 2, 64, 128, 64)
  shape = tf.TensorShape([kernel, kernel, 64, 64])
  tiled = []
  plain = convolutions.plain_kernel_gradient

  def record(x, *args, **kwargs):
    tiled.append(x.shape.as_list())
    return plain(x, *args, **kwargs)

  monkeypatch.setattr(convolutions, "plain_kernel_gradient", record)
  gradient = convolutions.kernel_gradient(x, shape, dy, 1)
  # Twice four tiles, with the margin of the kernel around each.
  assert tiled == [[8, 16 + kernel - 1, 128 + kernel - 1, 64]]
  helpers.assert_near(gradient, plain(x, shape, dy, 1), 1e-5)


def test_images_are_copied_no_sooner_than_their_gradient_is_there(
  widest_is_avx2,
):
  with tf.Graph().as_default():
    x = tf.compat.v1.placeholder(tf.float32, [1, 32, 128, 64])
    dy = tf.compat.v1.placeholder(tf.float32, [1, 32, 128, 64])
    gradient = convolutions.kernel_gradient(
      x, tf.TensorShape([3, 3, 64, 64]), dy, 1
    )
    (copy,) = [
      op
      for op in gradient.graph.get_operations()
      if x.ref() in {y.ref() for y in op.inputs}
    ]
  if widest_is_avx2:  # a loop, which begins when all of its inputs are there
    assert copy.type in ("While", "StatelessWhile")
    assert dy.op in [y.op for y in copy.inputs]
  else:
    assert copy.control_inputs == [dy.op]


def test_second_gradient_of_conv2d():
  # Refinement inputs whose gradients are not stopped need it.
  rng = np.random.default_rng(0)
  x, w = _normal(rng, 1, 6, 6, 3), _normal(rng, 3, 3, 3, 2)

  def second(convolve):
    with tf.GradientTape() as outer:
      outer.watch([x, w])
      with tf.GradientTape() as inner:
        inner.watch([x, w])
        y = tf.reduce_sum(tf.exp(0.1 * convolve(x, w, 1)))
      norm = tf.add_n([tf.reduce_sum(g**2) for g in inner.gradient(y, [x, w])])
    return outer.gradient(norm, [x, w])

  results = second(convolutions.conv2d)
  expected = second(oracles.conv2d)
  for result, reference in zip(results, expected, strict=True):
    helpers.assert_near(result, reference, 1e-5)


@pytest.mark.parametrize("coord_type", ["linear", "cos", None])
@pytest.mark.parametrize(
  "size,kernel,stride",
  [
    ((7, 9), 3, 1),
    ((8, 6), 5, 1),
    ((9, 8), 3, 2),
    ((2, 1), 5, 1),
    ((6, 6), 4, 1),
  ],
)
def test_broadcast_conv2d(coord_type, size, kernel, stride):
  rng = np.random.default_rng(0)
  planes = utils.coordinate_map(coord_type, *size)
  channels = 4 + planes.shape[-1]
  _assert_same(
    lambda z, w, b: convolutions.broadcast_conv2d(z, planes, w, b, stride),
    lambda z, w, b: oracles.broadcast_conv2d(z, planes, w, b, stride),
    [
      _normal(rng, 3, 4),
      _normal(rng, kernel, kernel, channels, 6),
      _normal(rng, 6),
    ],
    rng,
  )


@pytest.mark.parametrize("stride", [1, 2])
def test_slots_conv2d(stride):
  rng = np.random.default_rng(0)
  planes = [
    _normal(rng, 2, num_slots, 6, 8, channels)
    for num_slots, channels in [(3, 1), (1, 3), (3, 2), (1, 1)]
  ]
  _assert_same(
    lambda w, b, *planes: convolutions.slots_conv2d(planes, w, b, stride),
    lambda w, b, *planes: oracles.slots_conv2d(planes, w, b, stride),
    [_normal(rng, 3, 3, 7, 5), _normal(rng, 5), *planes],
    rng,
  )
