"""What a user sees while waiting."""

import io
import time

import pytest
import tensorflow as tf
import tqdm

from iodine import training
from iodine.commands import help, train


@pytest.mark.parametrize(
  "seconds, words",
  [
    *((0.4, "0 seconds"), (1, "1 second"), (119, "119 seconds")),
    (120, "2 minutes"),
    *((5400, "90 minutes"), (7200, "2.0 hours"), (34920, "9.7 hours")),
    *((26.2 * 86400, "26 days"), (2.5 * 86400, "2.5 days")),
  ],
)
def test_times_are_words(seconds, words):
  assert help.duration(seconds) == words


def test_what_takes_long_is_said_and_else_nothing(monkeypatch, capsys):
  with help.while_waiting("reading"):
    pass
  monkeypatch.setattr(help, "_PATIENCE_SECONDS", 0.01)
  with help.while_waiting("counting"):
    deadline = time.monotonic() + 60
    while not (out := capsys.readouterr().out):
      assert time.monotonic() < deadline
  assert out == "counting ...\n"


@pytest.fixture
def logs(tmp_path):
  """What a training of 100,000 steps tells, from step 500 on."""
  bar = tqdm.tqdm(
    initial=500,
    total=100_000,
    file=io.StringIO(),
    mininterval=0,
    miniters=1,
    bar_format=train._BAR,
  )
  return train._Logs(dict, dict, str(tmp_path), bar, lambda *told: None)


def test_a_hopeless_training_says_so(logs, capsys, monkeypatch):
  logs.pace(502, 22.6)
  line = capsys.readouterr().out
  assert line.startswith("step 502/100000: about 26 days for the 99,498 steps")
  for remedy in ("'image_dim=[14,14]'", "`quick`", "`laptop`", "a GPU"):
    assert remedy in line
  logs.pace(502, 0.1)
  assert "about 2.8 hours" in (line := capsys.readouterr().out)
  assert "image_dim" not in line
  monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
  logs.pace(502, 22.6)
  assert "image_dim" not in capsys.readouterr().out


def test_a_bar_moves_with_every_step_and_lines_stand_above_it(logs, capsys):
  for step in (501, 502, 510):
    logs.advance(step)
    assert f"{step}/100000 steps" in logs.bar.fp.getvalue()
  means = {"loss/total": 3.0, "loss/mse": 0.5}
  logs.report(training.Report(510, means, 7.0, seconds_per_step=0.1))
  line = capsys.readouterr().out
  assert line == (
    "step 510/100000  loss 3.0  squared error 0.50000  7.0 images/s  2.8 hours "
    "left\n"
  )
  logs.advance(511)
  assert "511/100000 steps, 2.8 hours left" in logs.bar.fp.getvalue()
