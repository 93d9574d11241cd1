"""All that the page of a report says about its pictures, and its notes.

What a metric means stands in the catalogue of `iodine.evaluation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from iodine import evaluation


class Caption(NamedTuple):
  """The words of a picture.

  Attributes:
    alt: what it shows, for those who do not see it.
    text: stands below it.
    title: its heading; empty for none.
  """

  alt: str
  text: str = ""
  title: str = ""


# The pictures of a scene in their order: title and text.
_SCENE = {
  "example": (
    "What the slots hold",
    "The image, its reconstruction, the masks (each pixel in the colours of "
    "the slots that claim it), and the component of every slot. {shown} Slot 1 "
    "has the largest area: the background's, where that has its own slot.",
  ),
  "refinement": (
    "The refinement as an animation",
    "The same once per iteration, from the first guess on.",
  ),
  "iterations": (
    "All iterations",
    "On top the true objects, where there are masks, each above the slot that "
    "overlaps it most. "
    "Below, iteration by iteration, reconstruction, masks and components, "
    "and the mask logits, which compete for every pixel. {shown}",
  ),
  "inputs": (
    "What the refinement network sees",
    "The inputs of the last refinement: image, current estimate, likelihoods, "
    "gradients. Those that the slots share come first.",
  ),
  "traversal": (
    "Latents changed one at a time",
    "The latents of one slot that tell most (highest KL), set to other values. "
    "A disentangled latent changes one thing, such as the position. {shown}",
  ),
  "traversal_film": (
    "Latents changed as a film",
    "The same, from one end to the other and back.",
  ),
}
SCENE_KINDS = tuple(_SCENE)
# By whether components are masked.
_SHOWN = {
  True: "Components are cut out by their masks: squares stand for the rest.",
  False: "Components are whole: their masks say which part of them counts.",
}


def scene(kind: str, number: int, masked: bool) -> Caption:
  """Captions a picture of a scene."""
  title, text = _SCENE[kind]
  text = text.format(shown=_SHOWN[masked])
  return Caption(f"{title}, scene {number}", text, title)


def curves(titles: Iterable[str]) -> Caption:
  """Captions the metrics over the iterations."""
  return Caption(
    f"Panels over the iterations: {'; '.join(titles)}. The table below has the "
    "numbers.",
    "Iteration 0 is the first guess, before any refinement. Bands are standard "
    "errors over the scenes.",
  )


GENERALISATION = Caption(
  "Foreground ARI and squared error over the refinements, a line for each "
  "number of slots.",
  "Neither the number of slots nor that of refinements is in the weights. "
  "Dashed lines mark what the config says.",
)

SAMPLES = Caption(
  "Images decoded from random latents, each beside its masks",
  "Latents drawn from the prior and decoded, each image beside its masks. The "
  "slots are drawn independently, so that they need not agree on who owns "
  "which pixel.",
)


def training(logged: Mapping[str, Sequence[tuple[int, float]]]) -> Caption:
  """Captions the curves of a training, {title: [(step, value)]}."""
  ends = [f"{title} {curve[-1][1]:.4g}" for title, curve in logged.items()]
  return Caption(
    f"Curves over the training steps; at the last one {', '.join(ends)}",
    "From the TensorBoard logs beside the checkpoint. Pale: as logged; line: "
    "mean over the nearest twentieth of the training.",
  )


def latents(statistics: evaluation.SceneStatistics) -> Caption:
  """Captions the map of the latents."""
  objects = 0 if statistics.latents is None else len(statistics.latents)
  return Caption(
    f"Map of the latents of {objects} objects, coloured by their true factors",
    f"The latents of {objects} objects in {statistics.num_scenes} scenes, on "
    "the two directions in which they differ most (principal components), "
    "coloured by one true factor in each panel. Where the colours are in "
    "order, the latents know the factor.",
  )


def notes(
  has_test_subset: bool, has_factors: bool, left_out: Iterable[str]
) -> list[str]:
  """Returns what a reader of the metrics has to know."""
  found = [f"{line[0].upper()}{line[1:]}." for line in left_out]
  if not has_test_subset:
    found.append(
      "No scenes are held out by data.test: these are all there are, seen in "
      "training or not."
    )
  if has_factors:
    found.append(
      "Accuracy and R2 are over the visible objects of all scenes at once, "
      "without the background; the training scalars factor/* are of single "
      "batches and include it."
    )
  return found
