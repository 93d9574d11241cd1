"""IODINE (Greff et al. 2019) for TensorFlow 2 and Sonnet 2."""

from typing import TYPE_CHECKING

from iodine.api import (
  decompose,
  evaluate,
  load_config,
  restore,
  segment,
  train,
)
from iodine.building import build, trust

if TYPE_CHECKING:
  from iodine.segmentation import Segmenter
  from iodine.studies.latents import read_latents

del TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
  "Segmenter",
  "build",
  "decompose",
  "evaluate",
  "load_config",
  "read_latents",
  "restore",
  "segment",
  "train",
  "trust",
]

# Not above, so that `import iodine` does not take the seconds of TensorFlow.
_LATER = {"Segmenter": "segmentation", "read_latents": "studies.latents"}


def _set_up() -> list[str]:
  """Sets the environment up; returns where modules of the package lie.

  TensorFlow reads the environment when it is imported. What the user has set
  stays.
  """
  import os
  import platform

  if platform.machine() in ("x86_64", "AMD64"):
    # TensorFlow by itself leaves oneDNN off on processors without AVX-512 VNNI,
    # where it makes steps about twice as fast, too; see docs/performance.md.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
  # TensorFlow Probability needs Keras 2; without Keras 3, which nothing needs,
  # TensorFlow is imported almost a second earlier.
  os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
  # Imported before TensorFlow, it leaves out its Keras layers and experiments,
  # a third of its time.
  import tensorflow_probability  # noqa: F401

  # The Sacred experiment and the named configs are `iodine.main` and
  # `iodine.configs`: in a wheel they lie in this folder, in a checkout beside
  # it.
  folder = os.path.dirname(os.path.abspath(__file__))
  is_wheel = os.path.exists(os.path.join(folder, "main.py"))
  return [] if is_wheel else [os.path.dirname(folder)]


__path__ += _set_up()


def __getattr__(name: str) -> object:
  if name not in _LATER:
    raise AttributeError(f"module `iodine` has no attribute `{name}`")
  import importlib

  return getattr(importlib.import_module(f"iodine.{_LATER[name]}"), name)


def __dir__() -> list[str]:
  return sorted([*__all__, "__all__", "__version__"])
