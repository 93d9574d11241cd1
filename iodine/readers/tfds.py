"""Data sets of TensorFlow Datasets: opening them, and what is read of them.

Dimensions: T frames, H' W' size of a frame, C colour channels.
"""

import contextlib
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from iodine import errors

# What has a name before a colon, `huggingface:name`, would be fetched.
_NAME = re.compile(r"[^:]+(:[\d.*]+)?")


class Prepared(NamedTuple):
  """A data set that is there.

  Attributes:
    builder: a `tfds.core.DatasetBuilder`.
    image: the key of the images or films.
    masks: that of label images; None without any.
  """

  builder: Any
  image: str
  masks: str | None

  @property
  def title(self) -> str:
    """Returns its name with config and version, for messages."""
    return f"`{self.builder.info.full_name}`"

  @property
  def shape(self) -> tuple[int | None, ...]:
    """Returns (T, H', W', C), of which None differ; T is 1 for stills."""
    return (1, *self.builder.info.features[self.image].shape)[-4:]

  @property
  def files(self) -> list[str]:
    """Returns the files that it is in, where they are on this machine."""
    folder = str(self.builder.data_path)
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return [os.path.join(folder, name) for name in names]

  def elements(self, split: str) -> tf.data.Dataset:
    """Returns the scenes of a split or slice, always in the same order.

    They are dicts of image [T, H', W', C] uint8 and, where there are any, mask
    [T, H', W', 1], integers.
    """
    import tensorflow_datasets as tfds

    keys = {"image": self.image, **({"mask": self.masks} if self.masks else {})}
    wanted = dict.fromkeys(keys.values(), True)
    with _explained(f"{split!r} of {self.title}"):
      dataset = self.builder.as_dataset(
        split=split,
        decoders=tfds.decode.PartialDecoding(wanted),
        # One file after the other, and none kept in memory.
        read_config=tfds.ReadConfig(
          interleave_cycle_length=1, try_autocache=False
        ),
      )

    def choose(element: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
      chosen = {name: element[key] for name, key in keys.items()}
      is_film = chosen["image"].shape.rank == 4
      return {k: x if is_film else x[tf.newaxis] for k, x in chosen.items()}

    return dataset.map(choose, tf.data.AUTOTUNE, deterministic=True)


def prepare(
  name: str,
  data_dir: str | None,
  download: bool,
  image: str | None,
  masks: str | None,
) -> Prepared:
  """Opens a data set; nothing is fetched unless that is asked for.

  Args:
    name: such as "clevr:3.1.0" or "movi_a/128x128"; or the folder of one that
      is prepared.
    data_dir: where prepared ones are; None: where TFDS keeps them.
    download: whether to fetch and prepare what is missing.
    image: the key of the images or films; None: "image" or "video".
    masks: that of label images; None: "segmentations" where there is one.
  """
  with errors.as_user_error(
    (ImportError,),
    lambda error: (
      f"`data.name` is {name!r}, which needs TensorFlow Datasets"
      f" ({errors.reason(error)}): `pip install -r requirements-tfds.txt`"
    ),
  ):
    import tensorflow_datasets as tfds
  folder = os.path.expanduser(name)
  with _explained(f"`data.name` {name!r}"):
    if tf.io.gfile.exists(os.path.join(folder, "dataset_info.json")):
      builder = tfds.builder_from_directory(folder)
    elif _NAME.fullmatch(name):
      place = data_dir and os.path.expanduser(data_dir)
      builder = tfds.builder(name, data_dir=place)
    else:
      raise ValueError("it is neither `name:version` nor a prepared folder")
    if download:
      builder.download_and_prepare()
  features = dict(builder.info.features.items())
  image = image or ("image" if "image" in features else "video")
  if masks is None and "segmentations" in features:
    masks = "segmentations"
  _check(features, "image", image, ["uint8"], 3, 4)
  if masks is not None:
    rank = len(features[image].shape)
    _check(features, "masks", masks, ["uint8", "uint16", "int32"], rank)
  return Prepared(builder, image, masks)


def _explained(what: str) -> contextlib.AbstractContextManager[None]:
  """Raises a UserError where TFDS, which may raise anything, refuses."""
  return errors.as_user_error(
    (Exception,),
    lambda error: (
      f"{what} cannot be read ({errors.reason(error)}): say by"
      " `data.data_dir=` where it is prepared (for MOVi"
      " gs://kubric-public/tfds, or a copy), by `data.name=` or `data.train=`"
      " and `data.test=` what there is, or by `data.download=True` to fetch it"
    ),
  )


def _check(
  features: Mapping[str, Any],
  option: str,
  key: str,
  dtypes: list[str],
  *ranks: int,
) -> None:
  """Checks that a key is of such types and ranks, and masks of one channel."""
  feature: Any = features.get(key)
  shape: Any = getattr(feature, "shape", None)  # of several features a dict
  fits = isinstance(shape, tuple) and len(shape) in ranks
  if fits and option == "masks":
    fits = shape[-1] == 1
  if not (fits and feature.dtype.name in dtypes):
    found = " ".join(str(feature).split())
    raise errors.UserError(
      f"`data.{option}` is {key!r}, which is `{found}` in the data set: name"
      f" another one of {', '.join(sorted(features))}"
    )
