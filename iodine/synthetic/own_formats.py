"""Scenes as users have them: folders of PNGs, and arrays in a NPZ file.

Dimensions: N scenes, T frames, H W C image, L entities (0 the background), n
values of a factor.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping

import numpy as np
import PIL.Image

from iodine import errors, files

Scene = Mapping[str, np.ndarray]

# What `write_pngs` writes.
_PNG = re.compile(r"scene_\d+(\.mask)?\.png")


def labels(scene: Scene) -> np.ndarray:
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


def check_png_folder(folder: str | os.PathLike[str]) -> None:
  """Checks that a folder can be filled: new, empty, or filled by this project.

  Raises:
    errors.UserError: if it has other things in it, which would be lost.
  """
  if not os.path.exists(folder):
    return
  names = os.listdir(folder) if os.path.isdir(folder) else [os.fspath(folder)]
  others = sorted(
    name for name in names if name != files.MARK and not _PNG.fullmatch(name)
  )
  if others or os.path.samefile(folder, os.curdir):
    raise errors.UserError(
      f"`{os.fspath(folder)}` is there already"
      + (f" and has other things in it ({others[0]})" if others else "")
      + ": choose a new or an empty folder"
    )
  files.check_replaceable(os.fspath(folder))


def write_pngs(
  folder: str | os.PathLike[str], scenes: Iterator[Scene], num_scenes: int
) -> None:
  """Writes `scene_00000.png` and its labels `scene_00000.mask.png`, and so on.

  The folder comes into being when it is complete; one that was filled so
  before is replaced.

  Args:
    folder: see `check_png_folder`.
    scenes: stills; colour images become RGB, others grey; see `labels`.
    num_scenes: how many; file names are in their order.

  Raises:
    errors.UserError: if the folder holds other things or cannot be written.
  """
  check_png_folder(folder)
  width = max(5, len(str(num_scenes - 1)))
  with files.replaced_folder(os.fspath(folder)) as temporary:
    for number, scene in enumerate(scenes):
      path = os.path.join(temporary, f"scene_{number:0{width}}")
      image = scene["image"]
      if image.shape[-1] == 1:
        image = image[..., 0]
      PIL.Image.fromarray(image).save(f"{path}.png")
      PIL.Image.fromarray(labels(scene)).save(f"{path}.mask.png")
    check_png_folder(folder)


def write_npz(
  path: str | os.PathLike[str], scenes: Iterator[Scene], num_scenes: int
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

  Raises:
    errors.UserError: if it cannot be written.
  """
  files.check_writable(path)
  first = _arrays(next(scenes))
  suffixes = {name: f".{name.replace('/', '.')}" for name in first}
  with files.replaced(path) as temporary:
    # A zip file takes one array after the other, and scenes come with all.
    with contextlib.ExitStack() as stack:
      parts = {
        name: stack.enter_context(open(temporary + suffix, "wb"))
        for name, suffix in suffixes.items()
      }
      for name, value in first.items():
        header = {
          "descr": np.lib.format.dtype_to_descr(value.dtype),
          "fortran_order": False,
          "shape": (num_scenes, *value.shape),
        }
        np.lib.format.write_array_header_1_0(parts[name], header)
      for arrays in itertools.chain([first], map(_arrays, scenes)):
        for name, value in arrays.items():
          parts[name].write(value.tobytes())
    with zipfile.ZipFile(temporary, "w") as archive:
      for name, suffix in suffixes.items():
        with (
          open(temporary + suffix, "rb") as source,
          # Of a fixed date, so that equal scenes give equal bytes.
          archive.open(f"{name}.npy", "w", force_zip64=True) as target,
        ):
          shutil.copyfileobj(source, target, 1 << 20)
        os.remove(temporary + suffix)


def _arrays(scene: Scene) -> dict[str, np.ndarray]:
  """Returns what is written of a scene."""
  arrays = {"image": scene["image"], "mask": labels(scene)}
  for name, value in scene.items():
    if name == "visibility":
      arrays[name] = value
    elif name not in arrays:
      arrays[f"factors/{name}"] = value.reshape(len(value), -1)
  return arrays
