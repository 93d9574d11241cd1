"""The data sets that can be generated, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from iodine.synthetic import (
  clevr,
  moving_sprites,
  multi_dsprites,
  tetrominoes,
)


class Dataset(NamedTuple):
  """What there is to know about a generated data set.

  Attributes:
    file_name: name of the public file that the generated one stands in for.
    make_scene: draws one scene; returns {feature name: array}, every array
      uint8 or float32 with the shape that the feature has in the file. A film
      has image [T, H, W, C] and mask [T, H, W].
    seconds_per_scene: about what a scene costs on one core.
    is_film: whether scenes have several frames.
  """

  file_name: str
  make_scene: Callable[[np.random.Generator], dict[str, np.ndarray]]
  seconds_per_scene: float
  is_film: bool = False


_COLORED_ON_GRAYSCALE = Dataset(
  "multi_dsprites_colored_on_grayscale.tfrecords",
  multi_dsprites.make_colored_on_grayscale,
  0.002,
)
_CLEVR = Dataset("clevr_with_masks_train.tfrecords", clevr.make_scene, 0.06)

# The names of the configs, and the public names where those differ.
DATASETS: dict[str, Dataset] = {
  "tetrominoes": Dataset(
    "tetrominoes_train.tfrecords", tetrominoes.make_scene, 0.001
  ),
  "multi_dsprites": _COLORED_ON_GRAYSCALE,
  "multi_dsprites_colored_on_grayscale": _COLORED_ON_GRAYSCALE,
  "multi_dsprites_colored_on_colored": Dataset(
    "multi_dsprites_colored_on_colored.tfrecords",
    multi_dsprites.make_colored_on_colored,
    0.0015,
  ),
  "multi_dsprites_binarized": Dataset(
    "multi_dsprites_binarized.tfrecords",
    multi_dsprites.make_binarized,
    0.001,
  ),
  "clevr6": _CLEVR,
  "clevr": _CLEVR,
  "moving_sprites": Dataset(
    "moving_sprites.npz", moving_sprites.make_film, 0.001, is_film=True
  ),
}
