"""Films in the layout of CATER with masks: sprites in the place of solids.

They have what the public files have, and look like `moving_sprites`.

Glossary: T = 33 frames, L = 11 entities (entity 0 is the background), images 64
x 64 pixels of 3 colour channels. Entities that a film lacks come last and are
zero throughout.
"""

from __future__ import annotations

import numpy as np

from iodine.synthetic import entities, moving_sprites

KIND = moving_sprites.Kind(
  size=64, num_frames=33, num_entities=11, radius=8.0, min_visible_share=0.3
)
# The image spans -REACH <= x, y <= REACH.
REACH = 3.0


def make_film(rng: np.random.Generator) -> entities.Scene:
  """Draws a film of 1 to 10 sprites; later ones pass in front.

  Args:
    rng: where the randomness comes from.

  Returns:
    image [T, 64, 64, 3] and mask [T, L, 64, 64, 1] (the pixels that show, 0 or
    255) as uint8; object_positions [L, T, 3] (x, y, 0) and camera_matrix [T, 4,
    4] (the unit matrix) as float32.
  """
  film, places = moving_sprites.draw(rng, KIND)
  positions = np.zeros((*places.shape[:2], 3))
  positions[..., :2] = REACH * (2 * places / KIND.size - 1)
  masks = [entities.masks(frame, KIND.num_entities) for frame in film["mask"]]
  return {
    "image": film["image"],
    "mask": np.stack(masks),
    "object_positions": entities.pad(positions, KIND.num_entities),
    "camera_matrix": np.tile(np.eye(4, dtype=np.float32), (len(masks), 1, 1)),
  }
