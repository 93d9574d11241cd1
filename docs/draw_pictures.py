"""Draws the pictures of the documentation.

  python docs/draw_pictures.py [REAL_TETROMINOES_FILE]

The pictures of real scenes are left as they are where no file is given.
"""

from __future__ import annotations

import pathlib
import sys

import matplotlib.figure
import numpy as np
from matplotlib import patches

FOLDER = pathlib.Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

from iodine import (  # noqa: E402
  checkpoints,
  evaluation,
  pretrained,
  synthetic,
)
from iodine.drawing import palette  # noqa: E402
from iodine.modules import data, iodine  # noqa: E402


def draw_method(path: pathlib.Path) -> None:
  """IODINE in one picture, with the true objects of a generated scene."""
  scene = synthetic.DATASETS["tetrominoes"].make_scene(np.random.default_rng(5))
  image, masks = scene["image"] / 255.0, scene["mask"] / 255.0
  figure = matplotlib.figure.Figure(figsize=(10, 4.2), dpi=110)
  canvas = figure.add_axes((0, 0, 1, 1))
  canvas.set_xlim(0, 10)
  canvas.set_ylim(0, 4.2)
  canvas.axis("off")

  def picture(pixels: np.ndarray, x: float, y: float, size: float) -> None:
    canvas.imshow(
      pixels,
      extent=(x, x + size, y, y + size),
      interpolation="nearest",
      cmap="gray",
      vmin=0,
      vmax=1,
      zorder=2,
    )

  def box(text: str, x: float, y: float, width: float, height: float) -> None:
    canvas.add_patch(
      patches.FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0.06", fc="#e8eef7"
      )
    )
    canvas.text(x + width / 2, y + height / 2, text, ha="center", va="center")

  def arrow(*points: tuple[float, float]) -> None:
    for start, end in zip(points, points[1:], strict=False):
      head = "-|>" if end == points[-1] else "-"
      canvas.add_patch(
        patches.FancyArrowPatch(
          *(start, end),
          arrowstyle=head,
          mutation_scale=14,
          shrinkA=0,
          shrinkB=0,
        )
      )

  picture(image, 0.2, 1.6, 1.4)
  canvas.text(0.9, 3.15, "image", ha="center")
  for k in range(4):
    y = 3.15 - 0.82 * k
    canvas.add_patch(
      patches.Circle((2.75, y + 0.3), 0.24, fc="#f7e8d0", ec="black")
    )
    canvas.text(2.75, y + 0.3, f"$z_{k + 1}$", ha="center", va="center")
    color = image[masks[k, ..., 0] > 0].mean(axis=0)
    picture(np.ones_like(image) * color, 5.35, y, 0.62)
    picture(masks[k, ..., 0], 6.15, y, 0.62)
    arrow((2.99, y + 0.3), (3.5, y + 0.3))
    arrow((4.65, y + 0.3), (5.3, y + 0.3))
  canvas.text(2.75, 3.95, "K slots", ha="center")
  canvas.text(5.66, 3.95, "appearance", ha="center", fontsize=9)
  canvas.text(6.46, 3.95, "mask", ha="center", fontsize=9)
  box("decoder\n(shared)", 3.6, 0.8, 0.95, 2.9)
  arrow((6.85, 2.3), (7.9, 2.3))
  canvas.text(7.37, 2.4, "mixture", ha="center", fontsize=9)
  picture(image, 8.0, 1.6, 1.4)
  canvas.text(8.7, 3.15, "reconstruction", ha="center")
  box("refinement network", 3.6, 0.08, 2.6, 0.36)
  arrow((8.7, 1.55), (8.7, 0.26), (6.3, 0.26))
  canvas.text(7.5, 0.34, "how well it fits, gradients", ha="center", fontsize=9)
  arrow((3.5, 0.36), (2.75, 0.36), (2.75, 0.62))
  canvas.text(2.65, 0.28, "a few times", ha="right", fontsize=9)
  arrow((0.9, 1.55), (0.9, 0.14), (3.5, 0.14))
  figure.savefig(path)


def draw_grid(rows: dict[str, list[np.ndarray]], path: pathlib.Path) -> None:
  """Rows of images with a title each."""
  columns = max(len(images) for images in rows.values())
  figure = matplotlib.figure.Figure(
    figsize=(1.15 * columns, 1.45 * len(rows)), dpi=110
  )
  grid = figure.subplots(len(rows), columns, squeeze=False)
  for axes_row, (title, images) in zip(grid, rows.items(), strict=True):
    axes_row[0].set_title(title, loc="left", fontsize=9)
    for axes in axes_row:
      axes.axis("off")
    for axes, image in zip(axes_row, images, strict=False):
      pixels = np.repeat(image, 4 - image.shape[-1], axis=-1)[..., :3]
      axes.imshow(pixels, interpolation="nearest")
  figure.tight_layout(pad=0.3)
  figure.savefig(path)


def generated(name: str, num_scenes: int) -> list[np.ndarray]:
  """The first images of a generated data set with seed 0."""
  make_scene = synthetic.DATASETS[name].make_scene
  return [
    make_scene(np.random.default_rng([0, i]))["image"]
    for i in range(num_scenes)
  ]


def decomposed(
  model: iodine.IODINE, real: data.Tetrominoes, seed: int
) -> list[np.ndarray]:
  """The slots of ten scenes as `evaluate` finds them."""
  batches = real.batches("test")
  scenes, _ = evaluation.decompose_scenes(
    model, batches, 10, range(10), seed=seed
  )
  masks = np.stack([s.info["outputs"]["pred_mask"][0, -1] for s in scenes])
  return list(palette.mix(masks, palette.slot_colors(model.num_components)))


def main() -> None:
  """Draws all pictures."""
  draw_method(FOLDER / "iodine.png")
  draw_grid(
    {
      name: generated(name, 6)
      for name in (
        "multi_dsprites_colored_on_grayscale",
        "multi_dsprites_colored_on_colored",
        "multi_dsprites_binarized",
        "clevr",
      )
    },
    FOLDER / "generated.png",
  )
  if len(sys.argv) > 1:
    dataset = data.Tetrominoes(path=sys.argv[1], batch_size=10)
    (batch,) = dataset("test").take(1)
    draw_grid(
      {
        "ten real scenes": list(batch["image"].numpy()[:, 0]),
        "generated": generated("tetrominoes", 10),
      },
      FOLDER / "real_and_generated.png",
    )
    model, _ = checkpoints.restore_model(pretrained.TETROMINOES, evaluated=True)
    draw_grid(
      {
        "ten real scenes": list(batch["image"].numpy()[:, 0]),
        "slots, seed 0": decomposed(model, dataset, 0),
        "slots, seed 4": decomposed(model, dataset, 4),
      },
      FOLDER / "real_decomposed.png",
    )


if __name__ == "__main__":
  main()
