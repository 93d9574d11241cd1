"""Measures the parts of a config, one after the other."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from iodine import building, devices, replicas, synthetic, training
from iodine.benchmark import measuring, process_cost
from iodine.modules import datasets, iodine

Config = Mapping[str, Any]

INFERENCE = ("eval", "segmentation")

# Where the data set is not there, so many scenes stand in for it.
_NUM_GENERATED = 32


def measure(config: Config) -> dict[str, Any]:
  """Measures the training step first, then the other parts; shows progress.

  Args:
    config: the complete config. No data is needed, nor is a checkpoint.

  Returns:
    The measurements of the training step, see `measuring.measure`, those of
    each other part under its name, and what they depend on.
  """
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
  # The training step before all else, for its time since the start of the
  # process and for its memory.
  result = _measure_training(config, model, batch, strategy)
  peak = process_cost.peak_memory_bytes()
  result["peak_memory_bytes"] = peak
  # Linux adds up memory by thread, and is off by some pages.
  result["peak_memory_growth_bytes"] = max(peak - baseline, 0)
  result["gpu_peak_memory_bytes"] = process_cost.gpu_peak_memory_bytes()
  parts = config["benchmark"]["parts"]
  for part in INFERENCE:
    if part in parts:
      result[part] = _measure_inference(part, config, model, batch)
  if "input" in parts:
    result["input"] = _measure_input(config, dataset)
  return {
    **result,
    # What the measurements depend on.
    "batch_size": dataset.batch_size,
    "num_components": model.num_components,
    "num_iters": model.num_iters,
    "image_shape": list(dataset.image_shape),
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


def _measure_training(
  config: Config,
  model: iodine.IODINE,
  batch: dict[str, Any],
  strategy: tf.distribute.Strategy,
) -> dict[str, Any]:
  with replicas.scope(strategy):
    optimizer = building.build(config["optimizer"], "optimizer")
    optimizer.initialize(model.trainable_variables)
  step = training.compile_step(
    model,
    optimizer,
    config["seed"],
    devices.uses_xla(config["jit_compile"]),
    num_replicas=strategy.num_replicas_in_sync,
  )
  feed = training.Feed(measuring.Noise(batch), strategy)
  make_steps = training.compile_steps(step, strategy, feed.expand)
  steps_per_call = training.steps_per_call(config["steps_per_call"])
  since_start = process_cost.seconds_since_start()
  measured = measuring.measure(
    "training step",
    make_steps,
    (feed.batches, tf.constant(steps_per_call)),
    batch["image"].shape[0],
    config["benchmark"]["steps"],
    config["benchmark"]["warmup"],
    steps_per_call,
  )
  since_start += measured["trace_seconds"] + measured["first_step_seconds"]
  return {
    **measured,
    "start_to_first_step_seconds": since_start,
    "steps_per_call": steps_per_call,
    "replicas": strategy.num_replicas_in_sync,
    "num_traces": make_steps.experimental_get_tracing_count(),
  }


def _measure_inference(
  part: str, config: Config, model: iodine.IODINE, batch: dict[str, Any]
) -> dict[str, Any]:
  """Measures what users of a trained model call."""
  seed = tf.constant([0, 0])

  def call(data: dict[str, Any]) -> dict[str, Any]:
    if part == "eval":
      return model.eval(data, seed=seed, update=False)
    return measuring.segment(model, data["image"], seed)

  return measuring.measure(
    part,
    tf.function(call, autograph=False),
    (batch,),
    batch["image"].shape[0],
    config["benchmark"]["steps"],
    config["benchmark"]["warmup"],
  )


def _measure_input(
  config: Config, dataset: datasets.SceneDataset
) -> dict[str, Any] | None:
  """Measures the input pipeline alone; None where there is nothing to read."""
  steps = config["benchmark"]["steps"]
  # Of anybody's own, all is there.
  place = getattr(dataset, "path", None)
  if place is None or tf.io.gfile.glob(place):
    source = f"the scenes of {place or type(dataset).__name__}"
    print(f"input: reading {source}", flush=True)
    return {**measuring.measure_input(dataset, steps), "source": source}
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
    data = {
      **config["data"],
      "path": path,
      "cache": os.path.join(folder, "cache") if has_cache else None,
      "train": None,
      "min_num_objects": None,
      "max_num_objects": None,
    }
    generated = _dataset({**config, "data": data})
    return {**measuring.measure_input(generated, steps), "source": source}


def _dataset(config: Config) -> datasets.SceneDataset:
  """Builds the data set; its order follows the seed of the config."""
  return building.build({"seed": config["seed"], **config["data"]}, "data")
