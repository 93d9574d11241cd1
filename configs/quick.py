"""A small IODINE for a few minutes on a laptop; what `make run` trains.

  python main.py quickstart with quick

The paper's method with fewer and narrower layers and fewer refinements. Two
parts differ in kind, since with the paper's nothing is to be seen after two
minutes: an MLP and transposed convolutions decode the slots, and the encoder's
map is flattened, not averaged. On two cores it learns to reconstruct generated
Tetrominoes coarsely, and slots begin to divide the scene among them.
"""

from . import base


def quick():
  n_z = 16  # Z, size of a slot's latent
  num_components = 4  # K, slots
  num_iters = 3  # refinements
  batch_size = 16
  learn_rate = 2e-3
  compute_dtype = "float32"
  recompute = False  # True: less memory, more time

  seed = 0  # the same run for everybody

  checkpoint_dir = "runs/quick"
  stop_after_steps = 1000
  save_checkpoint_steps = 250
  save_summaries_steps = 20
  save_images_steps = 250

  num_scenes = 5128
  data = {
    "constructor": "iodine.modules.data.Tetrominoes",
    "path": "runs/data/tetrominoes_train.tfrecords",
    "batch_size": batch_size,
    **base.split(5000),
  }

  model = base.model(
    n_z=n_z,
    num_components=num_components,
    num_iters=num_iters,
    recompute=recompute,
    coord_type="linear",
    pixel_decoder={
      "constructor": "iodine.modules.networks.DeConv",
      # The last one is set from the output distribution. The maps are 5x5, 9x9,
      # 18x18 and 35x35.
      "cnn_opt": base.convolutions([16, 16, None], 5, 2),
      "mlp_opt": {"output_sizes": [64, 5 * 5 * 16], "activation": "elu"},
      "compute_dtype": compute_dtype,
    },
    encoder=base.cnn([16] * 3, 3, [64], compute_dtype, "flatten"),
    factors=base.tetromino_factors(),
    scale_val=0.1,  # the paper's 0.03 is steep for a model of so few steps
  )
  optimizer = base.optimizer(learn_rate)
