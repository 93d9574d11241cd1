"""Counts the floating-point operations of a graph.

Two for every multiplication with its addition in a convolution, a matrix
product or a contraction, padding included as if it were pixels. Element-wise
work, normalisation and sums do not count. What nothing depends on does not
count either, as TensorFlow prunes it before a graph runs.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable
from typing import Any

import opt_einsum
import tensorflow as tf

# Types that are not public, or not worth their length.
Operation = Any
Counts = collections.Counter[str]

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_BRANCHES = ("If", "StatelessIf", "Case", "StatelessCase")
_LOOPS = ("While", "StatelessWhile")
_MATRIX_PRODUCTS = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")


def count(function: Any) -> dict[str, int]:
  """Counts a concrete function's operations.

  Functions that it calls are followed. Of branches, the one with the most
  operations counts. A loop counts as often as its `maximum_iterations` says,
  and once where that is not a constant.

  Args:
    function: a `tf.types.experimental.ConcreteFunction` of static shapes.

  Returns:
    {type of graph operation: floating-point operations}, for one call.
  """
  return dict(_count_all(function.graph))


def _count_all(graph: Any) -> Counts:
  return _count(graph, range(len(graph.outputs)))[0]


def _count(graph: Any, results: Iterable[int]) -> tuple[Counts, list[int]]:
  """Counts what some results of a graph need, and what it does in any case.

  Args:
    graph: of a function.
    results: numbers of its outputs.

  Returns:
    The counts, and the numbers of the inputs that are needed.
  """
  counts: Counts = collections.Counter()
  # Names of tensors, and of operations that have to run.
  needed = {graph.outputs[i].name for i in results}
  needed.update(op.name for op in graph.control_outputs)
  # Causes are before their effects in a graph, so after them here.
  for op in reversed(graph.get_operations()):
    outputs = [i for i, x in enumerate(op.outputs) if x.name in needed]
    if not outputs and op.name not in needed:
      continue
    needed.update(cause.name for cause in op.control_inputs)
    inputs: Iterable[int] = range(len(op.inputs))
    if op.type in _CALLS:
      called, inputs = _count(_bodies(op)[0], outputs)
      counts.update(called)
    elif op.type in _BRANCHES:
      branches = map(_count_all, _bodies(op))
      counts.update(max(branches, key=lambda branch: sum(branch.values())))
    elif op.type in _LOOPS:
      times = _num_iterations(op)
      for body in map(_count_all, _bodies(op)):
        counts.update({kind: n * times for kind, n in body.items()})
    else:
      counts.update(_count_one(op))
    needed.update(op.inputs[i].name for i in inputs)
  arguments = enumerate(graph.inputs)
  return counts, [i for i, x in arguments if x.name in needed]


def _bodies(op: Operation) -> list[Any]:
  """Returns the graphs that an operation calls, chooses from or repeats."""
  values = [
    op.get_attr(attribute.name)
    for attribute in op.op_def.attr
    if "func" in attribute.type  # one function, or a list of some
  ]
  return [_find_graph(op, f.name) for f in tf.nest.flatten(values)]


def _find_graph(op: Operation, name: str) -> Any:
  # There is no public way to it; a test notices if this one closes.
  graph = op.graph
  while (function := graph._get_function(name)) is None:
    graph = graph.outer_graph
  return function.graph


def _num_iterations(op: Operation) -> int:
  # `tf.while_loop` keeps a counter and `maximum_iterations` before the rest.
  limit = tf.get_static_value(op.inputs[1]) if len(op.inputs) > 1 else None
  if limit is None or limit.ndim > 0 or limit < 0:
    return 1
  return int(limit)


# ---------------------------------------------------------------- formulas


def _count_one(op: Operation) -> dict[str, int]:
  """Counts a product; nothing else has operations."""
  if op.type.startswith(_CONVOLUTIONS):
    return {op.type: _convolution(op)}
  if op.type in _MATRIX_PRODUCTS:
    return {op.type: _matrix_product(op)}
  if op.type == "Einsum":
    return {op.type: _einsum(op)}
  if "MatMul" in op.type or "Conv2D" in op.type or "Conv3D" in op.type:
    raise ValueError(
      f"`{op.name}` is a {op.type}, whose operations are not counted yet: "
      "add a formula for it"
    )
  return {}


def _convolution(op: Operation) -> int:
  """Counts a sum over the kernel's window and input channels for each output.

  Gradients have the same products, summed otherwise.
  """
  # Image, kernel, result; sizes, kernel, result's gradient; or image, sizes,
  # result's gradient, kernel's gradient.
  operands = [*op.inputs, *op.outputs]
  result, kernel = operands[2], operands[3 if "Filter" in op.type else 1]
  summed = slice(2 if op.type.startswith("Depthwise") else 3)
  return 2 * math.prod(result.shape) * math.prod(kernel.shape[summed])


def _matrix_product(op: Operation) -> int:
  transposed = "transpose_a" if op.type == "MatMul" else "adj_x"
  num_summed = op.inputs[0].shape[-2 if op.get_attr(transposed) else -1]
  return 2 * math.prod(op.outputs[0].shape) * num_summed


def _einsum(op: Operation) -> int:
  """Multiplies all labels' sizes, if some of them are summed over."""
  equation = op.get_attr("equation").decode()
  shapes = [tuple(tensor.shape) for tensor in op.inputs]
  _, path = opt_einsum.contract_path(equation, *shapes, shapes=True)
  summed = set(path.size_dict) - set(path.output_subscript)
  is_product = len(shapes) > 1 and bool(summed)
  return 2 * math.prod(path.size_dict.values()) if is_product else 0
