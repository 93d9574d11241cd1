"""Name-based TF1 checkpoints of the original, read and written.

Every variable of the original has one name; most are one variable here. An
LSTM layer is the exception: Sonnet 1 has one matrix over [input, hidden] with
the gates in the order (input, candidate, forget, output) and adds the forget
bias at run time; Sonnet 2 has two matrices with the order (input, forget,
candidate, output) and the forget bias in the bias variable.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import sonnet as snt
import tensorflow as tf

from iodine import checkpoints, errors, optimizers
from iodine.modules import iodine, networks, refinement

_FORGET_BIAS = 1.0
_SLOTS = ("Adam", "Adam_1")
_COUNTERS = ("beta1_power", "beta2_power", "global_step")


class Entry(NamedTuple):
  """What one TF1 variable is here.

  Attributes:
    variables: one variable, or the two matrices of an LSTM layer, which the
      original stacks.
    is_gates: whether the last axis holds LSTM gates, to be reordered.
    has_forget_bias: whether the forget gate's part has the forget bias in it.
  """

  variables: tuple[tf.Variable, ...]
  is_gates: bool = False
  has_forget_bias: bool = False

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape that the original has."""
    rows = sum(v.shape[0] for v in self.variables if v.shape.rank)
    first = tuple(self.variables[0].shape)
    return (rows, *first[1:]) if first else first


class Report(NamedTuple):
  """What a restore did, as TF1 names.

  Attributes:
    restored: read from the checkpoint.
    left_fresh: not in the checkpoint and left as they were (Adam slots).
    unused: in the checkpoint and not asked for (Adam slots, counters).
    global_step: of the checkpoint; None if it has none.
  """

  restored: list[str]
  left_fresh: list[str]
  unused: list[str]
  global_step: int | None


def model_entries(model: iodine.IODINE) -> dict[str, Entry]:
  """The TF1 name of every variable of an initialised model.

  A name is the config key that the part is built under plus the original's
  own module names.

  Raises:
    errors.UserError: if a part has no counterpart in the original.
  """
  core = model.refinement_core
  maker = model.preprocess.layer_norms
  entries = {
    "model/iodine/initial_sample_distribution": Entry(
      (model.initial_sample_distribution,)
    )
  }
  for name, layer_norm in maker.items():
    scope = f"model/iodine/preprocess/layer_norm_{name}"
    entries[f"{scope}/gamma"] = Entry((layer_norm.scale,))
    entries[f"{scope}/beta"] = Entry((layer_norm.offset,))
  entries |= _network(model.decoder.pixel_decoder, "pixel_decoder")
  entries |= _network(core.encoder_net, "encoder_net")
  entries |= _lstm(core.recurrent_net, "recurrent_net/lstm")
  entries |= _head(core.refinement_head, "refinement_head")
  component_dist = model.output_dist.component_dist
  for variable in component_dist.variables:
    entries[f"component_dist/{component_dist.name}/scale"] = Entry((variable,))
  if model.factor_evaluator is not None:
    scope = f"factor_evaluator/{model.factor_evaluator.name}"
    entries |= _linear(
      model.factor_evaluator.predict_latents, f"{scope}/predict_latents"
    )
    for factor, estimator in model.factor_evaluator.mean_var.items():
      for name in ("mean", "M2", "total"):
        entries[f"{scope}/{factor}_mean_var/{name}"] = Entry(
          (getattr(estimator, name.lower()),)
        )
  return entries


def _linear(layer: Any, scope: str) -> dict[str, Entry]:
  return {f"{scope}/w": Entry((layer.w,)), f"{scope}/b": Entry((layer.b,))}


def _layers(layers: Sequence[snt.Module], scope: str) -> dict[str, Entry]:
  entries: dict[str, Entry] = {}
  for i, layer in enumerate(layers):
    entries |= _linear(layer, f"{scope}_{i}")
  return entries


def _network(module: snt.Module, key: str) -> dict[str, Entry]:
  """The encoder or the pixel decoder."""
  if not isinstance(module, (networks.CNN, networks.BroadcastConv)):
    raise errors.UserError(
      f"`{key}` is a {type(module).__name__}, which the original cannot run: "
      "there is no TF1 checkpoint of such a model"
    )
  scope = f"{key}/{module.name}"
  entries = _layers(module.conv_net.layers, f"{scope}/conv_net_2d/conv_2d")
  if module.mlp is not None:
    entries |= _layers(module.mlp.layers, f"{scope}/mlp/linear")
  return entries


def _lstm(module: networks.LSTM, scope: str) -> dict[str, Entry]:
  entries = {}
  for i, layer in enumerate(module.layers):
    layer_scope = f"{scope}/lstm" + (f"_{i}" if i else "")
    entries[f"{layer_scope}/w_gates"] = Entry(
      (layer.input_to_hidden, layer.hidden_to_hidden), is_gates=True
    )
    entries[f"{layer_scope}/b_gates"] = Entry(
      (layer.b,), is_gates=True, has_forget_bias=True
    )
  return entries


def _head(head: snt.Module, key: str) -> dict[str, Entry]:
  scope = f"{key}/{head.name}"
  if isinstance(head, refinement.ResHead):
    return _linear(head.linear, f"{scope}/linear")
  # The original makes the update first, then its gate, then the predictor.
  return {
    **_linear(head.update, f"{scope}/linear"),
    **_linear(head.gate, f"{scope}/linear_1"),
    **_layers(head.predictor.layers, f"{scope}/mlp/linear"),
  }


def restore(
  path: str,
  model: iodine.IODINE,
  optimizer: optimizers.Adam | None = None,
) -> Report:
  """Restores a model, and its optimizer if given, from a TF1 checkpoint.

  Args:
    path: a prefix, or a folder with one checkpoint or a state file.
    model: an initialised model; all of its variables are restored.
    optimizer: gets global_step, and Adam's slots and powers where they are.

  Returns:
    What was restored, left fresh and unused.

  Raises:
    errors.UserError: if there is no checkpoint, or a variable is missing on
      either side or of another shape. Nothing is changed then.
  """
  prefix = checkpoints.find(path)
  reader = tf.train.load_checkpoint(prefix)
  saved = {
    name: tuple(shape)
    for name, shape in reader.get_variable_to_shape_map().items()
  }
  entries = model_entries(model)
  _check_fit(prefix, saved, entries)
  values = {name: reader.get_tensor(name) for name in entries}
  restored = list(entries)
  left_fresh: list[str] = []
  for name, entry in entries.items():
    _assign(entry, values[name])
  if optimizer is not None:
    slots = slot_entries(model, optimizer, entries)
    there = [name for name in slots if name in saved]
    left_fresh = [name for name in slots if name not in saved]
    for name in there:
      _assign(slots[name], reader.get_tensor(name))
    counters = {name: getattr(optimizer, name) for name in _COUNTERS}
    for name, variable in counters.items():
      if name in saved:
        variable.assign(reader.get_tensor(name))
        there.append(name)
      else:
        left_fresh.append(name)
    restored += there
  step = reader.get_tensor("global_step") if "global_step" in saved else None
  return Report(
    restored=restored,
    left_fresh=left_fresh,
    unused=sorted(set(saved) - set(restored)),
    global_step=None if step is None else int(step),
  )


def slot_entries(
  model: iodine.IODINE,
  optimizer: optimizers.Adam,
  entries: Mapping[str, Entry],
) -> dict[str, Entry]:
  """The TF1 names of Adam's first (`/Adam`) and second (`/Adam_1`) moments."""
  variables = model.trainable_variables
  optimizer.initialize(variables)
  moments = {
    id(variable): slots
    for variable, *slots in zip(
      variables, optimizer.m, optimizer.v, strict=True
    )
  }
  return {
    f"{name}/{slot}": Entry(
      tuple(moments[id(variable)][i] for variable in entry.variables),
      is_gates=entry.is_gates,
    )
    for name, entry in entries.items()
    if id(entry.variables[0]) in moments
    for i, slot in enumerate(_SLOTS)
  }


def _assign(entry: Entry, value: np.ndarray) -> None:
  if entry.is_gates:
    i, j, f, o = np.split(value, 4, axis=-1)
    f = f + np.float32(_FORGET_BIAS) if entry.has_forget_bias else f
    value = np.concatenate([i, f, j, o], axis=-1)
  if len(entry.variables) == 1:
    entry.variables[0].assign(value)
    return
  rows = itertools.accumulate(v.shape[0] for v in entry.variables)
  for variable, part in zip(
    entry.variables, np.split(value, list(rows)[:-1]), strict=True
  ):
    variable.assign(part)


def _check_fit(
  prefix: str,
  saved: Mapping[str, tuple[int, ...]],
  entries: Mapping[str, Entry],
) -> None:
  differences = list(_differences(saved, entries))
  if differences:
    raise errors.UserError(
      f"the TF1 checkpoint `{prefix}` does not fit this configuration, give "
      "the named config and updates it was trained with: "
      + "; ".join(differences)
    )


def _differences(
  saved: Mapping[str, tuple[int, ...]], entries: Mapping[str, Entry]
) -> Iterator[str]:
  for name, entry in entries.items():
    if name not in saved:
      yield f"{name} {list(entry.shape)} is only here"
    elif saved[name] != entry.shape:
      yield f"{name} is {list(saved[name])} there and {list(entry.shape)} here"
  for name, shape in sorted(saved.items()):
    is_slot = name.rsplit("/", 1)[-1] in _SLOTS
    if name not in entries and not is_slot and name not in _COUNTERS:
      yield f"{name} {list(shape)} is only there"
