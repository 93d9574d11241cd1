"""A small IODINE for two minutes on a laptop; what `make run` trains.

  python main.py quickstart with quick

The paper's method with fewer and narrower layers and fewer refinements. Two
parts differ in kind, since with the paper's nothing is to be seen after two
minutes: an MLP and transposed convolutions decode the slots, and the encoder's
map is flattened, not averaged. On two cores it learns to reconstruct generated
Tetrominoes coarsely, and slots begin to divide the scene among them.
"""


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
    "train": [0, 5000],
    "test": [5000, None],
  }

  model = {
    "constructor": "iodine.modules.iodine.IODINE",
    "n_z": n_z,
    "num_components": num_components,
    "num_iters": num_iters,
    "iter_loss_weight": "linspace",
    "coord_type": "linear",
    "decoder": {
      "constructor": "iodine.modules.decoder.ComponentDecoder",
      "recompute": recompute,
      "pixel_decoder": {
        "constructor": "iodine.modules.networks.DeConv",
        "cnn_opt": {
          # The last one is set from the output distribution. The maps are
          # 5x5, 9x9, 18x18 and 35x35.
          "output_channels": [16, 16, None],
          "kernel_shapes": [5],
          "strides": [2],
          "activation": "elu",
        },
        "mlp_opt": {"output_sizes": [64, 5 * 5 * 16], "activation": "elu"},
        "compute_dtype": compute_dtype,
      },
    },
    "refinement_core": {
      "constructor": "iodine.modules.refinement.RefinementCore",
      "encoder_net": {
        "constructor": "iodine.modules.networks.CNN",
        "mode": "flatten",
        "cnn_opt": {
          "output_channels": [16, 16, 16],
          "kernel_shapes": [3],
          "strides": [2],
          "activation": "elu",
        },
        "mlp_opt": {"output_sizes": [64], "activation": "elu"},
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
        # The paper's 0.03 is steep for a model of so few steps.
        "scale_val": 0.1,
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

  optimizer = {
    "constructor": "iodine.optimizers.Adam",
    "learning_rate": {
      "constructor": "iodine.optimizers.ExponentialDecay",
      "learning_rate": learn_rate,
      "decay_rate": 0.1,
      "decay_steps": 1e6,
    },
    "beta1": 0.95,
    "beta2": 0.999,
    "epsilon": 1e-8,
    "max_gradient_norm": 5.0,
    "loss_scale": compute_dtype == "float16",
  }
