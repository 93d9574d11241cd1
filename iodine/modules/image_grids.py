"""The overview images: tiles with borders on a grid.

Dimensions: B images, T iterations + 1, K slots, H W C image, b border width.
Source: the original's `iodine/modules/utils.py`.
"""

from __future__ import annotations

from typing import Any

import shapeguard
import tensorflow as tf

BORDER_WIDTH = 2
BORDER_VALUE = 0.5


def hue_wheel(num_slots: int) -> tf.Tensor:
  """Returns the original's colours of slots, HSV(k / K, 1, 1): [K, 3]."""
  hues = tf.range(num_slots, dtype=tf.float32) / num_slots
  return tf.image.hsv_to_rgb(tf.stack([hues, *2 * [tf.ones_like(hues)]], -1))


def color_masks(masks: tf.Tensor, colors: Any = None) -> tf.Tensor:
  """Sums mask times slot colour: [..., H, W, K] -> [..., H, W, 3].

  Args:
    masks: which.
    colors: of the slots [K, 3]; None for `hue_wheel`.
  """
  colors = hue_wheel(masks.shape[-1]) if colors is None else colors
  return tf.einsum("...k,kc->...c", masks, colors)


def add_border(images: tf.Tensor, value: float = BORDER_VALUE) -> tf.Tensor:
  """Maps [..., H, W, C] -> [..., H + 2b, W + 2b, C]."""
  width = [BORDER_WIDTH, BORDER_WIDTH]
  paddings = [[0, 0]] * (images.shape.rank - 3) + [width, width, [0, 0]]
  return tf.pad(images, paddings, constant_values=value)


def to_rgb(images: tf.Tensor) -> tf.Tensor:
  """Repeats a single channel to three; leaves others as they are."""
  return tf.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def images_to_grid(
  images: tf.Tensor,
  grid_height: int | None = None,
  grid_width: int | None = 4,
  border: float | None = BORDER_VALUE,
) -> tf.Tensor:
  """Lays images out on a grid, row by row.

  Args:
    images: [B, H, W, C].
    grid_height: rows; None for as many as needed, up to 4.
    grid_width: columns; None for as many as needed at the given height.
    border: value of the border and of missing tiles; None for no border and
      black tiles. Images beyond the grid are dropped.

  Returns:
    [height, width, C].
  """
  sg = shapeguard.ShapeGuard()
  sg.guard(images, "B, H, W, C")
  num_images = sg.B
  if grid_width is None:
    grid_width = -(-num_images // grid_height) if grid_height else num_images
  if grid_height is None:
    grid_height = min(-(-num_images // grid_width), 4)
  images = images[: grid_height * grid_width]
  if border is not None:
    images = add_border(images, border)
  missing = grid_height * grid_width - images.shape[0]
  paddings = [[0, missing], [0, 0], [0, 0], [0, 0]]
  images = tf.pad(images, paddings, constant_values=border or 0.0)
  rows = tf.split(images, grid_height)
  return tf.concat([tf.concat(tf.unstack(row), axis=1) for row in rows], axis=0)


def diagnostic_image(
  images: tf.Tensor,
  recons: tf.Tensor,
  masks: tf.Tensor | None = None,
  components: tf.Tensor | None = None,
  mask_components: bool = False,
  max_images: int = 6,
  colors: Any = None,
) -> tf.Tensor:
  """Draws one row an image: image, reconstruction, mask, components.

  Args:
    images: [B, H, W, C].
    recons: [B, H, W, C].
    masks: [B, H, W, K], or None to leave masks and components out.
    components: [B, H, W, K, C], or None to leave them out.
    mask_components: whether the components are multiplied by their masks.
    max_images: how many of the images are shown.
    colors: as for `color_masks`.

  Returns:
    [1, height, width, 3] with values in [0, 1].
  """
  sg = shapeguard.ShapeGuard()
  sg.guard(images, "B, H, W, C")
  sg.guard(recons, "B, H, W, C")
  columns = [add_border(to_rgb(images)), add_border(to_rgb(recons))]
  if masks is not None:
    sg.guard(masks, "B, H, W, K")
    columns.append(add_border(color_masks(masks, colors), 1.0))
  if components is not None:
    sg.guard(components, "B, H, W, K, C")
    if mask_components and masks is not None:
      components = components * masks[..., None]
    tiles = add_border(to_rgb(tf.transpose(components, [0, 3, 1, 2, 4])))
    columns += tf.unstack(tiles, axis=1)
  rows = tf.concat(columns, axis=2)[:max_images]
  rows = tf.reshape(rows, [-1, *rows.shape[2:]])
  return tf.clip_by_value(rows, 0.0, 1.0)[None]


def iterations_image(
  images: tf.Tensor,
  recons: tf.Tensor,
  masks: tf.Tensor,
  max_scenes: int = 2,
  colors: Any = None,
) -> tf.Tensor:
  """Draws one column an iteration: image, reconstruction and mask.

  Args:
    images: [B, frames, 1, H, W, C]; the last frame stands for missing ones.
    recons: [B, T, 1, H, W, C].
    masks: [B, T, K, H, W, 1].
    max_scenes: how many of the scenes are shown.
    colors: as for `color_masks`.

  Returns:
    [1, height, width, 3] with values in [0, 1].
  """
  sg = shapeguard.ShapeGuard()
  sg.guard(images, "B, frames, 1, H, W, C")
  sg.guard(recons, "B, T, 1, H, W, C")
  sg.guard(masks, "B, T, K, H, W, 1")
  frames = [min(t, sg.frames - 1) for t in range(sg.T)]
  colored = color_masks(tf.transpose(masks[..., 0], [0, 1, 3, 4, 2]), colors)
  rows = [tf.gather(images, frames, axis=1)[:, :, 0], recons[:, :, 0], colored]
  tiles = tf.stack([add_border(to_rgb(row)) for row in rows], axis=1)
  tiles = tf.transpose(tiles[:max_scenes], [0, 1, 3, 2, 4, 5])
  scenes, num_rows, height, steps, width, _ = tiles.shape
  picture = tf.reshape(tiles, [scenes * num_rows * height, steps * width, 3])
  return tf.clip_by_value(picture, 0.0, 1.0)[None]
