"""IODINE (Greff et al. 2019) for TensorFlow 2 and Sonnet 2."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from iodine import pretrained

if TYPE_CHECKING:
  from iodine import segmentation

__all__ = ["segment"]


def segment(
  image: Any,
  checkpoint: str | os.PathLike[str] = pretrained.LAPTOP,
  config: Mapping[str, Any] | None = None,
  seed: int | None = None,
) -> segmentation.Segmentation:
  """Takes an image apart with a trained model.

  For many images, `iodine.segmentation.Segmenter` restores and compiles the
  model once.

  Args:
    image: the path of a PNG or JPEG file, a PIL image, or an array [H', W',
      C], uint8 or floating-point in [0, 1]. The largest region in its middle
      with the proportions of the model's images is resized to them.
    checkpoint: folder or prefix of a checkpoint; that of the model which comes
      with the project if it is not given.
    config: the config that the model was trained with, as `main.get_config`
      gives it; None for the `config.json` beside the checkpoint, which those
      of the original (TF1) do not have.
    seed: the latents are sampled from it; None for the config's.

  Returns:
    masks [K, H, W], components [K, H, W, C], reconstruction, latents and so
    on, see `iodine.segmentation.Segmentation`.

  Raises:
    iodine.errors.UserError: if the image, the checkpoint or the config is
      missing or broken, or they do not fit each other.
  """
  # Here, so that `import iodine` does not take the seconds of TensorFlow.
  from iodine import segmentation

  return segmentation.segment(image, checkpoint, config, seed)
