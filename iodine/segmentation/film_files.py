"""A decomposed film as files that other programs and people can open.

Dimensions: T frames, K slots, H W C image of the model.
"""

from __future__ import annotations

import os
import re

import numpy as np
import PIL.Image

from iodine import files
from iodine.drawing import palette
from iodine.modules import data
from iodine.segmentation import segmenter, user_files

_NAMES = re.compile(r"film\.gif|mask_\d+\.png|segmentation\.npz")
_MIN_HEIGHT = 256  # of the GIF, in pixels
_FRAME_MILLISECONDS = 200


def are_all_ours(folder: str) -> bool:
  """Returns whether a folder holds only what `write` might have made."""
  return files.holds_only(folder, _NAMES)


def write(
  folder: str, found: segmenter.FilmSegmentation, frames: np.ndarray
) -> None:
  """Writes all files of one film.

  film.gif: the region of the frames that was seen, beside its reconstruction
    and the pixels in the colours of their slots.
  mask_000.png and so on: [H, W] with a palette, the index is the slot, from 0.
  segmentation.npz: the fields of `found`.

  Args:
    folder: an empty one.
    found: the segmentation.
    frames: [T, H', W', 3] in [0, 1], the film that it is of.
  """
  colors = palette.slot_colors(found.masks.shape[1])
  labels = found.labels().astype(np.uint8)
  digits = max(3, len(str(len(labels))))
  for number in range(len(labels)):
    path = os.path.join(folder, f"mask_{number:0{digits}}.png")
    user_files.save_labels(path, labels[number], colors)
  np.savez_compressed(
    os.path.join(folder, "segmentation.npz"), **found._asdict()
  )
  first, *others = draw(found, frames)
  first.save(
    os.path.join(folder, "film.gif"),
    save_all=True,
    append_images=others,
    duration=_FRAME_MILLISECONDS,
    loop=0,
  )


def draw(
  found: segmenter.FilmSegmentation, frames: np.ndarray
) -> list[PIL.Image.Image]:
  """Draws the frames of the GIF; arguments as for `write`."""
  colors = palette.slot_colors(found.masks.shape[1])
  (top, bottom), (left, right) = found.region
  pixels = frames[:, top:bottom, left:right]
  size = pixels.shape[1:3]
  mixed = palette.mix(found.masks[..., np.newaxis], colors)
  recons = np.broadcast_to(found.reconstruction, mixed.shape)
  parts = [pixels, data.resize(recons, size), data.resize(mixed, size)]
  wide = np.concatenate([np.asarray(part) for part in parts], axis=2)
  zoom = max(1, -(-_MIN_HEIGHT // size[0]))
  large = wide.repeat(zoom, axis=1).repeat(zoom, axis=2)
  return [PIL.Image.fromarray(frame) for frame in user_files.to_bytes(large)]
