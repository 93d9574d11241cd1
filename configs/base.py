"""What experiments share, written once; each file beside this is one of them.

The functions return parts of the nested dict that `iodine.building` builds; an
experiment calls them with what is its own. Sacred takes the local variables of
an experiment's function for its entries, so that whatever is passed on from
them follows when they are overridden. The defaults stand in
`iodine/entries.py`.
"""

from collections.abc import Sequence
from typing import Any

Config = dict[str, Any]
Factors = list[tuple[str, int, str]]


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


def film_model(
  *,
  n_z: int,
  num_components: int,
  num_iters: int,
  recompute: bool,
  compute_dtype: str,
  factors: Factors | None,
) -> Config:
  """Returns `model` for films of 64x64: iteration t sees frame t.

  Args:
    n_z: see `model`.
    num_components: see there.
    num_iters: as many as a film has frames after the first.
    recompute: see `model`.
    compute_dtype: of the convolutions.
    factors: see `model`.
  """
  return model(
    n_z=n_z,
    num_components=num_components,
    num_iters=num_iters,
    recompute=recompute,
    sequential=True,
    iter_loss_weight=1.0,  # every frame counts the same
    coord_type="cos",
    coord_freqs=3,
    pixel_decoder=broadcast_conv([32] * 4, 5, compute_dtype),
    encoder=cnn([32] * 3, 5, [128], compute_dtype),
    refinement_head={
      "constructor": "iodine.modules.refinement.PredictorCorrectorHead",
      "hidden_sizes": [128],
    },
    factors=factors,
    scale_val=0.1,
  )


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
