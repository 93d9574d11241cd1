"""The field's data sets in their layouts, from training to pictures."""

import json
import os

import helpers
import numpy as np
import PIL.Image
import pytest

import iodine
import main
from iodine.modules import data

SMALL = [
  *(f"{key}={value}" for key, value in helpers.TINY.items()),
  *("batch_size=2", "stop_after_steps=2", "seed=0", "data.image_dim=[8,8]"),
]


def objects_room(folder):
  """Writes five scenes: four parts of a background, and objects in it."""
  rng = np.random.default_rng(0)
  scenes = []
  for _ in range(5):
    numbers = np.add.outer(np.arange(64) // 32, 2 * (np.arange(64) // 32))
    for k in (4, 5, 6):
      row, column = rng.integers(0, 48, 2)
      numbers[row : row + 16, column : column + 16] = k
    mask = 255 * (numbers == np.arange(7)[:, None, None])[..., None]
    image = rng.integers(0, 256, (7, 3))[numbers]
    scenes.append({"image": np.uint8(image), "mask": np.uint8(mask)})
  os.makedirs(folder)
  helpers.write_records(f"{folder}/room.tfrecords", scenes)
  return [f"data.path={folder}/room.tfrecords", "data.shuffle_buffer=4"]


def clevrtex(folder):
  """Writes five scenes with all that lies beside them."""
  for i in range(5):
    start = f"{folder}/{i // 3}/CLEVRTEX_full_{i:06}"
    os.makedirs(os.path.dirname(start), exist_ok=True)
    labels = np.zeros([240, 320], np.uint8)
    labels[60:120, 80:160], labels[150:200, 100:250] = 1, 2
    image = np.uint8([[9, 9, 9], [200, 0, 0], [0, 0, 200]])[labels]
    PIL.Image.fromarray(image).save(f"{start}.png")
    PIL.Image.fromarray(labels).save(f"{start}_flat.png")
    for other in ("albedo", "depth_0001", "normal", "shadow"):
      PIL.Image.fromarray(image).save(f"{start}_{other}.png")
  return [f"data.path={folder}"]


@pytest.mark.parametrize(
  "make, num_entities", [(objects_room, 4), (clevrtex, 3)]
)
def test_it_trains_and_is_evaluated_segmented_and_drawn(
  make, num_entities, tmp_path
):
  name = make.__name__
  words = make(tmp_path / "made")
  words += ["data.train=[2,None]", "data.test=[0,2]"]
  run = f"checkpoint_dir={tmp_path}/run"
  helpers.run_main("with", name, *SMALL, *words, run)
  place = ("with", f"{run}_1", f"results_dir={tmp_path}/results")
  found = tmp_path / "found.json"
  helpers.run_main("evaluate", *place, f"json_path={found}")
  assert json.loads(found.read_text())["ari_nobg"]["mean"] <= 1.0
  helpers.run_main("plot", *place, "plot.scenes=[0]")
  helpers.save_image(tmp_path / "a.png", helpers.noise([64, 64, 3]))
  helpers.run_main(
    *("segment", *place, f"images={tmp_path}/a.png"),
    f"output={tmp_path}/segments",
  )
  assert (tmp_path / "segments/a/overlay.png").exists()
  config = json.loads((tmp_path / "run_1/config.json").read_text())["data"]
  dataset = iodine.build(config)
  (batch,) = dataset("test")
  assert batch["mask"].shape == (2, 1, num_entities, 8, 8, 1)
  assert np.all(np.sum(batch["mask"], axis=2) == 1)


def test_clevrtex_is_cut_to_its_middle(tmp_path):
  clevrtex(tmp_path)
  config = main.get_config(("clevrtex",), {"data.path": str(tmp_path)})["data"]
  assert (config["image_dim"], config["crop_region"]) == (
    [128, 128],
    [[24, 216], [64, 256]],
  )
  own = data.Images(
    **{k: v for k, v in config.items() if k not in ("constructor", "train")}
    | {"test": [0, 1], "batch_size": 1}
  )
  (batch,) = own("test")
  # 192 pixels become 128: the first object from row 36 / 1.5 on.
  owner = batch["mask"][0, 0, ..., 0].numpy().argmax(axis=0)
  assert owner[23, 30] == 0 and owner[25, 30] == 1 and owner[110, 60] == 2
