"""CATER with masks: films of solids on a table, frame by frame.

  python main.py with cater

The films are in gs://multi-object-datasets/cater_with_masks; docs/data.md says
how to make others in their place. Each gives three scenes of ten frames.
`data.stills=True model.sequential=False` is for single frames. Nobody has
trained this to the end yet; the sizes are those of `own` for images of 64x64.
"""

from . import base


def cater():
  n_z = 32  # Z, size of a slot's latent
  num_components = 11  # K, slots: the background and up to ten objects
  num_iters = 9  # the first of ten frames is decoded before any is seen
  batch_size = 8
  learn_rate = 5e-4
  compute_dtype = "auto"
  recompute = False  # True: less memory, more time

  checkpoint_dir = "runs/cater"
  stop_after_steps = 200000

  data = {
    "constructor": "iodine.modules.data.CATER",
    # The public files, or a single one that is made.
    "path": "multi_object_datasets/cater_with_masks_train.tfrecords*",
    "batch_size": batch_size,
    "frames": num_iters + 1,
    "shuffle_buffer": 300,  # of 0.6 MB each
    "train": [320, None],
    "test": [0, 320],
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
