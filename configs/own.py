"""IODINE on images of your own, in sizes that suit them.

  python main.py with own data.path=photos 'image_dim=[64,64]'

`photos` is a folder of images; `data.masks=FOLDER` adds true masks. A path that
ends in `.npz` or `.h5` is read as arrays, one in `.gif` or `.mp4` as films.

`image_dim` decides what all else is where it is not given: the model and the
training of `laptop`, `tetrominoes minutes`, `multi_dsprites` or `clevr6`,
whichever is for images of about that size. docs/results.md says what has been
trained: the first two. Of the others the learning rate is the paper's or a few
times as high, for a shorter training. Without a GPU take at most 20 pixels.
"""

import math
import os

from . import base


def _for_size(image_dim, *choices):
  """Returns the choice for images of about 14, 35, 64, 128 or 256 pixels."""
  longest = max(image_dim or [0])
  return choices[sum(longest > bound for bound in (22, 47, 90, 181))]


def _reader_of(path):
  """Returns the data set that reads a path, by what its name ends in."""
  ends = dict.fromkeys([".npz", ".npy", ".h5", ".hdf5"], "Arrays")
  ends |= dict.fromkeys([".gif", ".mp4", ".mov"], "Films")
  name = ends.get(os.path.splitext(str(path))[1].lower(), "Images")
  return f"iodine.modules.data.{name}"


def own():
  image_dim = [64, 64]  # height and width that images are brought to
  # What is known of objects, [name, size, kind], where the data have it: such
  # as [["color", 3, "scalar"]] for `factors/color` of Arrays.
  factors = None

  n_z = _for_size(image_dim, 16, 32, 16, 64, 64)  # Z, size of a slot's latent
  # K, slots: as many as a scene has objects at most, and one for the background
  # unless it is black.
  num_components = _for_size(image_dim, 3, 4, 6, 7, 7)
  num_iters = _for_size(image_dim, 6, 5, 5, 5, 5)  # refinements
  batch_size = _for_size(image_dim, 16, 64, 32, 8, 4)
  learn_rate = _for_size(
    image_dim,
    2e-3,
    *[8e-4 * math.sqrt(batch_size / 64)] * 2,
    *[1e-3 * math.sqrt(batch_size / 32)] * 2,
  )
  channels = _for_size(image_dim, 32, 32, 32, 64, 64)  # of all convolutions
  kernel = _for_size(image_dim, 3, 5, 5, 3, 3)  # of all convolutions
  kl_weight = _for_size(image_dim, 0.05, 1.0, 1.0, 1.0, 1.0)
  scale_val = _for_size(image_dim, 0.25, 0.1, 0.1, 0.1, 0.1)  # of the pixels
  compute_dtype = _for_size(image_dim, "float32", *["auto"] * 4)
  # Less memory, more time.
  recompute = _for_size(image_dim, False, False, False, False, True)

  seed = 0
  skip_nonfinite = 10  # updates in a row

  stages = _for_size(
    image_dim,
    # See `laptop`.
    [
      {"until": 2500, "model": base.slots(num_components + 1, kl_weight=0.2)},
      {"until": 5000, "model": base.slots(num_components + 1, kl_weight=0.6)},
      {"until": 20000, "model": {"kl_weight": 0.2}},
    ],
    *[[]] * 4,
  )

  checkpoint_dir = "runs/own"
  stop_after_steps = _for_size(image_dim, 25000, 30000, *[100000] * 3)
  save_checkpoint_steps = 500
  save_summaries_steps = 100
  save_images_steps = 500
  validate_every = 500

  data = {
    "path": None,  # `data.path=FOLDER`
    "batch_size": batch_size,
    "image_dim": image_dim,
    "held_out": 100,  # at most, of a tenth of the scenes
    "antialias": True,
  }
  data["constructor"] = _reader_of(data["path"])

  model = base.model(
    n_z=n_z,
    num_components=num_components,
    num_iters=num_iters,
    recompute=recompute,
    kl_weight=kl_weight,
    coord_type=_for_size(image_dim, "cos", "cos", "cos", "linear", "linear"),
    coord_freqs=3,
    pixel_decoder=base.broadcast_conv(
      [channels] * _for_size(image_dim, 3, 4, 4, 4, 4), kernel, compute_dtype
    ),
    encoder=base.cnn(
      [channels] * _for_size(image_dim, 3, 3, 3, 4, 5),
      kernel,
      _for_size(image_dim, [128], [128], [128], [256, 256], [256, 256]),
      compute_dtype,
      _for_size(image_dim, "flatten", *["avg_pool"] * 4),
    ),
    hidden_sizes=_for_size(image_dim, [], [], [128], [256], [256]),
    factors=factors,
    scale_val=scale_val,
  )
  optimizer = base.optimizer(
    learn_rate,
    decay_steps=_for_size(image_dim, 2e4, 28000, *[1e5] * 3),
    hold_steps=_for_size(image_dim, 0, 5800, *[20000] * 3),
    warmup_steps=_for_size(image_dim, 0, 0, *[1000] * 3),
  )

  # Objects go on parting after the refinements of the training.
  evaluation = {"num_iters": _for_size(image_dim, 16, 12, *[None] * 3)}
