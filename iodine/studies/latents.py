"""Files of latents: what `encode` writes and `read_latents` reads.

Pieces are written one after the other, each of them whole or not at all, and
joined to one HDF5 file at the end.

Dimensions: N scenes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from iodine import errors, files

Arrays = Mapping[str, np.ndarray]

# The attribute that says what a file follows from.
MADE_FROM = "made_from"
# Of a chunk, which is read as a whole.
_CHUNK_BYTES = 2**18
_PIECE = ".npz"


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
    file = h5py.File(path, "r")
    file.attrs[MADE_FROM]
  found: dict[str, Any] = {}

  def take(name: str, item: Any) -> None:
    if isinstance(item, h5py.Dataset):
      is_text = h5py.check_string_dtype(item.dtype)
      values = item.asstr() if is_text else item
      found[name] = values if lazy else values[()]

  file.visititems(take)
  return found


def about(path: str | os.PathLike[str]) -> dict[str, Any]:
  """Returns the attributes of a file; none where there is none."""
  if not (os.path.isfile(path) and h5py.is_hdf5(path)):
    return {}
  with h5py.File(path, "r") as file:
    return dict(file.attrs)


def check(path: str) -> None:
  """Checks early that a file can be written, and replaces no other kind."""
  files.check_writable(path)
  if os.path.exists(path) and MADE_FROM not in about(path):
    raise errors.UserError(
      f"`{path}` is there already, and is not a file of latents: choose "
      "another `output`, or remove it"
    )


class Pieces:
  """A folder of pieces, each named by the number of scenes up to its end."""

  def __init__(self, folder: str):
    """Takes the folder and what an earlier call has left in it."""
    self._folder = folder
    names = [x for x in os.listdir(folder) if x.endswith(_PIECE)]
    self._names = sorted(names)
    self.num_scenes = int(self._names[-1].removesuffix(_PIECE)) if names else 0

  def add(self, piece: Arrays) -> None:
    """Writes a piece of scenes that follow."""
    self.num_scenes += len(piece["mean"])
    self._names.append(f"{self.num_scenes:012}{_PIECE}")
    path = os.path.join(self._folder, self._names[-1])
    with files.replaced(path) as temporary:
      np.savez(temporary, **piece)  # type: ignore[arg-type]

  def join(
    self, path: str, attributes: Mapping[str, Any], names: Sequence[str]
  ) -> None:
    """Makes one file of all, which is there when it is complete.

    Args:
      path: of the file.
      attributes: what it says about itself.
      names: of the scenes; () for none.
    """
    with files.replaced(path) as temporary, h5py.File(temporary, "w") as file:
      file.attrs.update(attributes)
      if names:
        file["names"] = list(names[: self.num_scenes])
      for piece in self._names:
        with np.load(os.path.join(self._folder, piece)) as arrays:
          for name, values in arrays.items():
            _append(file, name, values)


def _append(file: h5py.File, name: str, values: np.ndarray) -> None:
  shape = values.shape[1:]
  if name not in file:
    file.create_dataset(
      name,
      (0, *shape),
      values.dtype,
      maxshape=(None, *shape),
      chunks=(max(1, _CHUNK_BYTES // max(1, values[0].nbytes)), *shape),
      compression="gzip" if name in ("labels", "masks") else None,
    )
  start = len(file[name])
  file[name].resize(start + len(values), axis=0)
  file[name][start:] = values
