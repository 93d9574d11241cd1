"""The colours of the slots, which are the same in every picture.

Dimensions: K slots, L true entities, H W image.
"""

from __future__ import annotations

from typing import Any

import matplotlib.colors
import numpy as np
import scipy.optimize

# Light grey for slot 1, the background's where that has one, then the palette
# of Okabe and Ito (2008), "Color Universal Design", without its black.
_SLOTS = (
  *("#CCCCCC", "#E69F00", "#56B4E9", "#009E73"),
  *("#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
)
# Eleven slots can be told apart with it, as eight can.
_DARKER = 0.45
# Of curves: those that are seen on white.
LINES = [_SLOTS[i] for i in (5, 6, 3, 7, 1, 2)]


def slot_colors(num_slots: int) -> np.ndarray:
  """Returns the slots' colours as RGB in [0, 1]: [K, 3] float32.

  Slot k has the same one however many there are. From the ninth on they are the
  same eight again, darker each time; beyond sixteen they are hard to tell
  apart.
  """
  rounds, places = np.divmod(np.arange(num_slots), len(_SLOTS))
  colors = np.array([matplotlib.colors.to_rgb(each) for each in _SLOTS])
  return (colors[places] * _DARKER ** rounds[:, None]).astype(np.float32)


def mix(masks: np.ndarray, colors: np.ndarray) -> np.ndarray:
  """Adds masks times colours: [..., K, H, W, 1], [K, 3] to [..., H, W, 3]."""
  return np.einsum("...khw,kc->...hwc", masks[..., 0], colors)


def checkerboard(height: int, width: int) -> np.ndarray:
  """Returns white and light grey squares, as behind what is transparent.

  On white alone a white object would not be seen.

  Returns:
    [height, width, 1] float32.
  """
  size = max(1, max(height, width) // 12)
  rows, columns = np.arange(height) // size, np.arange(width) // size
  is_grey = (rows[:, None] + columns) % 2
  return (1.0 - 0.12 * is_grey[..., None]).astype(np.float32)


def cut_out(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
  """Lays images [..., H, W, 1 or 3] with masks [..., H, W, 1] on squares."""
  return lay_on_squares(np.clip(images, 0.0, 1.0), masks)


def lay_on_squares(images: Any, masks: Any) -> Any:
  """Does the same with images in [0, 1], arrays or tensors."""
  board = checkerboard(*masks.shape[-3:-1])
  return masks * images + (1.0 - masks) * board


def match_entities(true_mask: np.ndarray, pred_mask: np.ndarray) -> np.ndarray:
  """Gives true entities a slot each, so that the sum of their IoU is largest.

  Objects come before the background (entity 0), as where slots divide that,
  none of them has little of it.

  Args:
    true_mask: [L, H, W, 1].
    pred_mask: [K, H, W, 1].

  Returns:
    [L] slots; -1 for entities that share no pixel with one, and where K slots
    are too few.
  """
  overlap = np.einsum("lhw,khw->lk", true_mask[..., 0], pred_mask[..., 0])
  return match_by_iou(overlap)


def match_by_iou(overlap: np.ndarray) -> np.ndarray:
  """Does the same with numbers of pixels [L, K] that they share."""
  sizes = overlap.sum(axis=1)[:, None] + overlap.sum(axis=0)
  iou = overlap / np.maximum(sizes - overlap, 1e-6)
  iou[0] *= 1e-6
  rows, columns = scipy.optimize.linear_sum_assignment(iou, maximize=True)
  slots = np.full(len(iou), -1)
  slots[rows] = np.where(iou[rows, columns] > 0, columns, -1)
  return slots


def entity_colors(slots: np.ndarray, num_slots: int) -> np.ndarray:
  """Returns colours [L, 3] of entities with these slots, or else greys."""
  # Darker than slot 1.
  greys = np.linspace(0.25, 0.6, len(slots))
  colors = np.repeat(greys[:, None], 3, axis=1)
  matched = slots >= 0
  colors[matched] = slot_colors(num_slots)[slots[matched]]
  return colors


def readable_on(color: np.ndarray) -> str:
  """Returns black or white, whichever is legible on an RGB colour."""
  # Perceived brightness, ITU-R BT.601.
  return "black" if color @ np.array([0.299, 0.587, 0.114]) > 0.45 else "white"
