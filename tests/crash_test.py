"""Whenever a process is killed, nothing is lost and nothing is left over.

`crash/shim.c` kills a process before one of its file operations, or after half
of a write, for every one of them. What it leaves then is the old or the new of
every output; when the command has been run again all is as if there had been no
kill, to the bit.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import helpers
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import main
from iodine import checkpoints
from iodine.commands import make_data

CRASH = pathlib.Path(__file__).parent / "crash"
# Named by the time and the process; a run that goes on adds one.
EVENTS = re.compile(r".*events\.out\.tfevents\..*")
SECONDS = 300  # in which a child has to end

TINY = [
  "tetrominoes",
  *(f"{key}={value}" for key, value in helpers.TINY.items()),
  *("data.image_dim=[8,8]", "batch_size=2", "num_iters=1"),
  "data.shuffle_buffer=4",
]


class Operation(NamedTuple):
  """A line of the shim's log: what, how many bytes, where."""

  what: str
  size: int
  path: str


class Ended(NamedTuple):
  """How a child ended, what it had done, and what it said."""

  status: int
  operations: list[Operation]
  output: str


class Zygote:
  """Runs `crash/scenarios.py` in children that can be killed.

  Attributes:
    folder: that of the children, below which operations count.
  """

  def __init__(self, folder, shim):
    self.folder = folder / "work"
    self._log, self._output = folder / "log", folder / "output"
    self._process = subprocess.Popen(
      [sys.executable, str(CRASH / "zygote.py")],
      env={**os.environ, "LD_PRELOAD": str(shim)},
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    )
    assert self._process.stdout.readline() == "ready\n"

  def run(self, function, *arguments, at=0, half=False):
    """Runs a scenario; killed before operation `at` or in the half of it."""
    self._log.write_text("")
    request = {
      "function": function,
      "arguments": arguments,
      "folder": str(self.folder),
      "at": at,
      "half": half,
      "log": str(self._log),
      "output": str(self._output),
      "seconds": SECONDS,
    }
    print(json.dumps(request), file=self._process.stdin, flush=True)
    status = int(self._process.stdout.readline())
    lines = self._log.read_text().splitlines()
    operations = [
      Operation(what, int(size), path)
      for what, size, path in (line.split("\t") for line in lines)
    ]
    return Ended(status, operations, self._output.read_text())

  def end(self):
    self._process.stdin.close()
    assert self._process.wait(timeout=SECONDS) == 0


@pytest.fixture(scope="module")
def zygote(tmp_path_factory):
  compiler = shutil.which("cc") or shutil.which("gcc")
  if not sys.platform.startswith("linux") or compiler is None:
    pytest.skip("the shim needs Linux and a C compiler")
  folder = tmp_path_factory.mktemp("crash").resolve()
  shim = folder / "shim.so"
  libraries = ("-ldl", "-lpthread")
  subprocess.run(
    [compiler, "-shared", "-fPIC", "-o", shim, CRASH / "shim.c", *libraries],
    check=True,
  )
  zygote = Zygote(folder, shim)
  yield zygote
  zygote.end()


Tree = dict[str, bytes | None]


def read_tree(folder) -> Tree:
  """Returns {path: content} of all below a folder; None for folders."""
  return {
    str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
    for path in sorted(folder.rglob("*"))
  }


def write_tree(folder, tree: Tree):
  """Puts a tree in the place of what a folder holds."""
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir()
  for name, content in tree.items():
    if content is None:
      (folder / name).mkdir()
    else:
      (folder / name).write_bytes(content)


def part(tree: Tree, name: str) -> Tree:
  """Returns what a tree has of a file or a folder."""
  return {
    path: content
    for path, content in tree.items()
    if path == name or path.startswith(f"{name}/")
  }


def without_events(tree: Tree) -> Tree:
  return {k: v for k, v in tree.items() if not EVENTS.fullmatch(k)}


class Case(NamedTuple):
  """Something that may be killed.

  Attributes:
    function: of `crash/scenarios.py`.
    before: its arguments when it made what was there before; None for nothing.
    arguments: when it is killed.
    outputs: files and folders that are old or new at every moment.
    check_killed: more to hold of a tree that a kill left, takes the folder, how
      the child ended and how it ends where it is not killed.
    check_again: more to hold of the run after it; takes the folder, how the
      killed child and that after it ended, and the tree without a kill.
    is_exact: whether the tree at the end is the one without a kill to the bit;
      otherwise only the names of its files are.
  """

  function: str
  before: tuple[Any, ...] | None
  arguments: tuple[Any, ...]
  outputs: tuple[str, ...] = ()
  check_killed: Callable[..., None] = lambda *args: None
  check_again: Callable[..., None] = lambda *args: None
  is_exact: bool = True


def moments(operations, every=1):
  """Returns numbers of operations, and whether in the half of a write."""
  before = [(number, False) for number in range(1, len(operations) + 1)]
  half = [
    (number, True)
    for number, operation in enumerate(operations, 1)
    if operation.size > 1
  ]
  return sorted(before + half)[::every]


def kill_at_every_moment(zygote, case, start: Tree, every=1):
  """Kills a case at its moments and runs it again; returns their number.

  Args:
    zygote: see there.
    case: see there.
    start: what is in the folder before anything.
    every: takes only every so many-th moment.
  """
  folder = zygote.folder
  write_tree(folder, start)
  if case.before is not None:
    ended = zygote.run(case.function, *case.before)
    assert ended.status == 0, ended.output
  old = read_tree(folder)
  whole = zygote.run(case.function, *case.arguments)
  assert whole.status == 0, whole.output
  new = read_tree(folder)
  failures = []
  chosen = moments(whole.operations, every)
  seen = set()
  for at, half in chosen:
    operation = whole.operations[at - 1]
    write_tree(folder, old)
    killed = zygote.run(case.function, *case.arguments, at=at, half=half)
    tree = read_tree(folder)
    try:
      assert killed.status == -signal.SIGKILL, killed.output
      for name in case.outputs:
        versions = (part(old, name), part(new, name))
        assert part(tree, name) in versions, f"{name} is neither old nor new"
      case.check_killed(folder, killed, whole)
      # The same state need not go on twice.
      state = hash(tuple(sorted(without_events(tree).items(), key=repr)))
      if state not in seen:
        seen.add(state)
        again = zygote.run(case.function, *case.arguments)
        assert again.status == 0, again.output
        end, expected = (without_events(t) for t in (read_tree(folder), new))
        others = sorted(end.keys() ^ expected.keys())
        assert not others, f"left over or missing: {others}"
        for name in expected if case.is_exact else ():
          assert end[name] == expected[name], f"{name} is another one"
        case.check_again(folder, killed, again, new)
    except AssertionError as error:
      reason = str(error).split("\n")[0]
      where = f"{'in' if half else 'before'} {at}, {operation}"
      failures.append(f"{where}: {reason}")
  assert not failures, "\n".join(
    [f"{len(failures)} of {len(chosen)} kills:", *failures]
  )
  return len(chosen)


def tensors(prefix):
  """Returns all tensors of a checkpoint."""
  reader = tf.train.load_checkpoint(str(prefix))
  names = reader.get_variable_to_shape_map()
  return {name: reader.get_tensor(name) for name in names}


def assert_same_tensors(actual, expected):
  assert actual.keys() == expected.keys()
  for name, value in expected.items():
    # NaN would be equal to NaN here.
    assert np.asarray(actual[name]).tobytes() == np.asarray(value).tobytes(), (
      f"{name} differs"
    )


def steps_in(pattern, output):
  return [int(step) for step in re.findall(pattern, output)]


class TestShim:
  """What it sees and does."""

  def test_it_ends_a_process_before_an_operation(self, zygote):
    write_tree(zygote.folder, {})
    whole = zygote.run("replace_file", "x", "a")
    what = [x.what for x in whole.operations]
    assert {"open", "write", "close", "rename"} <= set(what)
    at = what.index("rename") + 1
    write_tree(zygote.folder, {})
    killed = zygote.run("replace_file", "x", "a", at=at)
    assert killed.status == -signal.SIGKILL
    assert len(killed.operations) == at
    (content,) = [v for v in read_tree(zygote.folder).values() if v]
    assert len(content) == 50_000

  def test_it_ends_a_process_in_the_middle_of_a_write(self, zygote):
    write_tree(zygote.folder, {})
    whole = zygote.run("replace_file", "x", "a")
    at = [x.what for x in whole.operations].index("write") + 1
    write_tree(zygote.folder, {})
    assert zygote.run("replace_file", "x", "a", at=at, half=True).status < 0
    (content,) = [v for v in read_tree(zygote.folder).values() if v]
    assert len(content) == 25_000

  def test_it_sees_what_tensorflow_writes(self, zygote):
    write_tree(zygote.folder, {})
    ended = zygote.run("save", "run", 1)
    written = {x.path for x in ended.operations if x.what == "write"}
    assert any(path.endswith("ckpt-1.index") for path in written)
    assert any("ckpt-1_temp/part-00000" in path for path in written)


def check_saved(folder, killed, whole):
  """What was saved can be read, and is what it was."""
  saved = steps_in(r"saved (\d+)", killed.output)
  if saved:
    newest = int(checkpoints.find(str(folder / "run")).rpartition("-")[2])
    assert newest >= saved[-1], f"ckpt-{saved[-1]} was saved"


def check_went_on(folder, killed, again, new):
  """It went on from the last save, and all tensors are the same."""
  saved = steps_in(r"saved (\d+)", killed.output)
  (start,) = steps_in(r"from (\d+)", again.output)
  assert start >= max(saved, default=0), f"went on from {start} only"
  check_tensors(folder / "run", part(new, "run"))


def check_tensors(run, new):
  """All checkpoints of a run are those of the run that nobody killed."""
  expected = run.parents[1] / "expected"
  write_tree(expected, {"run": None, **new})
  for path in expected.rglob("*.index"):
    name = path.relative_to(expected / "run").with_suffix("")
    assert_same_tensors(tensors(run / name), tensors(path.with_suffix("")))


# Five saves, of which the last three prune.
SAVE = Case(
  "save",
  None,
  ("run", 5),
  check_killed=check_saved,
  check_again=check_went_on,
  is_exact=False,  # state files have the time
)


def check_export(folder, killed, whole):
  """A TF1 checkpoint is read as the old one or the new one."""
  prefix = str(folder / "tf1/model.ckpt")
  opened = checkpoints.open_checkpoint(prefix)
  value = {name: opened.read(name) for name in opened.shapes}
  versions = []
  for seed in (0, 1):
    model = helpers.tiny_model()
    model.initialize((8, 8, 3))
    helpers.perturb(model, seed)
    versions.append(model)
  expected = [
    {k: v.numpy() for k, v in checkpoints.model_variables(m).items()}
    for m in versions
  ]
  assert any(
    all(np.array_equal(value[k], v) for k, v in version.items())
    for version in expected
  ), "neither old nor new"


class TestShort:
  """Files, folders, saves: a part of what the slow tests kill."""

  def test_a_file_that_is_replaced(self, zygote):
    case = Case("replace_file", ("x", "a"), ("x", "b"), outputs=("x",))
    assert kill_at_every_moment(zygote, case, {}) >= 5

  def test_a_folder_that_is_replaced(self, zygote):
    case = Case("replace_folder", ("d", "a"), ("d", "b"), outputs=("d",))
    assert kill_at_every_moment(zygote, case, {}) >= 12

  def test_a_folder_that_is_new(self, zygote):
    case = Case("new_folder", None, ("d", "b"), outputs=("d",))
    # Made again it would be there already.
    assert kill_at_every_moment(zygote, case, {}) >= 7

  def test_saves_and_prunes(self, zygote):
    assert kill_at_every_moment(zygote, SAVE, {}, every=17) >= 15

  def test_an_export_that_is_replaced(self, zygote):
    case = Case(
      "export",
      ("tf1/model.ckpt", 0),
      ("tf1/model.ckpt", 1),
      check_killed=check_export,
    )
    assert kill_at_every_moment(zygote, case, {}, every=3) >= 8
