"""Images and films from outside, decomposed by a trained model.

Dimensions: B batch, T frames, K slots, H W C image of the model, H' W' image as
it comes, Z latent size.
"""

from __future__ import annotations

import copy
import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import tensorflow as tf

from iodine import checkpoints, errors, evaluation, kinds, pretrained
from iodine.modules import data, distributions, iodine, types, utils
from iodine.readers import image_files

Region = tuple[tuple[int, int], tuple[int, int]]
_PATH = (str, os.PathLike)

# Models that stay compiled.
_MOST_KEPT = 4


class Segmentation(NamedTuple):
  """One image or film, decomposed. All numbers are float32.

  The slot that most pixels belong to comes first: the background's, where that
  has a slot of its own. In a film a slot is the same in all frames, and all
  arrays have T in front. Those of a batch have B in front, see `decompose`. In
  a notebook it is shown as a picture.

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
    source: the path that it was read from; "" where it was none.
  """

  masks: np.ndarray
  components: np.ndarray
  reconstruction: np.ndarray
  latents: np.ndarray
  latents_mean: np.ndarray
  latents_std: np.ndarray
  image: np.ndarray
  region: Region
  source: str = ""

  def __repr__(self) -> str:
    num_slots, height, width = self.masks.shape[-3:]
    title = f"{len(self.masks)} images" if self.is_film else "an image"
    return (
      f"Segmentation of {self.source or title}: {num_slots} slots, "
      f"{height} x {width}"
    )

  def _repr_png_(self) -> bytes:
    from iodine.segmentation import user_files  # which draws these

    return user_files.png(self)

  @property
  def is_film(self) -> bool:
    """Returns whether the arrays have T, or B, in front."""
    return self.masks.ndim == 4

  def at(self, number: int) -> Segmentation:
    """Returns one frame of a film, or one image of a batch, from 0."""
    arrays = {k: x[number] for k, x in _arrays(self).items()}
    return Segmentation(**{**self._asdict(), **arrays})

  def labels(self) -> np.ndarray:
    """Returns the slots of the largest masks, from 0, [H, W] int64."""
    return self.masks.argmax(axis=-3)

  def active_slots(self) -> list[int]:
    """Returns the slots, from 0, whose mask is the largest somewhere."""
    return np.unique(self.labels()).tolist()


def _arrays(found: Segmentation) -> dict[str, np.ndarray]:
  """Returns the fields that are arrays."""
  fields = found._asdict().items()
  return {k: x for k, x in fields if isinstance(x, np.ndarray)}


class Segmenter:
  """Decomposes images and films with one model, compiled at the first.

  Each image is decomposed as in the batches of the training (see
  `refinement_batch_size` of `IODINE`). Its samples are drawn from the same
  seed as those of the others, so that the result is the same every time.

  Attributes:
    image_shape: (H, W, C) of the images that the model sees.
    batch_size: B, how many it decomposes at a time.

  Example:
    >>> segmenter = iodine.Segmenter.from_checkpoint("runs/tiny_1")
    >>> segmenter(np.zeros([8, 8, 3], np.uint8))  # [H', W', C]; or a path
    Segmentation of an image: 3 slots, 8 x 8
    >>> segmenter.segment(["a.png", "b.png"])  # also an array [N, H', W', C]
    [Segmentation of a.png: 3 slots, 8 x 8, Segmentation of b.png: ...]
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
    kinds.check("batch_size", batch_size, kinds.Positive)
    self.image_shape = tuple(image_shape)
    self.batch_size = batch_size
    self._seed = seed
    self._is_sequential = bool(model.frame_index(1))
    self._decompose = evaluation.compiled(
      model,
      lambda model, data, seeds: infer(model, data["image"], seeds[0, 0]),
    )

  @classmethod
  def from_checkpoint(
    cls,
    checkpoint: str | os.PathLike[str] = pretrained.TETROMINOES,
    config: Mapping[str, Any] | None = None,
    seed: int | None = None,
    batch_size: int = 1,
  ) -> Segmenter:
    """Restores a model, which refines as often as `evaluate` lets it.

    Args:
      checkpoint: folder or prefix of a TF1 or TF2 checkpoint, or a packed
        model; the model which comes with the project if it is not given.
      config: the complete config, as `main.get_config` gives it; None for the
        `config.json` that a training leaves beside its checkpoints.
      seed: the latents are sampled from it; None for the config's.
      batch_size: how many images are decomposed at a time.

    Raises:
      errors.UserError: if there is no checkpoint or config, or they do not
        fit.
    """
    model, config = checkpoints.restore_model(
      checkpoint, config, evaluated=True
    )
    if seed is None:
      seed = config.get("seed", 0)
    return cls(model, model.output_dist.output_shape, seed, batch_size)

  def __call__(
    self, images: Any, seed: int | None = None
  ) -> Segmentation | list[Segmentation]:
    """Decomposes one image or film, or several.

    Args:
      images: see `segment`. A path of a file, and an array [H', W', C], are
        one; a folder, a glob, a list and an array [N, H', W', C] are several,
        but that the latter is one film where the model was trained on films.
      seed: see `segment`.

    Returns:
      A segmentation of one, a list of those of several.
    """
    if isinstance(images, _PATH):
      is_one = os.path.isfile(images)
    elif hasattr(images, "ndim"):
      is_one = images.ndim < (5 if self._is_sequential else 4)
    else:
      is_one = isinstance(images, PIL.Image.Image)
    return (
      self.segment([images], seed)[0] if is_one else self.segment(images, seed)
    )

  def segment(self, images: Any, seed: int | None = None) -> list[Segmentation]:
    """Decomposes images, or films of one length, `batch_size` at a time.

    The largest region in its middle that has the proportions of the model's
    images is resized to them as the data sets' images are. An image from
    outside has no margins like CLEVR's, which are cut off in training.

    Args:
      images: a folder, a glob, an array [N, H', W', C], or a list: of paths,
        PIL images or arrays, see `image_files.read`; or of films, frames [T,
        H', W', 1 or 3], uint8 or floating-point in [0, 1], of which a
        sequential model sees frame t at iteration t.
      seed: instead of the segmenter's own.

    Returns:
      The segmentations in the order of the images.

    Raises:
      errors.UserError: if one is not an image, or is a film and the model was
        trained on stills.
    """
    seed = self._seed if seed is None else seed
    kinds.check("seed", seed, kinds.Count)
    images = list(_each(images))
    if not images:
      return []
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
      arrays = evaluation.to_numpy(decompose(seed))
      for row, number in enumerate(numbers):
        frames, region, is_film = prepared[number]
        # An image is a film of one frame.
        frame = slice(None) if is_film else 0
        values = {name: value[row, frame] for name, value in arrays.items()}
        values["image"] = frames[frame]
        source = images[number]
        source = os.fspath(source) if isinstance(source, _PATH) else ""
        found.append(Segmentation(**values, region=region, source=source))
    return found


def _each(images: Any) -> Iterator[Any]:
  """Yields images and films, and the files that folders and globs mean."""
  for image in [images] if isinstance(images, _PATH) else images:
    if isinstance(image, _PATH) and not os.path.isfile(image):
      yield from image_files.find(os.fspath(image))
    else:
      yield image


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


def opened(
  checkpoint: str | os.PathLike[str],
  config: Mapping[str, Any] | None,
  batch_size: int,
) -> Segmenter:
  """Returns the segmenter of a checkpoint, the same until its files change.

  Args:
    checkpoint: see `Segmenter.from_checkpoint`.
    config: as there.
    batch_size: as there.
  """
  identity = checkpoints.identity(checkpoint)
  given = None if config is None else json.dumps(config)
  return _open(os.fspath(checkpoint), identity, given, batch_size)


@functools.lru_cache(_MOST_KEPT)
def _open(
  checkpoint: str,
  identity: tuple[Any, ...],
  config: str | None,
  batch_size: int,
) -> Segmenter:
  """Opens a checkpoint anew where its `identity` is another."""
  given = None if config is None else json.loads(config)
  return Segmenter.from_checkpoint(checkpoint, given, batch_size=batch_size)


def decompose(
  model: iodine.IODINE, images: Any, seed: int = 0, batch_size: int = 1
) -> Segmentation:
  """Decomposes images with a model at hand, see `iodine.decompose`."""
  model.require_variables()
  shape = tuple(model.output_dist.output_shape)
  segmenter = _compile(model, shape, model.num_iters, batch_size)
  found = segmenter(np.asarray(images), seed)
  if isinstance(found, Segmentation):
    return found
  batch = [each._asdict() for each in found]
  stacked = {k: np.stack([x[k] for x in batch]) for k in _arrays(found[0])}
  return Segmentation(**{**batch[0], **stacked})


@functools.lru_cache(_MOST_KEPT)
def _compile(
  model: iodine.IODINE,
  image_shape: tuple[int, ...],
  num_iters: int,
  batch_size: int,
) -> Segmenter:
  """Compiles a model anew where what its graph depends on is another."""
  return Segmenter(model, image_shape, batch_size=batch_size)


def infer(
  model: iodine.IODINE, films: tf.Tensor, seed: int | tf.Tensor
) -> dict[str, tf.Tensor]:
  """Returns what the model says about every frame of films.

  Args:
    model: the model.
    films: [B, T, H, W, C]. Of one frame, they are images: a sequential model
      sees the frame again and again, and what it says in the end counts.
    seed: an integer that the samples are drawn from.

  Returns:
    masks [B, T, K, H, W], components, reconstruction [B, T, H, W, C], and
    latents, latents_mean, latents_std [B, T, K, Z]. The background's slot comes
    first, see `utils.background_first`.

  Raises:
    errors.UserError: if there are several frames, and the model is one for
      stills.
  """
  batch_size, num_frames = films.shape[:2]
  seeds = tf.stack([tf.cast(seed, tf.int64), tf.constant(0, tf.int64)])
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
