"""Measures the parts of a config, one after the other."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from iodine import (
  building,
  devices,
  optimizers,
  replicas,
  synthetic,
  training,
  validation,
)
from iodine.benchmark import measuring, process_cost
from iodine.modules import data as data_lib
from iodine.modules import iodine

Config = Mapping[str, Any]

INFERENCE = ("eval", "segmentation")
# What is measured besides the training step, in this order.
PARTS = (*INFERENCE, "input")

# Where the data set is not there, so many scenes stand in for it.
_NUM_GENERATED = 32


class Options(NamedTuple):
  """What is measured, see `configs/defaults.py`."""

  steps: int
  warmup: int
  parts: tuple[str, ...]


def read_options(options: Any) -> Options:
  """Reads the entry `benchmark` of a config.

  Raises:
    errors.UserError: if something in it makes no sense.
  """
  need = "its entries, such as `benchmark.steps=10`"
  validation.require(isinstance(options, Mapping), "benchmark", options, need)
  validation.check_whole("benchmark.steps", options["steps"], 1)
  validation.check_whole("benchmark.warmup", options["warmup"], 0)
  parts = options["parts"]
  validation.require(
    validation.is_list(parts) and all(part in PARTS for part in parts),
    "benchmark.parts",
    parts,
    f"a list of some of {', '.join(PARTS)}, or []",
  )
  return Options(options["steps"], options["warmup"], tuple(parts))


class _Subject(NamedTuple):
  """What is measured."""

  dataset: data_lib.IODINEDataset
  model: iodine.IODINE
  batch: dict[str, Any]
  strategy: tf.distribute.Strategy


def measure(config: Config, options: Options) -> dict[str, Any]:
  """Measures the training step first, then the other parts; shows progress.

  Args:
    config: the complete config. No data is needed, nor is a checkpoint.
    options: what is measured.

  Returns:
    The measurements of the training step, see `measuring.Measurements.as_json`,
    those of each other part under its name, and what they depend on.

  Raises:
    errors.UserError: if the config makes no sense.
  """
  load = os.getloadavg()[0]
  # Before TensorFlow computes anything.
  strategy = replicas.make_strategy(config)
  dataset = _dataset(config)
  replicas.check_batch_size(strategy, dataset.batch_size)
  baseline = process_cost.peak_memory_bytes()
  with replicas.scope(strategy):
    model: iodine.IODINE = building.build(config["model"], "model")
    model.initialize(dataset.image_shape)
  evaluator = config["model"].get("factor_evaluator") or {}
  batch = measuring.synthetic_batch(
    dataset,
    evaluator.get("mapping", ()),
    # A data set of one's own may say nothing of films.
    num_frames=getattr(dataset, "num_frames", 1),
  )
  subject = _Subject(dataset, model, batch, strategy)
  # The training step before all else, for its time since the start of the
  # process and for its memory.
  result = _measure_training(config, options, subject)
  peak = process_cost.peak_memory_bytes()
  result["peak_memory_bytes"] = peak
  # Linux adds up memory by thread, and is off by some pages.
  result["peak_memory_growth_bytes"] = max(peak - baseline, 0)
  result["gpu_peak_memory_bytes"] = process_cost.gpu_peak_memory_bytes()
  for part, graph in _inference(subject).items():
    if part in options.parts:
      compiled = tf.function(graph, autograph=False)
      result[part] = _measure_inference(part, compiled, options, subject)
  if "input" in options.parts:
    result["input"] = _measure_input(config, options, dataset)
  return {**result, **_circumstances(config, subject), "load_average": load}


def _measure_training(
  config: Config, options: Options, subject: _Subject
) -> dict[str, Any]:
  model, strategy = subject.model, subject.strategy
  with replicas.scope(strategy):
    optimizer: optimizers.Adam = building.build(
      config["optimizer"], "optimizer"
    )
    optimizer.initialize(model.trainable_variables)
  step = training.compile_step(
    model,
    optimizer,
    config["seed"],
    devices.uses_xla(config["jit_compile"]),
    num_replicas=strategy.num_replicas_in_sync,
  )
  feed = training.Feed(measuring.Noise(subject.batch), strategy)
  make_steps = training.compile_steps(step, strategy, feed.expand)
  steps_per_call = training.steps_per_call(config["steps_per_call"])
  arguments = (feed.batches, tf.constant(steps_per_call))
  print("training step: tracing", flush=True)
  first = measuring.first_call(
    lambda: make_steps.get_concrete_function(*arguments),
    lambda: make_steps(*arguments),
  )
  since_start = process_cost.seconds_since_start()
  print(f"first step done {since_start:.1f} s after the start", flush=True)
  measured = measuring.measure(
    first,
    lambda: make_steps(*arguments),
    subject.dataset.batch_size,
    options.steps,
    options.warmup,
    measuring.MatmulRate(),
    _progress("training step", options.steps),
    steps_per_call,
  )
  return {
    **measured.as_json(),
    "start_to_first_step_seconds": since_start,
    "steps_per_call": steps_per_call,
    "replicas": strategy.num_replicas_in_sync,
    "num_traces": make_steps.experimental_get_tracing_count(),
  }


def _inference(
  subject: _Subject,
) -> dict[str, Callable[[dict[str, Any]], Any]]:
  """Returns the functions of a batch that users of a trained model call."""
  model, seed = subject.model, tf.constant([0, 0])
  return {
    "eval": lambda data: model.eval(data, seed=seed, update=False),
    "segmentation": lambda data: measuring.segment(model, data["image"], seed),
  }


def _measure_inference(
  part: str, compiled: Any, options: Options, subject: _Subject
) -> dict[str, Any]:
  print(f"{part}: tracing", flush=True)
  return measuring.measure(
    measuring.first_call(
      lambda: compiled.get_concrete_function(subject.batch),
      lambda: compiled(subject.batch),
    ),
    lambda: compiled(subject.batch),
    subject.dataset.batch_size,
    options.steps,
    options.warmup,
    measuring.MatmulRate(),
    _progress(part, options.steps),
  ).as_json()


def _measure_input(
  config: Config, options: Options, dataset: data_lib.IODINEDataset
) -> dict[str, Any] | None:
  """Measures the input pipeline alone; None where there is nothing to read."""
  if measuring.has_files(dataset.path):
    source = f"the scenes of {dataset.path}"
    print(f"input: reading {source}", flush=True)
    return {**_read_and_decode(dataset, options), "source": source}
  if dataset.generator_name is None:
    return None
  source = f"{_NUM_GENERATED} generated scenes, not filtered"
  print(f"input: {dataset.path} is not there, reading {source}", flush=True)
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "generated.tfrecords")
    synthetic.write_dataset(
      dataset.generator_name, path, _NUM_GENERATED, config["seed"]
    )
    has_cache = config["data"].get("cache") is not None
    options_here = {
      "path": path,
      "cache": os.path.join(folder, "cache") if has_cache else None,
      "train": None,
      "min_num_objects": None,
      "max_num_objects": None,
    }
    generated = _dataset({**config, "data": {**config["data"], **options_here}})
    return {**_read_and_decode(generated, options), "source": source}


def _read_and_decode(
  dataset: data_lib.IODINEDataset, options: Options
) -> dict[str, Any]:
  measured = measuring.measure_pipeline(dataset, options.steps)._asdict()
  if isinstance(dataset, data_lib.IODINEDataset):
    decoding = measuring.measure_decoding(dataset)
    measured["decoding"] = decoding._asdict()
  return measured


def _circumstances(config: Config, subject: _Subject) -> dict[str, Any]:
  """Returns what the measurements depend on."""
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
    # Of the training step only.
    "jit_compile": devices.uses_xla(config["jit_compile"]),
    "num_cores": os.cpu_count(),
    "gpus": len(tf.config.list_physical_devices("GPU")),
    **devices.describe(config),
  }


def _progress(part: str, steps: int) -> Callable[[int], None]:
  """Prints how far a part is, about five times in all."""

  def show(done: int) -> None:
    if done == steps or done % max(1, steps // 5) == 0:
      print(f"{part}: {done}/{steps} steps", flush=True)

  return show


def _dataset(config: Config) -> data_lib.IODINEDataset:
  """Builds the data set; its order follows the seed of the config."""
  return building.build({"seed": config["seed"], **config["data"]}, "data")
