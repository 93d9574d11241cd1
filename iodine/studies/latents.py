"""Files of latents: what `encode` writes and `read_latents` reads.

Dimensions: N scenes.
"""

from __future__ import annotations

import errno
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from iodine import errors, files

# The attribute that says what a file follows from.
MADE_FROM = "made_from"
# What a file needs beside its rows, in bytes.
_ROOM = 2**23


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
      slot: [N, L] of each true entity, -1 for none; entity 0 is the background.
      pixels, visibility: [N, L] of each true entity.
      factors/<name>: [N, L, n] of each true entity.
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
  file.visititems(found.__setitem__)
  found = {k: x for k, x in found.items() if isinstance(x, h5py.Dataset)}
  if "names" in found:
    found["names"] = found["names"].asstr()
  return found if lazy else {name: x[()] for name, x in found.items()}


def about(path: str | os.PathLike[str]) -> dict[str, Any]:
  """Returns the attributes of a file; none where there is none."""
  if not (os.path.isfile(path) and h5py.is_hdf5(path)):
    return {}
  with h5py.File(path, "r") as file:
    return dict(file.attrs)


def pieces(folder: str) -> dict[int, pathlib.Path]:
  """Returns the pieces of a file to be, by the number of scenes at their end.

  They are NPZ files named by it, of arrays with a row for each scene.
  """
  found = sorted(pathlib.Path(folder).glob("*.npz"))
  return {int(path.stem): path for path in found}


def join(
  folder: str, path: str, attributes: Mapping[str, Any], names: Sequence[str]
) -> None:
  """Makes one file of all pieces, which is there when it is complete.

  Args:
    folder: of the pieces.
    path: of the file.
    attributes: what it says about itself.
    names: of the scenes; () for none.
  """
  found = pieces(folder)
  num_scenes, size = max(found), sum(x.stat().st_size for x in found.values())
  with files.replaced(path) as temporary:
    # HDF5 would end the process on a full disk.
    if shutil.disk_usage(folder).free < size + _ROOM:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with h5py.File(temporary, "w") as file:
      file.attrs.update(attributes)
      if names:
        file["names"] = list(names[:num_scenes])
      for stop, piece in found.items():
        with np.load(piece) as arrays:
          for name, rows in arrays.items():
            shape = (num_scenes, *rows.shape[1:])
            options = {"chunks": True, "compression": "gzip"}
            whole = file.require_dataset(name, shape, rows.dtype, **options)
            whole[stop - len(rows) : stop] = rows
