"""Data sets of TensorFlow Datasets: opening them, and what is read of them.

Dimensions: T frames, H' W' size of a frame, C colour channels.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from iodine import errors

# What it raises for names, splits and folders that are not there, and where a
# download fails.
_ERRORS = (
  *(AssertionError, KeyError, ValueError, OSError, RuntimeError),
  tf.errors.OpError,
)

# What has a name before a colon, `huggingface:name`, would be fetched.
_NAME = re.compile(r"[^:]+(:[\d.*]+)?")

_IMAGES = ("image", "video")
_MASKS = ("segmentations",)


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
    shape = tuple(self.builder.info.features[self.image].shape)
    return shape if len(shape) == 4 else (1, *shape)

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
    with errors.as_user_error(
      _ERRORS,
      lambda error: (
        f"{self.title} has no scenes of the split {split!r} that can be read"
        f" ({errors.reason(error)}): name another by `data.train` and"
        f" `data.test`, or {_remedy()}"
      ),
    ):
      dataset = self.builder.as_dataset(
        split=split,
        decoders=tfds.decode.PartialDecoding(
          dict.fromkeys(keys.values(), True)
        ),
        # One file after the other. Those that are small would be kept.
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
      f" ({errors.reason(error)}): install it by `pip install -r"
      " requirements-tfds.txt`"
    ),
  ):
    import tensorflow_datasets as tfds
  folder = os.path.expanduser(name)
  data_dir = None if data_dir is None else os.path.expanduser(data_dir)
  with errors.as_user_error(
    _ERRORS,
    lambda error: (
      f"`data.name` is {name!r}, which cannot be opened"
      f" ({errors.reason(error)}): {_remedy()}"
    ),
  ):
    if tf.io.gfile.exists(os.path.join(folder, "dataset_info.json")):
      builder = tfds.builder_from_directory(folder)
    elif not _NAME.fullmatch(name):
      raise ValueError("it is neither `name:version` nor a prepared folder")
    else:
      builder = tfds.builder(name, data_dir=data_dir)
    if download:
      builder.download_and_prepare()
  features = builder.info.features
  found = Prepared(
    builder,
    _key(features, "image", image, _IMAGES) or "",
    _key(features, "masks", masks, _MASKS),
  )
  _check(found)
  return found


def _remedy() -> str:
  """Returns what to do where a data set is not there, the end of a sentence."""
  return (
    "say by `data.data_dir=` where it is prepared (for MOVi"
    " gs://kubric-public/tfds, or a copy of it), or name the folder of its"
    " version by `data.name=`, or fetch it, if TFDS knows it, by"
    " `data.download=True`"
  )


def _key(
  features: Mapping[str, Any],
  option: str,
  given: str | None,
  usual: Sequence[str],
) -> str | None:
  """Returns the key that an option means; None if there are no masks."""
  keys = [
    key for key in (usual if given is None else (given,)) if key in features
  ]
  if keys or (given is None and option == "masks"):
    return keys[0] if keys else None
  raise errors.UserError(
    f"`data.{option}` is {given!r}, but the data set has"
    f" {errors.join_some(sorted(features), most=20, separator=', ')}: name one"
    " of those"
  )


def _check(found: Prepared) -> None:
  """Checks that keys are of images or films, and of label images of those."""
  features = found.builder.info.features
  image = features[found.image]
  shape = image.shape if isinstance(image.shape, tuple) else ()
  if len(shape) not in (3, 4) or image.dtype.name != "uint8" or not shape[-1]:
    raise errors.UserError(
      f"`{found.image}` of {found.title} is `{_line(image)}`, which are"
      " neither images nor films of bytes: name others by `data.image=`"
    )
  masks = features[found.masks] if found.masks else None
  if masks is not None and not (
    isinstance(masks.shape, tuple)
    and masks.shape[-3:] == (*shape[-3:-1], 1)
    and len(masks.shape) == len(shape)
    and "int" in masks.dtype.name
  ):
    raise errors.UserError(
      f"`{found.masks}` of {found.title} is `{_line(masks)}`, which are no"
      f" label images of `{found.image}`, a number for each pixel: name others"
      " by `data.masks=`"
    )


def _line(feature: Any) -> str:
  """Returns what a feature is, in one line."""
  return " ".join(str(feature).split())
