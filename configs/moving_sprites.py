"""Films of moving sprites, decomposed frame by frame on a laptop's two cores.

  python main.py with moving_sprites

IODINE's sequential mode, in which iteration t sees frame t, with the original's
predictor-corrector head, on generated films of 24x24 pixels; the model is that
of `laptop`. docs/results.md says what an hour reaches.
"""

from . import base


def moving_sprites():
  n_z = 16  # Z, size of a slot's latent
  num_components = 4  # K, slots: the background and up to three sprites
  num_iters = 9  # the first of ten frames is decoded before any is seen
  batch_size = 8
  learn_rate = 2e-3
  compute_dtype = "float32"
  recompute = False  # True: less memory, more time

  seed = 0  # rounding differs between processors, and so do trainings

  checkpoint_dir = "runs/moving_sprites"
  stop_after_steps = 16000
  save_checkpoint_steps = 500
  save_summaries_steps = 100
  save_images_steps = 500

  num_scenes = 10320
  data_seed = 0  # the same films whatever `seed` is
  generator = "moving_sprites"
  generated_path = base.generated(generator, num_scenes, data_seed, "npz")
  data = {
    "constructor": "iodine.modules.data.Arrays",
    "path": generated_path,
    "batch_size": batch_size,
    "frames": num_iters + 1,
    "image_dim": [24, 24],
    "antialias": True,
    **base.split(10000),
  }

  model = base.model(
    n_z=n_z,
    num_components=num_components,
    num_iters=num_iters,
    recompute=recompute,
    sequential=True,
    iter_loss_weight=1.0,  # every frame counts the same
    kl_weight=0.2,  # the likelihood sums over pixels, which are few here
    coord_type="cos",
    coord_freqs=3,
    pixel_decoder=base.broadcast_conv([32] * 3, 3, compute_dtype),
    encoder=base.cnn([32] * 3, 3, [128], compute_dtype, "flatten"),
    refinement_head={
      "constructor": "iodine.modules.refinement.PredictorCorrectorHead",
      "hidden_sizes": [64],
    },
    # Where a sprite is differs between the frames.
    factors=base.sprite_factors()[:3],  # color, shape, scale
    scale_val=0.25,  # as in `laptop`
  )
  optimizer = base.optimizer(learn_rate, decay_steps=2e4)
