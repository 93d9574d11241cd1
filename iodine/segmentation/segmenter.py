"""Images and films from outside, decomposed by a trained model.

Dimensions: B batch, T frames, K slots, H W C image of the model, H' W' image as
it comes, Z latent size.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine import checkpoints, errors, evaluation, kinds, pretrained
from iodine.modules import data, distributions, iodine, types, utils
from iodine.readers import image_files

Region = tuple[tuple[int, int], tuple[int, int]]


class Segmentation(NamedTuple):
  """One image or film, decomposed. All numbers are float32.

  The slot that most pixels belong to comes first: the background's, where that
  has a slot of its own. In a film a slot is the same in all frames, and all
  arrays have T in front.

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
  region: Region

  @property
  def is_film(self) -> bool:
    """Returns whether the arrays have T in front."""
    return self.masks.ndim == 4

  def labels(self) -> np.ndarray:
    """Returns the slots of the largest masks, from 0, [H, W] int64."""
    return self.masks.argmax(axis=-3)

  def active_slots(self) -> list[int]:
    """Returns the slots, from 0, whose mask is the largest somewhere."""
    return np.unique(self.labels()).tolist()


class Segmenter:
  """Decomposes images and films with one model, compiled at the first.

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
      errors.UserError: if the seed is none.
    """
    kinds.check("seed", seed, kinds.Count)
    self.image_shape = tuple(image_shape)
    self.batch_size = batch_size
    self._seed = seed
    self._decompose = evaluation.compiled(
      model, lambda model, data, seeds: infer(model, data["image"], seed)
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
      checkpoint: folder or prefix of a TF1 or TF2 checkpoint, or a packed
        model; the model which comes with the project if it is not given.
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
    """Decomposes one image or film, see `segment`."""
    (found,) = self.segment([image])
    return found

  def segment(self, images: Sequence[Any]) -> list[Segmentation]:
    """Decomposes images, or films of one length, `batch_size` at a time.

    The largest region in its middle that has the proportions of the model's
    images is resized to them as the data sets' images are. An image from
    outside has no margins like CLEVR's, which are cut off in training.

    Args:
      images: paths, PIL images or arrays, see `image_files.read`; or films,
        frames [T, H', W', 1 or 3], uint8 or floating-point in [0, 1], of which
        a sequential model sees frame t at iteration t.

    Raises:
      errors.UserError: if one is not an image, or is a film and the model was
        trained on stills.
    """
    prepared = [prepare(image, self.image_shape) for image in images]
    seen = [frames for frames, _, _ in prepared]
    batches = (
      {"image": np.stack(seen[i : i + self.batch_size])}
      for i in range(0, len(seen), self.batch_size)
    )
    found = []
    for numbers, decompose in evaluation.decompose_batches(
      self._decompose, batches, self.batch_size
    ):
      arrays = evaluation.to_numpy(decompose(self._seed))
      for row, number in enumerate(numbers):
        frames, region, is_film = prepared[number]
        # An image is a film of one frame.
        frame = slice(None) if is_film else 0
        values = {name: value[row, frame] for name, value in arrays.items()}
        values["image"] = frames[frame]
        found.append(Segmentation(**values, region=region))
    return found


def prepare(
  image: Any, image_shape: Sequence[int]
) -> tuple[np.ndarray, Region, bool]:
  """Returns what a model sees of an image or film.

  Args:
    image: see `Segmenter.segment`.
    image_shape: (H, W, C).

  Returns:
    [T, H, W, C], T being 1 for an image; which region that is, ((top, bottom),
    (left, right)); and whether it is a film.
  """
  height, width, channels = image_shape
  is_film = getattr(image, "ndim", 0) == 4
  if is_film:
    frames = image_files.to_unit(np.asarray(image), "a film")
  else:
    frames = image_files.read(image)[None]
  framing = image_files.Framing((height, width), None, channels == 1)
  resized = data.resize(framing.cut(frames), (height, width)).numpy()
  region = framing.region(frames.shape[1:3])
  return image_files.to_channels(resized, channels), region, is_film


def segment(
  image: Any,
  checkpoint: str | os.PathLike[str] = pretrained.TETROMINOES,
  config: Mapping[str, Any] | None = None,
  seed: int | None = None,
) -> Segmentation:
  """Decomposes one image; a `Segmenter` does many with one restored model.

  Args:
    image: see `Segmenter.segment`.
    checkpoint: see `Segmenter.from_checkpoint`, as are config and seed.
    config: as there.
    seed: as there.

  Raises:
    errors.UserError: see `Segmenter`.
  """
  return Segmenter.from_checkpoint(checkpoint, config, seed)(image)


def infer(
  model: iodine.IODINE, films: tf.Tensor, seed: int
) -> dict[str, tf.Tensor]:
  """Returns what the model says about every frame of films.

  Args:
    model: the model.
    films: [B, T, H, W, C]. Of one frame, they are images: a sequential model
      sees the frame again and again, and what it says in the end counts.
    seed: the samples are drawn from it.

  Returns:
    masks [B, T, K, H, W], components, reconstruction [B, T, H, W, C], and
    latents, latents_mean, latents_std [B, T, K, Z]. The background's slot comes
    first, see `utils.background_first`.

  Raises:
    errors.UserError: if there are several frames, and the model is one for
      stills.
  """
  batch_size, num_frames = films.shape[:2]
  seeds = tf.constant([seed, 0], tf.int64)
  if batch_size > 1:  # the same for every image
    seeds = tf.repeat(seeds[None], batch_size, axis=0)
  if num_frames == 1:
    length = model.frame_index(model.num_iters) + 1
    frames = tf.repeat(films, length, axis=1)
    estimates = [model.last_estimate(frames, seeds)]
  elif model.frame_index(1):
    # No weight depends on how many frames there are.
    model = copy.copy(model)
    model.num_iters = num_frames - 1
    estimates, _ = model.encode(films, seed=seeds)
  else:
    raise errors.UserError(
      "this model was trained on stills, and sees no more than the first "
      "frame of a film: give `images` to decompose frames by themselves, or "
      "train on films, such as `python main.py with moving_sprites`"
    )
  found = [
    {
      **render(estimate.x_dist),
      "latents": estimate.z,
      "latents_mean": estimate.z_dist.mean(),
      "latents_std": estimate.z_dist.stddev(),
    }
    for estimate in estimates
  ]
  # One below the other, the frames are an image that has the slots' order.
  below = tf.concat([each["masks"] for each in found], axis=2)
  order = utils.background_first(below[..., None])
  stacked = {k: tf.stack([f[k] for f in found], axis=1) for k in found[0]}
  return {
    name: value if name == "reconstruction" else utils.reorder(value, order, 2)
    for name, value in stacked.items()
  }


def render(x_dist: types.Distribution) -> dict[str, tf.Tensor]:
  """Returns masks [B, K, H, W], components and reconstruction [B, H, W, C]."""
  rendering = distributions.render(x_dist)
  return {
    "masks": rendering.masks[..., 0],
    "components": rendering.components,
    "reconstruction": rendering.reconstruction[:, 0],
  }
