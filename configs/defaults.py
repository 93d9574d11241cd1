"""What holds for every experiment unless its config says otherwise."""


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
  jit_compile = False  # XLA; it draws other samples from the same seed
  compute_dtype = "float32"  # or "bfloat16", "float16": of convolutions
  recompute = False  # decode again for gradients: less memory, more time

  # Training.
  checkpoint_dir = "iodine/checkpoints/iodine"
  continue_run = False  # go on in exactly `checkpoint_dir`
  stop_after_steps = int(1e6)
  save_summaries_steps = 10
  save_checkpoint_steps = 1000
  save_images_steps = 1000
  # Entries of the model that differ at first, see iodine/commands/stages.py.
  stages = []

  # make_data
  data_dir = None  # None: write to `data.path`
  num_scenes = 1000
  data_seed = None  # of the scenes; None: `seed`
  # Where this is `data.path` and no file is there, whatever reads it makes it.
  generated_path = None

  # segment
  images = None  # a file, a folder, a glob, or a list of those

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
