"""What the browser asks for, and who may ask."""

from __future__ import annotations

import base64
import io
import ipaddress
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any
from urllib import parse

import imageio.v3 as imageio
import numpy as np
from werkzeug import exceptions
from werkzeug.wrappers import Request, Response

from iodine import errors, kinds, report
from iodine.drawing import canvas, palette, sheet
from iodine.explore import engine

_FOLDER = pathlib.Path(__file__).parent
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
# What is sent, no other file is.
_FILES = {
  "/": _FOLDER / "page.html",
  "/explore.js": _FOLDER / "explore.js",
  "/explore.css": _FOLDER / "explore.css",
  **{f"/{path.name}": path for path in report.ASSETS},
}
_HEADERS = {
  "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; "
  "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
  "Cache-Control": "no-store",
}
_MAX_UPLOAD = 20 * 2**20
_MAX_FRAMES = 64  # of a GIF
_GIF_SIZE, _FRAME_MILLISECONDS = 280, 120
_EVERYWHERE = ("0.0.0.0", "::")

_OPTIONS = {
  "slots": Annotated[int, kinds.AtLeast(1), kinds.Below(17)],
  "refinements": Annotated[int, kinds.AtLeast(0), kinds.Below(51)],
  "seed": Annotated[int, kinds.AtLeast(0), kinds.Below(2**32)],
  "sample": bool,
}


class Application:
  """Answers browsers; what they do is kept by themselves alone.

  Attributes:
    port: that is listened at.
  """

  def __init__(
    self, explored: engine.Engine, host: str, about: Mapping[str, Any]
  ):
    """Takes what is explored.

    Args:
      explored: answers what is about the model.
      host: where this listens.
      about: what the page begins with.
    """
    self.port = 0
    self._engine, self._host = explored, host
    mean, deviation = explored.prior
    self._about = {
      **about,
      "shape": explored.image_shape,
      "prior": {"mean": mean, "deviation": deviation},
      "thumbnails": explored.thumbnails(),
    }
    self._answers = {
      "/infer": self._infer,
      "/decode": self._decode,
      "/upload": self._upload,
      "/npz": self._npz,
      "/gif": self._gif,
    }

  def warm_up(self, options: engine.Options) -> None:
    """Answers once, so that the first browser need not wait."""
    blank = sheet.png_uri(np.zeros([*self._engine.image_shape[:2], 3]))
    source = 0 if self._engine.num_scenes else _decode_uri(blank)
    latents = self._engine.infer(source, options)["latents"][-1]
    self._engine.decode(np.array(latents, np.float32))

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
    response.headers.update(_HEADERS)
    return response(environ, start_response)

  def _respond(self, request: Request) -> Response:
    self._check_sender(request)
    path = request.path
    if request.method == "POST" and path in self._answers:
      return self._answers[path](request)
    if request.method != "GET":
      raise exceptions.NotFound
    if path == "/about":
      return _json(self._about)
    if path == "/names":
      return _json(self._engine.names)
    if path not in _FILES:
      raise exceptions.NotFound
    file = _FILES[path]
    return Response(file.read_bytes(), mimetype=_TYPES[file.suffix])

  def _check_sender(self, request: Request) -> None:
    """Refuses pages from elsewhere, whatever name leads them here."""
    host = request.headers.get("Host", "")
    name = host.removesuffix(f":{self.port}")
    is_known = name in ("localhost", "127.0.0.1", "[::1]", self._host) or (
      self._host in _EVERYWHERE and _is_address(name.strip("[]"))
    )
    own = f"http://{host}"
    if not is_known or request.headers.get("Origin", own) != own:
      raise exceptions.Forbidden("this page is for this machine alone")

  def _infer(self, request: Request) -> Response:
    body = _body(request)
    options: dict[str, Any] = {name: body.get(name) for name in _OPTIONS}
    for name, kind in _OPTIONS.items():
      kinds.check(name, options[name], kind)
    source: Any = body.get("scene")
    if "picture" in body:
      source = _decode_uri(body["picture"])
    else:
      limit = kinds.Below(self._engine.num_scenes)
      kinds.check("scene", source, Annotated[int, kinds.AtLeast(0), limit])
    return _json(self._engine.infer(source, engine.Options(**options)))

  def _decode(self, request: Request) -> Response:
    found = self._engine.decode(self._latents(_body(request).get("latents")))
    found["image"] = found["reconstruction"]
    drawn: dict[str, Any] = {name: found[name][None] for name in sheet.PICTURES}
    return _json(sheet.describe(**drawn))

  def _upload(self, request: Request) -> Response:
    name = parse.unquote(request.headers.get("X-Name", "file"))
    (image,) = self._engine.read(request.get_data(), name)
    return _json({"picture": sheet.png_uri(canvas.to_rgb(image))})

  def _npz(self, request: Request) -> Response:
    latents = self._latents(_body(request).get("latents"))
    content = io.BytesIO()
    arrays: dict[str, Any] = self._engine.decode(latents)
    np.savez(content, latents=latents, **arrays)
    return Response(content.getvalue(), mimetype="application/zip")

  def _gif(self, request: Request) -> Response:
    """Answers a GIF of latents [frames][K][Z]: picture and masks."""
    given: Any = _body(request).get("frames")
    kinds.check("frames", given, Annotated[list, kinds.Length(1, _MAX_FRAMES)])
    zoom = -(-_GIF_SIZE // max(self._engine.image_shape[:2]))
    frames = []
    for each in given:
      found = self._engine.decode(self._latents(each))
      colors = palette.slot_colors(len(found["masks"]))
      mixed = palette.mix(found["masks"][..., None], colors)
      pair = [canvas.to_rgb(x) for x in (found["reconstruction"], mixed)]
      wide = np.rint(255 * np.concatenate(pair, axis=1)).astype(np.uint8)
      frames.append(wide.repeat(zoom, axis=0).repeat(zoom, axis=1))
    content = imageio.imwrite(
      "<bytes>", frames, extension=".gif", duration=_FRAME_MILLISECONDS, loop=0
    )
    return Response(content, mimetype="image/gif")

  def _latents(self, given: Any) -> np.ndarray:
    """Returns latents [K, Z] that came as lists."""
    size = len(self._about["prior"]["mean"])
    row = Annotated[list[float], kinds.Length(size, size)]
    kinds.check("latents", given, Annotated[list[row], kinds.Length(1, 16)])
    return np.clip(np.array(given, np.float32), -1e3, 1e3)


def _body(request: Request) -> dict[str, Any]:
  body = request.get_json(force=True)
  kinds.check("request", body, dict)
  return body


def _decode_uri(uri: Any) -> bytes:
  """Returns the file in a data URI."""
  with errors.as_user_error(
    (ValueError, AttributeError),
    lambda error: "`picture` is not a data URI: give one of a PNG",
  ):
    return base64.b64decode(uri.partition(",")[2], validate=True)


def _is_address(host: str) -> bool:
  """Returns whether a host is a number, which nobody can give another one."""
  return not errors.message_of(
    lambda: ipaddress.ip_address(host), (ValueError,)
  )


def _json(content: Any) -> Response:
  return Response(json.dumps(content), mimetype="application/json")
