"""CNN, MLP, DeConv, BroadcastConv, LSTM, and the ConvNet2D Sonnet 2 lacks.

Dimensions: N batch and slots folded together, H W image, C channels, F
features. Source: section 8 says how weights start, and the original's
`iodine/modules/networks.py` names the classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import shapeguard
import sonnet as snt
import tensorflow as tf

from iodine import errors, kinds
from iodine.modules import utils
from iodine.ops import convolutions, precision

Options = dict[str, Any]
PerLayer = kinds.Size | kinds.Sizes
# Of a decoder, whose last ones are set from the output distribution.
_Channels = Annotated[list[kinds.Size | None], kinds.Length(1)]


def _per_layer(values: PerLayer, num_layers: int, what: str) -> tuple[int, ...]:
  """Returns a number per layer; one, or a list of one, serves them all."""
  if isinstance(values, int):
    values = [values]
  if len(values) == 1:
    values = list(values) * num_layers
  if len(values) != num_layers:
    raise errors.UserError(
      f"`{what}` has {len(values)} entries where `output_channels` has "
      f"{num_layers}: give one for each layer, or a single one for all"
    )
  return tuple(values)


class Conv2D(snt.Conv2D):
  """Sonnet's SAME-padded convolution in the fast forms of `convolutions`."""

  def __init__(
    self,
    output_channels: int,
    kernel_shape: int,
    stride: int = 1,
    name: str = "conv2d",
  ):
    """Sets the sizes."""
    super().__init__(output_channels, kernel_shape, stride, name=name)

  def __call__(self, x: tf.Tensor) -> tf.Tensor:
    """Maps [N, H, W, C] -> [N, H', W', output_channels]."""
    w, b = self._variables_for(x.shape[-1], x.dtype)
    return convolutions.add_bias(convolutions.conv2d(x, w, self.stride), b)

  def apply_to_broadcast(self, z: tf.Tensor, planes: np.ndarray) -> tf.Tensor:
    """Does so for an image that is z everywhere, beside constant planes.

    Args:
      z: [N, Z] vectors.
      planes: [H, W, C - Z] channels behind them, shared by all images.
    """
    w, b = self._variables_for(z.shape[-1] + planes.shape[-1], z.dtype)
    return convolutions.broadcast_conv2d(z, planes, w, b, self.stride)

  def apply_to_slots(self, planes: Sequence[tf.Tensor]) -> tf.Tensor:
    """Does so for the slots' planes, see `convolutions.slots_conv2d`."""
    channels = sum(x.shape[-1] for x in planes)
    w, b = self._variables_for(channels, planes[0].dtype)
    return convolutions.slots_conv2d(planes, w, b, self.stride)

  def _variables_for(
    self, input_channels: int, dtype: tf.DType
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns kernel and bias in the type of what comes in."""
    # All that Sonnet looks at; the variables are float32 in any case.
    self._initialize(tf.TensorSpec([None, None, None, input_channels]))
    w = precision.to_compute_dtype(self.w, dtype)
    return w, precision.to_compute_dtype(self.b, dtype)


class Conv2DTranspose(snt.Conv2DTranspose):
  """Sonnet's transposed convolution, in the type of what comes in."""

  def __call__(self, x: tf.Tensor) -> tf.Tensor:
    """Maps [N, H, W, C] -> [N, *output_shape, output_channels]."""
    self._initialize(tf.TensorSpec(x.shape))
    y = tf.nn.conv2d_transpose(
      x,
      precision.to_compute_dtype(self.w, x.dtype),
      [x.shape[0], *self._output_shape],
      self._stride,
      self._padding,
    )
    return convolutions.add_bias(y, precision.to_compute_dtype(self.b, x.dtype))


class ConvNet2D(utils.Module):
  """A stack of SAME-padded convolutions (Sonnet 1's `ConvNet2D`)."""

  def __init__(
    self,
    output_channels: kinds.Sizes,
    kernel_shapes: PerLayer,
    strides: PerLayer = 1,
    activation: utils.Activation = "relu",
    activate_final: bool = False,
    name: str = "conv_net_2d",
  ):
    """Makes the layers.

    Args:
      output_channels: channels of every layer.
      kernel_shapes: kernel size of every layer, or one for all.
      strides: stride of every layer, or one for all.
      activation: activation between the layers, by name.
      activate_final: whether the last layer is activated too.
      name: name of the module.

    Raises:
      errors.UserError: if the lists do not fit each other, or the activation is
        unknown.
    """
    super().__init__(name=name)
    num_layers = len(output_channels)
    kernels = _per_layer(kernel_shapes, num_layers, "kernel_shapes")
    steps = _per_layer(strides, num_layers, "strides")
    self._activation = utils.get_activation(activation)
    self._activate_final = activate_final
    layers = zip(output_channels, kernels, steps, strict=True)
    self.layers = [Conv2D(*layer) for layer in layers]

  def __call__(self, x: tf.Tensor) -> tf.Tensor:
    """Maps [N, H, W, C] -> [N, H', W', output_channels[-1]]."""
    return self._after_first(self.layers[0](x))

  def apply_to_broadcast(self, z: tf.Tensor, planes: np.ndarray) -> tf.Tensor:
    """Does so for an image that is z everywhere, see `Conv2D`."""
    return self._after_first(self.layers[0].apply_to_broadcast(z, planes))

  def apply_to_slots(self, planes: Sequence[tf.Tensor]) -> tf.Tensor:
    """Does so for the slots' planes, see `Conv2D`."""
    return self._after_first(self.layers[0].apply_to_slots(planes))

  def _after_first(self, x: tf.Tensor) -> tf.Tensor:
    for layer in self.layers[1:]:
      x = layer(self._activation(x))
    return self._activation(x) if self._activate_final else x


class MLP(utils.Module):
  """Linear layers with an activation between them."""

  def __init__(
    self,
    output_sizes: kinds.Sizes,
    activation: utils.Activation = "relu",
    activate_final: bool = False,
    name: str = "mlp",
  ):
    """Makes the layers.

    Args:
      output_sizes: size of every layer.
      activation: activation between the layers, by name.
      activate_final: whether the last layer is activated too.
      name: name of the module.

    Raises:
      errors.UserError: if the activation is unknown.
    """
    super().__init__(name=name)
    self.net = snt.nets.MLP(
      list(output_sizes),
      activation=utils.get_activation(activation),
      activate_final=activate_final,
    )

  @property
  def layers(self) -> Sequence[snt.Linear]:
    """Returns the linear layers, in order."""
    return self.net._layers

  def __call__(self, x: tf.Tensor) -> tf.Tensor:
    """Maps [N, F] -> [N, output_sizes[-1]]."""
    shapeguard.ShapeGuard().guard(x, "N, F")
    return self.net(x)


def _make_mlp(mlp_opt: Options, activate_final: bool = False) -> MLP:
  """Returns an `MLP` of these options, see `CNN`."""
  kinds.check_arguments("mlp_opt", MLP, mlp_opt)
  return MLP(**{"activate_final": activate_final, **mlp_opt})


class CNN(utils.Module):
  """Convolutions, then pooling or flattening, then an MLP."""

  def __init__(
    self,
    cnn_opt: Options,
    mlp_opt: Options | None = None,
    mode: Literal["flatten", "avg_pool"] = "flatten",
    compute_dtype: precision.ComputeType = "float32",
    name: str = "cnn",
  ):
    """Makes the layers.

    Args:
      cnn_opt: arguments of `ConvNet2D`; the last layer is activated too.
      mlp_opt: arguments of `MLP`, or None for no MLP. Its last layer is not
        activated.
      mode: "flatten" or "avg_pool" (mean over H and W).
      compute_dtype: of the convolutions.
      name: name of the module.

    Raises:
      errors.UserError: if `cnn_opt` or `mlp_opt` has a wrong argument.
    """
    super().__init__(name=name)
    kinds.check_arguments("cnn_opt", ConvNet2D, cnn_opt)
    self._mode = mode
    self._dtype = precision.dtype_named(compute_dtype)
    self.conv_net = ConvNet2D(**{"activate_final": True, **cnn_opt})
    self.mlp = None if mlp_opt is None else _make_mlp(mlp_opt)

  def __call__(self, image: tf.Tensor) -> tf.Tensor:
    """Maps [N, H, W, C] -> [N, F]."""
    shapeguard.ShapeGuard().guard(image, "N, H, W, C")
    image = precision.to_compute_dtype(image, self._dtype)
    return self._summarize(self.conv_net(image))

  def apply_to_slots(self, planes: Sequence[tf.Tensor]) -> tf.Tensor:
    """Does so for the slots' planes, [B * K, F]."""
    planes = [precision.to_compute_dtype(x, self._dtype) for x in planes]
    return self._summarize(self.conv_net.apply_to_slots(planes))

  def _summarize(self, maps: tf.Tensor) -> tf.Tensor:
    """Turns the last convolution's output into features."""
    sg = shapeguard.ShapeGuard()
    maps = precision.to_float32(maps)
    if self._mode == "avg_pool":
      features = tf.reduce_mean(maps, axis=[1, 2])
    else:
      features = snt.flatten(maps)
    if self.mlp is not None:
      features = self.mlp(features)
    return sg.guard(features, "N, F")


class PixelDecoder(utils.Module):
  """A module that turns vectors into images of a shape it is told.

  Attributes:
    output_shape: height, width and channels, once they are told.
  """

  # The part of the shape that the layers are made for, which cannot change.
  _FIXED = slice(-1, None)

  def __init__(
    self,
    name: str | None = None,
    compute_dtype: precision.ComputeType = "float32",
  ):
    super().__init__(name=name)
    self._dtype = precision.dtype_named(compute_dtype)
    self.output_shape: tuple[int, ...] = ()

  def set_output_shape(self, shape: Sequence[int]) -> None:
    """Tells the height, width and channels to produce."""
    shape = tuple(int(size) for size in shape)
    if not self.output_shape:
      self._make_layers(shape)
    elif self.output_shape[self._FIXED] != shape[self._FIXED]:
      raise errors.UserError(
        f"`{self.name}` was made for images of shape {self.output_shape} and "
        f"cannot give {shape}: build a new model"
      )
    self.output_shape = shape

  def _make_layers(self, shape: tuple[int, ...]) -> None:
    """Makes the layers; called once, with the first output shape."""
    raise NotImplementedError


def _make_conv_net(cnn_opt: Options, channels: int) -> ConvNet2D:
  """Returns a `ConvNet2D` of these options with so many channels at its end."""
  stated: Any = cnn_opt.get("output_channels")
  kinds.check("cnn_opt.output_channels", stated, _Channels)
  *hidden, last = stated
  if last is not None:
    raise errors.UserError(
      f"the last entry of `output_channels` is {last}, but it is set from the "
      "output distribution: write None there"
    )
  filled = {**cnn_opt, "output_channels": [*hidden, channels]}
  kinds.check_arguments("cnn_opt", ConvNet2D, filled)
  return ConvNet2D(**filled)


class BroadcastConv(PixelDecoder):
  """The spatial broadcast decoder (paper section B.1, Watters et al. 2019).

  Attributes:
    widest: channels of its widest map, which has the size of the image.
  """

  def __init__(
    self,
    cnn_opt: Options,
    mlp_opt: Options | None = None,
    coord_type: utils.CoordinateType = "linear",
    coord_freqs: kinds.Frequencies = 3,
    compute_dtype: precision.ComputeType = "float32",
    name: str = "broadcast_conv",
  ):
    """Sets the options.

    Args:
      cnn_opt: arguments of `ConvNet2D`; the last of `output_channels` is None.
        The last layer is not activated.
      mlp_opt: arguments of an `MLP` before the broadcast, or None. Its last
        layer is activated too.
      coord_type: "linear", "cos" or None, see `utils.coordinate_map`.
      coord_freqs: number of frequencies for "cos".
      compute_dtype: of the convolutions.
      name: name of the module.

    Raises:
      errors.UserError: if `cnn_opt` or `mlp_opt` has a wrong argument.
    """
    super().__init__(name=name, compute_dtype=compute_dtype)
    # Made once now, so that wrong options are found before there is an image.
    layers = _make_conv_net(cnn_opt, 1).layers
    self.widest = max(layer.output_channels for layer in layers)
    self._cnn_opt = tuple(cnn_opt.items())
    self._coord_type = coord_type
    self._coord_freqs = coord_freqs
    self.mlp = None if mlp_opt is None else _make_mlp(mlp_opt, True)

  def _make_layers(self, shape: tuple[int, ...]) -> None:
    self.conv_net = _make_conv_net(dict(self._cnn_opt), shape[-1])

  def __call__(self, z: tf.Tensor) -> tf.Tensor:
    """Maps [N, F] -> [N, H, W, C] with the shape told before."""
    sg = shapeguard.ShapeGuard()
    sg.guard(z, "N, F")
    height, width, _ = self.output_shape
    if self.mlp is not None:
      z = self.mlp(z)
    coordinates = utils.coordinate_map(
      self._coord_type, height, width, self._coord_freqs, order="hw"
    )
    z = precision.to_compute_dtype(z, self._dtype)
    image = precision.to_float32(
      self.conv_net.apply_to_broadcast(z, coordinates)
    )
    return sg.guard(image, "N, H, W, C")


class DeConv(PixelDecoder):
  """An MLP, then transposed convolutions.

  This class cannot run in the original: its transposed convolutions never get
  their output shapes, and the MLP gives them rank 2 where they need rank 4.
  Here the sizes are counted backwards from the image, each divided by its
  stride (rounded up), and the MLP's output is read as the first of these maps.
  """

  _FIXED = slice(None)

  def __init__(
    self,
    cnn_opt: Options,
    mlp_opt: Options,
    compute_dtype: precision.ComputeType = "float32",
    name: str = "deconv",
  ):
    """Sets the options.

    Args:
      cnn_opt: output_channels (the last is None), kernel_shapes, strides,
        activation (between the layers) of the transposed convolutions.
      mlp_opt: arguments of the `MLP`; its last size must be a multiple of the
        number of positions of the first map. Its last layer is activated too.
      compute_dtype: of the convolutions.
      name: name of the module.

    Raises:
      errors.UserError: if `cnn_opt` or `mlp_opt` has a wrong argument.
    """
    super().__init__(name=name, compute_dtype=compute_dtype)
    # Of the same options, plain convolutions.
    plain = _make_conv_net(cnn_opt, 1).layers
    self._channels = tuple(layer.output_channels for layer in plain[:-1])
    self._kernels = tuple(layer.kernel_shape for layer in plain)
    self._strides = tuple(layer.stride for layer in plain)
    self._activation = utils.get_activation(cnn_opt.get("activation", "relu"))
    self.mlp = _make_mlp(mlp_opt, True)
    self._num_features = int(mlp_opt["output_sizes"][-1])

  def _make_layers(self, shape: tuple[int, ...]) -> None:
    channels = [*self._channels, shape[-1]]
    sizes = self._map_sizes(shape)
    positions = math.prod(sizes[0])
    if self._num_features % positions:
      raise errors.UserError(
        f"the MLP of `{self.name}` gives {self._num_features} features, which "
        f"do not fill a first map of {sizes[0]}: make its last size a multiple "
        f"of {positions}, or change `image_dim`"
      )
    options = (channels, self._kernels, sizes[1:], self._strides)
    self.layers = [
      Conv2DTranspose(*layer) for layer in zip(*options, strict=True)
    ]

  def _map_sizes(self, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Returns height and width before the first layer and after every layer."""
    sizes = [(shape[0], shape[1])]
    for stride in reversed(self._strides):
      height, width = sizes[0]
      sizes.insert(0, (-(-height // stride), -(-width // stride)))
    return sizes

  def __call__(self, z: tf.Tensor) -> tf.Tensor:
    """Maps [N, F] -> [N, H, W, C] with the shape told before."""
    sg = shapeguard.ShapeGuard()
    sg.guard(z, "N, F")
    height, width = self._map_sizes(self.output_shape)[0]
    x = self.mlp(z)
    x = tf.reshape(x, [x.shape[0], height, width, -1])
    x = precision.to_compute_dtype(x, self._dtype)
    x = self.layers[0](x)
    for layer in self.layers[1:]:
      x = layer(self._activation(x))
    return sg.guard(precision.to_float32(x), "N, H, W, C")


class LSTMState(NamedTuple):
  """Output and cell of one LSTM layer, both [N, hidden size]."""

  hidden: tf.Tensor
  cell: tf.Tensor


class LSTMLayer(utils.Module):
  """One LSTM layer as in Sonnet 1 (its `LSTM`), variables included.

  FIDELITY: one matrix multiplies [input, hidden], the gates stand in the order
  input, candidate, forget, output, and the forget bias is added at run time.
  `snt.LSTM` of Sonnet 2 has another order and the forget bias in its bias
  variable, where rounding would keep a checkpoint from returning to the bit.
  """

  FORGET_BIAS = 1.0

  def __init__(self, hidden_size: int, name: str = "lstm"):
    """Sets the size."""
    super().__init__(name=name)
    self._hidden_size = hidden_size

  @snt.once
  def _make_variables(self, input_size: int) -> None:
    # FIDELITY: Sonnet 1 starts the whole matrix and, unlike other biases, the
    # gate bias too from one truncated normal.
    rows = input_size + self._hidden_size
    initializer = snt.initializers.TruncatedNormal(stddev=1 / math.sqrt(rows))
    columns = 4 * self._hidden_size
    self.w_gates = tf.Variable(
      initializer([rows, columns], tf.float32), name="w_gates"
    )
    self.b_gates = tf.Variable(
      initializer([columns], tf.float32), name="b_gates"
    )

  def initial_state(self, num: int) -> LSTMState:
    """Zeros for N = num sequences."""
    zeros = tf.zeros([num, self._hidden_size])
    return LSTMState(hidden=zeros, cell=zeros)

  def __call__(
    self, x: tf.Tensor, state: LSTMState
  ) -> tuple[tf.Tensor, LSTMState]:
    """Maps [N, F] and the state -> [N, hidden size] and the next state."""
    sg = shapeguard.ShapeGuard({"H": self._hidden_size})
    sg.guard(x, "N, F")
    sg.guard(state.hidden, "N, H")
    self._make_variables(x.shape[-1])
    inputs = tf.concat([x, state.hidden], axis=-1)
    gates = tf.matmul(inputs, self.w_gates) + self.b_gates
    i, j, f, o = tf.split(gates, 4, axis=-1)
    cell = tf.sigmoid(f + self.FORGET_BIAS) * state.cell
    cell += tf.sigmoid(i) * tf.tanh(j)
    hidden = tf.sigmoid(o) * tf.tanh(cell)
    return sg.guard(hidden, "N, H"), LSTMState(hidden=hidden, cell=cell)


@snt.allow_empty_variables
class LSTM(utils.Module):
  """A list of LSTM layers; an empty list is the identity."""

  def __init__(self, hidden_sizes: Sequence[kinds.Size], name: str = "lstm"):
    """Sets the size of every layer."""
    super().__init__(name=name)
    self.layers = [LSTMLayer(size) for size in hidden_sizes]

  def initial_state(self, num: int) -> list[LSTMState]:
    """Returns zeros, one state per layer."""
    return [layer.initial_state(num) for layer in self.layers]

  def __call__(
    self, x: tf.Tensor, state: list[LSTMState]
  ) -> tuple[tf.Tensor, list[LSTMState]]:
    """Maps [N, F] and the state -> [N, hidden_sizes[-1]] and the next state."""
    sg = shapeguard.ShapeGuard()
    sg.guard(x, "N, F")
    next_state = []
    for layer, layer_state in zip(self.layers, state, strict=True):
      x, new_layer_state = layer(x, layer_state)
      next_state.append(new_layer_state)
    return sg.guard(x, "N, _F"), next_state
