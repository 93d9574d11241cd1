"""This model against recorded tensors of the original.

The deviation of a tensor is max |port - original| / max |original|. A reference
is the `info` dict of the original's notebook, saved with np.savez and its keys
joined by "/", or a folder with `inputs.npz`, `info.npz` and `train.npz`.

Dimensions: B batch, T iterations + 1, K slots, L true entities, Z latent size.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iodine import checkpoints, errors, optimizers, training
from iodine import files as permissions
from iodine.drawing import palette
from iodine.modules import iodine, utils

Arrays = dict[str, np.ndarray]

# Float32 rounding and no more: changing the original's input by 1e-6 moves its
# own tensors by 1e-6 to 2e-5, gradients and moments add many of these up.
INFO_BOUND = 1e-4
SCALAR_BOUND = 1e-5
GRADIENT_BOUND = 1e-3
SLOT_BOUND = 2e-4
VARIABLE_BOUND = 5e-6
# Absolute: an argmax that is tied within rounding may fall either way.
ARI_BOUND = 0.03

_REQUIRED = ("data/image", "data/true_mask", "data/visibility", "latent/z")


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


class Reference(NamedTuple):
  """Recorded tensors.

  Attributes:
    path: where they were read from.
    data: the batch, as for `IODINE.__call__`.
    info: the recorded `eval`, flat; empty if there is none.
    train: the recorded training step; empty if there is none.
  """

  path: str
  data: dict[str, Any]
  info: Arrays
  train: Arrays


# --------------------------------------------------------------------- reading


def read_reference(path: str) -> Reference:
  """Reads a reference, an npz file or a folder.

  Raises:
    errors.UserError: if it is missing, broken, or lacks a key.
  """
  permissions.check_readable(path)
  if not os.path.isdir(path):
    info = _read_npz(path)
    _require_keys(path, info, _REQUIRED)
    data = _batch_of_info(info)
    _check_batch(path, data)
    return Reference(path, data, info, {})
  files = {
    name: os.path.join(path, f"{name}.npz")
    for name in ("inputs", "info", "train")
  }
  inputs = _read_npz(files["inputs"])
  _require_keys(files["inputs"], inputs, ("image", "mask", "visibility"))
  read = {
    name: _read_npz(files[name]) if os.path.exists(files[name]) else {}
    for name in ("info", "train")
  }
  if not any(read.values()):
    raise errors.UserError(
      f"the folder `{path}` holds neither info.npz nor train.npz: give "
      "`reference` a folder of recorded tensors, or an npz file"
    )
  if read["info"]:
    _require_keys(files["info"], read["info"], ("latent/z",))
  if read["train"]:
    _require_keys(files["train"], read["train"], ("z", "loss", "global_norm"))
  data = _nest(inputs)
  _check_batch(files["inputs"], data)
  return Reference(path, data, read["info"], read["train"])


def _read_npz(path: str) -> Arrays:
  permissions.check_readable(path)
  if not os.path.isfile(path):
    raise errors.UserError(
      f"there is no reference at `{path}`: give `reference` an npz file or a "
      "folder, docs/comparing.md says how to make one"
    )
  reason: Any = "it is a single array"
  try:
    arrays = np.load(path, allow_pickle=False)
    if isinstance(arrays, np.lib.npyio.NpzFile):
      with arrays:
        return {name: _as_number(arrays[name]) for name in arrays.files}
  # What NumPy raises for files of another kind, pickles and broken ones.
  except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as e:
    reason = e
  raise errors.UserError(
    f"the reference `{path}` is not an npz file of plain arrays: save it with "
    f"np.savez as in docs/comparing.md ({reason})"
  )


def _as_number(array: np.ndarray) -> np.ndarray:
  """Returns numbers, float64 as the float32 that the original uses."""
  if array.dtype.kind not in "biuf":
    raise ValueError(f"an array holds {array.dtype}, not numbers")
  return array.astype(np.float32) if array.dtype.kind == "f" else array


def _require_keys(path: str, arrays: Arrays, keys: tuple[str, ...]) -> None:
  missing = [key for key in keys if key not in arrays]
  if missing:
    raise errors.UserError(
      f"the reference `{path}` lacks {errors.join_some(missing)}: save the "
      "whole `info` dict as in docs/comparing.md"
    )


def _check_batch(path: str, data: dict[str, Any]) -> None:
  """Raises a UserError where the arrays of a batch do not fit each other."""
  image, mask = data["image"], data["mask"]
  if image.shape.rank != 5 or image.dtype != tf.float32:
    raise errors.UserError(
      f"the image of the reference `{path}` is {image.dtype.name} of "
      f"shape {tuple(image.shape)}: save the float image [batch, frames, "
      "height, width, channels] that the original got"
    )
  batch_size, frames, height, width, _ = image.shape
  entities = mask.shape[2] if mask.shape.rank == 6 else None
  needed: dict[str, tuple[Any, ...]] = {
    "mask": (batch_size, frames, entities, height, width, 1),
    "visibility": (batch_size, entities),
    **{
      f"factors/{name}": (batch_size, entities, *value.shape[2:])
      for name, value in data["factors"].items()
    },
  }
  found = {**data, **{f"factors/{k}": v for k, v in data["factors"].items()}}
  for name, shape in needed.items():
    if tuple(found[name].shape) != shape:
      raise errors.UserError(
        f"the tensors of the reference `{path}` do not fit each other, as "
        f"{name} has shape {tuple(found[name].shape)} and the image "
        f"{tuple(image.shape)}: save the whole `info` dict of one batch"
      )


def _batch_of_info(info: Arrays) -> dict[str, Any]:
  """Returns the batch that `eval` puts into its result."""
  data = {
    key.removeprefix("data/"): value
    for key, value in info.items()
    if key.startswith("data/")
  }
  data["mask"] = data.pop("true_mask")
  return _nest(data)


def _nest(arrays: Arrays) -> dict[str, Any]:
  data: dict[str, Any] = {"factors": {}}
  for key, value in arrays.items():
    if key.startswith("factors/"):
      data["factors"][key.removeprefix("factors/")] = tf.constant(value)
    else:
      data[key] = tf.constant(value)
  return data


# ------------------------------------------------------------------- comparing


def compare_info(
  model: iodine.IODINE, reference: Reference, bound: float = INFO_BOUND
) -> tuple[list[Deviation], Arrays]:
  """Replays the recorded samples through `eval` and compares every tensor.

  R2 scalars are left out: they depend on an update order that the original
  leaves open.

  Args:
    model: the model with the checkpoint of the reference.
    reference: with `info`.
    bound: of all tensors but the adjusted Rand indices.

  Returns:
    A deviation for every tensor, and the flat `info` of this model.

  Raises:
    errors.UserError: if the reference is of another configuration.
  """
  recorded = reference.info
  z = recorded["latent/z"]
  z = np.moveaxis(z, 1, 0) if z.ndim == 4 else z
  _check_samples(model, reference, z)
  evaluate = tf.function(
    lambda data, z: model.eval(data, z=z, update=False), autograph=False
  )
  nested = evaluate(reference.data, tf.constant(z))
  info = {k: v.numpy() for k, v in utils.flatten_dict(nested).items()}
  _check_keys(reference.path, info, recorded)
  computed = {
    name: _as_recorded(reference.path, name, info[name], expected)
    for name, expected in recorded.items()
  }
  flipped = _tied_flips(info, recorded, bound)
  deviations = []
  for name, expected in recorded.items():
    if _is_r2(model, name):
      continue
    actual = computed[name]
    if flipped is not None and name.startswith("factor_regressor/"):
      if name.endswith("assignment") or "/predictions/" in name:
        # Where two slots overlap an entity equally, either may be assigned.
        actual = np.where(flipped[..., None], expected, actual)
      elif name.startswith("factor_regressor/metrics/") and flipped.any():
        continue
    if name == "losses/factor" and flipped is not None and flipped.any():
      continue
    is_ari = name.startswith("metrics/ari")
    deviations.append(
      _deviation(
        name,
        actual,
        expected,
        ARI_BOUND if is_ari else bound,
        relative=not is_ari,
        time_axis=_time_axis(name),
      )
    )
  return deviations, info


def compare_train_step(
  model: iodine.IODINE, optimizer: optimizers.Adam, reference: Reference
) -> list[Deviation]:
  """Replays the recorded training step; changes model and optimizer.

  Args:
    model: the model with the checkpoint of the reference.
    optimizer: likewise.
    reference: with `train`.

  Returns:
    A deviation for the loss, every scalar, the gradient norm, every gradient,
    and every variable and moment after the step.

  Raises:
    errors.UserError: if the reference is of another configuration.
  """
  recorded = reference.train
  _check_samples(model, reference, recorded["z"])
  names = {id(v): k for k, v in checkpoints.model_variables(model).items()}
  step = training.compute_gradients(
    model, reference.data, z=tf.constant(recorded["z"])
  )
  actual: dict[str, Any] = {"loss": step.loss, "lr": optimizer.learning_rate}
  for name in ("z", "zp", "kl", "re"):
    actual[name] = tf.stack(step.iterations[name])
  for name, value in step.scalars.items():
    actual[f"scalars/{name}"] = value
  for variable, gradient in zip(
    model.trainable_variables, step.gradients, strict=True
  ):
    actual[f"grads/{names[id(variable)]}"] = gradient
  actual["global_norm"] = optimizer.apply(
    step.gradients, model.trainable_variables
  )
  for name, variable in checkpoints.all_variables(model, optimizer).items():
    actual[f"after/{name}"] = variable
  unknown = sorted(set(recorded) - set(actual))
  if unknown:
    raise _other_config(reference.path, unknown, "has", "does not compute")
  # What is after the step may have been left out as a whole, it is large.
  has_after = any(name.startswith("after/") for name in recorded)
  missing = sorted(
    name
    for name in set(actual) - set(recorded)
    if has_after or not name.startswith("after/")
  )
  if missing:
    raise _other_config(reference.path, missing, "lacks", "computes")
  deviations = []
  for name, expected in recorded.items():
    value = _as_recorded(
      reference.path, name, np.asarray(actual[name]), expected
    )
    is_ari = name.startswith("scalars/loss/ari")
    deviations.append(
      _deviation(
        name,
        value,
        expected,
        _train_bound(name),
        relative=not is_ari,
        time_axis=0 if name in ("z", "zp", "kl", "re") else None,
      )
    )
  return deviations


def _train_bound(name: str) -> float:
  if name.startswith("scalars/loss/ari"):
    return ARI_BOUND
  if name.startswith("grads/"):
    return GRADIENT_BOUND
  if name.endswith(("/Adam", "/Adam_1")):
    return SLOT_BOUND
  if name.startswith("after/"):
    return VARIABLE_BOUND
  if name in ("z", "zp", "kl", "re"):
    return INFO_BOUND
  return SCALAR_BOUND


def _deviation(
  name: str,
  actual: np.ndarray,
  expected: np.ndarray,
  bound: float,
  relative: bool,
  time_axis: int | None,
) -> Deviation:
  difference = np.abs(
    np.asarray(actual, np.float64) - np.asarray(expected, np.float64)
  )
  largest = np.abs(expected).max(initial=0.0)
  if relative and largest > 0:
    difference = difference / largest
  iterations: tuple[float, ...] = ()
  if time_axis is not None:
    others = tuple(i for i in range(difference.ndim) if i != time_axis)
    iterations = tuple(float(x) for x in difference.max(axis=others))
  # nan beats every number here, as it should.
  place = np.unravel_index(int(np.argmax(difference)), difference.shape)
  return Deviation(
    name=name,
    deviation=float(difference[place]) if difference.size else 0.0,
    bound=bound,
    place=tuple(int(i) for i in place),
    iterations=iterations,
  )


def _time_axis(name: str) -> int | None:
  """Returns the axis of the iterations of a tensor of `info`."""
  if name.startswith("data/") or name == "losses/total":
    return None
  if name == "losses/factor" or name.startswith("factor_regressor/metrics/"):
    return 0
  return 1


def _is_r2(model: iodine.IODINE, name: str) -> bool:
  prefix = "factor_regressor/metrics/"
  if not name.startswith(prefix) or model.factor_evaluator is None:
    return False
  return name.removeprefix(prefix) in model.factor_evaluator.mean_var


def _tied_flips(
  info: Arrays, recorded: Arrays, bound: float
) -> np.ndarray | None:
  """Entities [B, T, L] that have another slot here, the two being tied."""
  name = "factor_regressor/assignment"
  if name not in recorded or info[name].shape != recorded[name].shape:
    return None
  differs = np.any(info[name] != recorded[name], axis=-1)
  overlap = np.einsum(
    "blhwc,btkhwc->btlk",
    recorded["data/true_mask"][:, 0],
    recorded["outputs/pred_mask"],
  )
  gap = np.abs(np.sum((info[name] - recorded[name]) * overlap, axis=-1))
  return differs & (gap <= bound * overlap.max())


# ------------------------------------------------------------------- complaints


def _check_samples(
  model: iodine.IODINE, reference: Reference, z: np.ndarray
) -> None:
  """Checks the recorded samples [T, B, K, Z] against model and batch."""
  (zp_size,) = model.latent_dist.output_shape
  image = reference.data["image"]
  needed = (
    *(model.num_iters + 1, image.shape[0], model.num_components, zp_size),
  )
  if z.shape != needed:
    raise errors.UserError(
      f"the reference `{reference.path}` has samples of shape {z.shape} "
      f"[iterations + 1, batch, slots, latent], and this configuration needs "
      f"{needed}: give `num_iters`, `num_components` and `n_z` that it was "
      "recorded with"
    )


def _check_keys(path: str, info: Arrays, recorded: Arrays) -> None:
  missing = sorted(set(info) - set(recorded))
  if missing:
    raise _other_config(path, missing, "lacks", "computes")
  unknown = sorted(set(recorded) - set(info))
  if unknown:
    raise _other_config(path, unknown, "has", "does not compute")


def _other_config(
  path: str, names: list[str], has: str, computes: str
) -> errors.UserError:
  return errors.UserError(
    f"the reference `{path}` {has} {errors.join_some(names, separator=', ')}, "
    f"which this configuration {computes}: give the named config and updates "
    "that it was recorded with"
  )


def _as_recorded(
  path: str, name: str, actual: np.ndarray, expected: np.ndarray
) -> np.ndarray:
  """Returns the computed tensor, cut to the iterations that were recorded."""
  if (
    name.startswith("inputs/")
    and expected.ndim == actual.ndim
    and expected.shape[1] == 1
  ):
    actual = actual[:, -1:]  # only the last iteration was kept
  if actual.shape != expected.shape:
    raise errors.UserError(
      f"{name} has shape {expected.shape} in the reference `{path}` and "
      f"{actual.shape} here: give the named config and updates that it was "
      "recorded with"
    )
  return actual


# ---------------------------------------------------------------------- results


def worst(deviations: list[Deviation]) -> Deviation:
  """Returns the deviation closest to or furthest beyond its bound, or nan."""

  def excess(each: Deviation) -> float:
    ratio = each.deviation / each.bound
    return float("inf") if np.isnan(ratio) else ratio

  return max(deviations, key=excess)


def as_json(deviations: list[Deviation]) -> dict[str, Any]:
  """Returns `passed`, `worst`, and for every tensor its deviation and bound."""
  return {
    "passed": all(each.passed for each in deviations),
    "worst": _as_json(worst(deviations)),
    "tensors": {each.name: _as_json(each) for each in deviations},
  }


def _as_json(each: Deviation) -> dict[str, Any]:
  # JSON has no nan.
  number = each.deviation if np.isfinite(each.deviation) else None
  steps = [x if np.isfinite(x) else None for x in each.iterations]
  return {
    **each._asdict(),
    "deviation": number,
    "iterations": steps,
    "passed": each.passed,
  }


def table_rows(deviations: list[Deviation]) -> Iterator[tuple[Any, ...]]:
  """Rows of a table: tensor, iteration, deviation, bound, place, verdict."""
  for each in deviations:
    verdict = "pass" if each.passed else "FAIL"
    place = ",".join(map(str, each.place))
    yield (each.name, "all", each.deviation, each.bound, place, verdict)
    for t, deviation in enumerate(each.iterations):
      within = "pass" if deviation <= each.bound else "FAIL"
      yield ("", t, deviation, each.bound, "", within)


def picture_rows(info: Arrays, recorded: Mapping[str, np.ndarray]) -> Arrays:
  """Pictures of the first scene: rows of [T, H, W, C] by their titles.

  Reconstruction and mask of the original, of the port, and their difference,
  which is scaled to its largest value.
  """
  colors = palette.slot_colors(recorded["outputs/pred_mask"].shape[2])

  def reconstruction(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    return arrays["outputs/recons"][0, :, 0]

  def mask(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    return palette.mix(arrays["outputs/pred_mask"][0], colors)

  rows: Arrays = {}
  for title, draw in (("reconstruction", reconstruction), ("mask", mask)):
    original, port = draw(recorded), draw(info)
    difference = np.abs(port - original)
    largest = float(difference.max())
    rows[f"{title}, original"] = original
    rows[f"{title}, port"] = port
    rows[f"{title}, difference (white is {largest:.1e})"] = difference / (
      largest or 1.0
    )
  return rows
