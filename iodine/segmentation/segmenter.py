"""Images from outside, decomposed by a trained model.

Dimensions: B batch, K slots, H W C image of the model, H' W' image as it
comes, Z latent size.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine import (
  checkpoints,
  errors,
  evaluation,
  memory,
  pretrained,
  validation,
)
from iodine.modules import data, distributions, iodine, types, utils
from iodine.readers import image_files


class Segmentation(NamedTuple):
  """One image, decomposed. All numbers are float32.

  The slot that most pixels belong to comes first: the background's, where that
  has a slot of its own.

  Attributes:
    masks: [K, H, W] probability that a pixel belongs to a slot; they sum to 1.
    components: [K, H, W, C] what every slot alone looks like, masks not used.
    reconstruction: [H, W, C], the sum of masks times components.
    latents: [K, Z] the samples that were decoded.
    latents_mean: [K, Z] mean of the distributions they are of.
    latents_std: [K, Z] their standard deviation.
    image: [H, W, C] what the model saw, in [0, 1].
    region: ((top, bottom), (left, right)) of the original image that this is,
      in pixels, the ends excluded.
  """

  masks: np.ndarray
  components: np.ndarray
  reconstruction: np.ndarray
  latents: np.ndarray
  latents_mean: np.ndarray
  latents_std: np.ndarray
  image: np.ndarray
  region: tuple[tuple[int, int], tuple[int, int]]

  def labels(self) -> np.ndarray:
    """Returns the slots of the largest masks, from 0, [H, W] int64."""
    return self.masks.argmax(axis=0)

  def active_slots(self) -> list[int]:
    """Returns the slots, from 0, whose mask is the largest somewhere."""
    return np.unique(self.labels()).tolist()


class Segmenter:
  """Decomposes images with one model, which is compiled at the first.

  Each image is decomposed as in the batches of the training (see
  `refinement_batch_size` of `IODINE`). Its samples are drawn from the same
  seed as those of the others, so that the result is the same every time.

  Attributes:
    image_shape: (H, W, C) of the images that the model sees.
    batch_size: B, how many it decomposes at a time.
  """

  def __init__(
    self,
    model: iodine.IODINE,
    image_shape: Sequence[int],
    seed: int = 0,
    batch_size: int = 1,
  ):
    """Takes a restored model.

    Args:
      model: the model; changes of its variables are seen.
      image_shape: (H, W, C) of the images that it was trained on.
      seed: the latents are sampled from it.
      batch_size: how many images are decomposed at a time. What comes of one
        is the same for every size, but for rounding, where the model has a
        `refinement_batch_size`.

    Raises:
      errors.UserError: if seed or batch_size is no such number.
    """
    validation.check_whole("seed", seed, 0)
    validation.check_whole("batch_size", batch_size, 1)
    self.image_shape = tuple(image_shape)
    self.batch_size = batch_size
    memory.require(
      4 * batch_size * math.prod(image_shape),
      f"`segment.batch_size` {batch_size}",
      "lower it",
    )
    images = tf.TensorSpec([batch_size, *image_shape], tf.float32)
    self._infer = tf.function(
      lambda image: infer(model, image, seed),
      input_signature=[images],
      autograph=False,
    )

  @classmethod
  def from_checkpoint(
    cls,
    checkpoint: str | os.PathLike[str] = pretrained.TETROMINOES,
    config: Mapping[str, Any] | None = None,
    seed: int | None = None,
  ) -> Segmenter:
    """Restores a model, which refines as often as `evaluate` lets it.

    Args:
      checkpoint: folder or prefix of a TF1 or TF2 checkpoint; that of the model
        which comes with the project if it is not given.
      config: the complete config, as `main.get_config` gives it; None for the
        `config.json` that a training leaves beside its checkpoints.
      seed: the latents are sampled from it; None for the config's.

    Raises:
      errors.UserError: if there is no checkpoint or config, or they do not
        fit.
    """
    model, config = checkpoints.restore_model(
      checkpoint, config, evaluated=True
    )
    if seed is None:
      seed = config.get("seed", 0)
    return cls(model, model.output_dist.output_shape, seed)

  def __call__(self, image: Any) -> Segmentation:
    """Decomposes one image, see `segment`."""
    (found,) = self.segment([image])
    return found

  def segment(self, images: Sequence[Any]) -> list[Segmentation]:
    """Decomposes at most `batch_size` images.

    The largest region in its middle that has the proportions of the model's
    images is resized to them as the data sets' images are. An image from
    outside has no margins like CLEVR's, which are cut off in training.

    Args:
      images: paths, PIL images or arrays, see `image_files.read`.

    Raises:
      errors.UserError: if one is not an image.
    """
    prepared = [prepare(image_files.read(i), self.image_shape) for i in images]
    seen = np.stack([image for image, _ in prepared])
    # A smaller batch is filled up, so that there is one graph.
    found = self._infer(
      evaluation.pad({"image": seen}, self.batch_size)["image"]
    )
    arrays = {name: value.numpy() for name, value in found.items()}
    return [
      Segmentation(
        **{name: value[i] for name, value in arrays.items()},
        image=image,
        region=region,
      )
      for i, (image, region) in enumerate(prepared)
    ]


def prepare(
  pixels: np.ndarray, image_shape: Sequence[int]
) -> tuple[np.ndarray, tuple[tuple[int, int], tuple[int, int]]]:
  """Returns what a model sees of an image, and which region that is.

  Args:
    pixels: [H', W', 1 or 3] in [0, 1]; or frames [T, H', W', 1 or 3].
    image_shape: (H, W, C).

  Returns:
    [H, W, C], or [T, H, W, C]; and ((top, bottom), (left, right)).
  """
  height, width, channels = image_shape
  region = image_files.center_region(pixels.shape[-3:-1], (height, width))
  (top, bottom), (left, right) = region
  cut = pixels[..., top:bottom, left:right, :]
  frames = cut if cut.ndim == 4 else cut[None]
  resized = data.resize(frames, (height, width)).numpy()
  seen = image_files.to_channels(resized, channels)
  return (seen if cut.ndim == 4 else seen[0]), region


def segment(
  image: Any,
  checkpoint: str | os.PathLike[str] = pretrained.TETROMINOES,
  config: Mapping[str, Any] | None = None,
  seed: int | None = None,
) -> Segmentation:
  """Decomposes one image; a `Segmenter` does many with one restored model.

  Args:
    image: see `image_files.read`.
    checkpoint: see `Segmenter.from_checkpoint`, as are config and seed.
    config: as there.
    seed: as there.

  Raises:
    errors.UserError: see `Segmenter`.
  """
  return Segmenter.from_checkpoint(checkpoint, config, seed)(image)


def infer(
  model: iodine.IODINE, images: tf.Tensor, seed: int
) -> dict[str, tf.Tensor]:
  """Returns what the model says about images in the end.

  Args:
    model: the model.
    images: [B, H, W, C]; a sequential model gets each as a film of itself.
    seed: the samples are drawn from it.

  Returns:
    latents, latents_mean and latents_std [B, K, Z]; and what `render` gives.
    The background's slot comes first, see `utils.background_first`.
  """
  frames = tf.repeat(
    images[:, None], model.frame_index(model.num_iters) + 1, axis=1
  )
  seeds = tf.constant([seed, 0], tf.int64)
  if images.shape[0] > 1:  # the same for every image
    seeds = tf.repeat(seeds[None], images.shape[0], axis=0)
  last = model.last_estimate(frames, seeds)
  found = {
    **render(last.x_dist),
    "latents": last.z,
    "latents_mean": last.z_dist.mean(),
    "latents_std": last.z_dist.stddev(),
  }
  order = utils.background_first(found["masks"][..., None])
  return {
    name: value if name == "reconstruction" else utils.reorder(value, order)
    for name, value in found.items()
  }


class FilmSegmentation(NamedTuple):
  """A film, decomposed frame by frame. All numbers are float32.

  A slot is the same in all frames. The one that most pixels of all frames
  belong to comes first.

  Attributes:
    masks: [T, K, H, W] probability that a pixel belongs to a slot.
    components: [T, K, H, W, C] what every slot alone looks like.
    reconstruction: [T, H, W, C].
    latents: [T, K, Z] the samples that were decoded.
    image: [T, H, W, C] what the model saw, in [0, 1].
    region: of the frames that this is, as for `Segmentation`.
  """

  masks: np.ndarray
  components: np.ndarray
  reconstruction: np.ndarray
  latents: np.ndarray
  image: np.ndarray
  region: tuple[tuple[int, int], tuple[int, int]]

  def labels(self) -> np.ndarray:
    """Returns the slots of the largest masks, from 0, [T, H, W] int64."""
    return self.masks.argmax(axis=1)

  def active_slots(self) -> list[int]:
    """Returns the slots, from 0, whose mask is the largest somewhere."""
    return np.unique(self.labels()).tolist()


class FilmSegmenter:
  """Decomposes films of one length with one sequential model.

  Iteration t sees frame t. The model is compiled at the first film.
  """

  def __init__(
    self, model: iodine.IODINE, image_shape: Sequence[int], seed: int = 0
  ):
    """Takes a restored model.

    Args:
      model: the model, whose `num_iters` is T - 1.
      image_shape: (H, W, C) of the images that it was trained on.
      seed: the latents are sampled from it.

    Raises:
      errors.UserError: if the model is one for stills.
    """
    if not model.frame_index(1):
      raise errors.UserError(
        "this model was trained on stills, and sees no more than the first "
        "frame of a film: give `images` to decompose frames by themselves, or "
        "train on films, such as `python main.py with moving_sprites`"
      )
    self._image_shape = tuple(image_shape)
    self._infer = tf.function(
      lambda film: _infer_film(model, film, seed), autograph=False
    )

  def __call__(self, frames: np.ndarray) -> FilmSegmentation:
    """Decomposes one film.

    Args:
      frames: [T, H', W', 3] in [0, 1].

    Raises:
      errors.UserError: if the film is too short.
    """
    seen, region = prepare(frames, self._image_shape)
    found = self._infer(seen[None])
    arrays = {name: value.numpy() for name, value in found.items()}
    # One below the other, the frames are an image that has the slots' order.
    masks = np.concatenate(list(arrays["masks"]), axis=1)[None, ..., None]
    (order,) = utils.background_first(tf.constant(masks)).numpy()
    for name in ("masks", "components", "latents"):
      arrays[name] = arrays[name][:, order]
    return FilmSegmentation(**arrays, image=seen, region=region)


def _infer_film(
  model: iodine.IODINE, film: tf.Tensor, seed: int
) -> dict[str, tf.Tensor]:
  """Returns what the model says about every frame of a film [1, T, H, W, C]."""
  estimates, _ = model.encode(film, seed=tf.constant([seed, 0], tf.int64))
  found = [{**render(e.x_dist), "latents": e.z} for e in estimates]
  return {name: tf.stack([f[name][0] for f in found]) for name in found[0]}


def render(x_dist: types.Distribution) -> dict[str, tf.Tensor]:
  """Returns masks [B, K, H, W], components and reconstruction [B, H, W, C]."""
  rendering = distributions.render(x_dist)
  return {
    "masks": rendering.masks[..., 0],
    "components": rendering.components,
    "reconstruction": rendering.reconstruction[:, 0],
  }
