"""What the command line says about itself, and what it says at once."""

import ast
import re
import subprocess
import sys

import helpers
import pytest

import iodine
import main
from iodine import entries
from iodine.commands import help

COMMANDS = [
  name
  for name in main.ex.commands
  if not name.startswith("print_") and name != "save_config"
]


def said(capsys, *words):
  """What a command line prints that runs nothing."""
  with pytest.raises(SystemExit) as info:
    main.ex.run_commandline(["main.py", *words])
  assert not info.value.code
  return capsys.readouterr().out


@pytest.fixture(autouse=True)
def called_main(monkeypatch):
  monkeypatch.setattr(sys, "argv", ["somewhere/main.py"])


def test_alone_it_lists_commands_and_configs(capsys):
  text = said(capsys)
  assert text.startswith("Usage: python main.py [COMMAND] with")
  for name in [*(set(COMMANDS) - {"help"}), *main.ex.named_configs]:
    assert re.search(rf"^  {name} +\S.*\.$", text, re.MULTILINE), name
  assert said(capsys, "--help") == said(capsys, "help") == text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(capsys, name):
  text = said(capsys, name, "--help")
  assert said(capsys, "help", name) == said(capsys, name, "-h") == text
  usage, _, first, *lines = text.splitlines()
  assert usage.startswith(f"python main.py {name} with")
  assert first[0].isupper() and first.endswith(".")
  table = dict(entries.flat())
  at = lines.index("Entries:")
  for line in lines[at + 1 : lines.index("", at)]:
    entry, _, rest = line.strip().partition(" ")
    assert table[entry].about in rest
    if entry not in ("seed", "checkpoint_dir"):
      assert f"= {table[entry].default!r}" in rest
  examples = lines[lines.index("Examples:") + 1 :]
  assert len(examples) == 2
  for example in examples:
    words = example.removeprefix("  python main.py ").split()
    assert (
      name in (words[0], "train")
      and help.answer(
        words, dict.fromkeys(COMMANDS, ""), dict(main.ex.named_configs)
      )
      is None
    )


def test_its_version_is_that_of_the_package(capsys, monkeypatch):
  assert said(capsys, "--version") == f"iodine-tf2 {iodine.__version__}\n"
  assert ast.literal_eval(repr(iodine.__version__)).count(".") == 2


@pytest.mark.parametrize(
  "words, part",
  [
    (
      ["evalute"],
      "no command `evalute`: did you mean `evaluate`? `python main",
    ),
    (["xyz", "with", "laptop"], "no command `xyz`: `python main.py` lists all"),
    (
      ["segment", "images=foo"],
      "missing before `images=foo`: `python main.py segment with images=foo`",
    ),
    (["laptop", "n_z=3"], "`python main.py with laptop n_z=3`"),
    (["n_z=3", "with", "laptop"], "`python main.py with n_z=3 laptop`"),
  ],
)
def test_a_command_line_that_makes_no_sense(capsys, words, part):
  assert part in helpers.fails_with_sentence(capsys, *words)


WITHOUT_TENSORFLOW = """
import sys
import main  # which looks whether TensorFlow is there
class Nothing:
  def find_spec(self, name, *_):
    if name == "tensorflow":
      raise SystemError("TensorFlow starts")
sys.meta_path.insert(0, Nothing())
main.ex.run_commandline(["main.py", *sys.argv[1:]])
"""


@pytest.mark.parametrize(
  "words",
  [
    "",
    "report --help",
    "segment",
    "segment with images=nowhere.png",
    "evaluate with checkpoint_dir=nowhere",
    "with tetrominoes data.path=nowhere.tfrecords",
    "with own data.path=nowhere",
    "with laptop n_z=0",
    "with laptop n_zz=3",
    "train",
  ],
)
def test_it_is_said_before_tensorflow_starts(words):
  command = [sys.executable, "-c", WITHOUT_TENSORFLOW, *words.split()]
  result = subprocess.run(
    command, cwd=help.__file__.rpartition("/iodine/")[0], capture_output=True
  )
  assert b"Traceback" not in result.stderr, result.stderr
  assert result.returncode == int(b"error: " in result.stderr)


def test_print_config_says_what_the_table_says(capsys):
  helpers.run_main("print_config", "with", "own", "data.path=x")
  text = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)
  for name, entry in (
    *entries.SECTIONS["Results"].items(),
    *entries.OF_NAMED["own"].items(),
  ):
    assert re.search(rf"^  {name} = .* # {re.escape(entry.about)}$", text, re.M)
