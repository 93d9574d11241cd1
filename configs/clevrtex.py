"""CLEVRTEX, with the model of `clevr6`.

  python main.py with clevrtex data.path=clevrtex_full

A folder of folders of images, `CLEVRTEX_full_000001.png` beside its label image
`CLEVRTEX_full_000001_flat.png`; the middle 192 pixels, resized to 128x128, as
the field does it. IODINE does not find textured objects well; see the
benchmark of Karazija et al. 2021 (arXiv:2111.10265).
"""

import math

from . import base


def clevrtex():
  n_z = 64  # Z, size of a slot's latent
  num_components = 11  # K, slots
  num_iters = 5  # refinements
  batch_size = 4
  learn_rate = 3e-4 * math.sqrt(batch_size / 32)
  compute_dtype = "float32"  # or "bfloat16", "auto"
  recompute = False  # True: less memory, more time

  checkpoint_dir = "runs/clevrtex"

  data = {
    "constructor": "iodine.modules.data.Images",
    "path": "clevrtex_full",
    # The label images, and whatever else there is of a scene.
    "masks": "{folder}/{stem}_flat.png",
    "exclude": ["*_albedo*", "*_depth*", "*_normal*", "*_shadow*"],
    "batch_size": batch_size,
    "image_dim": [128, 128],
    "crop_region": [[24, 216], [64, 256]],
    "antialias": True,
    # As its authors split it: a tenth for tests, a tenth for validation.
    "train": [10000, None],
    "test": [0, 5000],
  }

  model = base.model(
    n_z=n_z,
    num_components=num_components,
    num_iters=num_iters,
    recompute=recompute,
    coord_type="linear",
    pixel_decoder=base.broadcast_conv([64] * 4, 3, compute_dtype),
    encoder=base.cnn([64] * 4, 3, [256, 256], compute_dtype),
    hidden_sizes=[256],
    factors=None,
  )
  optimizer = base.optimizer(learn_rate)
