"""Scenes as users have them: folders of PNGs, and arrays in a NPZ file.

Dimensions: N scenes, T frames, H W C image, L entities (0 the background), n
values of a factor.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Sequence
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


def check_pngs(folder: str | os.PathLike[str]) -> None:
  """Raises a UserError where a folder has things in it that would be lost."""
  files.check_replaceable(folder)
  names = os.listdir(folder) if os.path.exists(folder) else []
  others = [name for name in names if not _NAMES.fullmatch(name)]
  if others:
    raise errors.UserError(
      f"`{os.fspath(folder)}` is there already and has other things in it "
      f"({others[0]}): choose a new or an empty folder"
    )


def write_pngs(
  folder: str | os.PathLike[str],
  scenes: Iterable[entities.Scene],
  first: int,
  num_scenes: int,
) -> None:
  """Writes `scene_00000.png` and its labels `scene_00000.mask.png`, and so on.

  The folder comes into being when it is complete.

  Args:
    folder: a new one.
    scenes: stills; colour images become RGB, others grey; see `labels`.
    first: the number of the first one; file names are in their order.
    num_scenes: how many there are in all.
  """
  width = max(5, len(str(num_scenes - 1)))
  with files.replaced_folder(folder) as temporary:
    for number, scene in enumerate(scenes, first):
      path = os.path.join(temporary, f"scene_{number:0{width}}")
      image = scene["image"]
      if image.shape[-1] == 1:
        image = image[..., 0]
      PIL.Image.fromarray(image).save(f"{path}.png")
      PIL.Image.fromarray(labels(scene)).save(f"{path}.mask.png")


def join_pngs(parts: Sequence[str], folder: str | os.PathLike[str]) -> None:
  """Fills a folder, new or filled so before, with what is in others."""
  with files.replaced_folder(folder) as temporary:
    for part in parts:
      shutil.copytree(part, temporary, dirs_exist_ok=True)


def write_npz(
  path: str | os.PathLike[str], scenes: Iterable[entities.Scene]
) -> None:
  """Writes the arrays of scenes to a NPZ file, which is not compressed.

  They are image [N, (T,) H, W, C] uint8; mask [N, (T,) H, W] uint8, see
  `labels`; visibility [N, L] float32; and factors/<name> [N, L, n].

  Args:
    path: the file.
    scenes: stills or films, all of the same shapes.
  """
  rows = [_arrays(scene) for scene in scenes]
  arrays: dict[str, Any] = {
    name: np.stack([row[name] for row in rows]) for name in rows[0]
  }
  with files.replaced(path) as temporary, open(temporary, "wb") as file:
    np.savez(file, **arrays)


def join_npz(
  parts: Sequence[str], path: str | os.PathLike[str], num_scenes: int
) -> None:
  """Writes one NPZ file of several, without holding them.

  It is not compressed, so that it can be mapped into memory, and comes into
  being when it is complete.

  Args:
    parts: files of `write_npz`.
    path: the file; its folder is made.
    num_scenes: how many scenes all have.
  """
  with files.replaced(path) as temporary:
    # The file takes one array after the other, and parts come with all.
    arrays: dict[str, Any] = {}
    start = 0
    for part in parts:
      with np.load(part) as found:
        for name, value in found.items():
          if start == 0:
            arrays[name] = np.memmap(
              f"{temporary}.{name.replace('/', '.')}",
              value.dtype,
              mode="w+",
              shape=(num_scenes, *value.shape[1:]),
            )
          arrays[name][start : start + len(value)] = value
        start += len(value)
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
