"""The layouts of the records of `multi_object_datasets`.

One record is one scene, a serialised `tf.train.Example`. Images, masks and
some factors are stored with every array element as a byte string of length
one, so a CLEVR scene is a list of 1.07 million strings. Those of the films are
one string each. The layouts are those of
github.com/google-deepmind/multi_object_datasets.

Dimensions:
  L: entities of a scene, the background among them (entity 0).
  H, W: rows and columns of the stored image.
  C: colour channels.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf


class Feature(NamedTuple):
  """One array of a record.

  Attributes:
    shape: shape of the array as stored.
    dtype: tf.float32, or tf.uint8 for arrays that are stored as one byte
      string per element.
    is_packed: whether all of its bytes are one string instead.
  """

  shape: tuple[int, ...]
  dtype: tf.DType
  is_packed: bool = False


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
    generator_name: of the generator in `iodine.synthetic`; None without one.
    config: the named config whose `make_data` writes such files, or None.
    num_frames: of films, whose images and masks have an axis of them in front
      and are packed; None of stills.
  """

  name: str
  variant: str | None
  image_shape: tuple[int, int, int]
  num_entities: int
  features: Mapping[str, Feature] = dataclasses.field(hash=False)
  entities_last: bool = False
  generator_name: str | None = None
  config: str | None = None
  num_frames: int | None = None

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
  **options: Any,
) -> Layout:
  """Spells out a layout. `floats` maps a name to its shape after [L]."""
  entities = (num_entities,)
  features = {
    **{n: Feature(entities + s, tf.float32) for n, s in floats.items()},
    **{n: Feature(entities, tf.uint8) for n in bytes_names},
  }
  layout = Layout(name, variant, image_shape, num_entities, features, **options)
  return resized(layout, image_shape[:2])


def _dsprites(variant: str, channels: int, num_entities: int) -> Layout:
  scalars = ("shape", "scale", "x", "y", "orientation", "visibility")
  return _layout(
    "multi_dsprites",
    variant,
    (64, 64, channels),
    num_entities,
    {**dict.fromkeys(scalars, ()), "color": (channels,)},
    entities_last=True,
    generator_name=f"multi_dsprites_{variant}",
    config="multi_dsprites",
  )


def _room(variant: str, num_entities: int) -> Layout:
  return _layout("objects_room", variant, (64, 64, 3), num_entities, {})


def resized(layout: Layout, size: Sequence[int]) -> Layout:
  """Returns the layout of files that have images of another size.

  Args:
    layout: that of the public files.
    size: (H, W) of the stored images and masks, in pixels.
  """
  frame, entities = tuple(size), (layout.num_entities,)
  image = (frame[0], frame[1], layout.image_shape[-1])
  mask = (*frame, *entities) if layout.entities_last else (*entities, *frame)
  films = () if layout.num_frames is None else (layout.num_frames,)
  features = {
    **layout.features,
    "image": Feature((*films, *image), tf.uint8, bool(films)),
    "mask": Feature((*films, *mask, 1), tf.uint8, bool(films)),
  }
  return dataclasses.replace(layout, image_shape=image, features=features)


LAYOUTS: tuple[Layout, ...] = (
  _layout(
    "tetrominoes",
    None,
    (35, 35, 3),
    4,
    {"x": (), "y": (), "shape": (), "visibility": (), "color": (3,)},
    generator_name="tetrominoes",
    config="tetrominoes",
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
    generator_name="clevr",
    config="clevr6",
  ),
  _room("train", 7),
  _room("six_objects", 10),
  _room("empty_room", 4),
  _room("identical_color", 10),
  _layout(
    "cater_with_masks",
    None,
    (64, 64, 3),
    11,
    {"object_positions": (33, 3)},
    generator_name="cater",
    config="cater",
    num_frames=33,
  ),
)


def find_layout(name: str, variant: str | None = None) -> Layout:
  """Returns the layout of a data set.

  Args:
    name: of the data set.
    variant: its variant, None for data sets without variants.
  """
  return {(x.name, x.variant): x for x in LAYOUTS}[name, variant]
