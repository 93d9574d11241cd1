"""The layouts of the records of `multi_object_datasets`.

One record is one scene, a serialised `tf.train.Example`. Images, masks and
some factors are stored with every array element as a byte string of length
one, so a CLEVR scene is a list of 1.07 million strings. The layouts are those
of github.com/google-deepmind/multi_object_datasets.

Dimensions:
  L: entities of a scene, the background among them (entity 0).
  H, W: rows and columns of the stored image.
  C: colour channels.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from iodine import errors


class Feature(NamedTuple):
  """One array of a record.

  Attributes:
    shape: shape of the array as stored.
    dtype: tf.float32, or tf.uint8 for arrays that are stored as one byte
      string per element.
  """

  shape: tuple[int, ...]
  dtype: tf.DType


@dataclasses.dataclass(frozen=True)
class Layout:
  """What a record of one data set (and variant) holds.

  Attributes:
    name: name of the data set.
    variant: name of the variant, None if the data set has none.
    image_shape: (H, W, C) of the stored image.
    num_entities: L.
    features: the arrays that are read, by name. Files may hold more.
    entities_last: the mask is stored [H, W, L, 1], not [L, H, W, 1].
  """

  name: str
  variant: str | None
  image_shape: tuple[int, int, int]
  num_entities: int
  features: Mapping[str, Feature] = dataclasses.field(hash=False)
  entities_last: bool = False

  @property
  def generator_name(self) -> str | None:
    """Returns the name of the generator in `iodine.synthetic`, or None."""
    if self.name == "objects_room":
      return None
    if self.name == "multi_dsprites":
      return f"{self.name}_{self.variant}"
    return {"clevr_with_masks": "clevr"}.get(self.name, self.name)

  @property
  def num_bytes(self) -> int:
    """Returns about how many bytes a record has; never more than it has."""
    # A string takes two bytes beside its own.
    sizes = {tf.uint8: 3, tf.float32: 4}
    return sum(
      sizes[feature.dtype] * math.prod(feature.shape)
      for feature in self.features.values()
    )

  @property
  def title(self) -> str:
    """Returns name and variant, for messages."""
    return self.name if self.variant is None else f"{self.name} {self.variant}"


def _layout(
  name: str,
  variant: str | None,
  image_shape: tuple[int, int, int],
  num_entities: int,
  floats: Mapping[str, tuple[int, ...]],
  bytes_names: Sequence[str] = (),
  entities_last: bool = False,
) -> Layout:
  """Spells out a layout. `floats` maps a name to its shape after [L]."""
  entities = (num_entities,)
  height, width, _ = image_shape
  frame = (height, width)
  mask = (*frame, *entities, 1) if entities_last else (*entities, *frame, 1)
  features = {
    "image": Feature(image_shape, tf.uint8),
    "mask": Feature(mask, tf.uint8),
    **{n: Feature(entities + s, tf.float32) for n, s in floats.items()},
    **{n: Feature(entities, tf.uint8) for n in bytes_names},
  }
  return Layout(
    name, variant, image_shape, num_entities, features, entities_last
  )


def _dsprites(variant: str, channels: int, num_entities: int) -> Layout:
  scalars = ("shape", "scale", "x", "y", "orientation", "visibility")
  floats: dict[str, tuple[int, ...]] = dict.fromkeys(scalars, ())
  floats["color"] = (channels,)
  image_shape = (64, 64, channels)
  return _layout(
    "multi_dsprites", variant, image_shape, num_entities, floats, (), True
  )


def _room(variant: str, num_entities: int) -> Layout:
  return _layout("objects_room", variant, (64, 64, 3), num_entities, {})


LAYOUTS: tuple[Layout, ...] = (
  _layout(
    "tetrominoes",
    None,
    (35, 35, 3),
    4,
    {"x": (), "y": (), "shape": (), "visibility": (), "color": (3,)},
  ),
  _dsprites("colored_on_grayscale", 3, 6),
  _dsprites("colored_on_colored", 3, 5),
  _dsprites("binarized", 1, 4),
  _layout(
    "clevr_with_masks",
    None,
    (240, 320, 3),
    11,
    {"rotation": (), "visibility": (), "pixel_coords": (3,)},
    ("color", "shape", "size"),
  ),
  _room("train", 7),
  _room("six_objects", 10),
  _room("empty_room", 4),
  _room("identical_color", 10),
)


def resized(layout: Layout, size: Sequence[int]) -> Layout:
  """Returns the layout of files that have images of another size.

  Args:
    layout: that of the public files.
    size: (H, W) of the stored images and masks, in pixels.
  """
  height, width = frame = tuple(size)
  entities = (layout.num_entities,)
  image = (height, width, layout.image_shape[-1])
  mask = (*frame, *entities) if layout.entities_last else (*entities, *frame)
  features = {
    **layout.features,
    "image": Feature(image, tf.uint8),
    "mask": Feature((*mask, 1), tf.uint8),
  }
  return dataclasses.replace(layout, image_shape=image, features=features)


def find_layout(name: str, variant: str | None = None) -> Layout:
  """Returns the layout of a data set.

  Args:
    name: name of the data set, one of those in `LAYOUTS`.
    variant: name of the variant, None for data sets without variants.

  Raises:
    UserError: the data set has no such variant.
  """
  family = {layout.variant: layout for layout in LAYOUTS if layout.name == name}
  if variant not in family:
    known = ", ".join(f'"{known}"' for known in family)
    raise errors.UserError(
      f'`dataset_variant` is "{variant}", but {name} has {known}: choose one'
      " of these"
    )
  return family[variant]
