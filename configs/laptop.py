"""IODINE that finds objects within the hour on a laptop's two cores.

  python main.py with laptop

The paper's method and parts on generated Tetrominoes, smaller: 14x14 pixels,
3x3 kernels, a layer less, shorter latents, smaller batches. docs/results.md
says what it reaches and how its numbers were found.
"""

from . import base


def laptop():
  n_z = 16  # Z, size of a slot's latent
  num_components = 3  # K, slots: one for each object and none to spare
  num_iters = 6  # refinements
  batch_size = 16
  learn_rate = 2e-3
  compute_dtype = "float32"
  recompute = False  # True: less memory, more time

  seed = 0  # rounding differs between processors, and so do trainings

  # Slots part more easily with one to spare, and with a heavier KL it learns to
  # stay out of where it is not needed. Once objects have parted, a lighter KL
  # lets the refinements correct single pixels.
  stages = [
    {"until": 2500, "model": base.slots(num_components + 1, kl_weight=0.2)},
    {"until": 5000, "model": base.slots(num_components + 1, kl_weight=0.6)},
    {"until": 20000, "model": {"kl_weight": 0.2}},
  ]

  checkpoint_dir = "runs/laptop"
  stop_after_steps = 25000
  save_checkpoint_steps = 500
  save_summaries_steps = 100
  save_images_steps = 250

  num_scenes = 60320
  data_seed = 0  # the same scenes whatever `seed` is
  generated_path = base.generated("tetrominoes", num_scenes, data_seed)
  data = {
    "constructor": "iodine.modules.data.Tetrominoes",
    "path": generated_path,
    "batch_size": batch_size,
    "image_dim": [14, 14],
    **base.split(60000),
  }

  model = base.model(
    n_z=n_z,
    num_components=num_components,
    num_iters=num_iters,
    recompute=recompute,
    kl_weight=0.05,  # the likelihood sums over pixels, which are few here
    coord_type="cos",
    coord_freqs=3,
    pixel_decoder=base.broadcast_conv([32] * 3, 3, compute_dtype),
    encoder=base.cnn([32] * 3, 3, [128], compute_dtype, "flatten"),
    factors=base.tetromino_factors(),
    # The paper's 0.03 is steep for an untrained model. At 0.25 a pixel's own
    # colour counts less beside the question whose it is.
    scale_val=0.25,
  )
  optimizer = base.optimizer(learn_rate, decay_steps=2e4)

  evaluation = {"num_iters": 16}  # objects go on parting after the 6
