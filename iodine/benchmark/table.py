"""The measurements of a config as text for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tabulate

from iodine.benchmark import parts


def text(result: Mapping[str, Any]) -> str:
  """Returns the measurements of a config as text, see `parts.measure`."""
  columns = {
    "training step": result,
    **{part: result[part] for part in parts.INFERENCE if part in result},
  }
  rows = [[name, *map(show, columns.values())] for name, show in _ROWS.items()]
  height, width, _ = result["image_shape"]
  lines = [
    f"\n{result['batch_size']} images of {height}x{width}, "
    f"{result['num_components']} slots, {result['num_iters']} refinements, "
    f"{result['num_parameters']:,} parameters, {result['num_cores']} cores, "
    f"GPUs: {result['gpus']}, replicas: {result['replicas']}, "
    f"steps a call: {result['steps_per_call']}",
    tabulate.tabulate(
      rows, headers=("", *columns), colalign=("left",), stralign="right"
    ),
    "start of the process to the first training step done: "
    f"{result['start_to_first_step_seconds']:.1f} s, no data read",
    f"traces of the training step: {result['num_traces']}",
    f"peak memory of training: {_megabytes(result['peak_memory_bytes'])}, "
    f"{_megabytes(result['peak_memory_growth_bytes'])} more than before the "
    "model was built",
  ]
  if result["gpu_peak_memory_bytes"] is not None:
    lines.append(f"GPU: {_megabytes(result['gpu_peak_memory_bytes'])}")
  if "input" in result:
    lines.append(f"input pipeline alone: {_describe_input(result['input'])}")
  return "\n".join(lines)


def _describe_input(measured: Mapping[str, Any] | None) -> str:
  if measured is None:
    return "not measured, as there is neither data nor a generator"
  return (
    f"{measured['scenes_per_second']:.1f} scenes/s after "
    f"{measured['first_batch_seconds']:.1f} s for the first batch, from "
    f"{measured['source']}"
  )


def _megabytes(number: float) -> str:
  return f"{number / 1e6:,.0f} MB"


def _quartiles(spread: Mapping[str, float], digits: int) -> str:
  low, high = spread["lower_quartile"], spread["upper_quartile"]
  return f"{low:.{digits}f} to {high:.{digits}f}"


_ROWS: dict[str, Callable[[Mapping[str, Any]], str]] = {
  "trace [s]": lambda x: f"{x['trace_seconds']:.2f}",
  "first call [s]": lambda x: f"{x['first_step_seconds']:.2f}",
  "call, median [s]": lambda x: f"{x['step_seconds_median']:.4f}",
  "call, middle half [s]": lambda x: _quartiles(x["step_seconds"], 4),
  "call, fastest [s]": lambda x: f"{x['step_seconds']['min']:.4f}",
  "images/s": lambda x: f"{x['images_per_second']:.2f}",
  "GFLOP": lambda x: f"{x['flops_per_step'] / 1e9:.3f}",
  "GFLOP/s": lambda x: f"{x['gflops']:.1f}",
  "matrix product, GFLOP/s": lambda x: f"{x['matmul_gflops']:.1f}",
  "its middle half": lambda x: _quartiles(x["matmul_gflops_spread"], 1),
  "share of its rate": lambda x: f"{x['share_of_matmul']:.1%}",
  "share, fastest of both": lambda x: f"{x['share_of_matmul_fastest']:.1%}",
}
