"""Multi-dSprites for a laptop, after `laptop`.

  python main.py with laptop sprites

The model of `laptop` with as many slots as the paper's `multi_dsprites`, on
generated scenes of 32x32 pixels.
"""

from . import base


def sprites(data):
  checkpoint_dir = "runs/laptop_sprites"
  num_components = 6
  num_iters = 5
  batch_size = 8
  learn_rate = 2e-3
  stages = []
  stop_after_steps = 4500
  evaluation = {"num_iters": None}
  num_scenes = 60320
  data_seed = 0
  generated_path = base.generated("multi_dsprites", num_scenes, data_seed)
  data = {
    "constructor": "iodine.modules.data.MultiDSprites",
    "dataset_variant": "colored_on_grayscale",
    "path": generated_path,
    "batch_size": batch_size,
    "image_dim": [32, 32],
    "min_num_objects": None,
    "max_num_objects": None,
  }
  model = {
    "num_components": num_components,
    "num_iters": num_iters,
    "kl_weight": 0.4,
    "output_dist": {
      "num_components": num_components,
      "component_dist": {"scale_val": 0.25},
    },
    "factor_evaluator": {"mapping": base.sprite_factors()},
  }
  optimizer = {
    "learning_rate": {"learning_rate": learn_rate, "decay_steps": 7000}
  }
