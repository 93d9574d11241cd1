"""This model against recorded tensors of the original.

The deviation of a tensor is max |port - original| / max |original|. A reference
is the `info` dict of the original's notebook, saved with np.savez and its keys
joined by "/", or a folder with `inputs.npz`, `info.npz` and `train.npz`.

What was recorded is compared. Info and scalars that only this model has are
named.

Dimensions: B batch, T iterations + 1, K slots, L true entities, Z latent size.
"""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine import checkpoints, errors, optimizers, training
from iodine.drawing import palette
from iodine.modules import iodine, utils

Arrays = dict[str, np.ndarray]
Tensors = dict[str, tf.Tensor]

# Bounds are float32 rounding and no more: changing the original's input by 1e-6
# moves its own tensors by 1e-6 to 2e-5, gradients and moments add many of these
# up.
INFO_BOUND = 1e-4
# Bounds by how the names of tensors begin; the first pattern that fits counts.
_ARI = r"(metrics|scalars/loss)/ari"
_BOUNDS = {
  # Absolute: an argmax that is tied within rounding may fall either way.
  _ARI: 0.03,
  r"grads/": 1e-3,
  r"after/.*/Adam(_1)?$": 2e-4,
  r"after/": 5e-6,
  r"(loss|lr|global_norm)$|scalars/": 1e-5,
  r"(z|zp|kl|re)$": INFO_BOUND,
}
# Likewise, the axis of the iterations; that of others comes after the batch.
_TIME_AXES = {
  r"(z|zp|kl|re)$|losses/factor$|factor_regressor/metrics/": 0,
  r"(loss|lr|global_norm)$|losses/total$|(data|scalars|grads|after)/": None,
}

# Tensors that a reference must have, and how many axes they have.
_INPUTS = {"image": 5, "mask": 6, "visibility": 2}
_INFO = {
  "data/true_mask": 6,
  "latent/z": 4,
  "outputs/recons": 6,
  "outputs/pred_mask": 6,
}


class Deviation(NamedTuple):
  """How far one tensor is from the original's.

  Attributes:
    name: of the tensor.
    deviation: the largest, relative to the tensor's largest magnitude;
      absolute for the adjusted Rand index.
    bound: what it may be.
    place: index of the element where it occurs.
    iterations: the largest one at each iteration; empty where there are none.
  """

  name: str
  deviation: float
  bound: float
  place: tuple[int, ...]
  iterations: tuple[float, ...]

  @property
  def passed(self) -> bool:
    """Returns whether the deviation is within its bound; nan is not."""
    return self.deviation <= self.bound

  def as_json(self) -> dict[str, Any]:
    """Returns the attributes and whether the tensor passed."""
    return {**self._asdict(), "passed": self.passed}


class Reference(NamedTuple):
  """Recorded tensors.

  Attributes:
    path: where they were read from.
    data: the batch, as for `IODINE.__call__`.
    tensors: of the original's `info`, of a training step, or of both.
  """

  path: str
  data: dict[str, Any]
  tensors: Arrays

  @property
  def has_info(self) -> bool:
    """Returns whether `info` is among the tensors."""
    return "latent/z" in self.tensors


class Comparison(NamedTuple):
  """What came of comparing a model with a reference.

  Attributes:
    deviations: of every recorded tensor.
    new: names of what only this model has.
    computed: all that it has, as recorded.
  """

  deviations: list[Deviation]
  new: list[str]
  computed: Arrays

  @property
  def worst(self) -> Deviation:
    """Returns the deviation closest to or furthest beyond its bound, or nan."""
    # nan beats every number here, as it should.
    ratios = [each.deviation / each.bound for each in self.deviations]
    return self.deviations[int(np.argmax(ratios))]

  def as_json(self) -> dict[str, Any]:
    """Returns the verdict, and for every tensor its deviation and bound."""
    return {
      "passed": all(each.passed for each in self.deviations),
      "worst": self.worst.as_json(),
      "not_in_reference": self.new,
      "tensors": {each.name: each.as_json() for each in self.deviations},
    }

  def table_rows(self) -> Iterator[tuple[Any, ...]]:
    """Rows of a table: tensor, iteration, deviation, bound, place, verdict."""
    for each in self.deviations:
      verdict = "pass" if each.passed else "FAIL"
      place = ",".join(map(str, each.place))
      yield (each.name, "all", each.deviation, each.bound, place, verdict)
      for t, deviation in enumerate(each.iterations):
        within = "pass" if deviation <= each.bound else "FAIL"
        yield ("", t, deviation, each.bound, "", within)


# --------------------------------------------------------------------- reading


def read_reference(path: str | None) -> Reference:
  """Reads a reference, an npz file or a folder.

  Raises:
    errors.UserError: if it is missing, broken, or lacks a tensor.
  """
  if path is None or not os.path.exists(path):
    raise errors.UserError(
      f"`reference` is {path!r}, where there is none: give an npz file or a "
      "folder of recorded tensors, docs/comparing.md says how to make one"
    )
  if os.path.isdir(path):
    inputs, info, train = (
      _read_npz(os.path.join(path, f"{name}.npz"))
      for name in ("inputs", "info", "train")
    )
  else:
    info, train = _read_npz(path), {}
    inputs = {
      key.removeprefix("data/").replace("true_mask", "mask"): value
      for key, value in info.items()
      if key.startswith("data/")
    }
  tensors = {**info, **train}
  needed = {**_INPUTS, **({"z": 4} if train and not info else _INFO)}
  found = {**inputs, **tensors}
  lacking = [
    f"lacks {name} of {num_axes} axes"
    for name, num_axes in needed.items()
    if name not in found or found[name].ndim != num_axes
  ]
  if lacking:
    raise _unfit(path, *lacking)
  data: dict[str, Any] = {"factors": {}}
  for key, value in inputs.items():
    place = data["factors"] if key.startswith("factors/") else data
    place[key.removeprefix("factors/")] = tf.constant(value)
  return Reference(path, data, tensors)


def _read_npz(path: str) -> Arrays:
  """Returns all arrays of a file, none where there is no file."""
  if not os.path.exists(path):
    return {}
  with (
    errors.as_user_error(
      # What NumPy raises for files of another kind, pickles and broken ones.
      (ValueError, EOFError, zipfile.BadZipFile, zlib.error),
      lambda error: (
        f"the reference `{path}` is not an npz file of plain arrays: save it "
        f"with np.savez as in docs/comparing.md ({error})"
      ),
    ),
    open(path, "rb") as content,
    np.lib.npyio.NpzFile(content) as file,
  ):
    arrays = {name: file[name] for name in file.files}
  # Float64 as the float32 that the original uses.
  return {
    name: array.astype(np.float32) if array.dtype == np.float64 else array
    for name, array in arrays.items()
  }


def _unfit(path: str, *reasons: str) -> errors.UserError:
  why = errors.join_some(reasons, separator=", ")
  return errors.UserError(
    f"the reference `{path}` {why}: save all of it as docs/comparing.md says, "
    "and give the named config and updates that it was recorded with"
  )


# ------------------------------------------------------------------- comparing


def compare(
  model: iodine.IODINE,
  optimizer: optimizers.Adam,
  reference: Reference,
  tolerance: float = INFO_BOUND,
) -> Comparison:
  """Replays the recorded samples, and compares every recorded tensor.

  Where a training step was recorded it is made, which changes model and
  optimizer. R2 scalars are left out: they depend on an update order that the
  original leaves open.

  Args:
    model: the model with the checkpoint of the reference.
    optimizer: likewise.
    reference: with `info`, `train`, or both.
    tolerance: bound of the tensors of `info`.

  Raises:
    errors.UserError: if the reference is of another configuration.
  """
  recorded = reference.tensors
  tensors: Tensors = {}
  if reference.has_info:
    tensors.update(_replay_info(model, reference))
  if "z" in recorded:
    tensors.update(_replay_step(model, optimizer, reference))
  new = sorted(tensors.keys() - recorded.keys())
  computed = _as_recorded(reference.path, tensors, recorded)
  left_out = _settle_ties(computed, recorded, tolerance)
  for name in getattr(model.factor_evaluator, "mean_var", ()):
    left_out.add(f"factor_regressor/metrics/{name}")
  deviations = [
    _deviation(name, computed[name], expected, tolerance)
    for name, expected in recorded.items()
    if name not in left_out
  ]
  return Comparison(deviations, new, computed)


def _replay_info(model: iodine.IODINE, reference: Reference) -> Tensors:
  """Returns the flat `eval` that this model computes of recorded samples."""
  z = np.moveaxis(reference.tensors["latent/z"], 1, 0)
  _check_samples(model, reference, z)
  evaluate = tf.function(
    lambda data, z: model.eval(data, z=z, update=False), autograph=False
  )
  return utils.flatten_dict(evaluate(reference.data, tf.constant(z)))


def _replay_step(
  model: iodine.IODINE, optimizer: optimizers.Adam, reference: Reference
) -> Tensors:
  """Makes the training step; returns all that could have been recorded."""
  z, variables = reference.tensors["z"], model.trainable_variables
  _check_samples(model, reference, z)
  names = {id(v): k for k, v in checkpoints.tf1.model_variables(model).items()}
  step = training.compute_gradients(model, reference.data, z=tf.constant(z))
  computed: dict[str, Any] = {"loss": step.loss, "lr": optimizer.learning_rate}
  for name in ("z", "zp", "kl", "re"):
    computed[name] = tf.stack(step.iterations[name])
  for name, value in step.scalars.items():
    computed[f"scalars/{name}"] = value
  for variable, gradient in zip(variables, step.gradients, strict=True):
    computed[f"grads/{names[id(variable)]}"] = gradient
  computed["global_norm"] = optimizer.apply(step.gradients, variables)
  # What is after the step may have been left out as a whole, it is large.
  if any(name.startswith("after/") for name in reference.tensors):
    for name, value in checkpoints.tf1.all_variables(model, optimizer).items():
      computed[f"after/{name}"] = value
  lacking = [
    f"lacks {name}"
    for name in computed
    if name not in reference.tensors and not name.startswith("scalars/")
  ]
  if lacking:
    raise _unfit(reference.path, *lacking)
  return computed


def _check_samples(
  model: iodine.IODINE, reference: Reference, z: np.ndarray
) -> None:
  """Checks the recorded samples [T, B, K, Z] against model and batch."""
  needed = (
    model.num_iters + 1,
    reference.data["image"].shape[0],
    model.num_components,
    *model.latent_dist.output_shape,
  )
  if z.shape != needed:
    raise _unfit(
      reference.path,
      f"has samples [iterations + 1, batch, slots, latent] of shape {z.shape}, "
      "which with this `num_iters`, `num_components` and `n_z` would be "
      f"{needed}",
    )


def _as_recorded(path: str, computed: Tensors, recorded: Arrays) -> Arrays:
  """Returns what is computed here of all that was recorded."""
  unknown = sorted(recorded.keys() - computed.keys())
  if unknown:
    raise _unfit(path, *(f"has {x}, which is not here" for x in unknown))
  result = {}
  for name, expected in recorded.items():
    actual = np.asarray(computed[name])
    if name.startswith("inputs/") and expected.shape[1] == 1:
      actual = actual[:, -1:]  # only the last iteration was kept
    if actual.shape != expected.shape:
      shapes = f"of shape {expected.shape}, which is {actual.shape} here"
      raise _unfit(path, f"has {name} {shapes}")
    result[name] = actual
  return result


def _deviation(
  name: str, actual: np.ndarray, expected: np.ndarray, tolerance: float
) -> Deviation:
  difference = np.abs(np.subtract(actual, expected, dtype=np.float64))
  largest = np.abs(expected).max()
  if largest > 0 and not re.match(_ARI, name):
    difference = difference / largest
  iterations: tuple[float, ...] = ()
  time_axis = _find(_TIME_AXES, name, 1)
  if time_axis is not None:
    others = tuple(i for i in range(difference.ndim) if i != time_axis)
    iterations = tuple(difference.max(axis=others).tolist())
  # nan beats every number here, too.
  index = np.unravel_index(int(np.argmax(difference)), difference.shape)
  place = tuple(map(int, index))
  bound = _find(_BOUNDS, name, tolerance)
  return Deviation(name, float(difference[place]), bound, place, iterations)


def _find(table: Mapping[str, Any], name: str, otherwise: Any) -> Any:
  """Returns the value of the first pattern that a name fits."""
  found = (value for key, value in table.items() if re.match(key, name))
  return next(found, otherwise)


def _settle_ties(computed: Arrays, recorded: Arrays, bound: float) -> set[str]:
  """Takes over recorded assignments where two slots overlap an entity equally.

  Returns:
    Names of what cannot be compared then.
  """
  if "factor_regressor/assignment" not in recorded:
    return set()
  flipped = _tied_flips(computed, recorded, bound)
  if not flipped.any():
    return set()
  for name, value in recorded.items():
    if re.match("factor_regressor/(assignment|predictions/)", name):
      computed[name] = np.where(flipped[..., None], value, computed[name])
  follow = "losses/factor|factor_regressor/metrics/"
  return {name for name in recorded if re.match(follow, name)}


def _tied_flips(info: Arrays, recorded: Arrays, bound: float) -> np.ndarray:
  """Entities [B, T, L] that have another slot here, the two being tied."""
  name = "factor_regressor/assignment"
  differs = np.any(info[name] != recorded[name], axis=-1)
  overlap = np.einsum(
    "blhwc,btkhwc->btlk",
    recorded["data/true_mask"][:, 0],
    recorded["outputs/pred_mask"],
  )
  gap = np.abs(np.sum((info[name] - recorded[name]) * overlap, axis=-1))
  return differs & (gap <= bound * overlap.max())


# ---------------------------------------------------------------------- picture


def picture_rows(computed: Arrays, recorded: Arrays) -> Arrays:
  """Pictures of the first scene: rows of [T, H, W, C] by their titles.

  Reconstruction and mask of the original, of the port, and their difference,
  which is scaled to its largest value.
  """
  colors = palette.slot_colors(recorded["outputs/pred_mask"].shape[2])
  pictures = {
    "reconstruction": lambda x: x["outputs/recons"][0, :, 0],
    "mask": lambda x: palette.mix(x["outputs/pred_mask"][0], colors),
  }
  rows: Arrays = {}
  for title, draw in pictures.items():
    original, port = draw(recorded), draw(computed)
    difference = np.abs(port - original)
    largest = float(difference.max())
    scaled = difference / (largest or 1.0)
    rows[f"{title}, original"] = original
    rows[f"{title}, port"] = port
    rows[f"{title}, difference (white is {largest:.1e})"] = scaled
  return rows
