"""Wiring."""
import sacred
from configs import clevr6, multi_dsprites, tetrominoes
ex = sacred.Experiment("iodine")
for f in (clevr6.clevr6, multi_dsprites.multi_dsprites, tetrominoes.tetrominoes):
  ex.named_config(f)

@ex.config
def defaults():
  continue_run = False
  n_z = 64
  num_components=7
  num_iters=5
  batch_size=4
  learn_rate=1e-3
  checkpoint_dir=''

@ex.main
def train(model, data, optimizer, _run): pass

def get_config(named_configs=(), config_updates=None):
  run = ex._create_run("train", config_updates, named_configs)
  import copy
  return copy.deepcopy(dict(run.config))
