"""What the generators share: which entity shows where, values of entities.

Glossary: L entities (entity 0 is the background; those that a scene lacks come
last and are zero throughout), n objects, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Scene = dict[str, np.ndarray]  # arrays by the names of features


def pad(values: Sequence[Any] | np.ndarray, num_entities: int) -> np.ndarray:
  """Returns what objects have, [n, ...], for all entities: [L, ...].

  Args:
    values: uint8 ones stay so, others become float32.
    num_entities: L.
  """
  values = np.asarray(values)
  dtype = np.uint8 if values.dtype == np.uint8 else np.float32
  padded = np.zeros((num_entities, *values.shape[1:]), dtype)
  padded[1 : len(values) + 1] = values
  return padded


def visibility(num_objects: int, num_entities: int) -> np.ndarray:
  """Returns [L] float32: 1 for the background and the objects there are."""
  return (np.arange(num_entities) <= num_objects).astype(np.float32)


def owners(covers: np.ndarray) -> np.ndarray:
  """Returns the entity that shows at each pixel; later objects are in front.

  Args:
    covers: [n, ..., H, W] bool, the pixels that an object covers by itself.

  Returns:
    [..., H, W] uint8.
  """
  owner = np.zeros(covers.shape[1:], np.uint8)
  for number, cover in enumerate(covers, start=1):
    owner[cover] = number
  return owner


def shown(owner: np.ndarray, num_objects: int) -> np.ndarray:
  """Returns how many pixels of owner [H, W] each object has: [n]."""
  return np.bincount(owner.ravel(), minlength=num_objects + 1)[1:]


def masks(owner: np.ndarray, num_entities: int) -> np.ndarray:
  """Returns the pixels that show of each entity: [L, H, W, 1] of 0 or 255."""
  numbers = np.arange(num_entities)[:, None, None]
  return np.where(owner == numbers, 255, 0).astype(np.uint8)[..., None]
