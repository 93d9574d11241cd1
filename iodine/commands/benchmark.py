"""How fast a model is on this machine, and what it costs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tabulate
import tensorflow as tf

from iodine import (
  benchmark,
  building,
  errors,
  files,
  optimizers,
  synthetic,
  training,
  validation,
)
from iodine.commands import common
from iodine.modules import data as data_lib
from iodine.modules import iodine

Config = common.Config

# What is measured besides the training step, in this order.
PARTS = ("eval", "segmentation", "input")

# Where the data set is not there, so many scenes stand in for it.
_NUM_GENERATED = 32


class Options(NamedTuple):
  """What is measured, see `configs/base.py`."""

  steps: int
  warmup: int
  parts: tuple[str, ...]


def run(config: Config, script: str) -> dict[str, Any]:
  """Measures a config; table and JSON, and a picture of a sweep.

  Args:
    config: the complete config. No data is needed, nor is a checkpoint.
    script: path of `main.py`, which measures every point of a sweep in a
      process of its own.

  Returns:
    The figures that `json_path` gets, see `benchmarking.Figures.as_json`.

  Raises:
    errors.UserError: if an option or the model's config makes no sense, or a
      point of a sweep could not be measured.
  """
  options = _options(config["benchmark"])
  points = benchmark.read(config["benchmark"])
  common.require_experiment(config["data"])
  common.require_experiment(config["model"])
  if config["json_path"] is not None:
    files.check_writable(config["json_path"])
  result: dict[str, Any]
  if points:
    files.make_folder(benchmark.pictures_folder(config))
    # In a process of its own like the points, so that memory compares.
    print("measuring the config itself", flush=True)
    result = benchmark.measure_in_child(config, options.parts, script)
  else:
    result = _measure(config, options)
  print(_table(result), flush=True)
  if points:
    result.update(benchmark.run(config, points, script))
  if config["json_path"] is not None:
    files.write_json(config["json_path"], result)
    print(f"figures: {config['json_path']}", flush=True)
  benchmark.require_all(result.get("sweep", ()))
  return result


def _options(options: Any) -> Options:
  if not isinstance(options, Mapping):
    raise errors.UserError(
      f"`benchmark` is {options!r}: give its entries, such as "
      "`benchmark.steps=10`"
    )
  for name, least in (("steps", 1), ("warmup", 0)):
    value = options[name]
    if not validation.is_whole(value, least):
      raise errors.UserError(
        f"`benchmark.{name}` is {value!r}: give a whole number, at least "
        f"{least}"
      )
  parts = options["parts"]
  if not isinstance(parts, (list, tuple)) or not all(
    part in PARTS for part in parts
  ):
    raise errors.UserError(
      f"`benchmark.parts` is {parts!r}: give a list of some of "
      f"{', '.join(PARTS)}, or []"
    )
  return Options(options["steps"], options["warmup"], tuple(parts))


# ---------------------------------------------------------------- measuring


class _Subject(NamedTuple):
  """What is measured."""

  dataset: data_lib.IODINEDataset
  model: iodine.IODINE
  batch: dict[str, Any]


def _measure(config: Config, options: Options) -> dict[str, Any]:
  """Measures the training step first, then the other parts."""
  load = os.getloadavg()[0]
  dataset = common.build_dataset(config["data"], config["seed"])
  baseline = benchmark.peak_memory_bytes()
  model = common.build_model(config["model"], dataset.image_shape)
  evaluator = config["model"].get("factor_evaluator") or {}
  batch = benchmark.synthetic_batch(dataset, evaluator.get("mapping", ()))
  subject = _Subject(dataset, model, batch)
  try:
    # The training step before all else, for its time since the start of the
    # process and for its memory.
    result = _measure_training(config, options, subject)
    peak = benchmark.peak_memory_bytes()
    result["peak_memory_bytes"] = peak
    # Linux adds up memory by thread, and is off by some pages.
    result["peak_memory_growth_bytes"] = max(peak - baseline, 0)
    result["gpu_peak_memory_bytes"] = benchmark.gpu_peak_memory_bytes()
    for part, graph in _inference(subject).items():
      if part in options.parts:
        compiled = tf.function(graph, autograph=False)
        result[part] = _measure_inference(part, compiled, options, subject)
  except common.CONFIG_ERRORS as error:
    raise common.misfit(dataset.image_shape, error) from error
  if "input" in options.parts:
    result["input"] = _measure_input(config, options, dataset)
  return {**result, **_circumstances(config, subject), "load_average": load}


def _measure_training(
  config: Config, options: Options, subject: _Subject
) -> dict[str, Any]:
  model, batch = subject.model, subject.batch
  optimizer: optimizers.Adam = building.build(config["optimizer"], "optimizer")
  optimizer.initialize(model.trainable_variables)
  step = training.CompiledStep(
    model, optimizer, config["seed"], config["jit_compile"]
  )
  print("training step: tracing", flush=True)
  first = benchmark.first_call(lambda: step.trace(batch), lambda: step(batch))
  since_start = benchmark.seconds_since_start()
  print(f"first step done {since_start:.1f} s after the start", flush=True)
  figures = benchmark.measure(
    first,
    lambda: step(batch),
    subject.dataset.batch_size,
    options.steps,
    options.warmup,
    benchmark.MatmulRate(),
    _progress("training step", options.steps),
  )
  return {
    **figures.as_json(),
    "start_to_first_step_seconds": since_start,
    "num_traces": step.num_traces,
  }


def _inference(
  subject: _Subject,
) -> dict[str, Callable[[dict[str, Any]], Any]]:
  """The functions of a batch that users of a trained model call."""
  model, seed = subject.model, tf.constant([0, 0])
  return {
    "eval": lambda data: model.eval(data, seed=seed, update=False),
    "segmentation": lambda data: benchmark.segment(model, data["image"], seed),
  }


def _measure_inference(
  part: str, compiled: Any, options: Options, subject: _Subject
) -> dict[str, Any]:
  print(f"{part}: tracing", flush=True)
  return benchmark.measure(
    benchmark.first_call(
      lambda: compiled.get_concrete_function(subject.batch),
      lambda: compiled(subject.batch),
    ),
    lambda: compiled(subject.batch),
    subject.dataset.batch_size,
    options.steps,
    options.warmup,
    benchmark.MatmulRate(),
    _progress(part, options.steps),
  ).as_json()


def _measure_input(
  config: Config, options: Options, dataset: data_lib.IODINEDataset
) -> dict[str, Any] | None:
  """The input pipeline alone; None where there is nothing to read."""
  if benchmark.has_files(dataset.path):
    source = f"the scenes of {dataset.path}"
    print(f"input: reading {source}", flush=True)
    return {**_input_figures(dataset, options), "source": source}
  if dataset.generator_name is None:
    return None
  source = f"{_NUM_GENERATED} generated scenes, not filtered"
  print(f"input: {dataset.path} is not there, reading {source}", flush=True)
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "generated.tfrecords")
    synthetic.write_dataset(
      dataset.generator_name, path, _NUM_GENERATED, config["seed"]
    )
    options_here = {
      "path": path,
      "train": None,
      "min_num_objects": None,
      "max_num_objects": None,
    }
    generated = common.build_dataset(
      {**config["data"], **options_here}, config["seed"]
    )
    return {**_input_figures(generated, options), "source": source}


def _input_figures(
  dataset: data_lib.IODINEDataset, options: Options
) -> dict[str, Any]:
  return {
    **benchmark.measure_pipeline(dataset, options.steps)._asdict(),
    "decoding": benchmark.measure_decoding(dataset)._asdict(),
  }


def _circumstances(config: Config, subject: _Subject) -> dict[str, Any]:
  """What the figures depend on."""
  model = subject.model
  return {
    "batch_size": subject.dataset.batch_size,
    "num_components": model.num_components,
    "num_iters": model.num_iters,
    "image_shape": list(subject.dataset.image_shape),
    "num_parameters": sum(
      v.shape.num_elements() for v in model.trainable_variables
    ),
    "model": config["model"],
    "jit_compile": config["jit_compile"],  # of the training step only
    "num_cores": os.cpu_count(),
    "gpus": len(tf.config.list_physical_devices("GPU")),
    "tensorflow": tf.__version__,
  }


def _progress(part: str, steps: int) -> Callable[[int], None]:
  """Prints how far a part is, about five times in all."""

  def show(done: int) -> None:
    if done == steps or done % max(1, steps // 5) == 0:
      print(f"{part}: {done}/{steps} steps", flush=True)

  return show


# ---------------------------------------------------------------- the table


def _table(result: Mapping[str, Any]) -> str:
  """All figures as text."""
  columns = {
    "training step": result,
    **{part: result[part] for part in PARTS[:2] if part in result},
  }
  rows = [[name, *map(show, columns.values())] for name, show in _ROWS.items()]
  height, width, _ = result["image_shape"]
  title = (
    f"\n{result['batch_size']} images of {height}x{width}, "
    f"{result['num_components']} slots, {result['num_iters']} refinements, "
    f"{result['num_parameters']:,} parameters, {result['num_cores']} cores, "
    f"{result['gpus'] or 'no'} GPU, load {result['load_average']:.1f} before"
  )
  lines = [
    title,
    tabulate.tabulate(
      rows, headers=("", *columns), colalign=("left",), stralign="right"
    ),
    f"start of the process to the first training step done: "
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


def _describe_input(figures: Mapping[str, Any] | None) -> str:
  if figures is None:
    return "not measured, as there is neither data nor a generator"
  return (
    f"{figures['scenes_per_second']:.1f} scenes/s after "
    f"{figures['first_batch_seconds']:.1f} s for the first batch, from "
    f"{figures['source']}; a scene is decoded in "
    f"{1e3 * figures['decoding']['seconds']:.2f} ms, the time of tf.io divided "
    f"by {figures['decoding']['speedup']:.1f}"
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
