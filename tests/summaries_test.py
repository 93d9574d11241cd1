"""What TensorBoard and people read of a training."""

import glob
import shutil

import helpers
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.util import tensor_util

from iodine import training


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


SCALARS = {
  *("loss/total", "loss/recons", "loss/kl", "loss/mse", "loss/ari"),
  *("loss/ari_nobg", "factor/loss", "factor/position", "factor/color"),
  *("factor/shape", "debug/global_grad_norm", "debug/learning_rate"),
  "debug/images_per_second",
}
# (height, width): tiles of 8 pixels and 2 of border on each side; 2 scenes of
# image, reconstruction, mask and 3 slots; 3 decodes; 16 samples.
IMAGES = {
  "overview": (2 * 12, 6 * 12),
  "sequence": (2 * 3 * 12, 3 * 12),
  "samples": (4 * 12, 4 * 12),
}


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
  """The folder of a training of three steps with images twice."""
  folder = tmp_path_factory.mktemp("run")
  scenes = helpers.make_scenes(folder, 4)
  small = {"data.shuffle_buffer": 4, "stop_after_steps": 3}
  periods = {"save_summaries_steps": 1, "save_images_steps": 2}
  helpers.run_main(
    *helpers.training_words(scenes, f"{folder}/run", **small, **periods)
  )
  return f"{folder}/run_1"


def test_event_files_hold_all_scalars_and_images(logdir):
  events = event_accumulator.EventAccumulator(
    logdir, size_guidance={event_accumulator.TENSORS: 0}
  )
  events.Reload()
  assert set(events.PluginTagToContent("scalars")) == SCALARS
  assert set(events.PluginTagToContent("images")) == set(IMAGES)
  for tag in SCALARS:
    values = events.Tensors(tag)
    assert [value.step for value in values] == [1, 2, 3]
    for value in values:
      number = tensor_util.make_ndarray(value.tensor_proto)
      assert number.shape == () and np.isfinite(number)
  drawn = {}
  for tag, (height, width) in IMAGES.items():
    values = events.Tensors(tag)
    assert [value.step for value in values] == [2, 3]
    for value in values:
      # Width and height come before the PNG.
      content = tensor_util.make_ndarray(value.tensor_proto)
      assert [int(size) for size in content[:2]] == [width, height]
      image = tf.io.decode_png(content[2]).numpy()
      assert image.shape == (height, width, 3)
      drawn[tag, value.step] = image
  # The scenes are the same at every step, what the model makes of them is not.
  before, after = drawn["overview", 2], drawn["overview", 3]
  np.testing.assert_array_equal(before[:, :12], after[:, :12])
  assert np.any(before[:, 12:24] != after[:, 12:24])
  assert len(np.unique(before[:, :12])) > 3
