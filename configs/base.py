"""What experiments share, written once; each file beside this is one of them.

`defaults` holds for every experiment unless its config says otherwise. The
other functions return parts of the nested dict that `iodine.building` builds;
an experiment calls them with what is its own. Sacred takes the local variables
of an experiment's function for its entries, so that whatever is passed on from
them follows when they are overridden.
"""

from collections.abc import Sequence
from typing import Any

Config = dict[str, Any]
Factors = list[tuple[str, int, str]]


def defaults():
  # The experiment; a named config fills these in.
  model = {}
  data = {}
  optimizer = {}
  n_z = 64  # Z, size of a slot's latent
  num_components = 7  # K, slots
  num_iters = 5  # refinements
  learn_rate = 0.001
  batch_size = 4

  # See docs/performance.md.
  # XLA; it draws other samples from the same seed. None: on GPUs.
  jit_compile = None
  compute_dtype = "float32"  # or "bfloat16", "auto": of convolutions
  recompute = False  # decode again for gradients: less memory, more time
  # Updates in a compiled call; None: 10 on a GPU, 1 elsewhere.
  steps_per_call = None

  # Of GPUs.
  memory_growth = True  # take memory as it is needed
  tf32 = True  # round float32 to TF32 in products: faster, less exact
  deterministic = False  # the same bits each time: slower
  environment = {}  # filled in by a training: on what it ran

  # See docs/scaling.md: None for one device, "mirrored" for all devices of this
  # machine, "multi_worker" for several processes.
  strategy = None
  virtual_devices = None  # into how many "mirrored" splits the CPU
  worker_timeout = 60  # seconds that workers wait for each other at the start

  # Training.
  checkpoint_dir = "iodine/checkpoints/iodine"
  continue_run = False  # go on in exactly `checkpoint_dir`
  stop_after_steps = int(1e6)
  save_summaries_steps = 10
  save_checkpoint_steps = 1000
  save_images_steps = 1000
  # How many updates in a row may be left out whose loss or gradient is not
  # finite; None: the first one ends the training.
  skip_nonfinite = None
  # Steps between two evaluations on the first `validate_scenes` of `data.test`;
  # None: none. See docs/training.md.
  validate_every = None
  validate_scenes = 32
  # Entries of the model that differ at first, see
  # iodine/training/curriculum.py.
  stages = []

  # make_data
  data_dir = None  # None: write to `data.path`
  # "tfrecords", "npz", or "png" for a folder of images; None: as it is read
  data_format = None
  generator = None  # see iodine/synthetic/registry.py; None: the data set's own
  num_scenes = 1000
  data_seed = None  # of the scenes; None: `seed`
  # Where this is `data.path` and no file is there, whatever reads it makes it.
  generated_path = None

  # segment
  images = None  # a file, a folder, a glob, or a list of those
  films = None  # a GIF, a video, a folder of frames, or a list of those
  segment = {"batch_size": 1}  # how many images are decomposed at a time

  # export_tf1: the prefix to write; export_savedmodel, segment: the folder,
  # None for `segments`; report: the file, None for `report.html` beside the
  # checkpoint
  output = None

  # compare
  reference = None  # an npz file or a folder
  tolerance = 1e-4  # of the tensors of `eval`; rounding stays below

  # benchmark
  benchmark = {
    "steps": 10,  # timed ones
    "warmup": 2,  # before them, after the first
    "parts": ["eval", "segmentation", "input"],  # besides the training step
    # Lists of values to measure one after the other, each list by itself.
    "sweep": {
      "batch_size": None,
      "num_components": None,
      "image_size": None,  # of squares, or [height, width]
      "num_iters": None,
    },
  }

  # plot, report
  plot = {
    "scenes": [0, 1, 2],  # of the test subset, which count from 0
    # Whose latents are traversed, from 1; None: the slot of the second largest
    # area, as the largest is the background's.
    "slot": None,
    "num_scenes_for_map": 64,  # in `latents` and `metrics`
  }

  # evaluate, report
  evaluation = {
    "num_scenes": None,  # None: the whole test subset
    "seeds": 1,  # how often the latents are sampled
    "num_components": None,  # a list of numbers of slots to compare
    "num_iters": None,  # refinements; None: as many as in training
    "scenes_csv": None,  # a file with a row for every scene
    # None, or dotted paths of your own beside the standard ones, see
    # iodine/evaluation/catalogue.py.
    "metrics": None,
  }
  csv_path = None  # figures as CSV, too

  # evaluate, report, segment, compare, benchmark
  json_path = None  # figures as JSON, too
  # evaluate, plot, report: the folder of what is written; None: the
  # checkpoint's own
  results_dir = None
  # evaluate, plot, compare, benchmark.
  # None: `pictures` beside the checkpoint, `plots` there for plot; here
  # `comparison` for compare and `benchmark` for a sweep
  pictures_dir = None


def model(
  *,
  n_z: int,
  num_components: int,
  num_iters: int,
  recompute: bool,
  pixel_decoder: Config,
  encoder: Config,
  factors: Factors | None,
  hidden_sizes: Sequence[int] = (),
  scale_val: float = 0.03,
  refinement_head: Config | None = None,
  **options: Any,
) -> Config:
  """Returns `model`: IODINE of these parts.

  Args:
    n_z: Z, size of a slot's latent.
    num_components: K, slots.
    num_iters: refinements.
    recompute: whether gradients decode again, which saves memory.
    pixel_decoder: decodes a slot, such as `broadcast_conv`.
    encoder: encodes the inputs of the refinement, such as `cnn`.
    factors: what is read off the latents, [(name, size, kind)];
      None: nothing.
    hidden_sizes: of the LSTM's layers; none: no recurrence.
    scale_val: of the pixels' logistic distribution.
    refinement_head: makes the update of the latents; None: the paper's.
    **options: other arguments of `iodine.modules.iodine.IODINE`.
  """
  return {
    "constructor": "iodine.modules.iodine.IODINE",
    "n_z": n_z,
    "num_components": num_components,
    "num_iters": num_iters,
    # None: the batch at hand, as in the original. Commands that read a
    # checkpoint take the batch size of its training.
    "refinement_batch_size": None,
    "iter_loss_weight": "linspace",
    **options,
    "decoder": {
      "constructor": "iodine.modules.decoder.ComponentDecoder",
      "recompute": recompute,
      "pixel_decoder": pixel_decoder,
    },
    "refinement_core": {
      "constructor": "iodine.modules.refinement.RefinementCore",
      "encoder_net": encoder,
      "recurrent_net": {
        "constructor": "iodine.modules.networks.LSTM",
        "hidden_sizes": list(hidden_sizes),
      },
      "refinement_head": refinement_head
      or {"constructor": "iodine.modules.refinement.ResHead"},
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
        "scale_val": scale_val,
        "name": "pixel_distribution",
      },
    },
    "factor_evaluator": {
      "constructor": "iodine.modules.factor_eval.FactorRegressor",
      "mapping": factors,
    }
    if factors
    else None,
  }


def slots(num_components: int, **options: Any) -> Config:
  """Returns entries of `model` for so many slots, with other arguments."""
  return {
    "num_components": num_components,
    "output_dist": {"num_components": num_components},
    **options,
  }


def broadcast_conv(
  channels: Sequence[int], kernel: int, compute_dtype: str, **options: Any
) -> Config:
  """Returns the paper's pixel decoder: a latent, broadcast, then convolved.

  Args:
    channels: of the convolutions but the last, whose channels are set from
      the output distribution.
    kernel: size of the kernels.
    compute_dtype: of the convolutions.
    **options: other arguments of `iodine.modules.networks.BroadcastConv`.
  """
  return {
    "constructor": "iodine.modules.networks.BroadcastConv",
    "cnn_opt": convolutions([*channels, None], kernel, 1),
    "coord_type": "linear",
    **options,
    "compute_dtype": compute_dtype,
  }


def cnn(
  channels: Sequence[int],
  kernel: int,
  hidden: Sequence[int],
  compute_dtype: str,
  mode: str = "avg_pool",
) -> Config:
  """Returns the paper's encoder: convolutions, then an MLP.

  Args:
    channels: of the convolutions.
    kernel: size of the kernels.
    hidden: sizes of the MLP's layers.
    compute_dtype: of the convolutions.
    mode: how the last map becomes a vector.
  """
  return {
    "constructor": "iodine.modules.networks.CNN",
    "mode": mode,
    "cnn_opt": convolutions(channels, kernel, 2),
    "mlp_opt": {"output_sizes": hidden, "activation": "elu"},
    "compute_dtype": compute_dtype,
  }


def convolutions(
  channels: Sequence[int | None], kernel: int, stride: int
) -> Config:
  """Returns a `cnn_opt`: convolutions of one kernel size and one stride."""
  return {
    "output_channels": channels,
    "kernel_shapes": [kernel],
    "strides": [stride],
    "activation": "elu",
  }


def optimizer(
  learn_rate: float,
  decay_steps: float = 1e6,
  hold_steps: float = 0,
  warmup_steps: float = 0,
) -> Config:
  """Returns `optimizer`: the paper's Adam, whose learning rate decays.

  Args:
    learn_rate: the full learning rate.
    decay_steps: updates in which the rate falls tenfold.
    hold_steps: updates before it begins to fall.
    warmup_steps: the first updates, over which it rises.
  """
  return {
    "constructor": "iodine.optimizers.Adam",
    "learning_rate": {
      "constructor": "iodine.optimizers.ExponentialDecay",
      "learning_rate": learn_rate,
      "decay_rate": 0.1,
      "decay_steps": decay_steps,
      "hold_steps": hold_steps,
      "warmup_steps": warmup_steps,
    },
    "beta1": 0.95,
    "beta2": 0.999,
    "epsilon": 1e-8,
    "max_gradient_norm": 5.0,
  }


def tetromino_factors() -> Factors:
  """Returns what is known of an object of Tetrominoes."""
  return [
    ("position", 2, "scalar"),
    ("color", 3, "scalar"),
    ("shape", 20, "categorical"),
  ]


def sprite_factors(num_colors: int = 3) -> Factors:
  """Returns what is known of an object of Multi-dSprites."""
  return [
    ("color", num_colors, "scalar"),
    ("shape", 4, "categorical"),
    ("scale", 1, "scalar"),
    ("x", 1, "scalar"),
    ("y", 1, "scalar"),
    ("orientation", 2, "angle"),
  ]


def generated(
  name: str, num_scenes: int, data_seed: int, suffix: str = "tfrecords"
) -> str:
  """Returns where the generated scenes of a data set are."""
  return f"runs/data/{name}_{num_scenes}_of_seed_{data_seed}.{suffix}"


def split(num_train: int) -> Config:
  """Returns entries of `data`: the first scenes to train, the rest to test."""
  return {"train": [0, num_train], "test": [num_train, None]}
