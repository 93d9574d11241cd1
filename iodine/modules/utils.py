"""Activations and distributions by name, coordinate maps, small reshapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions

ACTIVATIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
  "identity": tf.identity,
  "sigmoid": tf.nn.sigmoid,
  "tanh": tf.nn.tanh,
  "relu": tf.nn.relu,
  "elu": tf.nn.elu,
  "selu": tf.nn.selu,
  "softplus": tf.nn.softplus,
  "exp": tf.exp,
  "softmax": tf.nn.softmax,
}

DISTRIBUTIONS = {
  "normal": tfd.Normal,
  "log_normal": tfd.LogNormal,
  "laplace": tfd.Laplace,
  "logistic": tfd.Logistic,
}


def get_activation(
  name: str | Callable[[tf.Tensor], tf.Tensor] | None,
) -> Callable[[tf.Tensor], tf.Tensor]:
  """Returns the activation of that name (any case), or the callable itself.

  None means the identity.

  Raises:
    KeyError: if the name is unknown.
  """
  if name is None:
    return ACTIVATIONS["identity"]
  if callable(name):
    return name
  if not isinstance(name, str) or name.lower() not in ACTIVATIONS:
    raise KeyError(
      f"unknown activation {name!r}: use one of {', '.join(ACTIVATIONS)}"
    )
  return ACTIVATIONS[name.lower()]


def get_distribution(name: str | type) -> Any:
  """Returns the location-scale family of that name, or the class itself.

  Raises:
    KeyError: if the name is unknown.
  """
  if isinstance(name, type):
    return name
  if not isinstance(name, str) or name.lower() not in DISTRIBUTIONS:
    raise KeyError(
      f"unknown distribution {name!r}: use one of {', '.join(DISTRIBUTIONS)}"
    )
  return DISTRIBUTIONS[name.lower()]


def coordinate_map(
  coord_type: str | None,
  height: int,
  width: int,
  freqs: int = 3,
  order: str = "hw",
) -> np.ndarray:
  """The coordinate channels of an image, as [H, W, n] float32.

  `linear`: two channels from -1 to 1, rows first for order "hw" (the decoder),
  columns first for order "wh" (the refinement inputs; FIDELITY: the original
  has the two orders). `cos`: freqs^2 - 1 products of cosines, the frequency
  along W slow and the one along H fast, the constant one left out. None: no
  channels. Source: original `BroadcastConv` and `IODINE._get_coords`.

  Raises:
    KeyError: if coord_type is none of these.
    ValueError: if there are no frequencies.
  """
  if coord_type is None:
    return np.zeros([height, width, 0], np.float32)
  if coord_type == "linear":
    rows, columns = np.meshgrid(
      np.linspace(-1.0, 1.0, height),
      np.linspace(-1.0, 1.0, width),
      indexing="ij",
    )
    ordered = (rows, columns) if order == "hw" else (columns, rows)
    return np.stack(ordered, axis=-1).astype(np.float32)
  if coord_type == "cos":
    if freqs < 1:
      raise ValueError(f"`coord_freqs` is {freqs!r}: give at least 1")
    frequencies = np.arange(freqs)
    cos_x = np.cos(frequencies * np.linspace(0.0, np.pi, width)[:, None])
    cos_y = np.cos(frequencies * np.linspace(0.0, np.pi, height)[:, None])
    products = cos_y[:, None, None, :] * cos_x[None, :, :, None]
    channels = products.reshape(height, width, freqs * freqs)[..., 1:]
    return channels.astype(np.float32)
  raise KeyError(
    f"unknown `coord_type` {coord_type!r}: use 'linear', 'cos' or None"
  )


def merge_leading(tensor: tf.Tensor, axes: int = 2) -> tf.Tensor:
  """Folds the first `axes` axes into one: [B, K, ...] -> [B * K, ...]."""
  shape = tensor.shape.as_list()
  return tf.reshape(tensor, [int(np.prod(shape[:axes]))] + shape[axes:])


def split_leading(tensor: tf.Tensor, leading: Sequence[int]) -> tf.Tensor:
  """Unfolds the first axis: [B * K, ...] -> [B, K, ...]."""
  return tf.reshape(tensor, list(leading) + tensor.shape.as_list()[1:])


def to_slots(per_pixel: tf.Tensor) -> tf.Tensor:
  """Moves slots from last to second: [B, 1, H, W, K] -> [B, K, H, W, 1]."""
  return tf.transpose(per_pixel, [0, 4, 2, 3, 1])


def flatten_dict(
  nested: dict[str, Any], separator: str = "/"
) -> dict[str, Any]:
  """Joins the keys of nested dicts: {"a": {"b": 1}} -> {"a/b": 1}."""
  flat = {}
  for key, value in nested.items():
    if isinstance(value, dict):
      for sub_key, leaf in flatten_dict(value, separator).items():
        flat[f"{key}{separator}{sub_key}"] = leaf
    else:
      flat[key] = value
  return flat
