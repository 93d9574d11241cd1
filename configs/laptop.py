"""IODINE that finds objects within the hour on a laptop's two cores.

  python main.py with laptop

The paper's method and parts on generated Tetrominoes, smaller: 14x14 pixels,
3x3 kernels, a layer less, shorter latents, smaller batches. docs/results.md
says what it reaches and how its numbers were found.
"""


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
    {
      "until": 2500,
      "model": {
        "num_components": num_components + 1,
        "output_dist": {"num_components": num_components + 1},
        "kl_weight": 0.2,
      },
    },
    {
      "until": 5000,
      "model": {
        "num_components": num_components + 1,
        "output_dist": {"num_components": num_components + 1},
        "kl_weight": 0.6,
      },
    },
    {"until": 20000, "model": {"kl_weight": 0.2}},
  ]

  checkpoint_dir = "runs/laptop"
  stop_after_steps = 25000
  save_checkpoint_steps = 500
  save_summaries_steps = 100
  save_images_steps = 250

  num_scenes = 60320
  data_seed = 0  # the same scenes whatever `seed` is
  generated_path = (
    f"runs/data/tetrominoes_{num_scenes}_of_seed_{data_seed}.tfrecords"
  )
  data = {
    "constructor": "iodine.modules.data.Tetrominoes",
    "path": generated_path,
    "batch_size": batch_size,
    "image_dim": [14, 14],
    "train": [0, 60000],
    "test": [60000, None],
  }

  model = {
    "constructor": "iodine.modules.iodine.IODINE",
    "n_z": n_z,
    "num_components": num_components,
    "num_iters": num_iters,
    "iter_loss_weight": "linspace",
    # The likelihood sums over pixels, which are few here.
    "kl_weight": 0.05,
    "coord_type": "cos",
    "coord_freqs": 3,
    "decoder": {
      "constructor": "iodine.modules.decoder.ComponentDecoder",
      "recompute": recompute,
      "pixel_decoder": {
        "constructor": "iodine.modules.networks.BroadcastConv",
        "cnn_opt": {
          "output_channels": [32, 32, 32, None],
          "kernel_shapes": [3],
          "strides": [1],
          "activation": "elu",
        },
        "coord_type": "linear",
        "compute_dtype": compute_dtype,
      },
    },
    "refinement_core": {
      "constructor": "iodine.modules.refinement.RefinementCore",
      "encoder_net": {
        "constructor": "iodine.modules.networks.CNN",
        "mode": "flatten",
        "cnn_opt": {
          "output_channels": [32, 32, 32],
          "kernel_shapes": [3],
          "strides": [2],
          "activation": "elu",
        },
        "mlp_opt": {"output_sizes": [128], "activation": "elu"},
        "compute_dtype": compute_dtype,
      },
      "recurrent_net": {
        "constructor": "iodine.modules.networks.LSTM",
        "hidden_sizes": [],  # no recurrence
      },
      "refinement_head": {
        "constructor": "iodine.modules.refinement.ResHead",
      },
    },
    "latent_dist": {
      "constructor": "iodine.modules.distributions.LocScaleDistribution",
      "dist": "normal",
      "scale": "var",
      "scale_act": "softplus",
      "name": "latent_dist",
    },
    "output_dist": {
      "constructor": "iodine.modules.distributions.MaskedMixture",
      "num_components": num_components,
      "component_dist": {
        "constructor": "iodine.modules.distributions.LocScaleDistribution",
        "dist": "logistic",
        "scale": "fixed",
        # The paper's 0.03 is steep for an untrained model. At 0.25 a pixel's
        # own colour counts less beside the question whose it is.
        "scale_val": 0.25,
        "name": "pixel_distribution",
      },
    },
    "factor_evaluator": {
      "constructor": "iodine.modules.factor_eval.FactorRegressor",
      "mapping": [
        ("position", 2, "scalar"),
        ("color", 3, "scalar"),
        ("shape", 20, "categorical"),
      ],
    },
  }

  evaluation = {"num_iters": 16}  # objects go on parting after the 6

  optimizer = {
    "constructor": "iodine.optimizers.Adam",
    "learning_rate": {
      "constructor": "iodine.optimizers.ExponentialDecay",
      "learning_rate": learn_rate,
      "decay_rate": 0.1,
      "decay_steps": 2e4,
    },
    "beta1": 0.95,
    "beta2": 0.999,
    "epsilon": 1e-8,
    "max_gradient_norm": 5.0,
    "loss_scale": compute_dtype == "float16",
  }
