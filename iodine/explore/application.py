"""What the browser asks for, and who may ask."""

from __future__ import annotations

import base64
import io
import json
import mimetypes
import pathlib
from collections.abc import Iterable
from typing import Annotated, Any

import imageio.v3 as imageio
import numpy as np
from werkzeug import exceptions
from werkzeug.wrappers import Request, Response

from iodine import errors, kinds, report
from iodine.drawing import canvas, palette, sheet
from iodine.explore import engine

_FOLDER = pathlib.Path(__file__).parent
# What is sent; no other file is.
_NAMES = ("page.html", "explore.js", "explore.css")
_FILES = {f.name: f for f in (*report.ASSETS, *map(_FOLDER.joinpath, _NAMES))}
_POLICY = (
  "default-src 'self'; img-src 'self' data:; "
  "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_MAX_UPLOAD = 20 * 2**20
_MAX_SLOTS, _MAX_FRAMES = 16, 64
# How a picture is decomposed: the least and the most.
_OPTIONS = {
  "slots": (1, _MAX_SLOTS),
  "refinements": (0, 50),
  "seed": (0, 2**32 - 1),
}
_GIF_SIZE, _FRAME_MILLISECONDS = 280, 120


class Application:
  """Answers browsers; what they do is kept by themselves alone."""

  def __init__(self, explored: engine.Engine, host: str, about: Any):
    """Takes what is explored.

    Args:
      explored: answers what is about the model.
      host: where this listens.
      about: a dict of checkpoint, step, and the options to begin with.
    """
    self._engine, self._host = explored, host
    images = [scene["image"][0, 0].numpy() for scene in explored.scenes]
    thumbnails = [sheet.png_uri(image) for image in images]
    about |= {"thumbnails": thumbnails, "deviations": explored.deviations}
    self._answers = {
      "/about": lambda request: _json(about),
      "/names": lambda request: _json(explored.names.result()),
      "/infer": self._infer,
      "/decode": self._decode,
      "/upload": self._upload,
      "/npz": self._npz,
      "/gif": self._gif,
    }

  def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
    """Is what WSGI calls."""
    request = Request(environ)
    request.max_content_length = _MAX_UPLOAD
    try:
      response = self._respond(request)
    except exceptions.HTTPException as error:
      response = Response(error.description, error.code)
    except errors.UserError as error:
      response = Response(str(error), 400)
    response.headers["Content-Security-Policy"] = _POLICY
    return response(environ, start_response)

  def _respond(self, request: Request) -> Response:
    self._check_sender(request)
    path = request.path
    if request.method == "POST" and path in self._answers:
      return self._answers[path](request)
    name = "page.html" if path == "/" else path[1:]
    if request.method != "GET" or name not in _FILES:
      raise exceptions.NotFound
    content, kind = _FILES[name].read_bytes(), mimetypes.guess_type(name)[0]
    return Response(content, mimetype=kind)

  def _check_sender(self, request: Request) -> None:
    """Refuses pages from elsewhere, whatever name leads them here."""
    host = request.headers.get("Host", "")
    own, known = f"http://{host}", ("localhost", "127.0.0.1", self._host)
    is_known = host.split(":")[0] in known
    if not is_known or request.headers.get("Origin", own) != own:
      raise exceptions.Forbidden("this page is for this machine alone")

  def _infer(self, request: Request) -> Response:
    body = request.get_json(force=True)
    if "picture" in body:
      source: int | bytes = base64.b64decode(body["picture"].partition(",")[2])
    else:
      source = _number(body, "scene", 0, len(self._engine.scenes) - 1)
    options = {k: _number(body, k, *bounds) for k, bounds in _OPTIONS.items()}
    return _json(self._engine.infer(source, **options))

  def _decode(self, request: Request) -> Response:
    found = self._engine.decode(self._latents(request, 1))
    return _json(sheet.describe(found.reconstruction[:, 0], *found))

  def _upload(self, request: Request) -> Response:
    (image,) = self._engine.read(request.get_data())
    return _json({"picture": sheet.png_uri(image)})

  def _npz(self, request: Request) -> Response:
    content = io.BytesIO()
    np.savez(content, latents=self._latents(request, 1)[0])
    return Response(content.getvalue(), mimetype="application/zip")

  def _gif(self, request: Request) -> Response:
    found = self._engine.decode(self._latents(request, _MAX_FRAMES))
    colors = palette.slot_colors(found.masks.shape[1])
    image = canvas.to_rgb(found.reconstruction[:, 0])
    wide = np.concatenate([image, palette.mix(found.masks, colors)], axis=2)
    zoom = -(-_GIF_SIZE // max(self._engine.image_shape[:2]))
    large = wide.repeat(zoom, axis=1).repeat(zoom, axis=2)
    frames = np.rint(255 * large).astype(np.uint8)
    content = imageio.imwrite(
      "<bytes>", frames, extension=".gif", duration=_FRAME_MILLISECONDS, loop=0
    )
    return Response(content, mimetype="image/gif")

  def _latents(self, request: Request, most: int) -> np.ndarray:
    """Returns latents [N, K, Z] that came as lists, N at most so many."""
    size = len(self._engine.deviations)
    row = Annotated[list[float], kinds.Length(size, size)]
    slots = Annotated[list[row], kinds.Length(1, _MAX_SLOTS)]
    given = request.get_json(force=True)["latents"]
    kinds.check("latents", given, Annotated[list[slots], kinds.Length(1, most)])
    return np.clip(np.array(given, np.float32), -1e3, 1e3)


def _number(body: dict[str, Any], name: str, least: int, most: int) -> int:
  """Returns an integer of a request, which it checks."""
  above, below = kinds.AtLeast(least), kinds.Below(most + 1)
  kinds.check(name, body.get(name), Annotated[int, above, below])
  return body[name]


def _json(content: Any) -> Response:
  return Response(json.dumps(content), mimetype="application/json")
