"""Activations and distributions by name, coordinate maps, small reshapes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import sonnet as snt
import tensorflow as tf
import tensorflow_probability as tfp
import tree

from iodine import errors

tfd = tfp.distributions

# A name of `ACTIVATIONS` in any case, a function, or None for the identity.
Activation = str | Callable[[tf.Tensor], tf.Tensor] | None
# See `coordinate_map`.
CoordinateType = Literal["linear", "cos"] | None

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


_Metaclass: Any = type(snt.Module)


class _Visible(_Metaclass):
  """Makes classes whose methods are seen as they are written.

  Sonnet wraps every method, and its wrapper has neither the signature nor the
  docstring of what it calls.
  """

  def __new__(
    cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]
  ) -> Any:
    made = super().__new__(cls, name, bases, namespace)
    for key, method in namespace.items():
      if inspect.isfunction(method) and getattr(made, key) is not method:
        functools.update_wrapper(getattr(made, key), method)
    return made


class Module(snt.Module, metaclass=_Visible):
  """`snt.Module` whose methods keep their signatures and docstrings."""


def get_activation(name: Activation) -> Callable[[tf.Tensor], tf.Tensor]:
  """Returns the activation of that name (any case), or the callable itself.

  None means the identity.
  """
  return _named("activation", name or "identity", ACTIVATIONS)


def get_distribution(name: str | type) -> Any:
  """Returns the location-scale family of that name, or the class itself."""
  return _named("distribution", name, DISTRIBUTIONS)


def _named(what: str, name: Any, choices: Mapping[str, Any]) -> Any:
  if callable(name):
    return name
  if name.lower() not in choices:
    raise errors.UnknownNameError(
      f"unknown {what} {name!r}: use one of {', '.join(choices)}"
    )
  return choices[name.lower()]


def coordinate_map(
  coord_type: CoordinateType,
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
  """
  if coord_type is None:
    return np.zeros([height, width, 0], np.float32)
  if coord_type == "linear":
    places = [np.linspace(-1.0, 1.0, size) for size in (height, width)]
    rows, columns = np.meshgrid(*places, indexing="ij")
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


def flatten_dict(nested: dict[str, Any]) -> dict[str, Any]:
  """Joins the keys of nested dicts: {"a": {"b": 1}} -> {"a/b": 1}."""
  leaves = tree.flatten_with_path(nested)
  return {"/".join(map(str, path)): leaf for path, leaf in leaves}
