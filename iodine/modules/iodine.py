"""The IODINE model.

Dimensions: B batch, T iterations + 1 (in results) or frames (in data), K
slots, L true entities, H W C image, Z latent size, Zp latent parameter size,
Cp pixel parameter channels. Source: sections 2 and 3 of the paper
(arXiv:1903.00450), the original's `iodine/modules/iodine.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import shapeguard
import sonnet as snt
import tensorflow as tf

from iodine import errors, kinds
from iodine.drawing import palette
from iodine.modules import (
  decoder,
  distributions,
  factor_eval,
  image_grids,
  info,
  iterations,
  metrics,
  refinement,
  refinement_inputs,
  types,
  utils,
)
from iodine.ops import memory

Data = dict[str, Any]

# FIDELITY: the decoder sees this constant behind every latent.
CAPACITY = 5.0


class IODINE(utils.Module):
  """Iterative object decomposition inference network."""

  def __init__(
    self,
    n_z: kinds.Size,
    num_components: kinds.Size,
    num_iters: Annotated[kinds.Count, kinds.Below(2**16)],
    latent_dist: distributions.DistributionModule,
    output_dist: distributions.MaskedMixture,
    decoder: decoder.ComponentDecoder,
    refinement_core: refinement.RefinementCore,
    factor_evaluator: factor_eval.FactorRegressor | None = None,
    iter_loss_weight: iterations.LossWeights = "linspace",
    kl_weight: kinds.NonNegative = 1.0,
    sequential: bool = False,
    inputs: refinement_inputs.Names = refinement_inputs.ALL,
    preprocess: Sequence[str] = refinement_inputs.NORMALIZED,
    stop_gradients: Sequence[str] = refinement_inputs.NORMALIZED,
    coord_type: utils.CoordinateType = "linear",
    coord_freqs: kinds.Frequencies = 3,
    refinement_batch_size: kinds.Positive | None = None,
    name: str = "iodine",
  ):
    """Puts the parts together.

    Args:
      n_z: Z, size of a slot's latent.
      num_components: K, number of slots.
      num_iters: number of refinements; there are num_iters + 1 decodes.
      latent_dist: distribution of the latents; its prior is the one at zero.
      output_dist: distribution of the pixels.
      decoder: from latents to the parameters of output_dist.
      refinement_core: from refinement inputs to the next latent parameters.
      factor_evaluator: regressor of the true factors, or None.
      iter_loss_weight: weight of every iteration's loss: "linspace" (0 to 1),
        a number for all, or a list of num_iters + 1.
      kl_weight: of the KL divergence beside the reconstruction, in the training
        loss and in those that the slots are refined by. 1 is the paper's and
        the original's; less lets the latents of small images say more.
      sequential: whether iteration t sees frame t of the data.
      inputs: names of the refinement inputs in use, see
        `refinement_inputs.find`.
      preprocess: names of the inputs that get a layer norm.
      stop_gradients: names of the inputs that training gradients do not enter.
      coord_type: of the input `coordinates`: "linear", "cos" or None.
      coord_freqs: number of frequencies for "cos".
      refinement_batch_size: size of the batch whose mean the gradients that
        slots are refined by are of, whatever the size of the batch at hand:
        images are then decomposed as in a training with batches of that size,
        each independently of the others. None for the batch at hand, as in
        the original.
      name: name of the module.

    Raises:
      errors.UserError: if the output distribution has another K, the loss
        weights are of another number, or an input is unknown.
    """
    super().__init__(name=name)
    output_dist.set_num_components(num_components)
    self.num_iters = num_iters
    self.num_components = num_components
    self.latent_dist = latent_dist
    self.output_dist = output_dist
    self.decoder = decoder
    self.refinement_core = refinement_core
    self.factor_evaluator = factor_evaluator
    self.preprocess = refinement_inputs.RefinementInputMaker(
      inputs, preprocess, stop_gradients
    )
    self.iter_weights = iterations.loss_weights(iter_loss_weight, num_iters)
    self.kl_weight = float(kl_weight)
    self._sequential = sequential
    self._coord_type = coord_type
    self._coord_freqs = coord_freqs
    self._refinement_batch_size = refinement_batch_size
    self._has_variables = False

    self.latent_dist.set_output_shape([n_z])
    (zp_size,) = self.latent_dist.input_shape
    # Glorot uniform of a 1-D shape, which has as many inputs as outputs.
    limit = math.sqrt(6.0 / (2 * zp_size))
    self.initial_sample_distribution = tf.Variable(
      snt.initializers.RandomUniform(-limit, limit)([zp_size], tf.float32),
      name="initial_sample_distribution",
    )

  # ------------------------------------------------------------ the loop

  def __call__(
    self,
    data: Data,
    z: tf.Tensor | Sequence[tf.Tensor] | None = None,
    seed: tf.Tensor | None = None,
    update: bool = True,
    part: types.BatchPart | None = None,
  ) -> tuple[tf.Tensor, dict[str, tf.Tensor], dict[str, list[Any]]]:
    """Returns the training loss of a batch.

    Without `refinement_batch_size` the loss that the slots are refined by is a
    mean over this batch. Its gradients meet layer norms with an epsilon, so
    that the result for one image depends on the batch size, as in the original.

    Args:
      data: image [B, T, H, W, C] in [0, 1], mask [B, T, L, H, W, 1],
        visibility [B, L], factors {name: [B, L, n]}. It is left unchanged.
        Only the image is needed: without the others what is measured by them
        is left out, and the regressor rests.
      z: recorded samples to replay, [num_iters + 1, B, K, Z] or a list.
      seed: [2] integers from which all samples are drawn; [B, 2] for a seed of
        its own for every image; None for the global random state.
      update: whether the factor regressor's running statistics change.
      part: which images of a larger batch these are; None for all. Loss and
        scalars are then such that their means over the parts are those of the
        whole batch.

    Returns:
      The loss, a dict of scalars, and the iterations: a dict of lists, zp,
      z_dist, z, params, x_dist, scores, kl and re of num_iters + 1 entries,
      inputs of num_iters.

    Raises:
      errors.UserError: if a sequential model gets too few frames, or the
        factors do not fit the regressor.
    """
    data = self.cut_frames(data)
    estimates, inputs = self.encode(data["image"], z, seed, part)
    recons_loss, kl_loss = self.weighted_losses(estimates)
    last = estimates[-1]
    rendering = distributions.render(last.x_dist)
    loss = recons_loss + kl_loss
    scalars = {
      "loss/kl": tf.add_n(
        [tf.reduce_mean(tf.reduce_sum(e.kl, axis=1)) for e in estimates]
      ),
      "loss/recons": recons_loss,
    }
    if self.regresses(data):
      z, masks = tf.stop_gradient(last.z), tf.stop_gradient(rendering.masks)
      factors = self.evaluate_factors(data, z, masks, None, update, part)
      loss += factors.loss
      scalars["factor/loss"] = factors.loss
      for factor, value in factors.metrics.items():
        scalars[f"factor/{factor}"] = value
    scalars["loss/total"] = loss
    scores = metrics.score(
      self._frame(data["image"], self.num_iters),
      rendering.reconstruction,
      data["mask"][:, -1] if "mask" in data else None,
      rendering.masks,
    )
    for score, values in scores.items():
      scalars[f"loss/{score}"] = tf.reduce_mean(values)
    return loss, scalars, iterations.as_lists(estimates, inputs)

  def encode(
    self,
    images: tf.Tensor,
    z: tf.Tensor | Sequence[tf.Tensor] | None = None,
    seed: tf.Tensor | None = None,
    part: types.BatchPart | None = None,
  ) -> tuple[list[types.Estimate], list[types.RefinementInputs]]:
    """Refines the latents of every slot until they explain the image.

    Args:
      images: [B, T, H, W, C].
      z: recorded samples to replay, see `__call__`.
      seed: see `__call__`.
      part: see `__call__`.

    Returns:
      num_iters + 1 estimates and the num_iters inputs between them.
    """
    batch_size, _, *image_shape = images.shape
    self.initialize(image_shape, batch_size)
    zp, state = self._begin(batch_size)
    sources = iterations.sources(self.num_iters, z, seed)

    def refine(zp: tf.Tensor, state: Any, frame: tf.Tensor, source: Any) -> Any:
      estimate, inputs, zp, state = self._refine(zp, state, frame, source, part)
      # Distributions do not pass the border of a graph.
      return estimate._replace(z_dist=None, x_dist=None), inputs, zp, state

    if tf.inside_function() and not (z is None and seed is None):
      # One graph for all refinements, as it takes long to make and to optimise,
      # which is why it is not put into the graph in their places. Where samples
      # depend on the place in the graph, each has a place of its own.
      refine = tf.function(
        refine, autograph=False, experimental_attributes={"_noinline": True}
      )
    estimates, all_inputs = [], []
    for t in range(self.num_iters):
      frame = self._frame(images, t)
      estimate, inputs, zp, state = refine(zp, state, frame, sources[t])
      z_dist = self.latent_dist(estimate.zp)
      x_dist = self.output_dist(*estimate.params)
      estimates.append(estimate._replace(z_dist=z_dist, x_dist=x_dist))
      all_inputs.append(inputs)
    frame = self._frame(images, self.num_iters)
    estimates.append(self._estimate(zp, frame, sources[-1], part))
    return estimates, all_inputs

  def last_estimate(self, images: tf.Tensor, seed: tf.Tensor) -> types.Estimate:
    """Returns the last of the estimates of `encode`, and forgets the others.

    In a graph the refinements are a loop, which is traced and optimised once,
    however many they are. Training, which asks for gradients, has `encode`.

    Args:
      images: see `encode`.
      seed: see `__call__`.
    """
    batch_size, _, *image_shape = images.shape
    self.initialize(image_shape, batch_size)
    zp, state = self._begin(batch_size)
    seeds = iterations.step_seeds(seed, self.num_iters + 1)

    def refine(t: tf.Tensor, zp: tf.Tensor, state: list[Any]) -> Any:
      source = iterations.Source(seed=seeds[t])
      frame = self._frame(images, t)
      _, _, zp, state = self._refine(zp, state, frame, source)
      return t + 1, zp, state

    last, zp, _ = tf.while_loop(
      lambda t, *_: t < self.num_iters,
      refine,
      (tf.constant(0), zp, state),
      maximum_iterations=self.num_iters,  # for those that count operations
    )
    source = iterations.Source(seed=seeds[last])
    return self._estimate(zp, self._frame(images, last), source)

  def _begin(self, batch_size: int) -> tuple[tf.Tensor, list[Any]]:
    """Returns the latents' first parameters and the first state."""
    zp = tf.tile(
      self.initial_sample_distribution[None, None],
      [batch_size, self.num_components, 1],
    )
    state = self.refinement_core.initial_state(batch_size, self.num_components)
    return zp, state

  def _refine(
    self,
    zp: tf.Tensor,
    state: list[Any],
    frame: tf.Tensor,
    source: iterations.Source,
    part: types.BatchPart | None = None,
  ) -> tuple[types.Estimate, types.RefinementInputs, tf.Tensor, list[Any]]:
    """Returns what zp implies, what follows from it, and the next zp."""
    estimate, gradients = self._estimate_with_gradients(zp, frame, source, part)
    inputs = self._make_inputs(frame, estimate, gradients)
    zp, state = self.refinement_core(inputs, zp, state)
    return estimate, inputs, zp, state

  def decode(self, z: tf.Tensor) -> distributions.Decoded:
    """Decodes latents to images of the last batch's shape, or `initialize`'s.

    Args:
      z: [B, K, Z], a tensor or an array. K may be any number of slots.

    Returns:
      image [B, H, W, C], masks [B, K, H, W], components [B, K, H, W, C]; as a
      pair, parameters and distribution of the image.
    """
    z = tf.convert_to_tensor(z, tf.float32)
    (latent_size,) = self.latent_dist.output_shape
    sg = shapeguard.ShapeGuard({"Z": latent_size})
    sg.guard(z, "B, K, Z")
    capacity = tf.fill([sg.B, sg.K, 1], CAPACITY)
    params = self.decoder(tf.concat([z, capacity], axis=-1))
    return distributions.Decoded(params, self.output_dist(*params))

  def _estimate(
    self,
    zp: tf.Tensor,
    frame: tf.Tensor,
    source: iterations.Source,
    part: types.BatchPart | None = None,
  ) -> types.Estimate:
    """Samples, decodes and scores: all that zp implies about the frame."""
    sg = shapeguard.ShapeGuard({"K": self.num_components})
    sg.guard(zp, "B, K, Zp")
    sg.guard(frame, "B, 1, H, W, C")
    z_dist = self.latent_dist(zp)
    z = iterations.sample(self.latent_dist, z_dist, zp, source, part)
    params, x_dist = self.decode(z)
    scores = distributions.score(x_dist, frame)
    kl = z_dist.kl_divergence(self.latent_dist.default_prior())
    re = -tf.reduce_sum(scores.log_prob, axis=[1, 2, 3])
    sg.guard(z, "B, K, Z")
    sg.guard(kl, "B, K")
    sg.guard(re, "B")
    return types.Estimate(zp, z_dist, z, params, x_dist, scores, kl, re)

  def _estimate_with_gradients(
    self,
    zp: tf.Tensor,
    frame: tf.Tensor,
    source: iterations.Source,
    part: types.BatchPart | None,
  ) -> tuple[types.Estimate, types.Gradients]:
    """Returns the estimate, and the gradients of its own loss only."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
      tape.watch(zp)
      estimate = self._estimate(zp, frame, source, part)
      loss = self._refinement_loss(estimate, part)
    gradients = tape.gradient(
      loss,
      types.Gradients(zp, *estimate.params),
      unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    return estimate, gradients

  def _refinement_loss(
    self, estimate: types.Estimate, part: types.BatchPart | None
  ) -> tf.Tensor:
    """Returns the loss of a decode whose gradients slots are refined by."""
    batch_size = self._refinement_batch_size
    if batch_size is None and part is not None:
      batch_size = estimate.re.shape[0] * part.num_parts
    if batch_size is None:
      # FIDELITY: the mean over the batch, so gradients shrink with its size.
      return tf.reduce_mean(estimate.re) + self._weighted_kl(estimate)
    losses = estimate.re + self._weighted_kl(estimate, tf.identity)
    return tf.reduce_sum(losses) / batch_size

  def _make_inputs(
    self,
    frame: tf.Tensor,
    estimate: types.Estimate,
    gradients: types.Gradients,
  ) -> types.RefinementInputs:
    _, _, height, width, _ = frame.shape
    coordinates = utils.coordinate_map(
      self._coord_type, height, width, self._coord_freqs, order="wh"
    )
    evidence = refinement_inputs.Evidence(
      frame, estimate, gradients, tf.constant(coordinates)
    )
    return self.preprocess(evidence)

  def weighted_losses(
    self,
    estimates: Sequence[types.Estimate],
    mean: Callable[[tf.Tensor], tf.Tensor] = tf.reduce_mean,
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Sums weighted reconstruction losses and KL over the iterations.

    Args:
      estimates: as `encode` returns them.
      mean: over the batch; `tf.identity` for the losses [B] of every image.
    """
    # Each summed by itself and added at the end, the original's rounding.
    recons = [mean(e.re) for e in estimates]
    kl = [self._weighted_kl(e, mean) for e in estimates]
    weights = self.iter_weights
    return (
      tf.add_n([w * x for w, x in zip(weights, recons, strict=True)]),
      tf.add_n([w * x for w, x in zip(weights, kl, strict=True)]),
    )

  def _weighted_kl(
    self,
    estimate: types.Estimate,
    mean: Callable[[tf.Tensor], tf.Tensor] = tf.reduce_mean,
  ) -> tf.Tensor:
    return self.kl_weight * mean(tf.reduce_sum(estimate.kl, axis=1))

  # ------------------------------------------------------------ inspection

  def initialize(self, image_shape: Sequence[int], batch_size: int = 1) -> None:
    """Creates every variable, for images of that (H, W, C).

    Done at the first use otherwise. Images of other sizes may follow where the
    parts allow it, as convolutions do.

    Args:
      image_shape: (H, W, C).
      batch_size: B, by which the memory is estimated.

    Raises:
      errors.UserError: if there is too little memory, or a part cannot give
        images of this shape.
    """
    height, width, channels = image_shape
    num_pixels = batch_size * self.num_components * height * width
    # The widest map of the decoder, where it is known, what comes of it, the
    # gradients of that, and three log densities.
    parts = self.decoder.submodules
    widest = max((getattr(part, "widest", 0) for part in parts), default=0)
    memory.require(
      4 * num_pixels * (widest + 2 * (channels + 1) + 3),
      f"`num_components` {self.num_components} for {batch_size} images of "
      f"{height} x {width} pixels",
      "lower it, `batch_size` or `image_dim`",
    )
    self.output_dist.set_output_shape(image_shape)
    self.decoder.set_output_shapes(self.output_dist.input_shapes)
    self._create_variables(image_shape)

  @snt.once
  def _create_variables(self, image_shape: Sequence[int]) -> None:
    """Refines a blank image once, outside of any graph being made."""
    with tf.init_scope():
      image = tf.zeros([1, 1, *image_shape])
      zp, state = self._begin(batch_size=1)
      source = iterations.Source(seed=tf.zeros([2], tf.int32))
      estimate = self._estimate(zp, image, source)
      zeros = tf.nest.map_structure(
        tf.zeros_like, types.Gradients(zp, *estimate.params)
      )
      self.refinement_core(self._make_inputs(image, estimate, zeros), zp, state)
      if self.factor_evaluator is not None:
        self.factor_evaluator.initialize(estimate.z.shape[-1])
    self._has_variables = True

  def require_variables(self) -> None:
    """Raises a UserError where variables have yet to be created."""
    if not self._has_variables:
      raise errors.UserError(
        "the model has no variables yet: call `model.initialize(image_shape)`"
      )

  def eval(
    self,
    data: Data,
    z: tf.Tensor | Sequence[tf.Tensor] | None = None,
    seed: tf.Tensor | None = None,
    update: bool = True,
  ) -> dict[str, Any]:
    """Returns everything there is to know about a batch, per iteration.

    Args:
      data: as for `__call__`.
      z: as for `__call__`.
      seed: as for `__call__`.
      update: whether the factor regressor's running statistics change, which
        they do once more per iteration in the original (FIDELITY).

    Returns:
      A nested dict of tensors: data, inputs, latent, outputs, losses, metrics
      and, with a regressor, factor_regressor; see `info.collect`.
    """
    data = self.cut_frames(data)
    estimates, inputs = self.encode(data["image"], z, seed)
    return self.describe(data, estimates, inputs, update)

  def describe(
    self,
    data: Data,
    estimates: Sequence[types.Estimate],
    inputs: Sequence[types.RefinementInputs],
    update: bool = True,
  ) -> dict[str, Any]:
    """Returns what `eval` says about a batch that is encoded already.

    Args:
      data: as for `__call__`.
      estimates: as `encode` returns them.
      inputs: as `encode` returns them.
      update: as for `eval`.
    """
    data = self.cut_frames(data)
    loss = tf.add_n(self.weighted_losses(estimates))
    renderings = [distributions.render(e.x_dist) for e in estimates]
    if self.regresses(data):
      loss += self.evaluate_factors(
        data, estimates[-1].z, renderings[-1].masks, update=update
      ).loss
    described = []
    for t, (e, r) in enumerate(zip(estimates, renderings, strict=True)):
      frame, true_mask, factors = self._frame(data["image"], t), None, None
      if "mask" in data:
        true_mask = data["mask"][:, self.frame_index(t)]
      if self.regresses(data):
        factors = self.evaluate_factors(data, e.z, r.masks, t, update)
      described.append(info.describe(frame, true_mask, e, r, factors))
    return info.collect(data, described, inputs, loss)

  def regresses(self, data: Data) -> bool:
    """Returns whether there are a factor regressor and factors to regress."""
    return self.factor_evaluator is not None and bool(data.get("factors"))

  def evaluate_factors(
    self,
    data: Data,
    z: tf.Tensor,
    mask: tf.Tensor,
    frame: int | None = None,
    update: bool = True,
    part: types.BatchPart | None = None,
  ) -> types.FactorPredictions:
    """Runs the factor regressor.

    Args:
      data: as for `__call__`.
      z: [B, K, Z] latents.
      mask: [B, K, H, W, 1] mask probabilities.
      frame: iteration whose frame's true mask counts; None for the last.
      update: whether its running statistics change.
      part: see `__call__`.
    """
    if self.factor_evaluator is None:
      raise ValueError("this model has no `factor_evaluator`")
    index = self.frame_index(self.num_iters if frame is None else frame)
    true_mask, visibility = data["mask"][:, index], data["visibility"]
    return self.factor_evaluator(
      z, true_mask, mask, visibility, data["factors"], update, part
    )

  def get_sample_images(
    self, num_images: int = 16, seed: tf.Tensor | None = None
  ) -> tf.Tensor:
    """Images decoded from the prior, on a grid: [1, height, width, C]."""
    prior = self.latent_dist.default_prior()
    z = prior.sample([num_images, self.num_components], seed=seed)
    _, x_dist = self.decode(z)
    images = tf.clip_by_value(x_dist.mean()[:, 0], 0.0, 1.0)
    return image_grids.images_to_grid(images)[None]

  def get_overview_images(
    self,
    data: Data,
    num_images: int = 4,
    mask_components: bool = True,
    seed: tf.Tensor | None = None,
  ) -> dict[str, tf.Tensor]:
    """Returns the images `overview` and `sequence` of a batch.

    Args:
      data: as for `__call__`.
      num_images: how many scenes are decomposed.
      mask_components: whether components are cut out by their masks.
      seed: as for `__call__`.

    Returns:
      Two images [1, height, width, 3]: `overview` shows one scene a row
      (image, reconstruction, mask, components), `sequence` the iterations.
      The background's slot comes first, see `utils.background_first`.
    """
    images = self.cut_frames(data)["image"][:num_images]
    estimates, _ = self.encode(images, seed=seed)
    renderings = [distributions.render(e.x_dist) for e in estimates]
    last = renderings[-1]
    order = utils.background_first(last.masks)
    masks = [utils.reorder(r.masks, order) for r in renderings]
    components = utils.reorder(last.components, order)
    if mask_components:
      components = tf.clip_by_value(components, 0.0, 1.0)
      components = palette.lay_on_squares(components, masks[-1])
    colors = palette.slot_colors(self.num_components)
    return {
      "overview": image_grids.diagnostic_image(
        images=self._frame(images, self.num_iters)[:, 0],
        recons=last.reconstruction[:, 0],
        masks=tf.transpose(masks[-1][..., 0], [0, 2, 3, 1]),
        components=tf.transpose(components, [0, 2, 3, 1, 4]),
        colors=colors,
      ),
      "sequence": image_grids.iterations_image(
        images[:, :, None],
        tf.stack([r.reconstruction for r in renderings], axis=1),
        tf.stack(masks, axis=1),
        colors=colors,
      ),
    }

  # ------------------------------------------------------------ small parts

  def frame_index(self, t: Any) -> Any:
    """Returns the frame of the data that iteration t is compared with."""
    return t if self._sequential else 0

  def _frame(self, images: tf.Tensor, t: Any) -> tf.Tensor:
    """Returns the frame [B, 1, H, W, C] that iteration t sees."""
    return tf.expand_dims(images[:, self.frame_index(t)], 1)

  def cut_frames(self, data: Data) -> Data:
    """Returns a copy of the batch with the first num_iters + 1 frames.

    Raises:
      errors.UserError: if a sequential model gets too few.
    """
    num_frames = data["image"].shape[1]
    needed = self.num_iters + 1
    if self._sequential and num_frames < needed:
      raise errors.UserError(
        f"a sequential model with `num_iters` {self.num_iters} needs {needed} "
        f"frames, and the data has {num_frames}: lower `num_iters`"
      )
    cut = {**data, "image": data["image"][:, :needed]}
    sg = shapeguard.ShapeGuard()
    sg.guard(cut["image"], "B, T, H, W, C")
    if "mask" in data:
      cut["mask"] = data["mask"][:, :needed]
      sg.guard(cut["mask"], "B, T, L, H, W, 1")
      sg.guard(cut["visibility"], "B, L")
    return cut
