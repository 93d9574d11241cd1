"""The report on a checkpoint: one HTML page that needs nothing else.

`report.html.jinja` beside this file is what it looks like; here is what fills
it in.
"""

from __future__ import annotations

import base64
import functools
import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
from PIL import Image as pillow

from iodine import evaluation
from iodine.report import captions

_TEMPLATE = "report.html.jinja"


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


class Scene(NamedTuple):
  """One scene with its pictures.

  Attributes:
    number: in the test subset.
    metrics: of its final decode, by name.
    images: example first.
  """

  number: int
  metrics: Mapping[str, float]
  images: Sequence[Image]


class Report(NamedTuple):
  """All that stands in the page.

  Attributes:
    title: of the page.
    facts: what was evaluated, and with what: (name, value).
    notes: sentences that a reader of the metrics has to know.
    result: the metrics.
    spread_titles: what the numbers of each metric are called.
    curves: metrics over the iterations.
    generalisation: the same for other numbers of slots; None if not asked for.
    training: what was logged in training; None if nothing is left of it.
    scenes: those that are shown.
    samples: from the prior.
    latents: their map; None without true masks.
    config: dotted names and values of all entries.
  """

  title: str
  facts: Sequence[tuple[str, str]]
  notes: Sequence[str]
  result: evaluation.Evaluation
  spread_titles: Sequence[str]
  curves: Image
  generalisation: Image | None
  training: Image | None
  scenes: Sequence[Scene]
  samples: Image
  latents: Image | None
  config: Sequence[tuple[str, str]]


def render(report: Report) -> str:
  """Returns the page as HTML, without references to anything outside."""
  return _environment().get_template(_TEMPLATE).render(report._asdict())


def flatten(
  config: Mapping[str, Any], prefix: str = ""
) -> list[tuple[str, str]]:
  """Returns dotted names and values, as the command line takes them."""
  entries: list[tuple[str, str]] = []
  for name, value in sorted(config.items()):
    if isinstance(value, Mapping) and value:
      entries += flatten(value, f"{prefix}{name}.")
    else:
      entries.append((f"{prefix}{name}", str(value)))
  return entries


@functools.cache
def _environment() -> jinja2.Environment:
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(os.path.dirname(__file__)),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters["number"] = format_number
  return environment


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
