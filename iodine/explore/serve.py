"""The command `explore`: opens a checkpoint and its scenes, serves the page."""

from __future__ import annotations

import itertools
import operator
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from werkzeug import serving

from iodine import checkpoints, errors
from iodine.commands import common, evaluate
from iodine.explore import application, engine

Config = common.Config

# How many scenes there are to choose from, and to name latents by.
_NUM_SCENES = 64


class _Quiet(serving.WSGIRequestHandler):
  def log_request(self, *_: Any) -> None:
    """Prints nothing of requests that are answered."""


def run(config: Config, checkpoint: common.Checkpoint) -> None:
  """Serves the page until Ctrl-C.

  Args:
    config: the complete config.
    checkpoint: a path, or what `checkpoints.open_checkpoint` returned.
  """
  host, port = config["explore"]["host"], config["explore"]["port"]
  with errors.as_user_error(
    (OSError,),
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
  model, seed = restored.model, config["seed"]
  explored = engine.Engine(model, scenes)
  args = (model.num_components, model.num_iters, seed)
  about = {"checkpoint": config["checkpoint_dir"], "step": restored.step}
  about["options"] = dict(zip(engine.OPTIONS, args, strict=True))
  app = application.Application(explored, host, about)
  server = serving.ThreadedWSGIServer(
    host, port, app, _Quiet, fd=listener.fileno()
  )
  app.port = server.port
  if scenes:  # the graphs that the first browser would wait for
    found = explored.infer(0, *args)
    explored.decode(np.array(found["means"][-1:], np.float32))
  threading.Thread(None, explored.name_latents, None, args, daemon=True).start()
  print(f"page: http://{host}:{server.port}/ (Ctrl-C ends)", flush=True)
  server.serve_forever()


def _scenes(config: Config) -> Iterator[dict[str, Any]]:
  """Yields the scenes of the test subset, each a batch."""
  for batch in evaluate.build_dataset(config).batches("test"):
    for i in range(len(batch["image"])):
      yield tf.nest.map_structure(operator.itemgetter(slice(i, i + 1)), batch)
