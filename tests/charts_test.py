"""Charts: what is in their axes, and how the written file looks."""

import numpy as np
import tensorflow as tf

from iodine.modules import charts


def panel(x_title, y_title, line=None):
  return charts.SweepPanel(
    x_title=x_title,
    y_title=y_title,
    x=[1, 2, 4],
    x_labels=["one", "two", "four"],
    y=[2.0, 3.0, 5.0],
    low=[1.5, 3.0, 4.0],
    high=[2.5, 3.0, 7.0],
    line=line,
    line_label="1 s + 1 s per thing",
  )


def test_a_sweep_has_a_column_for_each_quantity(tmp_path):
  path = str(tmp_path / "sweep.png")
  panels = [
    panel(x_title, y_title, line=(1.0, 1.0))
    for x_title in ("batch size", "slots")
    for y_title in ("step [s]", "memory [MB]")
  ]
  charts.save_sweep(path, panels)
  two = tf.io.decode_png(tf.io.read_file(path)).numpy()
  charts.save_sweep(path, panels[:2])
  one = tf.io.decode_png(tf.io.read_file(path)).numpy()
  assert two.shape[0] == one.shape[0] == 640
  assert (two.shape[1], one.shape[1]) == (850, 450)


def test_error_bars_and_lines_are_drawn(tmp_path):
  pictures = []
  for name, line in (("with", (1.0, 1.0)), ("without", None)):
    path = str(tmp_path / name)
    charts.save_sweep(f"{path}.png", [panel("slots", "step [s]", line)])
    content = tf.io.read_file(f"{path}.png")
    pictures.append(tf.io.decode_png(content, channels=3).numpy())
  orange = [np.all(p == (255, 127, 14), axis=-1).sum() for p in pictures]
  assert orange[0] > 50
  assert orange[1] == 0
  blue = np.all(pictures[1] == (31, 119, 180), axis=-1)
  # The longest bar goes from 4 to 7 of 9.1 in height, the axes take most.
  assert np.any(blue.sum(axis=0) > 0.2 * blue.shape[0])
