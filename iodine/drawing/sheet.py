"""What a page draws a decomposed scene from: numbers, and one picture.

`scene.js` beside the page of `iodine.report` reads it.

Dimensions: T iterations + 1, K slots, H W C image.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import matplotlib.colors
import numpy as np
import PIL.Image

from iodine.drawing import canvas, palette

# What a scene is drawn from, the arguments of `describe`.
PICTURES = ("image", "reconstruction", "masks", "components")


def describe(
  image: np.ndarray,
  reconstruction: np.ndarray,
  masks: np.ndarray,
  components: np.ndarray,
  curves: Mapping[str, np.ndarray] | None = None,
  kl: np.ndarray | None = None,
) -> dict[str, Any]:
  """Returns what becomes JSON in a page.

  Args:
    image: [T, H, W, C] in [0, 1], what each iteration is compared with.
    reconstruction: [T, H, W, C].
    masks: [T, K, H, W].
    components: [T, K, H, W, C].
    curves: {title: [T]}, of the scene.
    kl: [T, K] nats.

  Returns:
    The size, colours, curves; and `sheet`, a PNG as data URI: T rows of image,
    reconstruction, slots (their numbers from 0), K components and K masks.
  """
  num_rows, num_slots, height, width = masks.shape
  owner = masks.argmax(axis=1)[..., None] / 255
  columns = [image, reconstruction, owner]
  columns += [components[:, k] for k in range(num_slots)]
  columns += [masks[:, k, ..., None] for k in range(num_slots)]
  wide = np.concatenate([canvas.to_rgb(each) for each in columns], axis=2)
  colors = palette.slot_colors(num_slots)
  return {
    "height": height,
    "width": width,
    "rows": num_rows,
    "colors": [matplotlib.colors.to_hex(color) for color in colors],
    "curves": {k: np.round(v, 4).tolist() for k, v in (curves or {}).items()},
    "kl": None if kl is None else np.round(kl, 2).tolist(),
    "sheet": png_uri(wide.reshape(num_rows * height, -1, 3)),
  }


def png_uri(image: np.ndarray) -> str:
  """Encodes [H, W, 3] in [0, 1] as the data URI of a PNG."""
  content = io.BytesIO()
  pixels = np.rint(255 * image).astype(np.uint8)
  PIL.Image.fromarray(pixels).save(content, format="PNG", compress_level=1)
  code = base64.b64encode(content.getvalue()).decode()
  return f"data:image/png;base64,{code}"
