"""What `iodine` offers, in functions; TensorFlow is imported by their calls.

Dimensions: N images or scenes, B batch, K slots, H W C image of the model,
H' W' image as it comes, Z latent size.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from iodine import pretrained

if TYPE_CHECKING:
  from iodine import evaluation, segmentation, training
  from iodine.modules.iodine import IODINE


# At most, of a tenth of the scenes of arrays.
_HELD_OUT = 100


def load_config(
  name: str | Sequence[str], updates: Mapping[str, Any] | None = None
) -> dict[str, Any]:
  """Returns the complete config of an experiment as a plain dict.

  Args:
    name: a named config, such as "tetrominoes", the path of a JSON file with
      one, or several, later ones after earlier ones.
    updates: nested or dotted keys, as at the command line.

  Raises:
    iodine.errors.UserError: if a name or a key is unknown, or a file names
      code that is not trusted, see `iodine.trust`.

  Example:
    >>> config = iodine.load_config("own", {"image_dim": [16, 16]})
    >>> config["num_components"], config["model"]["num_components"]
    (3, 3)
  """
  main = importlib.import_module("iodine.main")
  return main.get_config((name,) if isinstance(name, str) else name, updates)


def restore(
  path: str | os.PathLike[str], config: Mapping[str, Any] | None = None
) -> tuple[IODINE, Mapping[str, Any]]:
  """Restores a model with the config that it was trained with.

  Args:
    path: folder or prefix of a checkpoint, of this project or of the original;
      or a packed model.
    config: as `load_config` gives it; None for the `config.json` beside the
      checkpoint, which those of the original (TF1) do not have.

  Returns:
    (model, config); the model is for images [B, H, W, C], see `decompose`.

  Raises:
    iodine.errors.UserError: if the checkpoint or the config is missing or
      broken, they do not fit each other, or the config beside the checkpoint
      names code that is not trusted, see `iodine.trust`.

  Example:
    >>> model, config = iodine.restore("runs/tiny_1")
    >>> model.num_components, model.num_iters  # K, refinements
    (3, 1)
  """
  from iodine import checkpoints

  return checkpoints.restore_model(path, config)


def segment(
  images: Any,
  checkpoint: str | os.PathLike[str] = pretrained.TETROMINOES,
  config: Mapping[str, Any] | None = None,
  seed: int | None = None,
  batch_size: int = 1,
) -> segmentation.Segmentation | list[segmentation.Segmentation]:
  """Decomposes images with the model of a checkpoint.

  It is opened and compiled at the first call, and again where the files of the
  checkpoint have changed.

  Args:
    images: one image: the path of a file, a PIL image, or an array [H', W', C],
      uint8 or floating-point in [0, 1]. Or several: a folder, a glob, a list of
      images, or an array [N, H', W', C]. The largest region in the middle with
      the proportions of the model's images is resized to them.
    checkpoint: folder or prefix of a checkpoint, or a packed model; the model
      which comes with the project if it is not given.
    config: the config that the model was trained with, as `load_config`
      gives it; None for the `config.json` beside the checkpoint, which those
      of the original (TF1) do not have.
    seed: the latents are sampled from it; None for the config's.
    batch_size: how many images are decomposed at a time. What comes of one is
      the same for every size, but for rounding.

  Returns:
    masks [K, H, W], components [K, H, W, C], reconstruction, latents and so
    on, see `iodine.segmentation.Segmentation`; of several images a list of
    these, in their order.

  Raises:
    iodine.errors.UserError: if an image, the checkpoint or the config is
      missing or broken, they do not fit each other, or the config beside the
      checkpoint names code that is not trusted, see `iodine.trust`.

  Example:
    >>> found = iodine.segment("a.png", "runs/tiny_1")
    >>> found
    Segmentation of a.png: 3 slots, 8 x 8
    >>> found.masks.shape, found.labels().shape
    ((3, 8, 8), (8, 8))
    >>> len(iodine.segment(["a.png", "b.png"], "runs/tiny_1"))
    2
  """
  from iodine import segmentation

  return segmentation.opened(checkpoint, config, batch_size)(images, seed)


def decompose(
  model: IODINE, images: Any, seed: int = 0, batch_size: int = 1
) -> segmentation.Segmentation:
  """Decomposes images with a model at hand: restored, trained or built.

  It refines `model.num_iters` times, which may be set. The images of a batch
  depend on each other where the model has no `refinement_batch_size`;
  `restore` and `train` give it one.

  Args:
    model: with its variables.
    images: [H', W', C] or [B, H', W', C], uint8 or floating-point in [0, 1].
      They are brought to the model's size, see `segment`.
    seed: the latents are sampled from it.
    batch_size: how many images are decomposed at a time.

  Returns:
    masks [B, K, H, W], components [B, K, H, W, C], reconstruction
    [B, H, W, C], latents, latents_mean and latents_std [B, K, Z], and image
    [B, H, W, C]; without B for one image.

  Raises:
    iodine.errors.UserError: if these are no images.

  Example:
    >>> model, _ = iodine.restore("runs/tiny_1")
    >>> found = iodine.decompose(model, np.zeros([2, 8, 8, 3]))
    >>> latents = found.latents.copy()  # [B, K, Z]
    >>> latents[:, 1, 0] += 2.0
    >>> model.decode(latents).image.shape  # [B, H, W, C]
    TensorShape([2, 8, 8, 3])
  """
  from iodine import segmentation

  return segmentation.decompose(model, images, seed, batch_size)


def train(
  config_or_model: Mapping[str, Any] | IODINE,
  data: Any = None,
  steps: int | None = None,
  on_report: Callable[[int, Mapping[str, float]], None] | None = None,
  config: Mapping[str, Any] | None = None,
) -> training.Outcome:
  """Trains as `python main.py` does, with checkpoints in a folder of the run.

  The folder is `checkpoint_dir` of the config with a number. Ctrl-C, and
  `signal.raise_signal(signal.SIGINT)` in `on_report`, save and end it.

  Args:
    config_or_model: a config, as `load_config` gives it; or a model with
      variables, which is trained from there on, with a new optimizer.
    data: images [N, H', W', 1 or 3], uint8 or floating-point in [0, 1]; a dict
      of arrays, `image` and what docs/own_data.md lists, such as `mask`
      [N, H', W']; a data set, as `build(config["data"])` gives it; None for the
      config's. A tenth of arrays, at most 100 scenes, is held out. Images get
      the size `data.image_dim` of the config, if it has one.
    steps: the step after which it ends; None for the config's.
    on_report: takes the step and {name: value} of all scalars, at every report
      (`save_summaries_steps`) and validation (`validate_every`). An error of
      it ends the training, which is saved.
    config: how a model is trained, if one is given.

  Returns:
    model, checkpoint (the prefix of the last one), step, and interrupted_by,
    the signal that ended it, or None.

  Raises:
    iodine.errors.UserError: if the config, the data or the folder is no good,
      or the training diverges.

  Example:
    >>> updates = {"image_dim": [8, 8], "num_iters": 1, "stages": []}
    >>> updates |= {"batch_size": 2, "checkpoint_dir": "runs/tiny"}
    >>> config = iodine.load_config("own", updates)
    >>> images = np.zeros([20, 8, 8, 3], np.uint8)
    >>> iodine.train(config, images, steps=1, on_report=print)
    Training up to step 1: runs/tiny_1/ckpt-1
  """
  from iodine import config_files, devices, errors, kinds, training
  from iodine.commands import common
  from iodine.commands import train as command

  model = None
  if isinstance(config_or_model, Mapping):
    config = config_or_model
  elif config is None:
    raise errors.UserError(
      "a model does not say how it is trained: give `config=`, too, as "
      "`iodine.restore` or `iodine.load_config` returns it"
    )
  else:
    model, config = config_or_model, {**config, "stages": []}
  config_files.check_complete(config)
  run = config_files.as_trained(config)
  if steps is not None:
    kinds.check("steps", steps, kinds.Positive)
    run["stop_after_steps"] = steps
  if data is not None:
    data, run["data"] = common.in_memory(
      data, run["data"], held_out=_HELD_OUT, seed=run["seed"]
    )
  devices.set_up(run)
  folder = training.run_folder.RunFolder.find(
    run["checkpoint_dir"], None, run["continue_run"]
  )
  with training.heard_by(on_report):
    return command.run(run, folder, dataset=data, model=model)


def evaluate(
  model: IODINE | str | os.PathLike[str] | Mapping[str, Any],
  data: Any = None,
  num_scenes: int | None = None,
  seeds: int = 1,
  seed: int = 0,
  batch_size: int = 8,
) -> evaluation.Evaluation:
  """Measures a model on every scene once, as `python main.py evaluate` does.

  Args:
    model: a model with variables, which refines `model.num_iters` times; the
      path of a checkpoint; or a config, whose `checkpoint_dir` is one. Those
      refine `evaluation.num_iters` times, where the config has that.
    data: images [N, H', W', 1 or 3], a dict of arrays, or a data set, see
      `train`. All scenes count, of a data set those of `data.test`. None for
      the held-out scenes of the checkpoint's config. Without masks there is no
      ARI.
    num_scenes: stop after so many; None for all.
    seeds: how often the latents are sampled: from seed, seed + 1 and so on.
    seed: see `seeds`.
    batch_size: how many scenes of arrays are decomposed at a time.

  Returns:
    metrics {name: mean, standard_error, standard_deviation}, per_iteration and
    so on, see `iodine.evaluation.Evaluation`.

  Raises:
    iodine.errors.UserError: if there is no such checkpoint, or no scene.

  Example:
    >>> scenes = {"image": np.zeros([4, 8, 8, 3]), "mask": np.zeros([4, 8, 8])}
    >>> result = iodine.evaluate("runs/tiny_1", scenes)
    >>> result
    Evaluation of 4 scenes: ari ..., ari_nobg ..., mse ...
    >>> round(result.metrics["ari_nobg"].mean, 3)
    1.0
  """
  from iodine import checkpoints, errors, evaluation
  from iodine.commands import common
  from iodine.commands import evaluate as command

  config = model if isinstance(model, Mapping) else None
  path = model if config is None else config["checkpoint_dir"]
  measured: Any = model
  if isinstance(path, (str, os.PathLike)):
    measured, config = checkpoints.restore_model(path, config, evaluated=True)
  if data is not None:
    height, width, channels = measured.output_dist.output_shape
    dataset, _ = common.in_memory(
      data,
      {} if config is None else config["data"],
      batch_size=batch_size,
      image_dim=[height, width],
      grayscale=channels == 1,
    )
    batches = dataset.batches("test")
  elif config is not None:
    dataset, batches = command.open_scenes(config)
  else:
    raise errors.UserError(
      "a model does not say what it is evaluated on: give `data`, too"
    )
  return evaluation.evaluate(
    measured, batches, dataset.batch_size, seed, num_scenes, seeds
  )
