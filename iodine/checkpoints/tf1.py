"""Name-based TF1 checkpoints of the original, read and written.

Every variable of the original is one variable here, of the same shape and
layout, so that going there and back returns to the bit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import sonnet as snt
import tensorflow as tf

from iodine import errors, files, optimizers
from iodine.checkpoints import finding
from iodine.modules import iodine, networks, refinement

Variables = dict[str, tf.Variable]

_SLOTS = ("Adam", "Adam_1")
_GLOBAL_STEP = "global_step"
_POWERS = ("beta1_power", "beta2_power")


# -------------------------------------------------------------------- names


def model_variables(model: iodine.IODINE) -> Variables:
  """Returns the variables of an initialised model by their TF1 names.

  A name is the config key that the part is built under plus the names of the
  original's modules.

  Raises:
    errors.UserError: if a part has no counterpart in the original, or the
      model has no variables yet.
  """
  model.require_variables()
  core = model.refinement_core
  variables = {
    "model/iodine/initial_sample_distribution": (
      model.initial_sample_distribution
    )
  }
  for name, layer_norm in model.preprocess.layer_norms.items():
    scope = f"model/iodine/preprocess/layer_norm_{name}"
    variables[f"{scope}/gamma"] = layer_norm.scale
    variables[f"{scope}/beta"] = layer_norm.offset
  variables |= _network(model.decoder.pixel_decoder, "pixel_decoder")
  variables |= _network(core.encoder_net, "encoder_net")
  for i, layer in enumerate(core.recurrent_net.layers):
    scope = "recurrent_net/lstm/lstm" + (f"_{i}" if i else "")
    variables[f"{scope}/w_gates"] = layer.w_gates
    variables[f"{scope}/b_gates"] = layer.b_gates
  variables |= _head(core.refinement_head)
  for key, dist in (
    ("component_dist", model.output_dist.component_dist),
    ("latent_dist", model.latent_dist),
  ):
    for variable in dist.variables:  # a learned scale
      variables[f"{key}/{dist.name}/scale"] = variable
  if model.factor_evaluator is not None:
    scope = f"factor_evaluator/{model.factor_evaluator.name}"
    regressor = model.factor_evaluator
    variables |= _linear(regressor.predict_latents, f"{scope}/predict_latents")
    for factor, estimator in regressor.mean_var.items():
      factor_scope = f"{scope}/{factor}_mean_var"
      variables[f"{factor_scope}/mean"] = estimator.mean
      variables[f"{factor_scope}/M2"] = estimator.m2
      variables[f"{factor_scope}/total"] = estimator.total
  if {id(v) for v in variables.values()} != {id(v) for v in model.variables}:
    raise errors.UserError(
      "the model has variables that the original has no names for: use the "
      "parts in `iodine.modules` alone"
    )
  return variables


def all_variables(
  model: iodine.IODINE, optimizer: optimizers.Adam
) -> Variables:
  """Returns all that the original's training checkpoints hold, by names.

  Adam's moments have those of the model's variables, and `/Adam` or `/Adam_1`.
  """
  variables = model_variables(model)
  names = {id(variable): name for name, variable in variables.items()}
  trainable = model.trainable_variables
  optimizer.initialize(trainable)
  for variable, m, v in zip(trainable, optimizer.m, optimizer.v, strict=True):
    for slot, moment in zip(_SLOTS, (m, v), strict=True):
      variables[f"{names[id(variable)]}/{slot}"] = moment
  for name in (*_POWERS, _GLOBAL_STEP):
    variables[name] = getattr(optimizer, name)
  return variables


def _linear(layer: Any, scope: str) -> Variables:
  # A layer that nothing flows through never made its variables.
  if not hasattr(layer, "w"):
    return {}
  return {f"{scope}/w": layer.w, f"{scope}/b": layer.b}


def _layers(layers: Sequence[snt.Module], scope: str) -> Variables:
  variables: Variables = {}
  for i, layer in enumerate(layers):
    variables |= _linear(layer, f"{scope}_{i}")
  return variables


def _network(module: snt.Module, key: str) -> Variables:
  """Returns the encoder or the pixel decoder."""
  if not isinstance(module, (networks.CNN, networks.BroadcastConv)):
    raise errors.UserError(
      f"`{key}` is a {type(module).__name__}, which the original cannot run: "
      "such a model has no TF1 checkpoint, use a BroadcastConv or CNN"
    )
  scope = f"{key}/{module.name}"
  variables = _layers(module.conv_net.layers, f"{scope}/conv_net_2d/conv_2d")
  if module.mlp is not None:
    variables |= _layers(module.mlp.layers, f"{scope}/mlp/linear")
  return variables


def _head(head: snt.Module) -> Variables:
  scope = f"refinement_head/{head.name}"
  if isinstance(head, refinement.ResHead):
    return _linear(head.linear, f"{scope}/linear")
  # The original makes the update first, then its gate, then the predictor.
  return {
    **_linear(head.update, f"{scope}/linear"),
    **_linear(head.gate, f"{scope}/linear_1"),
    **_layers(head.predictor.layers, f"{scope}/mlp/linear"),
  }


# ------------------------------------------------------------------ restore


def restore(
  path: finding.Path,
  model: iodine.IODINE,
  optimizer: optimizers.Adam | None = None,
) -> finding.Report:
  """Restores a model, and its optimizer if given, from a TF1 checkpoint.

  Where Adam's slots are absent, as in released checkpoints, Adam starts afresh,
  whatever the global step says.

  Args:
    path: see `finding.open_checkpoint`.
    model: an initialised model; all of its variables are restored.
    optimizer: gets the global step, and Adam's slots and powers.

  Returns:
    What was restored, left fresh and unused.

  Raises:
    errors.UserError: if there is no checkpoint, it cannot be read, or a
      variable is missing on either side or of another shape. Nothing is
      changed then.
  """
  opened = finding.open_checkpoint(path)
  saved = opened.tensors
  fresh: set[str] = set()
  if optimizer is None:
    variables = model_variables(model)
  else:
    variables = all_variables(model, optimizer)
    if not any(name.split("/")[-1] in _SLOTS for name in saved):
      # Half of the slots would be no state of Adam: all or none.
      fresh = {k for k in variables if _is_of_optimizer(k)} - {_GLOBAL_STEP}
  known = variables.keys() - fresh
  unused = {k for k in saved if _is_of_optimizer(k) and k not in known}
  values = {k: v for k, v in saved.items() if k not in unused}
  finding.assign(opened.prefix, values, variables, optional=fresh)
  if optimizer is not None and fresh:
    optimizer.reset()
  status = {
    **dict.fromkeys(values, "restored"),
    **dict.fromkeys(unused, "unused"),
    **dict.fromkeys(fresh, "left fresh"),
  }
  shapes = {name: tuple(v.shape) for name, v in variables.items()}
  return finding.Report(status, {**shapes, **opened.shapes})


def _is_of_optimizer(name: str) -> bool:
  is_slot = name.split("/")[-1] in _SLOTS
  return is_slot or name in (_GLOBAL_STEP, *_POWERS)


# ------------------------------------------------------------------- export


def check_export(path: str | os.PathLike[str]) -> None:
  """Checks early that `export` can write a checkpoint, and leaves nothing.

  Args:
    path: the prefix.

  Raises:
    errors.UserError: if it cannot, or would hide a run of this project.
  """
  path = os.fspath(path)
  finding.check_name(path)
  if os.path.isdir(path) or not os.path.basename(path):
    raise errors.UserError(
      f"`{path}` is a folder: give a checkpoint's prefix, such as "
      f"`{os.path.join(path, 'model.ckpt')}`"
    )
  files.check_writable(f"{path}.index")
  folder = finding.run_folder(path)
  if os.path.exists(os.path.join(folder, files.RUN_CONFIG)):
    raise errors.UserError(
      f"the folder `{folder}` holds a run of this project, which an export "
      "would hide: give `output` a prefix in another folder"
    )


def export(
  path: str | os.PathLike[str],
  model: iodine.IODINE,
  optimizer: optimizers.Adam | None = None,
) -> str:
  """Writes a checkpoint as TF1's Saver would have, with its state file.

  Args:
    path: the prefix to write, such as `folder/model.ckpt`; the folder is
      created.
    model: an initialised model.
    optimizer: gives global_step, Adam's slots and powers. Without it
      global_step is 0 and the rest is left out, as in released checkpoints.

  Returns:
    The prefix.

  Raises:
    errors.UserError: if a part has no counterpart in the original, or the
      files cannot be written.
  """
  tensors: dict[str, Any]
  if optimizer is None:
    tensors = {**model_variables(model), _GLOBAL_STEP: tf.zeros([], tf.int64)}
  else:
    tensors = {**all_variables(model, optimizer)}
  check_export(path)
  path = os.fspath(path)
  folder, name = os.path.split(path)
  files.make_folder(folder or os.curdir)
  with errors.as_user_error(
    (tf.errors.OpError,),
    lambda error: (
      f"cannot write `{path}` ({errors.reason(error)}): choose a place with "
      "room that you may write to"
    ),
  ):
    tf.raw_ops.SaveV2(
      prefix=path,
      tensor_names=list(tensors),
      shape_and_slices=[""] * len(tensors),
      tensors=[tf.convert_to_tensor(tensor) for tensor in tensors.values()],
    )
  finding.write_state(folder, [name])
  return path
