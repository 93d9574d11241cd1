"""The data sets that can be generated, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from iodine.synthetic import (
  cater,
  clevr,
  entities,
  moving_sprites,
  multi_dsprites,
  tetrominoes,
)

MakeScene = Callable[[np.random.Generator], entities.Scene]


class Dataset(NamedTuple):
  """What there is to know about a generated data set.

  Attributes:
    stem: name, without a suffix, of the public file that the generated one
      stands in for.
    make_scene: draws one scene; returns {feature name: array}, every array
      uint8 or float32 with the shape that the feature has in the file. A film
      has image [T, H, W, C] and mask [T, H, W].
    seconds_per_scene: about what a scene costs on one core.
    formats: in which scenes can be written, the usual one first.
    is_packed: whether records hold all bytes of an array as one string, and
      files are compressed by ZLIB, as CATER's.
  """

  stem: str
  make_scene: MakeScene
  seconds_per_scene: float
  formats: Sequence[str] = ("tfrecords", "npz", "png")
  is_packed: bool = False


_CLEVR = Dataset("clevr_with_masks_train", clevr.make_scene, 0.06)
_SPRITES = {
  name: Dataset(name, make_scene, 0.002)
  for make_scene in multi_dsprites.VARIANTS
  for name in [f"multi_dsprites_{make_scene.__name__}"]
}

# The names of the configs, and the public names where those differ.
DATASETS: dict[str, Dataset] = {
  "tetrominoes": Dataset("tetrominoes_train", tetrominoes.make_scene, 0.001),
  "multi_dsprites": _SPRITES["multi_dsprites_colored_on_grayscale"],
  **_SPRITES,
  "clevr6": _CLEVR,
  "clevr": _CLEVR,
  "moving_sprites": Dataset(
    "moving_sprites", moving_sprites.make_film, 0.001, ("npz",)
  ),
  "cater": Dataset(
    *("cater_with_masks_train", cater.make_film, 0.1),
    formats=("tfrecords",),
    is_packed=True,
  ),
}
