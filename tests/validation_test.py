import re

import numpy as np
import pytest

from iodine import errors, validation


@pytest.mark.parametrize("value", [2, 3, np.int64(7)])
def test_whole_numbers(value):
  validation.check_whole("n", value, 2)
  validation.check_whole("n", None, 2, otherwise="None for all")


@pytest.mark.parametrize("value", [1, 2.0, "2", True, None, [2]])
def test_what_is_not_a_whole_number(value):
  message = re.escape(f"`n` is {value!r}: give a whole number, at least 2")
  with pytest.raises(errors.UserError, match=f"{message}$"):
    validation.check_whole("n", value, 2)


def test_the_message_says_what_none_means():
  with pytest.raises(errors.UserError, match="at least 0, or None for all$"):
    validation.check_whole("n", -1, 0, otherwise="None for all")


def test_numbers():
  validation.check_number("x", 0)
  validation.check_number("x", 1e-9, above=0.0)
  for value in (-1, float("nan"), float("inf"), True, "1", None):
    with pytest.raises(errors.UserError, match="a number of at least 0"):
      validation.check_number("x", value)
  with pytest.raises(errors.UserError, match="a number above 0"):
    validation.check_number("x", 0, above=0.0)


def test_choices_are_names_and_messages_without_quotes():
  validation.check_choice("mode", "a", ["a", "b"])
  with pytest.raises(KeyError) as info:
    validation.check_choice("mode", "c", ["a", "b"])
  assert str(info.value) == "`mode` is 'c': use one of 'a', 'b'"
  assert isinstance(info.value, errors.UserError)


def test_flags_and_paths():
  validation.check_flag("x", False)
  validation.check_path("x", "a", "the path of a folder")
  with pytest.raises(errors.UserError, match="`x` is 1: give True or False"):
    validation.check_flag("x", 1)
  for value in ("", 5, None):
    with pytest.raises(errors.UserError, match="give the path of a folder"):
      validation.check_path("x", value, "the path of a folder")


def test_arguments():
  def function(a, b=1):
    return a, b

  validation.check_arguments("opt", {"a": 1}, function)
  for options, part in (
    (5, "`opt` is 5"),
    ({"a": 1, "c": 2}, "`opt.c` is not an argument of"),
    ({"b": 2}, "`opt.a` is missing"),
  ):
    with pytest.raises(errors.UserError, match=part):
      validation.check_arguments("opt", options, function)


@pytest.mark.parametrize(
  "value, path",
  [(2024, "2024"), (-3, "-3"), (2024.1, "NAME"), (True, "NAME"), ([1], "NAME")],
)
def test_what_was_a_path_is_to_be_quoted(value, path):
  remedy = f"""`x='"{path}"'` or `x=./{path}`"""
  with pytest.raises(errors.UserError) as info:
    validation.check_path("x", value, "a file")
  assert str(info.value).startswith(f"`x` is {value!r}: give a file; quote a")
  assert str(info.value).endswith(remedy)


@pytest.mark.parametrize("value", ["", None])
def test_what_was_no_path_needs_no_quotes(value):
  with pytest.raises(errors.UserError, match="give a file$"):
    validation.check_path("x", value, "a file")
