"""MOVi: films of falling objects, from TensorFlow Datasets, frame by frame.

  python main.py with movi data.data_dir=gs://kubric-public/tfds

It takes `pip install -r requirements-tfds.txt`. `data.name` may be any of
movi_a to movi_e, `data.data_dir` a copy of that folder. Each film gives two
scenes of ten frames. Nobody has trained this to the end yet; the sizes are
those of `own` for images of 64x64.
"""

from . import base


def movi():
  n_z = 32  # Z, size of a slot's latent
  num_components = 11  # K, slots: the background and up to ten objects
  num_iters = 9  # the first of ten frames is decoded before any is seen
  batch_size = 8
  learn_rate = 5e-4
  compute_dtype = "auto"
  recompute = False  # True: less memory, more time

  checkpoint_dir = "runs/movi"
  stop_after_steps = 200000

  data = {
    "constructor": "iodine.modules.data.TFDS",
    "name": "movi_a/128x128",
    "data_dir": None,  # `data.data_dir=FOLDER`; None: where TFDS keeps its own
    "batch_size": batch_size,
    "frames": num_iters + 1,
    "image_dim": [64, 64],
    "shuffle_buffer": 300,  # of 0.6 MB each
  }

  model = base.film_model(
    n_z=n_z,
    num_components=num_components,
    num_iters=num_iters,
    recompute=recompute,
    compute_dtype=compute_dtype,
    factors=None,
  )
  optimizer = base.optimizer(learn_rate, decay_steps=2e5, warmup_steps=1000)
