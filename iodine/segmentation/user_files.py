"""A segmentation as files that other programs and people can open.

Dimensions: T frames, K slots, H W C image of the model, H' W' region of the
original.
"""

from __future__ import annotations

import pathlib

import imageio.v3 as imageio
import numpy as np
import PIL.Image
import scipy.ndimage
from matplotlib.figure import Figure

from iodine.drawing import canvas, palette, plotting
from iodine.modules import data
from iodine.readers import image_files
from iodine.segmentation import segmenter

# How much of the slot's colour is in an overlay.
_TINT = 0.45
_MIN_OVERLAY_SIZE = 512
_NOT_SEEN = 255  # in mask_full.png
_SIZE_PER_LINE_WIDTH = 300  # of the borders between slots
_MIN_FILM_HEIGHT = 256  # in pixels
_FILM_GAP = 8
_FRAME_MILLISECONDS = 200
_MOST_SHOWN = 4  # images in a notebook


def write(
  folder: str, found: segmenter.Segmentation, original: np.ndarray
) -> None:
  """Writes all files of one image or film.

  segmentation.npz: the fields of `found` but for its source.

  Of an image:
  mask.png: [H, W] with a palette: the index is the slot, from 0, and the
    colour that of the slot in all pictures.
  mask_full.png: the same in the size of the whole original, 255 where it was
    not seen.
  slot_1.png and so on: a cut-out for each active slot, [H', W'] RGB with the
    mask as opacity.
  overlay.png: the region of the original, tinted with the slots' colours.
  overview.png: image, reconstruction, mask and the slots.

  Of a film:
  mask_000.png and so on: a mask for every frame.
  film.gif: see `draw_film`.

  Args:
    folder: an empty one.
    found: the segmentation.
    original: the image or film that it is of, [..., 1 or 3] float32 in [0, 1].
  """
  place = pathlib.Path(folder)
  arrays = found._asdict()
  del arrays["source"]
  np.savez_compressed(place / "segmentation.npz", **arrays)
  if found.is_film:
    _write_film(place, found, original)
  else:
    _write_image(place, found, original)


def _write_image(
  folder: pathlib.Path, found: segmenter.Segmentation, original: np.ndarray
) -> None:
  (top, bottom), (left, right) = found.region
  pixels = image_files.to_channels(original[top:bottom, left:right], 3)
  _save_labels(folder / "mask.png", found.labels(), found)
  whole = np.full(original.shape[:2], _NOT_SEEN, np.uint8)
  whole[top:bottom, left:right] = _labels(found, pixels.shape[:2])
  _save_labels(folder / "mask_full.png", whole, found)
  for k in found.active_slots():
    opacity = _enlarge(found.masks[k, ..., None], pixels.shape[:2])
    cutout = np.concatenate([pixels, opacity], axis=-1)
    PIL.Image.fromarray(_to_bytes(cutout)).save(folder / f"slot_{k + 1}.png")
  overlay(found, pixels).save(folder / "overlay.png")
  canvas.save(overview(found), str(folder / "overview"))


def _write_film(
  folder: pathlib.Path, found: segmenter.Segmentation, frames: np.ndarray
) -> None:
  digits = max(3, len(str(len(frames))))
  for number, labels in enumerate(found.labels()):
    _save_labels(folder / f"mask_{number:0{digits}}.png", labels, found)
  gif = draw_film(found, frames)
  imageio.imwrite(
    folder / "film.gif", gif, duration=_FRAME_MILLISECONDS, loop=0
  )


def draw_film(found: segmenter.Segmentation, frames: np.ndarray) -> np.ndarray:
  """Draws frames of a GIF, [T, height, width, 3] uint8.

  Under their titles they show the region of the frames that was seen, its
  reconstruction, and the pixels in the colours of their slots.

  Args:
    found: the segmentation of a film.
    frames: [T, H', W', 1 or 3] in [0, 1], the film.
  """
  (top, bottom), (left, right) = found.region
  pixels = image_files.to_channels(frames[:, top:bottom, left:right], 3)
  size = pixels.shape[1:3]
  mixed = palette.mix(found.masks[..., None], _colors(found))
  recons = image_files.to_channels(found.reconstruction, 3)
  zoom = max(1, -(-_MIN_FILM_HEIGHT // size[0]))
  parts = [
    np.pad(
      _to_bytes(part).repeat(zoom, axis=1).repeat(zoom, axis=2),
      [(0, 0), (0, _FILM_GAP), 2 * (_FILM_GAP // 2,), (0, 0)],
      constant_values=255,
    )
    for part in (pixels, data.resize(recons, size), data.resize(mixed, size))
  ]
  wide = np.concatenate(parts, axis=2)
  titles = canvas.headings(["film", "reconstruction", "mask"], wide.shape[2])
  return np.concatenate([[titles] * len(wide), wide], axis=1)


def _colors(found: segmenter.Segmentation) -> np.ndarray:
  """Returns the slots' colours [K, 3]."""
  return palette.slot_colors(found.masks.shape[-3])


def _save_labels(
  path: pathlib.Path, labels: np.ndarray, found: segmenter.Segmentation
) -> None:
  """Writes a label image [H, W] with the colours of the slots."""
  colors = np.zeros([256, 3])
  colors[: found.masks.shape[-3]] = _colors(found)
  mask = PIL.Image.fromarray(labels.astype(np.uint8))
  mask.putpalette(_to_bytes(colors).tobytes())
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
  colors = _colors(found)
  # Mixed before it is enlarged, which comes to the same with less memory.
  tint = _enlarge(palette.mix(found.masks[..., None], colors), size)
  zoom = max(1, -(-_MIN_OVERLAY_SIZE // max(size)))
  tinted = _repeat((1 - _TINT) * pixels + _TINT * tint, zoom)
  labels = _repeat(_labels(found, size), zoom)
  width = 2 * round(max(labels.shape) / _SIZE_PER_LINE_WIDTH) + 1
  lowest = scipy.ndimage.minimum_filter(labels, width)
  is_border = lowest != scipy.ndimage.maximum_filter(labels, width)
  tinted[is_border] = colors[labels[is_border]]
  return PIL.Image.fromarray(_to_bytes(tinted))


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


def png(found: segmenter.Segmentation) -> bytes:
  """Encodes `overview`, of several images or frames those of the first."""
  shown = [found]
  if found.is_film:
    shown = [found.at(i) for i in range(min(_MOST_SHOWN, len(found.masks)))]
  rows = [canvas.pixels(overview(each)) for each in shown]
  return imageio.imwrite("<bytes>", np.concatenate(rows), extension=".png")


def _enlarge(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Maps [H, W, C] -> [H', W', C], by the rule it was reduced by."""
  return data.resize(image[None], size)[0].numpy()


def _to_bytes(values: np.ndarray) -> np.ndarray:
  """Maps [0, 1] to 0 to 255."""
  return np.rint(255.0 * np.clip(values, 0.0, 1.0)).astype(np.uint8)
