"""Files of latents: what `encode` writes and `read_latents` reads.

Pieces are written one after the other, each of them whole or not at all, and
joined to one HDF5 file at the end.

Dimensions: N scenes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from iodine import errors, files

Arrays = Mapping[str, np.ndarray]

# The attribute that says what a file follows from.
_MADE_FROM = "made_from"
# Of a chunk, which is read as a whole.
_CHUNK_BYTES = 2**18
_MASKS = ("labels", "masks")


def read_latents(
  path: str | os.PathLike[str], lazy: bool = False
) -> dict[str, Any]:
  """Reads a file that `python main.py encode` wrote.

  Args:
    path: of the file.
    lazy: whether nothing is read before it is asked for: the values are h5py's
      data sets then, such as `latents["mean"][:1000]`.

  Returns:
    Arrays with a row for each scene, by their names in the file:
      mean, scale, kl: [N, K, Z] of the latents; slot 0 has the largest area.
      labels: [N, H, W] the slot of every pixel; or masks, [N, K, H, W].
      metrics/<name>: [N].
      entity: [N, K] the true entity of a slot, 0 is the background, -1 none.
      visibility: [N, K] of that entity, 0 for none.
      factors/<name>: [N, K, n] of that entity, nan for none.
      entities/{slot,pixels,visibility} [N, L], entities/factors/<name>
        [N, L, n]: all true entities; the slot is -1 for none.
      names: [N] files or films, where the data set has some.

  Raises:
    iodine.errors.UserError: if there is no such file.

  Example:
    >>> found = iodine.read_latents("latents.h5")
    >>> found["mean"].shape
    (2, 3, 4)
  """
  with errors.as_user_error(
    (OSError, KeyError),
    lambda error: (
      f"`{os.fspath(path)}` is not a file of latents ({errors.reason(error)}):"
      " give one that `python main.py encode` wrote"
    ),
  ):
    found: dict[str, Any] = {}

    def take(name: str, item: Any) -> None:
      if isinstance(item, h5py.Dataset):
        is_text = h5py.check_string_dtype(item.dtype) is not None
        values = item.asstr() if is_text else item
        found[name] = values if lazy else values[()]

    file = h5py.File(path, "r")
    if _MADE_FROM not in file.attrs:
      raise KeyError("something else")
    file.visititems(take)
    return found


def about(path: str) -> dict[str, Any]:
  """Returns the attributes of a file; none where there is none."""
  if not (os.path.isfile(path) and h5py.is_hdf5(path)):
    return {}
  with h5py.File(path, "r") as file:
    return dict(file.attrs)


def made_from(path: str) -> str | None:
  """Returns what a file follows from, None where there is none."""
  return about(path).get(_MADE_FROM)


def check(path: str) -> None:
  """Checks early that a file can be written, and replaces no other kind."""
  files.check_writable(path)
  if os.path.exists(path) and os.path.getsize(path) and not made_from(path):
    raise errors.UserError(
      f"`{path}` is there already, and is not a file of latents: choose "
      "another `output`, or remove it"
    )


class Pieces:
  """A folder of pieces, which are whole from the first scene on."""

  def __init__(self, folder: str):
    """Takes the folder and what an earlier call has left in it."""
    self._folder = folder
    names = sorted(x for x in os.listdir(folder) if x.isdigit())
    self._paths = [os.path.join(folder, name) for name in names]
    self.num_scenes = sum(map(_length, self._paths))

  def add(self, piece: Arrays) -> None:
    """Writes a piece of scenes that follow."""
    path = os.path.join(self._folder, f"{self.num_scenes:012}")
    with files.replaced(path) as temporary, h5py.File(temporary, "w") as file:
      for name, values in piece.items():
        is_text = values.dtype == object
        dtype = h5py.string_dtype() if is_text else values.dtype
        file.create_dataset(name, data=values, dtype=dtype)
    self._paths.append(path)
    self.num_scenes += len(piece["mean"])

  def join(self, path: str, attributes: Mapping[str, Any], text: str) -> None:
    """Makes one file of all.

    Args:
      path: the file, which is there when it is complete.
      attributes: what it says about itself.
      text: what it follows from, see `made_from`.
    """
    with files.replaced(path) as temporary, h5py.File(temporary, "w") as file:
      for piece in self._paths:
        with h5py.File(piece, "r") as part:
          part.visititems(lambda name, item: _append(file, name, item))
        file.flush()
      file.attrs.update(attributes)
      file.attrs[_MADE_FROM] = text


def _length(path: str) -> int:
  with h5py.File(path, "r") as file:
    return len(file["mean"])


def _append(file: h5py.File, name: str, item: Any) -> None:
  """Appends what a piece has under a name."""
  if not isinstance(item, h5py.Dataset):
    return
  shape = item.shape[1:]
  if name not in file:
    row = item.dtype.itemsize * int(np.prod(shape))
    options = {"compression": "gzip", "compression_opts": 1}
    file.create_dataset(
      name,
      (0, *shape),
      item.dtype,
      maxshape=(None, *shape),
      chunks=(max(1, _CHUNK_BYTES // max(1, row)), *shape),
      **(options if name in _MASKS else {}),
    )
  start = len(file[name])
  file[name].resize(start + len(item), axis=0)
  file[name][start:] = item[()]
