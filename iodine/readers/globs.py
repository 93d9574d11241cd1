"""What a glob matches."""

import glob
import os


def matches(pattern: str) -> list[str]:
  """Returns what a glob matches, sorted; folders that are there are no part.

  That is, `photos[1]/*.png` are the images of `photos[1]` where that is one.
  """
  folder = os.path.dirname(pattern)
  while not os.path.isdir(folder or "."):
    folder = os.path.dirname(folder)
  pattern = glob.escape(folder) + pattern[len(folder) :]
  return sorted(glob.glob(pattern, recursive=True))
