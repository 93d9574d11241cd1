import glob
import shutil

import numpy as np
import pytest
import tensorflow as tf

from iodine import training
from iodine.drawing import image_files


def test_scalars_can_be_read_back(tmp_path):
  writer = training.SummaryWriter(str(tmp_path))
  writer.scalars(3, {"loss/total": 1.5, "debug/learning_rate": 0.25})
  writer.scalars(4, {"loss/total": 2.5, "other": np.nan})
  tags = ["loss/total", "debug/learning_rate", "other", "missing"]
  assert training.read_scalars(str(tmp_path), tags) == {
    "loss/total": [(3, 1.5), (4, 2.5)],
    "debug/learning_rate": [(3, 0.25)],
  }


def test_a_continued_training_has_one_curve(tmp_path):
  # Killed after step 40, it went on from its checkpoint at step 20.
  for name, steps in (("1", (10, 20, 30, 40)), ("2", (30,))):
    writer = training.SummaryWriter(str(tmp_path / name))
    for step in steps:
      writer.scalars(step, {"loss/total": float(name) * step})
    (path,) = glob.glob(f"{tmp_path}/{name}/events*")
    shutil.move(path, tmp_path / f"events.out.tfevents.{name}")
  # What a killed process was writing is cut off.
  with open(tmp_path / "events.out.tfevents.2", "ab") as file:
    file.write(b"half of an event")
  curves = training.read_scalars(str(tmp_path), ["loss/total"])
  assert curves == {"loss/total": [(10, 10.0), (20, 20.0), (30, 60.0)]}


@pytest.mark.parametrize("titles, margin", [(["left", "right"], 30), ([], 0)])
def test_titled_images_are_enlarged(tmp_path, titles, margin):
  image = np.random.default_rng(0).uniform(size=(6, 12, 1))
  path = str(tmp_path / "image.png")
  image_files.save_titled_image(path, image, titles, min_size=100)
  pixels = tf.io.decode_png(tf.io.read_file(path)).numpy()
  assert pixels.shape[:2] == (6 * 9 + margin, 12 * 9)
  tile = pixels[margin + 9 * 2 + 4, 9 * 5 + 4, 0] / 255.0
  assert abs(tile - image[2, 5, 0]) < 2 / 255  # 8 bits
