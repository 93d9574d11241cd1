"""IODINE (Greff et al. 2019) for TensorFlow 2 and Sonnet 2."""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

# Before TensorFlow is imported, which reads them then. What the user has set
# stays.
if platform.machine() in ("x86_64", "AMD64"):
  # TensorFlow by itself leaves oneDNN off on processors without AVX-512 VNNI,
  # where it makes steps about twice as fast, too; see docs/performance.md.
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# TensorFlow Probability needs Keras 2; without Keras 3, which nothing needs,
# TensorFlow is imported almost a second earlier.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

from iodine import pretrained
from iodine.building import build, trust

__version__ = "0.1.0"

if TYPE_CHECKING:
  from iodine import segmentation
  from iodine.modules.iodine import IODINE
  from iodine.segmentation import Segmenter
  from iodine.studies.latents import read_latents

__all__ = [
  "Segmenter",
  "build",
  "load_config",
  "read_latents",
  "restore",
  "segment",
  "trust",
]

# The Sacred experiment and the named configs are `iodine.main` and
# `iodine.configs`: in a wheel they lie in this folder, in a checkout beside it.
_FOLDER = os.path.dirname(os.path.abspath(__file__))
if not os.path.exists(os.path.join(_FOLDER, "main.py")):
  __path__.append(os.path.dirname(_FOLDER))


def __getattr__(name: str) -> Any:
  if name == "Segmenter":
    # Not above, so that `import iodine` does not take the seconds of
    # TensorFlow.
    from iodine import segmentation

    return segmentation.Segmenter
  if name == "read_latents":
    from iodine.studies import latents

    return latents.read_latents
  raise AttributeError(f"module `iodine` has no attribute `{name}`")


def load_config(
  name: str | Sequence[str], updates: Mapping[str, Any] | None = None
) -> dict[str, Any]:
  """Returns the complete config of an experiment as a plain dict.

  Args:
    name: a named config, such as "tetrominoes", the path of a JSON file with
      one, or several, later ones after earlier ones.
    updates: nested or dotted keys, as at the command line.

  Raises:
    iodine.errors.UserError: if a name or a key is unknown, or a file names
      code that is not trusted, see `iodine.trust`.
  """
  main = importlib.import_module("iodine.main")
  return main.get_config((name,) if isinstance(name, str) else name, updates)


def restore(
  path: str | os.PathLike[str], config: Mapping[str, Any] | None = None
) -> tuple[IODINE, Mapping[str, Any]]:
  """Restores a model with the config that it was trained with.

  Args:
    path: folder or prefix of a checkpoint, of this project or of the original;
      or a packed model.
    config: as `load_config` gives it; None for the `config.json` beside the
      checkpoint, which those of the original (TF1) do not have.

  Returns:
    (model, config)

  Raises:
    iodine.errors.UserError: if the checkpoint or the config is missing or
      broken, they do not fit each other, or the config beside the checkpoint
      names code that is not trusted, see `iodine.trust`.
  """
  from iodine import checkpoints

  return checkpoints.restore_model(path, config)


def segment(
  image: Any,
  checkpoint: str | os.PathLike[str] = pretrained.TETROMINOES,
  config: Mapping[str, Any] | None = None,
  seed: int | None = None,
) -> segmentation.Segmentation:
  """Decomposes an image with a trained model.

  For many images, `iodine.Segmenter` restores and compiles the
  model once.

  Args:
    image: the path of an image file, a PIL image, or an array [H', W',
      C], uint8 or floating-point in [0, 1]. The largest region in its middle
      with the proportions of the model's images is resized to them.
    checkpoint: folder or prefix of a checkpoint, or a packed model; the model
      which comes with the project if it is not given.
    config: the config that the model was trained with, as `load_config`
      gives it; None for the `config.json` beside the checkpoint, which those
      of the original (TF1) do not have.
    seed: the latents are sampled from it; None for the config's.

  Returns:
    masks [K, H, W], components [K, H, W, C], reconstruction, latents and so
    on, see `iodine.segmentation.Segmentation`.

  Raises:
    iodine.errors.UserError: if the image, the checkpoint or the config is
      missing or broken, they do not fit each other, or the config beside the
      checkpoint names code that is not trusted, see `iodine.trust`.
  """
  from iodine import segmentation

  return segmentation.segment(image, checkpoint, config, seed)
