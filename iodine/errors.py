"""The one kind of error that a user, not a programmer, has to mend."""

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn


class UserError(ValueError):
  """Something the user gave is missing, broken or of the wrong kind.

  The message is one sentence that says what is wrong, where, and what to do
  about it: lower case, no full stop, the thing in backticks. The command line
  prints it without a traceback and exits with 1.
  """


class UnknownNameError(UserError, KeyError):
  """A name that is none of those there are, as the original's KeyErrors say."""

  # A KeyError would show its message in quotes.
  __str__ = ValueError.__str__


@contextlib.contextmanager
def as_user_error(
  kinds: tuple[type[Exception], ...], explain: Callable[[Exception], str | None]
) -> Iterator[None]:
  """Raises a UserError in place of other errors.

  Args:
    kinds: which ones; a UserError stays as it is.
    explain: returns the sentence for one; None leaves it as it is.
  """
  try:
    yield
  except kinds as error:
    sentence = None if isinstance(error, UserError) else explain(error)
    if sentence is None:
      raise
    # Whoever keeps the sentence keeps no files, arrays and iterators with it.
    traceback.clear_frames(error.__traceback__)
    raise UserError(sentence) from error


def message_of(
  call: Callable[[], Any], kinds: tuple[type[Exception], ...] = (UserError,)
) -> str | None:
  """Returns what an error of these kinds says that a call raises, or None."""
  try:
    call()
  except kinds as error:
    return str(error) or type(error).__name__
  return None


def reason(error: Exception) -> str:
  """Returns what an error says in one line, in the words of the system.

  That is without the operation and the device that TensorFlow names, and
  without what a check of numbers adds.
  """
  line = str(error).strip().split("\n")[0]
  added = r"|\s:\sTensor had .*|Error in user-defined .*?iterator: \S*: "
  words = re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:.*" + added, "", line)
  return getattr(error, "strerror", None) or words


def join_some(
  reasons: Sequence[str], most: int = 8, separator: str = "; "
) -> str:
  """Joins reasons, or names, and counts those beyond `most`.

  Args:
    reasons: what is joined.
    most: how many are shown; those beyond are counted.
    separator: between them.
  """
  rest = len(reasons) - most
  shown = [*reasons[:most], *([f"and {rest:,} more"] if rest > 0 else [])]
  return separator.join(shown)


def shorten(value: object, most: int = 300) -> str:
  """Returns a value as Python shows it; the beginning and end of a long one."""
  text = repr(value)
  if len(text) <= most:
    return text
  return f"{text[: most // 2]} ... {text[-most // 4 :]}"


def quote_hint(value: Any, name: str = "") -> str:
  """Returns how to write a path that Sacred has read as something else.

  It reads `2024` as a number, and `1e3` as one that tells no more how it was
  written.

  Args:
    value: what came in place of a path.
    name: the entry, where it is known.

  Returns:
    The end of a sentence; empty for strings and None, which were not misread.
  """
  if value is None or isinstance(value, str):
    return ""
  is_whole = isinstance(value, int) and not isinstance(value, bool)
  path = str(value) if is_whole else "NAME"
  start = f"{name}=" if name else ""
  return (
    "; quote a name that reads as a number or a list, "
    f"`{start}'\"{path}\"'` or `{start}./{path}`"
  )


def end_at_once(number: int, _: Any) -> NoReturn:
  """Ends the process, as a handler of signals that have nothing to clean up."""
  os.write(sys.stderr.fileno(), b"interrupted\n")
  os._exit(128 + number)
