"""The command `explore`: opens a checkpoint and its scenes, serves the page."""

from __future__ import annotations

import atexit
import itertools
import logging
import operator
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from werkzeug import serving

from iodine import checkpoints, errors
from iodine.commands import common, evaluate
from iodine.explore import application, engine

Config = common.Config

# How many scenes there are to choose from, and to name latents by.
_NUM_SCENES = 64


def run(config: Config, checkpoint: common.Checkpoint) -> None:
  """Serves the page until Ctrl-C.

  Args:
    config: the complete config.
    checkpoint: a path, or what `checkpoints.open_checkpoint` returned.
  """
  host, port = config["explore"]["host"], config["explore"]["port"]
  with errors.as_user_error(
    (OSError, OverflowError),
    lambda error: (
      f"cannot serve at `explore.host` {host}, `explore.port` {port} "
      f"({errors.reason(error)}): give another port, or 0 for a free one"
    ),
  ):
    listener = socket.create_server((host, port))
  opened = checkpoints.open_checkpoint(checkpoint)
  config = checkpoints.as_evaluated(config)
  scenes: list[dict[str, Any]] = []
  read = itertools.islice(_scenes(config), _NUM_SCENES)
  told = errors.message_of(lambda: scenes.extend(read))
  if told is not None:
    print(f"no scenes, so open files: {told}", flush=True)
  restored = common.restore(config, opened)
  print(f"exploring {opened.prefix}", flush=True)
  model = restored.model
  explored = engine.Engine(model, scenes)
  options = {"slots": model.num_components, "refinements": model.num_iters}
  options["seed"] = config["seed"]
  about = {"step": restored.step, "options": options}
  about["checkpoint"] = folder = config["checkpoint_dir"]
  about["folder"] = os.path.abspath(folder)
  app = application.Application(explored, host, about)
  server = serving.ThreadedWSGIServer(host, port, app, fd=listener.fileno())
  threading.Thread(target=explored.prepare, kwargs=options, daemon=True).start()
  # Not every request, nor every number of slots that is compiled for.
  for logger in (logging.getLogger("werkzeug"), tf.get_logger()):
    logger.setLevel(logging.ERROR)
  print(f"page: http://{host}:{server.port}/ (Ctrl-C ends)", flush=True)
  server.serve_forever()
  # A thread that is inside of TensorFlow would end in an abort.
  atexit.register(os._exit, 0)


def _scenes(config: Config) -> Iterator[dict[str, Any]]:
  """Yields the scenes of the test subset, each a batch."""
  for batch in evaluate.build_dataset(config).batches("test"):
    for i in range(len(batch["image"])):
      yield tf.nest.map_structure(operator.itemgetter(slice(i, i + 1)), batch)
