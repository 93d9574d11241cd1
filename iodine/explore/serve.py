"""The command `explore`: opens a checkpoint and its scenes, serves the page."""

from __future__ import annotations

import socket
import threading
from typing import Any

import numpy as np
from werkzeug import serving

from iodine import checkpoints, errors, evaluation
from iodine.commands import common, evaluate
from iodine.explore import application, engine

Config = common.Config

# How many scenes there are to choose from, and to name latents by.
_NUM_SCENES = 64


class _Quiet(serving.WSGIRequestHandler):
  """Prints nothing of requests that are answered."""

  def log_request(self, *_: Any) -> None:
    """Says nothing."""


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
      f"`explore.host` {host} and `explore.port` {port} cannot be listened at "
      f"({errors.reason(error)}): give another port, or 0 for a free one"
    ),
  ):
    place = serving.select_address_family(host, port)
    listener = socket.create_server((host, port), family=place)
  opened = checkpoints.open_checkpoint(checkpoint)
  config = checkpoints.as_evaluated(config)
  scenes: dict[str, np.ndarray] = {}
  told = errors.message_of(lambda: scenes.update(_read_scenes(config)))
  if told:
    print(f"no scenes to choose from, files only: {told}", flush=True)
  restored = common.restore(config, opened)
  print(f"exploring {opened.prefix}", flush=True)
  regressor = config["model"].get("factor_evaluator") or {}
  kinds = {name: kind for name, _, kind in regressor.get("mapping", ())}
  model = restored.model
  explored = engine.Engine(model, scenes, kinds)
  options = engine.Options(
    model.num_components, model.num_iters, config["seed"], sample=False
  )
  about = {
    "checkpoint": config["checkpoint_dir"],
    "step": restored.step,
    **options._asdict(),
  }
  app = application.Application(explored, host, about)
  app.warm_up(options)
  naming = threading.Thread(
    target=explored.name_latents, args=(options,), daemon=True
  )
  naming.start()
  server = serving.make_server(
    *(host, port, app),
    threaded=True,
    request_handler=_Quiet,
    fd=listener.fileno(),
  )
  app.port = server.port
  shown = f"[{host}]" if ":" in host else host
  print(f"page: http://{shown}:{server.port}/ (Ctrl-C ends)", flush=True)
  server.serve_forever()


def _read_scenes(config: Config) -> dict[str, np.ndarray]:
  """Returns the first scenes of the test subset, as `engine.Engine` wants."""
  rows: list[dict[str, np.ndarray]] = []
  num_scenes = 0
  for batch in evaluate.build_dataset(config).batches("test"):
    factors = batch.pop("factors", {})
    batch |= {f"factor/{name}": x for name, x in factors.items()}
    rows.append(evaluation.to_numpy(batch))
    num_scenes += len(rows[-1]["image"])
    if num_scenes >= _NUM_SCENES:
      break
  return {
    name: np.concatenate([row[name] for row in rows])[:_NUM_SCENES]
    for name in rows[0]
  }
