"""Tetrominoes within minutes on one GPU, after `tetrominoes`.

  python main.py with tetrominoes minutes

The paper's model, trained as the model that comes with the project was: on
generated scenes, in smaller batches, with a wider distribution of the pixels
and a higher learning rate that is held and then falls. 30,000 updates took
seven minutes on one H200; docs/results.md says what is the paper's and what is
not. On two cores it would take weeks: `laptop` is for those.
"""

from . import base


def minutes(data):
  batch_size = 64
  learn_rate = 8e-4
  compute_dtype = "auto"  # bfloat16 where the device computes in it
  skip_nonfinite = 10  # updates in a row

  checkpoint_dir = "runs/tetrominoes"
  stop_after_steps = 30000
  save_summaries_steps = 100

  num_scenes = 100320
  data_seed = 0  # the same scenes whatever `seed` is
  generated_path = base.generated("tetrominoes", num_scenes, data_seed)
  data = {
    "path": generated_path,
    "batch_size": batch_size,
    **base.split(100000),
  }

  model = {
    # The paper's 0.03 is steep for an untrained model.
    "output_dist": {"component_dist": {"scale_val": 0.1}},
    "decoder": {"pixel_decoder": {"compute_dtype": compute_dtype}},
    "refinement_core": {"encoder_net": {"compute_dtype": compute_dtype}},
  }
  optimizer = base.optimizer(learn_rate, decay_steps=28000, hold_steps=5800)

  evaluation = {"num_iters": 12}  # objects go on parting after the 5
