"""The Objects Room, with the model of `multi_dsprites`.

  python main.py with objects_room

64x64 images of a room. Its first four masks are floor, sky and two halves of
the wall: together they are the background here, as the field reports scores.
"""

import math

from . import base


def objects_room():
  n_z = 16  # Z, size of a slot's latent
  num_components = 7  # K, slots
  num_iters = 5  # refinements
  batch_size = 16
  learn_rate = 3e-4 * math.sqrt(batch_size / 128)
  compute_dtype = "float32"  # or "bfloat16", "auto"
  recompute = False  # True: less memory, more time

  checkpoint_dir = "runs/objects_room"

  data = {
    "constructor": "iodine.modules.data.ObjectsRoom",
    "dataset_variant": "train",
    "path": "multi_object_datasets/objects_room_train.tfrecords",
    "batch_size": batch_size,
    "background": [0, 1, 2, 3],
    "train": [1000, None],
    "test": [0, 320],
  }

  model = base.model(
    n_z=n_z,
    num_components=num_components,
    num_iters=num_iters,
    recompute=recompute,
    coord_type="cos",
    coord_freqs=3,
    pixel_decoder=base.broadcast_conv(
      [32] * 4, 5, compute_dtype, coord_freqs=3
    ),
    encoder=base.cnn([32] * 3, 5, [128], compute_dtype),
    hidden_sizes=[128],
    factors=None,
  )
  optimizer = base.optimizer(learn_rate)
