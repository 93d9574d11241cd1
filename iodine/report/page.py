"""The report on a checkpoint: one HTML page that needs nothing else.

`report.html.jinja` beside this file is what it looks like; here is what fills
it in.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
import os
import pathlib
from typing import Any, NamedTuple

import jinja2
from PIL import Image as pillow

from iodine.report import captions

_TEMPLATE = "report.html.jinja"
# Of a decomposed scene, wherever a page shows one.
ASSETS = tuple(
  pathlib.Path(__file__).with_name(name) for name in ("scene.js", "scene.css")
)


class Image(NamedTuple):
  """A picture in the page.

  Attributes:
    content: of a PNG or GIF file.
    caption: its words.
    scale: how many of its pixels are one of the page.
  """

  content: bytes
  caption: captions.Caption
  scale: int = 1

  @property
  def uri(self) -> str:
    """Returns the picture itself as a data URI."""
    kind = "gif" if self.content.startswith(b"GIF") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(self.content).decode()}"

  @property
  def size(self) -> tuple[int, int]:
    """Returns width and height on the page, in its pixels."""
    with pillow.open(io.BytesIO(self.content)) as image:
      return image.width // self.scale, image.height // self.scale


def render(**content: Any) -> str:
  """Returns the page as HTML, without references to anything outside.

  Args:
    **content: what the template fills in.
      title: of the page.
      facts: what was evaluated, and with what, {name: value}.
      notes: sentences that a reader of the metrics has to know.
      result: the metrics, an `evaluation.Evaluation`.
      spread_titles: what the numbers of each metric are called.
      curves: an `Image` of the metrics over the iterations.
      generalisation: the same for other numbers of slots, where asked for.
      others: of what there are other numbers.
      training: what was logged in training, if something is left of it.
      scenes: those that are shown, dicts of number, metrics of the final decode
        by name, data for `scene.js`, and images, example first.
      samples: from the prior.
      latents: their map, where there are true masks.
      config: dotted names and values of all entries.
  """
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(os.path.dirname(__file__)),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters["number"] = format_number
  environment.policies["json.dumps_kwargs"] = {}  # keys in their order
  script, style = (path.read_text(encoding="utf-8") for path in ASSETS)
  content |= {"script": script, "style": style}
  # By it the browser knows the script, and runs no other.
  digest = hashlib.sha256(script.encode()).digest()
  content["script_digest"] = base64.b64encode(digest).decode()
  return environment.get_template(_TEMPLATE).render(content)


def format_number(value: float | None) -> str:
  """Returns four digits that count, or all of whole numbers, or a dash."""
  if value is None or not math.isfinite(value):
    return "–"
  if value == 0.0:
    return "0"
  digits = 3 - math.floor(math.log10(abs(value)))
  if digits > 7:
    return f"{value:.1e}"
  return f"{value:.{max(digits, 0)}f}".replace("-", "−")
