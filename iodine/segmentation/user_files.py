"""A segmentation as files that other programs and people can open.

Dimensions: K slots, H W C image of the model, H' W' region of the original.
"""

from __future__ import annotations

import os
import re

import numpy as np
import PIL.Image
import scipy.ndimage
from matplotlib.figure import Figure

from iodine import files
from iodine.drawing import canvas, palette, plotting
from iodine.modules import data
from iodine.readers import image_files
from iodine.segmentation import segmenter

# How much of the slot's colour is in an overlay.
_TINT = 0.45
_MIN_OVERLAY_SIZE = 512
_NOT_SEEN = 255  # in mask_full.png
_SIZE_PER_LINE_WIDTH = 300  # of the borders between slots

_NAMES = re.compile(
  r"mask(_full)?\.png|overlay\.png|overview\.png|slot_\d+\.png|segmentation\.npz"
)


def are_all_ours(folder: str) -> bool:
  """Returns whether a folder holds only what `write` might have made."""
  return files.holds_only(folder, _NAMES)


def write(
  folder: str, found: segmenter.Segmentation, original: np.ndarray
) -> None:
  """Writes all files of one image.

  mask.png: [H, W] with a palette: the index is the slot, from 0, and the
    colour that of the slot in all pictures.
  mask_full.png: the same in the size of the whole original, 255 where it was
    not seen.
  segmentation.npz: the fields of `found`.
  slot_1.png and so on: a cut-out for each active slot, [H', W'] RGB with the
    mask as opacity.
  overlay.png: the region of the original, tinted with the slots' colours.
  overview.png: image, reconstruction, mask and the slots.

  Args:
    folder: an empty one.
    found: the segmentation.
    original: the image that it is of, as `image_files.read` gives it.
  """
  (top, bottom), (left, right) = found.region
  pixels = image_files.to_channels(original[top:bottom, left:right], 3)
  colors = palette.slot_colors(len(found.masks))

  labels = found.labels().astype(np.uint8)
  save_labels(os.path.join(folder, "mask.png"), labels, colors)
  whole = np.full(original.shape[:2], _NOT_SEEN, np.uint8)
  whole[top:bottom, left:right] = _labels(found, pixels.shape[:2])
  save_labels(os.path.join(folder, "mask_full.png"), whole, colors)

  np.savez_compressed(
    os.path.join(folder, "segmentation.npz"), **found._asdict()
  )

  for k in found.active_slots():
    opacity = _enlarge(found.masks[k, ..., None], pixels.shape[:2])
    cutout = np.concatenate([pixels, opacity], axis=-1)
    PIL.Image.fromarray(to_bytes(cutout)).save(
      os.path.join(folder, f"slot_{k + 1}.png")
    )

  overlay(found, pixels).save(os.path.join(folder, "overlay.png"))
  canvas.save(overview(found), os.path.join(folder, "overview.png"))


def save_labels(path: str, labels: np.ndarray, colors: np.ndarray) -> None:
  """Writes a label image, [H, W] uint8, with the colours [K, 3] of slots."""
  palette_bytes = np.zeros([256, 3], np.uint8)
  palette_bytes[: len(colors)] = to_bytes(colors)
  mask = PIL.Image.fromarray(labels)
  mask.putpalette(palette_bytes.tobytes())
  mask.save(path)


def overlay(
  found: segmenter.Segmentation, pixels: np.ndarray
) -> PIL.Image.Image:
  """Tints an image with its slots' colours, their borders drawn.

  Args:
    found: the segmentation.
    pixels: [H', W', 3] in [0, 1]; small ones are enlarged by a whole number.
  """
  size = pixels.shape[:2]
  colors = palette.slot_colors(len(found.masks))
  # Mixed before it is enlarged, which comes to the same with less memory.
  tint = _enlarge(palette.mix(found.masks[..., None], colors), size)
  zoom = max(1, -(-_MIN_OVERLAY_SIZE // max(size)))
  tinted = _repeat((1 - _TINT) * pixels + _TINT * tint, zoom)
  labels = _repeat(_labels(found, size), zoom)
  width = 2 * round(max(labels.shape) / _SIZE_PER_LINE_WIDTH) + 1
  lowest = scipy.ndimage.minimum_filter(labels, width)
  is_border = lowest != scipy.ndimage.maximum_filter(labels, width)
  tinted[is_border] = colors[labels[is_border]]
  return PIL.Image.fromarray(to_bytes(tinted))


def _labels(found: segmenter.Segmentation, size: tuple[int, int]) -> np.ndarray:
  """Returns the slots [H', W'] of the largest enlarged masks, from 0."""
  labels, largest = np.zeros(size, np.int32), np.zeros(size, np.float32)
  # One by one: all masks of a photograph at once would be a gigabyte.
  for k, mask in enumerate(found.masks):
    enlarged = _enlarge(mask[..., None], size)[..., 0]
    labels[enlarged > largest] = k
    largest = np.maximum(largest, enlarged)
  return labels


def _repeat(values: np.ndarray, times: int) -> np.ndarray:
  """Returns every pixel of [H', W', ...] as a square of times x times."""
  return values.repeat(times, axis=0).repeat(times, axis=1)


def overview(found: segmenter.Segmentation) -> Figure:
  """Draws the picture that is drawn of scenes, too."""
  # A batch of one scene with one iteration.
  info = {
    "data": {"image": found.image[None, None]},
    "outputs": {
      "recons": found.reconstruction[None, None, None],
      "pred_mask": found.masks[None, None, ..., None],
      "components": found.components[None, None],
    },
  }
  return plotting.example_plot(info)


def _enlarge(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Maps [H, W, C] -> [H', W', C], by the rule it was reduced by."""
  return data.resize(image[None], size)[0].numpy()


def to_bytes(values: np.ndarray) -> np.ndarray:
  """Maps [0, 1] to 0 to 255."""
  return np.rint(255.0 * np.clip(values, 0.0, 1.0)).astype(np.uint8)
