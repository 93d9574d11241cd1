"""Collects the curves of trainings, and draws them for docs/results.md.

  python docs/draw_results.py collect RUN_FOLDER NAME
  python docs/draw_results.py draw
  python docs/draw_results.py films RUN_FOLDER

The first writes docs/results/NAME.csv from the TensorBoard logs of a run, the
second draws docs/results.png from those files. The third draws
docs/moving_sprites.gif from held-out films and a run of `moving_sprites`, in
whose working folder it is called.
"""

from __future__ import annotations

import csv
import json
import os
import pathlib
import sys
from typing import NamedTuple

import numpy as np
import PIL.Image

FOLDER = pathlib.Path(__file__).parent
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(FOLDER.parent))

from iodine import checkpoints, segmentation, training  # noqa: E402
from iodine.drawing import canvas, charts  # noqa: E402

TAGS = {
  "loss": "loss/total",
  "mse": "loss/mse",
  "ari": "loss/ari",
  "ari_nobg": "loss/ari_nobg",
}
PACE = "debug/images_per_second"


class Panel(NamedTuple):
  """A panel of the picture.

  Attributes:
    title: above it.
    curves: names of files, each with its label.
    paper: the paper's foreground ARI; None: it has none.
    column: what is drawn.
  """

  title: str
  curves: dict[str, str]
  paper: float | None
  column: str = "ari_nobg"


PANELS = (
  Panel(
    "tetrominoes minutes (one H200)",
    {"tetrominoes_minutes": "5 refinements"},
    0.992,
  ),
  Panel(
    "laptop",
    {f"laptop_seed_{seed}": f"seed {seed}" for seed in range(3)},
    0.992,
  ),
  Panel(
    "on the way to laptop",
    {
      "laptop_21x21": "run 30: 21x21, 4 slots",
      "laptop_cosine_decoder": "run 28: the same, cosine coordinates",
      "laptop_changes": "run 46: 14x14, 4 slots, then 3",
      "laptop_without_stages": "run 52: 3 slots from the start",
    },
    0.992,
  ),
  Panel("laptop sprites", {"multi_dsprites_hour": "seed 0"}, 0.767),
  Panel(
    "tetrominoes, on two cores", {"tetrominoes_full": "seed 0"}, None, "mse"
  ),
  Panel("moving_sprites, last frame", {"moving_sprites": "seed 0"}, None),
)


def collect(run_folder: str, name: str) -> None:
  """Writes what a run logged, with the minutes that it had trained for.

  Minutes are counted from the pace that was logged, so that a run which stood
  still for a day does not seem to have trained in it.
  """
  config = json.loads((pathlib.Path(run_folder) / "config.json").read_text())
  logged = training.read_scalars(run_folder, [*TAGS.values(), PACE])
  columns = {name: dict(logged[tag]) for name, tag in TAGS.items()}
  path = FOLDER / "results" / f"{name}.csv"
  path.parent.mkdir(exist_ok=True)
  with open(path, "w", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["step", "minutes", *TAGS])
    minutes, last = 0.0, 0
    for step, pace in logged[PACE]:
      minutes += (step - last) * config["batch_size"] / pace / 60
      values = [f"{column[step]:.5g}" for column in columns.values()]
      writer.writerow([step, f"{minutes:.1f}", *values])
      last = step
  print(f"wrote {path}")


def draw_films(run_folder: str, num_films: int = 3) -> None:
  """Draws the first films of several sprites that a run did not train on."""
  model, config = checkpoints.restore_model(run_folder)
  first = config["data"]["test"][0]
  arrays = np.load(config["data"]["path"])
  has_several = arrays["visibility"][first:].sum(axis=1) > 2
  chosen = first + np.flatnonzero(has_several)[:num_films]
  films = arrays["image"][chosen]
  segmenter = segmentation.Segmenter(
    model, model.output_dist.output_shape, config["seed"]
  )
  drawn = []
  for film in films / np.float32(255):
    found = segmenter(film)
    drawn.append(segmentation.draw_film(found, film))
  stacked = [np.concatenate(frames) for frames in zip(*drawn, strict=True)]
  first_frame, *others = map(PIL.Image.fromarray, stacked)
  first_frame.save(
    FOLDER / "moving_sprites.gif",
    save_all=True,
    append_images=others,
    duration=300,
    loop=0,
  )


def draw() -> None:
  """Draws all collected runs over their minutes."""
  figure, grid = canvas.new_chart(1080, 1020, 3, 2)
  for axes, panel in zip(grid.flat, PANELS, strict=True):
    for name, label in panel.curves.items():
      path = FOLDER / "results" / f"{name}.csv"
      rows = np.genfromtxt(path, delimiter=",", names=True)
      charts.draw_smoothed(axes, rows["minutes"], rows[panel.column], label)
    if panel.column == "mse":
      axes.set_ylabel("squared error", fontsize=9)
      axes.set_ylim(bottom=0.0)
    else:
      axes.set_ylabel("ARI, foreground", fontsize=9)
      axes.set_ylim(-0.05, 1.02)
    if panel.paper is not None:
      axes.axhline(
        panel.paper, color="0.45", linestyle="--", linewidth=1, label="paper"
      )
    axes.set_title(panel.title, fontsize=10)
    axes.set_xlabel("minutes of training", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
  canvas.save(figure, str(FOLDER / "results"))
  print(f"wrote {FOLDER / 'results.png'}")


if __name__ == "__main__":
  match sys.argv[1:]:
    case ["collect", run_folder, name]:
      collect(run_folder, name)
    case ["draw"]:
      draw()
    case ["films", run_folder]:
      draw_films(run_folder)
    case _:
      sys.exit(__doc__)
