"""Records docs/explore.gif from the page of `python main.py explore`.

  python main.py explore with seed=0
  python docs/draw_explore.py

The page is served meanwhile. This needs Chromium and selenium, as the tests do.
"""

from __future__ import annotations

import io
import pathlib
import sys
import tempfile

import PIL.Image

FOLDER = pathlib.Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent / "tests"))

import headless  # noqa: E402

PAGE = "http://127.0.0.1:8035/"
SIZE, SHOWN = (1180, 700), (826, 490)
MILLISECONDS = 140

# What is done between two frames: JavaScript, and how many frames it lasts.
MOVE = (
  "const x = document.querySelectorAll('#latents input')[{}];"
  "x.value = {}; x.oninput(); x.onchange()"
)
STEPS = [
  *((f"views.found.draw({{ t: {t} }})", 2) for t in range(13)),
  ("views.found.pick(1)", 7),
  *((MOVE.format(2, -1.28 + t / 5), 1) for t in range(9)),
  *((MOVE.format(1, -1.08 + t / 6), 1) for t in range(9)),
  *((MOVE.format(5, 0.26 - t / 4), 1) for t in range(8)),
  ("find('use').value = 'second'; return use({ scene: 7 })", 5),
  ("views.second.pick(3)", 5),
  ("return actions.put()", 9),
  ("return actions.infer()", 16),
]


def main() -> None:
  """Takes pictures of the page, and puts them together."""
  frames: list[PIL.Image.Image] = []
  durations: list[int] = []
  with (
    tempfile.TemporaryDirectory() as profile,
    headless.start(profile) as page,
  ):
    page.open(PAGE, *SIZE)
    run = page.driver.execute_async_script
    page.wait_for(lambda: run("arguments[0](names.length)"), 120)
    run("find('found').parentNode.scrollIntoView(); arguments[0]()")
    for code, times in STEPS:
      run(f"(async () => {{ {code} }})().then(redraw).then(arguments[0])")
      content = io.BytesIO(page.driver.get_screenshot_as_png())
      frames.append(PIL.Image.open(content).convert("RGB").resize(SHOWN))
      durations.append(MILLISECONDS * times)
  # One palette for all, so that what stays the same costs nothing.
  few = frames[::6]
  both = PIL.Image.new("RGB", (SHOWN[0], SHOWN[1] * len(few)))
  for i, frame in enumerate(few):
    both.paste(frame, (0, i * SHOWN[1]))
  palette = both.quantize(160)
  images = [
    frame.quantize(palette=palette, dither=PIL.Image.Dither.NONE)
    for frame in frames
  ]
  images[0].save(
    FOLDER / "explore.gif",
    save_all=True,
    append_images=images[1:],
    duration=durations,
    loop=0,
    optimize=True,
  )


if __name__ == "__main__":
  main()
