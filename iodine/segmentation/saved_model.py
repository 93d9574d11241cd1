"""A trained model as a SavedModel, which TensorFlow alone can run.

Dimensions: B batch, K slots, H W C image, Z latent size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from iodine.modules import iodine
from iodine.ops import resizing
from iodine.segmentation import segmenter

_LARGEST = 1.5  # images in [0, 1] that were resized may overshoot
# A function of several types converts no array, and NumPy's are float64.
_FLOATS = tf.float32, tf.float64, tf.float16


def export(
  folder: str, model: iodine.IODINE, image_shape: Sequence[int], seed: int
) -> None:
  """Writes the SavedModel of a restored model into a folder.

  It has two functions, of a batch of any size B:
  segment: images [B, H, W, C], uint8 or floats in [0, 1] -> masks
    [B, K, H, W], components [B, K, H, W, C], reconstruction [B, H, W, C], and
    latents, latents_mean, latents_std [B, K, Z].
  decode: latents [B, K, Z] -> image [B, H, W, C], masks and components.
  The signatures of these names take float32. `serving_default` is `segment`,
  and `segment_uint8` is the same of uint8.

  The images of a batch are decomposed one after the other, each as a batch of
  its own, as `segmenter.Segmenter` does it: the result for one depends on
  no other, and the model may want a static batch size.

  Args:
    folder: an empty one.
    model: the model.
    image_shape: (H, W, C).
    seed: the samples of every image are drawn from it.
  """

  def segment(images: tf.Tensor) -> dict[str, tf.Tensor]:
    largest = tf.reduce_max(images)
    sentence = "an image is not in [0, 1]: give uint8, or divide it by 255; its"
    sentence += " largest number is"
    tf.debugging.Assert(largest <= _LARGEST, [sentence, largest])
    found = segmenter.infer(model, images[:, None], seed)
    return {name: value[:, 0] for name, value in found.items()}

  def decode(z: tf.Tensor) -> dict[str, tf.Tensor]:
    rendered = segmenter.render(model.decode(z).x_dist)
    return {"image": rendered.pop("reconstruction"), **rendered}

  latent_shape = (model.num_components, *model.latent_dist.output_shape)
  exported = tf.Module(name="iodine")
  exported.segment, infer, (of_floats, *_, of_bytes) = _for_any_batch(
    segment, image_shape, "image", tf.uint8
  )
  exported.decode, _, (of_latents, *_) = _for_any_batch(
    decode, latent_shape, "z"
  )
  # Only these, not the factor regressor's, nor the model's own structure.
  exported.weights = infer.variables
  signatures = {
    "segment": of_floats,
    "serving_default": of_floats,
    "segment_uint8": of_bytes,
    "decode": of_latents,
  }
  tf.saved_model.save(exported, folder, signatures)


def _for_any_batch(
  function: Callable[[tf.Tensor], dict[str, tf.Tensor]],
  shape: Sequence[int],
  name: str,
  *others: tf.DType,
) -> tuple[Any, Any, list[Any]]:
  """Compiles a function of [1, *shape], and one that maps it over [B, *shape].

  Returns:
    The mapping one, whose argument is called `name`, and the other; and the
    first of each type, `_FLOATS` and then `others`. Bytes are scaled to [0, 1].
  """
  one = tf.function(
    function, [tf.TensorSpec([1, *shape], tf.float32)], autograph=False
  ).get_concrete_function()
  signature = {
    key: tf.TensorSpec(output.shape[1:], output.dtype)
    for key, output in one.structured_outputs.items()
  }

  def of_one(x: tf.Tensor) -> dict[str, tf.Tensor]:
    is_bytes = x.dtype == tf.uint8
    x = resizing.scale_bytes(x) if is_bytes else tf.cast(x, tf.float32)
    return {key: y[0] for key, y in one(x[None]).items()}

  def many(batch: tf.Tensor) -> dict[str, tf.Tensor]:
    return tf.map_fn(
      of_one,
      batch,
      fn_output_signature=signature,
      parallel_iterations=1,  # more would take more memory, not less time
    )

  mapped = tf.function(many, autograph=False)
  specs = [
    tf.TensorSpec([None, *shape], dtype, name) for dtype in (*_FLOATS, *others)
  ]
  return mapped, one, [mapped.get_concrete_function(spec) for spec in specs]
