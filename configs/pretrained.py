"""The trained model that comes with the project, on scenes it has not seen.

  python main.py evaluate with tetrominoes minutes pretrained

refines `tetrominoes minutes`, and is what the commands that read a checkpoint
show where nothing else is named: `python main.py evaluate`. The scenes are
generated at the first use, from another seed than those of the training.
"""

import os

from iodine.pretrained import TETROMINOES

from . import base


def pretrained(data):
  checkpoint_dir = os.path.relpath(TETROMINOES)
  results_dir = "runs/pretrained"

  num_scenes = 320
  data_seed = 2  # 0 was trained on, and 1 was watched meanwhile
  generated_path = base.generated("tetrominoes", num_scenes, data_seed)
  data = {"path": generated_path, "train": None, "test": [0, None]}
