"""Name-based TF1 checkpoints of the original, read and written.

Every variable of the original is one variable here, of the same shape and
layout, so that going there and back returns to the bit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sonnet as snt
import tensorflow as tf

from iodine import errors, files, optimizers
from iodine.checkpoints import finding
from iodine.modules import iodine, networks, refinement

Variables = dict[str, tf.Variable]

_SLOTS = {"Adam": "m", "Adam_1": "v"}
_GLOBAL_STEP = "global_step"
_POWERS = ("beta1_power", "beta2_power")

# Where the size of a variable comes from, by the beginning of its name.
_CAUSES = {
  "model/iodine/initial_sample_distribution": "`n_z`",
  "model/iodine/preprocess": "`model.inputs` or `model.preprocess`",
  "pixel_decoder": "`model.decoder.pixel_decoder`",
  "encoder_net": "`model.refinement_core.encoder_net` or `model.inputs`",
  "recurrent_net": "`model.refinement_core.recurrent_net.hidden_sizes`",
  "refinement_head": "`model.refinement_core.refinement_head`",
  "component_dist": "`model.output_dist.component_dist`",
  "latent_dist": "`model.latent_dist`",
  "factor_evaluator": "`model.factor_evaluator`",
}


class Report(NamedTuple):
  """What a restore did, as TF1 names.

  Attributes:
    restored: read from the checkpoint.
    left_fresh: of the optimizer, not in the checkpoint: zero moments, t = 0.
    unused: in the checkpoint, for an optimizer that was not given.
    shapes: of all of these.
    global_step: of the checkpoint; None if it has none.
  """

  restored: list[str]
  left_fresh: list[str]
  unused: list[str]
  shapes: dict[str, tuple[int, ...]]
  global_step: int | None


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


def slot_variables(
  model: iodine.IODINE, optimizer: optimizers.Adam
) -> Variables:
  """Returns Adam's moments (`/Adam`, `/Adam_1`) by TF1 names."""
  trainable = model.trainable_variables
  optimizer.initialize(trainable)
  position = {id(variable): i for i, variable in enumerate(trainable)}
  return {
    f"{name}/{slot}": getattr(optimizer, moments)[position[id(variable)]]
    for name, variable in model_variables(model).items()
    if id(variable) in position
    for slot, moments in _SLOTS.items()
  }


def all_variables(
  model: iodine.IODINE, optimizer: optimizers.Adam
) -> Variables:
  """Returns all that the original's training checkpoints hold, by names."""
  return {
    **model_variables(model),
    **slot_variables(model, optimizer),
    **{name: getattr(optimizer, name) for name in (*_POWERS, _GLOBAL_STEP)},
  }


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
  path: Any,
  model: iodine.IODINE,
  optimizer: optimizers.Adam | None = None,
) -> Report:
  """Restores a model, and its optimizer if given, from a TF1 checkpoint.

  Where Adam's slots are absent, as in released checkpoints, Adam starts afresh,
  whatever the global step says.

  Args:
    path: a prefix, or a folder, with or without a state file; or what
      `finding.open_checkpoint` returned.
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
  saved = opened.shapes
  wanted = model_variables(model)
  optional: Variables = {}
  has_slots = False
  if optimizer is not None:
    has_slots = any(k in saved for k in slot_variables(model, optimizer))
    if has_slots:
      # Half of the slots would be no state of Adam: all or none.
      wanted = all_variables(model, optimizer)
    else:
      wanted |= {_GLOBAL_STEP: optimizer.global_step}
      optional = slot_variables(model, optimizer)
  _check_fit(opened.prefix, saved, {**optional, **wanted}, required=wanted)
  present = {k: v for k, v in {**wanted, **optional}.items() if k in saved}
  values = {name: opened.read(name) for name in present}
  for name, variable in present.items():
    variable.assign(values[name])
  if optimizer is not None and not has_slots:
    optimizer.reset()
    optional |= {name: getattr(optimizer, name) for name in _POWERS}
  ours = {**wanted, **optional}
  step = opened.read(_GLOBAL_STEP) if _GLOBAL_STEP in saved else None
  return Report(
    restored=sorted(present),
    left_fresh=sorted(set(optional) - set(present)),
    unused=sorted(set(saved) - set(present)),
    shapes={**{k: tuple(v.shape) for k, v in ours.items()}, **saved},
    global_step=None if step is None else int(step),
  )


def _check_fit(
  prefix: str,
  saved: Mapping[str, tuple[int, ...]],
  known: Mapping[str, tf.Variable],
  required: Mapping[str, tf.Variable],
) -> None:
  differences = dict(_differences(saved, known, required))
  if not differences:
    return
  initial = "model/iodine/initial_sample_distribution"
  if all(_is_of_optimizer(name) for name in differences):
    raise errors.UserError(
      f"the TF1 checkpoint `{prefix}` holds an incomplete state of the "
      "optimizer, use one that is whole: "
      + errors.join_some(list(differences.values()))
    )
  # Many sizes follow from n_z: where it differs, it is the one to name.
  causes = [
    cause
    for start, cause in _CAUSES.items()
    if any(name.startswith(start) for name in differences)
  ]
  causes = causes[:1] if initial in differences else causes
  raise errors.UserError(
    f"the TF1 checkpoint `{prefix}` does not fit this configuration, probably "
    f"{' and '.join(causes) or 'the model'} is off "
    "(`num_components` and `num_iters` do not matter): "
    + errors.join_some(list(differences.values()))
  )


def _differences(
  saved: Mapping[str, tuple[int, ...]],
  known: Mapping[str, tf.Variable],
  required: Mapping[str, tf.Variable],
) -> Iterator[tuple[str, str]]:
  """Names that do not fit, and how."""
  for name, variable in known.items():
    here = variable.shape.as_list()
    if name in saved and list(saved[name]) != here:
      yield name, f"{name} is {list(saved[name])} there and {here} here"
    elif name not in saved and name in required:
      yield name, f"{name} {here} is only here"
  for name, shape in sorted(saved.items()):
    if name not in known and not _is_of_optimizer(name):
      yield name, f"{name} {list(shape)} is only there"


def _is_of_optimizer(name: str) -> bool:
  return name in (_GLOBAL_STEP, *_POWERS) or name.split("/")[-1] in _SLOTS


# ------------------------------------------------------------------- export


def check_export(path: Any) -> None:
  """Checks early that `export` can write a checkpoint, and leaves nothing.

  Args:
    path: the prefix.

  Raises:
    errors.UserError: if it cannot, or would hide a run of this project.
  """
  path = finding.as_path(path)
  if os.path.isdir(path) or not os.path.basename(path):
    raise errors.UserError(
      f"`{path}` is a folder: give a checkpoint's prefix, such as "
      f"`{os.path.join(path, 'model.ckpt')}`"
    )
  folder = os.path.dirname(path) or "."
  files.check_writable(f"{path}.index")
  files.check_writable(os.path.join(folder, "checkpoint"))
  if finding.holds_run(folder):
    raise errors.UserError(
      f"the folder `{folder}` holds a run of this project, which an export "
      "would hide: give `output` a prefix in another folder"
    )


def export(
  path: str,
  model: iodine.IODINE,
  optimizer: optimizers.Adam | None = None,
) -> str:
  """Writes a checkpoint as TF1's Saver would have, with its state file.

  One that is there under the same prefix is replaced at once, by that of the
  index: the new one has its tensors in other files, of another number.

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
  path = finding.as_path(path)
  folder, name = os.path.split(path)
  num_shards = 1
  while os.path.isfile(path + _shards(num_shards)[0]):
    num_shards += 1
  with files.beside(f"{path}.index", (tf.errors.OpError,)) as temporary:
    _save(os.path.join(temporary, name), tensors, num_shards)
    for suffix in (*_shards(num_shards), ".index"):
      files.move(os.path.join(temporary, name + suffix), path + suffix)
  # The state file has a relative path, so that the folder can be moved.
  files.write(
    os.path.join(folder, "checkpoint"),
    f'model_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "{name}"\n',
  )
  is_shard = re.compile(rf"{re.escape(name)}(\.data-\d+-of-\d+)")
  for found in map(is_shard.fullmatch, os.listdir(folder or ".")):
    if found and found[1] not in _shards(num_shards):
      files.remove(path + found[1])
  return path


def _shards(number: int) -> list[str]:
  """Returns what the names of so many files of tensors end in."""
  return [f".data-{i:05}-of-{number:05}" for i in range(number)]


def _save(prefix: str, tensors: Mapping[str, Any], num_shards: int) -> None:
  """Writes tensors to so many files, and their index."""
  names = sorted(tensors)
  parts = [f"{prefix}_part_{i}" for i in range(num_shards)]
  for i, part in enumerate(parts):
    chosen = names[i::num_shards]
    tf.raw_ops.SaveV2(
      prefix=part,
      tensor_names=chosen,
      shape_and_slices=[""] * len(chosen),
      tensors=[tf.convert_to_tensor(tensors[name]) for name in chosen],
    )
  tf.raw_ops.MergeV2Checkpoints(
    checkpoint_prefixes=parts, destination_prefix=prefix, delete_old_dirs=False
  )
