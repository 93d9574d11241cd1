"""Counts the floating-point operations of a graph.

Two for every multiplication with its addition in a convolution, a matrix
product or a contraction, padding included as if it were pixels. Element-wise
work, normalisation and sums do not count. What nothing depends on does not
count either, as TensorFlow prunes it before a graph runs.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import tensorflow as tf

# Types that are not public, or not worth their length.
Operation = Any
Shape = tuple[int, ...]

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_BRANCHES = ("If", "StatelessIf", "Case", "StatelessCase")
_LOOPS = ("While", "StatelessWhile")


def count(function: Any) -> dict[str, int]:
  """Counts a concrete function's operations.

  Functions that it calls are followed. Of branches, the one with the most
  operations counts. A loop counts as often as its `maximum_iterations` says,
  and once where that is not a constant.

  Args:
    function: a `tf.types.experimental.ConcreteFunction`.

  Returns:
    {type of graph operation: floating-point operations}, for one call.

  Raises:
    ValueError: if the shape of an operand is unknown, or there is a product
      of a kind that this function does not know.
  """
  return dict(_count(function.graph))


def _count(graph: tf.Graph) -> collections.Counter[str]:
  counts: collections.Counter[str] = collections.Counter()
  for op in _live_operations(graph):
    if op.type in _FORMULAS:
      counts[op.type] += _FORMULAS[op.type](op)
    elif op.type in _BRANCHES:
      branches = [_count(body) for body in _bodies(op)]
      counts.update(max(branches, key=lambda each: sum(each.values())))
    elif op.type in _LOOPS:
      times = _num_iterations(op)
      for body in _bodies(op):
        counts.update({k: n * times for k, n in _count(body).items()})
    elif "MatMul" in op.type or "Conv2D" in op.type or "Conv3D" in op.type:
      raise ValueError(
        f"`{op.name}` is a {op.type}, whose operations are not counted yet: "
        "add a formula for it"
      )
  return counts


# ------------------------------------------------------- what a graph runs


class _Frame:
  """One call of a function, or the outermost graph.

  Attributes:
    graph: what is called.
    call: the calling operation; None for the outermost graph.
    parent: the frame of that operation.
  """

  def __init__(
    self,
    graph: Any,
    call: Operation | None = None,
    parent: _Frame | None = None,
  ):
    self.graph = graph
    self.call = call
    self.parent = parent
    self.arguments = {x.op: i for i, x in enumerate(graph.inputs)}


class _Need(NamedTuple):
  """An output of an operation that is needed; None: that it runs at all."""

  frame: _Frame
  op: Operation
  output: int | None


def _live_operations(graph: Any) -> Iterator[Operation]:
  """Yields every operation that results depend on, once per call.

  Walks from the results to their causes, into called functions and out again,
  as if the calls were replaced by what they call, which TensorFlow does.
  """
  frames: dict[tuple[_Frame, Operation], _Frame] = {}
  done: set[_Need] = set()
  todo = _results(_Frame(graph))
  while todo:
    need = todo.pop()
    if need in done:
      continue
    done.add(need)
    frame, op, output = need
    if op.type in _CALLS:
      key = frame, op
      if key not in frames:
        frames[key] = _Frame(_function(op, op.get_attr("f").name), op, frame)
        # Its results are needed one by one; what it does besides, anyway.
        todo += _control_results(frames[key])
        todo += [_Need(frame, cause, None) for cause in op.control_inputs]
      if output is not None:
        todo.append(_cause(frames[key], frames[key].graph.outputs[output]))
    elif frame.call is not None and op in frame.arguments:
      assert frame.parent is not None
      argument = frame.call.inputs[frame.arguments[op]]
      todo.append(_cause(frame.parent, argument))
    else:
      whole = _Need(frame, op, -1)  # whichever output was asked for
      if whole not in done:
        done.add(whole)
        yield op
        todo += [_cause(frame, x) for x in op.inputs]
        todo += [_Need(frame, cause, None) for cause in op.control_inputs]


def _cause(frame: _Frame, tensor: Any) -> _Need:
  return _Need(frame, tensor.op, tensor.value_index)


def _results(frame: _Frame) -> list[_Need]:
  needs = [_cause(frame, tensor) for tensor in frame.graph.outputs]
  return needs + _control_results(frame)


def _control_results(frame: _Frame) -> list[_Need]:
  return [_Need(frame, op, None) for op in frame.graph.control_outputs]


def _function(op: Operation, name: str) -> Any:
  """Returns the graph of a function that an operation calls."""
  # There is no public way to it; a test notices if this one closes.
  graph, function = op.graph, None
  while function is None and graph is not None:
    function = graph._get_function(name)
    graph = getattr(graph, "outer_graph", None)
  if function is None:
    raise ValueError(
      f"the function `{name}` of `{op.name}` is not in its graph"
    )
  return function.graph


def _bodies(op: Operation) -> list[Any]:
  """Returns the graphs that a branch chooses from, or that a loop repeats."""
  names = {
    **dict.fromkeys(("If", "StatelessIf"), ("then_branch", "else_branch")),
    **dict.fromkeys(_LOOPS, ("cond", "body")),
  }
  if op.type in names:
    functions = [op.get_attr(name) for name in names[op.type]]
  else:
    functions = op.get_attr("branches")
  return [_function(op, function.name) for function in functions]


def _num_iterations(op: Operation) -> int:
  # `tf.while_loop` keeps a counter and `maximum_iterations` before the rest.
  limit = op.inputs[1] if len(op.inputs) > 1 else None
  value = None if limit is None else tf.get_static_value(limit)
  return (
    int(value) if value is not None and value.ndim == 0 and value >= 0 else 1
  )


# ---------------------------------------------------------------- formulas


def _shape(op: Operation, tensor: Any) -> Shape:
  if not tensor.shape.is_fully_defined():
    raise ValueError(
      f"`{op.name}` has an operand of shape {tensor.shape}: operations can be "
      "counted in graphs of static shapes only"
    )
  return tuple(tensor.shape)


def _convolution(
  op: Operation, output: Any, kernel: Any, depthwise: bool = False
) -> int:
  """Counts a sum over the kernel's window and input channels for each output.

  Those that go backwards have the same products, summed otherwise.
  """
  num_summed = math.prod(_shape(op, kernel)[: 2 if depthwise else 3])
  return 2 * math.prod(_shape(op, output)) * num_summed


def _matrix_product(op: Operation, transposed: str) -> int:
  shape = _shape(op, op.inputs[0])
  num_summed = shape[-2] if op.get_attr(transposed) else shape[-1]
  return 2 * math.prod(_shape(op, op.outputs[0])) * num_summed


def _einsum(op: Operation) -> int:
  """Multiplies all labels' sizes, if some of them are summed over."""
  terms, result = op.get_attr("equation").decode().split("->")
  sizes: dict[str, int] = {}
  for labels, tensor in zip(terms.split(","), op.inputs, strict=True):
    shape = _shape(op, tensor)
    num_others = len(shape) - len(labels.replace("...", ""))
    # The axes behind an ellipsis are counted from the last one.
    others = "".join(str(i) for i in reversed(range(num_others)))
    for label, size in zip(labels.replace("...", others), shape, strict=True):
      sizes[label] = max(sizes.get(label, 1), size)
  summed = [x for x in sizes if not x.isdigit() and x not in result]
  is_product = len(op.inputs) > 1 and bool(summed)
  return 2 * math.prod(sizes.values()) if is_product else 0


_FORMULAS: dict[str, Callable[[Operation], int]] = {
  "Conv2D": lambda op: _convolution(op, op.outputs[0], op.inputs[1]),
  "Conv2DBackpropInput": lambda op: _convolution(
    op, op.inputs[2], op.inputs[1]
  ),
  "Conv2DBackpropFilter": lambda op: _convolution(
    op, op.inputs[2], op.outputs[0]
  ),
  "DepthwiseConv2dNative": lambda op: _convolution(
    op, op.outputs[0], op.inputs[1], depthwise=True
  ),
  "DepthwiseConv2dNativeBackpropInput": lambda op: _convolution(
    op, op.inputs[2], op.inputs[1], depthwise=True
  ),
  "DepthwiseConv2dNativeBackpropFilter": lambda op: _convolution(
    op, op.inputs[2], op.outputs[0], depthwise=True
  ),
  "MatMul": lambda op: _matrix_product(op, "transpose_a"),
  "BatchMatMul": lambda op: _matrix_product(op, "adj_x"),
  "BatchMatMulV2": lambda op: _matrix_product(op, "adj_x"),
  "BatchMatMulV3": lambda op: _matrix_product(op, "adj_x"),
  "Einsum": _einsum,
}
