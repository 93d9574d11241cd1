"""What a page draws a decomposed scene from: numbers, and one picture.

`scene.js` beside the page of `iodine.report` reads it.

Dimensions: T iterations + 1, K slots, H W C image.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import imageio.v3 as imageio
import numpy as np

from iodine.drawing import canvas, palette


def of_scene(info: Mapping[str, Any]) -> dict[str, Any]:
  """Returns `describe` of the info of one scene, as from `IODINE.eval`."""
  outputs, losses = info["outputs"], info["losses"]
  names = ("pred_mask", "components", "recons")
  masks, components, reconstruction = (outputs[name][0] for name in names)
  kl = losses["kl"][0]
  curves = {"loss": losses["recons"][0] + kl.sum(axis=1), "KL": kl.sum(axis=1)}
  if "ari_nobg" in info["metrics"]:
    curves["ARI"] = info["metrics"]["ari_nobg"][0]
  image = np.broadcast_to(info["data"]["image"][0], reconstruction[:, 0].shape)
  return {
    **describe(image, masks, components, reconstruction),
    "curves": {k: np.round(v, 4).tolist() for k, v in curves.items()},
    "kl": np.round(kl, 2).tolist(),
  }


def describe(
  image: np.ndarray,
  masks: np.ndarray,
  components: np.ndarray,
  reconstruction: np.ndarray,
) -> dict[str, Any]:
  """Returns what becomes JSON in a page.

  Args:
    image: [T, H, W, C] in [0, 1], what each iteration is compared with.
    masks: [T, K, H, W, 1].
    components: [T, K, H, W, C].
    reconstruction: [T, 1, H, W, C].

  Returns:
    The size, the slots' colours; and `sheet`, a PNG as data URI: T rows of
    image, reconstruction, masks in colours, thrice the error, slots (their
    numbers from 0), K components, K masks.
  """
  num_rows, num_slots, height, width, _ = masks.shape
  colors, made = palette.slot_colors(num_slots), reconstruction[:, 0]
  columns = [image, made, palette.mix(masks, colors), 3 * np.abs(image - made)]
  columns += [masks.argmax(axis=1) / 255]
  columns += [x[:, k] for x in (components, masks) for k in range(num_slots)]
  wide = np.concatenate([canvas.to_rgb(each) for each in columns], axis=2)
  return {
    **{"height": height, "width": width, "rows": num_rows, "curves": {}},
    "colors": colors.tolist(),
    "sheet": png_uri(wide.reshape(num_rows * height, -1, 3)),
  }


def png_uri(image: np.ndarray) -> str:
  """Encodes [H, W, 1 or 3] in [0, 1] as the data URI of a PNG."""
  pixels = np.rint(255 * canvas.to_rgb(image)).astype(np.uint8)
  content = imageio.imwrite("<bytes>", pixels, extension=".png")
  return f"data:image/png;base64,{base64.b64encode(content).decode()}"
