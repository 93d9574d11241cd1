"""Scenes as users have them: folders of PNGs, and arrays in a NPZ file.

Dimensions: N scenes, T frames, H W C image, L entities (0 the background), n
values of a factor.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import PIL.Image

from iodine import errors, files
from iodine.synthetic import entities

# What is in a folder of `write_pngs`.
_NAMES = re.compile(rf"scene_\d+(\.mask)?\.png|{re.escape(files.MARK)}")


def labels(scene: entities.Scene) -> np.ndarray:
  """Returns the number of the entity that shows at each pixel.

  Args:
    scene: mask [L, H, W, 1] or [H, W, L, 1], 0 or 255, of which one entity has
      each pixel; a film's are labels [T, H, W] already.

  Returns:
    [(T,) H, W] uint8.
  """
  mask = scene["mask"]
  if mask.ndim == 3:
    return mask
  axis = 0 if len(mask) == len(scene["visibility"]) else 2
  return mask[..., 0].argmax(axis=axis).astype(np.uint8)


def write_pngs(
  folder: str | os.PathLike[str],
  scenes: Iterable[entities.Scene],
  num_scenes: int,
) -> None:
  """Writes `scene_00000.png` and its labels `scene_00000.mask.png`, and so on.

  The folder comes into being when it is complete; one that was filled so
  before is replaced.

  Args:
    folder: new, empty, or filled so before.
    scenes: stills; colour images become RGB, others grey; see `labels`.
    num_scenes: how many; file names are in their order.
  """
  width = max(5, len(str(num_scenes - 1)))
  with files.replaced_folder(folder) as temporary:
    names = os.listdir(folder) if os.path.exists(folder) else []
    others = [name for name in names if not _NAMES.fullmatch(name)]
    if others:
      raise errors.UserError(
        f"`{os.fspath(folder)}` is there already and has other things in it "
        f"({others[0]}): choose a new or an empty folder"
      )
    for number, scene in enumerate(scenes):
      path = os.path.join(temporary, f"scene_{number:0{width}}")
      image = scene["image"]
      if image.shape[-1] == 1:
        image = image[..., 0]
      PIL.Image.fromarray(image).save(f"{path}.png")
      PIL.Image.fromarray(labels(scene)).save(f"{path}.mask.png")


def write_npz(
  path: str | os.PathLike[str],
  scenes: Iterable[entities.Scene],
  num_scenes: int,
) -> None:
  """Writes the arrays of all scenes to a NPZ file, without holding them.

  They are image [N, (T,) H, W, C] uint8; mask [N, (T,) H, W] uint8, see
  `labels`; visibility [N, L] float32; and factors/<name> [N, L, n]. They are
  not compressed, so that they can be mapped into memory. The file comes into
  being when it is complete.

  Args:
    path: the file; its folder is made.
    scenes: stills or films, all of the same shapes.
    num_scenes: how many.
  """
  files.check_writable(path)
  with files.replaced(path) as temporary:
    # The file takes one array after the other, and scenes come with all.
    arrays: dict[str, Any] = {}
    for number, scene in enumerate(scenes):
      for name, value in _arrays(scene).items():
        if number == 0:
          arrays[name] = np.memmap(
            f"{temporary}.{name.replace('/', '.')}",
            value.dtype,
            mode="w+",
            shape=(num_scenes, *value.shape),
          )
        arrays[name][number] = value
    with open(temporary, "wb") as file:
      np.savez(file, **arrays)


def _arrays(scene: entities.Scene) -> dict[str, np.ndarray]:
  """Returns what is written of a scene."""
  arrays = {"image": scene["image"], "mask": labels(scene)}
  arrays["visibility"] = scene["visibility"]
  for name, value in scene.items():
    if name not in arrays:
      arrays[f"factors/{name}"] = value.reshape(len(value), -1)
  return arrays
