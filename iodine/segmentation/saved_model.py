"""A trained model as a SavedModel, which TensorFlow alone can run.

Dimensions: B batch, K slots, H W C image, Z latent size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from iodine.modules import iodine
from iodine.segmentation import segmenter


def export(
  folder: str, model: iodine.IODINE, image_shape: Sequence[int], seed: int
) -> None:
  """Writes the SavedModel of a restored model into a folder.

  It has two functions, of a batch of any size B:
  segment: images [B, H, W, C] in [0, 1] -> masks [B, K, H, W], components
    [B, K, H, W, C], reconstruction [B, H, W, C], and latents, latents_mean,
    latents_std [B, K, Z].
  decode: latents [B, K, Z] -> image [B, H, W, C], masks and components.

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
    found = segmenter.infer(model, images[:, None], seed)
    return {name: value[:, 0] for name, value in found.items()}

  def decode(z: tf.Tensor) -> dict[str, tf.Tensor]:
    rendered = segmenter.render(model.decode(z)[1])
    return {"image": rendered.pop("reconstruction"), **rendered}

  latent_shape = (model.num_components, *model.latent_dist.output_shape)
  exported = tf.Module(name="iodine")
  exported.segment, infer = _for_any_batch(segment, image_shape, "image")
  exported.decode, _ = _for_any_batch(decode, latent_shape, "z")
  # Only these, not the factor regressor's, nor the model's own structure.
  exported.weights = infer.variables
  tf.saved_model.save(
    exported, folder, {"segment": exported.segment, "decode": exported.decode}
  )


def _for_any_batch(
  function: Callable[[tf.Tensor], dict[str, tf.Tensor]],
  shape: Sequence[int],
  name: str,
) -> tuple[Any, Any]:
  """Compiles a function of [1, *shape], and one that maps it over [B, *shape].

  Returns:
    The mapping one, whose argument is called `name`, and the other.
  """
  one = tf.function(
    function, [tf.TensorSpec([1, *shape], tf.float32)], autograph=False
  ).get_concrete_function()
  signature = {
    key: tf.TensorSpec(output.shape[1:], output.dtype)
    for key, output in one.structured_outputs.items()
  }

  def many(batch: tf.Tensor) -> dict[str, tf.Tensor]:
    return tf.map_fn(
      lambda x: {key: y[0] for key, y in one(x[None]).items()},
      batch,
      fn_output_signature=signature,
      parallel_iterations=1,  # more would take more memory, not less time
    )

  specs = [tf.TensorSpec([None, *shape], tf.float32, name)]
  return tf.function(many, specs, autograph=False), one
