"""Activations and distributions by name, coordinate maps, small reshapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
import tree

from iodine import errors, validation

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
    errors.UnknownNameError: if the name is unknown.
  """
  if name is None:
    return ACTIVATIONS["identity"]
  if callable(name):
    return name
  if not isinstance(name, str) or name.lower() not in ACTIVATIONS:
    raise errors.UnknownNameError(
      f"unknown activation {name!r}: use one of {', '.join(ACTIVATIONS)}"
    )
  return ACTIVATIONS[name.lower()]


def get_distribution(name: str | type) -> Any:
  """Returns the location-scale family of that name, or the class itself.

  Raises:
    errors.UnknownNameError: if the name is unknown.
  """
  if isinstance(name, type):
    return name
  if not isinstance(name, str) or name.lower() not in DISTRIBUTIONS:
    raise errors.UnknownNameError(
      f"unknown distribution {name!r}: use one of {', '.join(DISTRIBUTIONS)}"
    )
  return DISTRIBUTIONS[name.lower()]


def check_coordinates(coord_type: Any, coord_freqs: Any) -> None:
  """Checks the two options of `coordinate_map`.

  Raises:
    errors.UnknownNameError: if there is no such `coord_type`.
    errors.UserError: if it is "cos", and there are no frequencies.
  """
  validation.check_choice("coord_type", coord_type, ("linear", "cos", None))
  if coord_type == "cos":
    validation.check_whole("coord_freqs", coord_freqs, 1)


def coordinate_map(
  coord_type: str | None,
  height: int,
  width: int,
  freqs: int = 3,
  order: str = "hw",
) -> np.ndarray:
  """Returns the coordinate channels of an image, [H, W, n] float32.

  `linear`: two channels from -1 to 1, rows first for order "hw" (the decoder),
  columns first for order "wh" (the refinement inputs; FIDELITY: the original
  has the two orders). `cos`: freqs^2 - 1 products of cosines, the frequency
  along W slow and the one along H fast, the constant one left out. None: no
  channels. Source: original `BroadcastConv` and `IODINE._get_coords`.

  Raises:
    errors.UserError: see `check_coordinates`.
  """
  check_coordinates(coord_type, freqs)
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
  frequencies = np.arange(freqs)
  cos_x = np.cos(frequencies * np.linspace(0.0, np.pi, width)[:, None])
  cos_y = np.cos(frequencies * np.linspace(0.0, np.pi, height)[:, None])
  products = cos_y[:, None, None, :] * cos_x[None, :, :, None]
  channels = products.reshape(height, width, freqs * freqs)[..., 1:]
  return channels.astype(np.float32)


def to_slots(per_pixel: tf.Tensor) -> tf.Tensor:
  """Moves slots from last to second: [B, 1, H, W, K] -> [B, K, H, W, 1]."""
  return tf.transpose(per_pixel, [0, 4, 2, 3, 1])


def background_first(masks: tf.Tensor) -> tf.Tensor:
  """Returns the order in which people see the slots of each image.

  Slots are exchangeable, and the background's is another one in every scene.
  It comes first, as the slot that most pixels belong to (of equals the first);
  the others keep their order. A pixel belongs to the largest mask.

  Args:
    masks: [B, K, H, W, 1] mask probabilities of the last iteration.

  Returns:
    [B, K] int32 slots, for `reorder`.
  """
  num_slots = masks.shape[1]
  owner = tf.argmax(masks[..., 0], axis=1)
  areas = tf.reduce_sum(tf.one_hot(owner, num_slots), axis=[1, 2])
  # Of equals the first, which `argmax` does not promise.
  background = tf.math.top_k(areas, 1).indices
  slots = tf.range(num_slots)[None]
  return tf.argsort(tf.where(slots == background, -1, slots), axis=1)


def reorder(values: tf.Tensor, order: tf.Tensor, axis: int = 1) -> tf.Tensor:
  """Puts the K slots along an axis of [B, ...] in the order [B, K]."""
  return tf.gather(values, order, axis=axis, batch_dims=1)


def flatten_dict(
  nested: dict[str, Any], separator: str = "/"
) -> dict[str, Any]:
  """Joins the keys of nested dicts: {"a": {"b": 1}} -> {"a/b": 1}."""
  return {
    separator.join(map(str, path)): leaf
    for path, leaf in tree.flatten_with_path(nested)
  }
