"""Whenever a process is killed, nothing is lost and nothing is left over.

`crash/shim.c` kills a process before one of its file operations, or after half
of a write, for every one of them. What it leaves then is the old or the new of
every output; when the command has been run again all is as if there had been no
kill, to the bit.
"""

import concurrent.futures
import itertools
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
TIME = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC")
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
    self._process.kill()
    self._process.communicate()


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
  """The compiled shim."""
  compiler = shutil.which("cc") or shutil.which("gcc")
  if not sys.platform.startswith("linux") or compiler is None:
    pytest.skip("the shim needs Linux and a C compiler")
  shim = tmp_path_factory.mktemp("shim") / "shim.so"
  libraries = ("-ldl", "-lpthread")
  subprocess.run(
    [compiler, "-shared", "-fPIC", "-o", shim, CRASH / "shim.c", *libraries],
    check=True,
  )
  return shim


@pytest.fixture(scope="module")
def zygote(tmp_path_factory, shim):
  zygote = Zygote(tmp_path_factory.mktemp("crash").resolve(), shim)
  yield zygote
  zygote.end()


@pytest.fixture(scope="module")
def second_zygote(tmp_path_factory, shim):
  """For tests that have two cores for themselves."""
  zygote = Zygote(tmp_path_factory.mktemp("crash").resolve(), shim)
  yield zygote
  zygote.end()


Tree = dict[str, bytes | None]


def read_tree(folder) -> Tree:
  """Returns {path: content} of all below a folder; None for folders."""
  return {
    # Pages say when they were written.
    str(path.relative_to(folder)): TIME.sub(b"then", path.read_bytes())
    if path.is_file()
    else None
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


def without_number(name):
  """Returns a name without the number of its checkpoint's files of tensors."""
  return re.sub(r"\.data-\d+-of-\d+$", ".data", name)


class Case(NamedTuple):
  """Something that may be killed.

  Attributes:
    function: of `crash/scenarios.py`.
    before: its arguments when it made what was there before; None for nothing.
    arguments: when it is killed.
    outputs: files and folders that are old or new at every moment.
    check_killed: more to hold of a tree that a kill left; takes the folder and
      how the child ended.
    check_again: more to hold of the run after it; takes the folder, how the
      killed child and that after it ended, and the tree without a kill.
    again: arguments of the run after it, which has something left to do; None
      for the same.
    reads: what is read, and nothing written, where it is there; empty for
      nothing.
    is_exact: whether the tree at the end is the one without a kill to the bit;
      otherwise only the names of its files are.
  """

  function: str
  before: tuple[Any, ...] | None
  arguments: tuple[Any, ...]
  outputs: tuple[str, ...] = ()
  check_killed: Callable[..., None] = lambda *args: None
  check_again: Callable[..., None] = lambda *args: None
  again: tuple[Any, ...] | None = None
  reads: str = ""
  is_exact: bool = True


def moments(operations, most=None):
  """Returns numbers of operations, and whether in the half of a write.

  Args:
    operations: all of a case.
    most: how many are chosen, at even distances; None for all.
  """
  before = [(number, False) for number in range(1, len(operations) + 1)]
  half = [
    (number, True)
    for number, operation in enumerate(operations, 1)
    if operation.size > 1
  ]
  every = sorted(before + half)
  if most is None:
    return every
  places = np.linspace(0, len(every), most + 2)[1:-1]
  return [every[int(place)] for place in places]


def kill_at_every_moment(zygotes, case, start: Tree, most=None):
  """Kills a case at its moments and runs it again; returns their number.

  Args:
    zygotes: of which each takes a part of the moments.
    case: see there.
    start: what is in the folder before anything.
    most: see `moments`.
  """
  first = zygotes[0]
  write_tree(first.folder, start)
  if case.before is not None:
    ended = first.run(case.function, *case.before)
    assert ended.status == 0, ended.output
  old = read_tree(first.folder)
  whole = first.run(case.function, *case.arguments)
  assert whole.status == 0, whole.output
  new = end = read_tree(first.folder)
  if case.again is not None:
    ended = first.run(case.function, *case.again)
    assert ended.status == 0, ended.output
    end = read_tree(first.folder)
  chosen = moments(whole.operations, most)

  def kill_some(zygote, some):
    failures = []
    for at, half in some:
      try:
        kill(zygote, case, (old, new, end), at, half)
      except (AssertionError, pytest.fail.Exception) as error:
        reason = str(error).split("\n")[0]
        where = "in" if half else "before"
        failures.append(f"{where} {at}, {whole.operations[at - 1]}: {reason}")
    return failures

  parts = [chosen[i :: len(zygotes)] for i in range(len(zygotes))]
  with concurrent.futures.ThreadPoolExecutor(len(zygotes)) as pool:
    failures = list(itertools.chain(*pool.map(kill_some, zygotes, parts)))
  assert not failures, "\n".join(
    [f"{len(failures)} of {len(chosen)} kills:", *failures]
  )
  return len(chosen)


def kill(zygote, case, trees, at, half):
  """Kills a case once, looks at what is there, and runs it again."""
  folder = zygote.folder
  old, new, end = trees
  write_tree(folder, old)
  killed = zygote.run(case.function, *case.arguments, at=at, half=half)
  assert killed.status == -signal.SIGKILL, killed.output[-1000:]
  tree = read_tree(folder)
  for name in case.outputs:
    versions = (part(old, name), part(new, name))
    assert part(tree, name) in versions, f"{name} is neither old nor new"
  case.check_killed(folder, killed)
  again = zygote.run(case.function, *(case.again or case.arguments))
  assert again.status == 0, again.output[-1000:]
  actual, expected = (
    {without_number(k): v for k, v in without_events(t).items()}
    for t in (read_tree(folder), end)
  )
  others = actual.keys() ^ expected.keys()
  if case.reads and part(tree, case.reads):
    # Whoever writes clears, not readers.
    others = expected.keys() - actual.keys()
  assert not others, f"left over or missing: {sorted(others)}"
  for name in expected if case.is_exact else ():
    assert actual[name] == expected[name], f"{name} is another one"
  case.check_again(folder, killed, again, end)


def tensors(prefix):
  """Returns all tensors of a checkpoint."""
  reader = tf.train.load_checkpoint(str(prefix))
  names = reader.get_variable_to_shape_map()
  # TensorFlow's own count of saves since the process began.
  names.pop("save_counter/.ATTRIBUTES/VARIABLE_VALUE", None)
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


# What `scenarios.all_operations` does.
EVERYTHING = [
  *("open /a", "write /a", "sync /a", "write /a"),
  *("truncate /a", "chmod /a", "close /a", "truncate /a", "chmod /a"),
  *("link /b", "symlink /c", "rename /d", "rename /e"),
  *("open /f", "write /f", "close /f", "rename /f"),
  *("mkdir /g", "open /g/h", "close /g/h", "remove /g/h", "rmdir /g"),
  *("remove /c", "mkdir /i", "mkdir /i/j"),
  *("open /i/j/k", "write /i/j/k", "close /i/j/k", "rename /i/l"),
  *("remove /i/l", "rmdir /i/j", "rmdir /i"),
]


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

  def test_it_sees_everything_that_changes_something(self, zygote):
    write_tree(zygote.folder, {})
    ended = zygote.run("all_operations")
    assert ended.status == 0, ended.output
    done = [f"{what} {path}" for what, _, path in ended.operations]
    # A copy may need several writes.
    done = [line for line, _ in itertools.groupby(done)]
    assert "\n".join(done) == "\n".join(EVERYTHING)

  def test_it_sees_what_tensorflow_writes(self, zygote):
    write_tree(zygote.folder, {})
    ended = zygote.run("save", "run", 1)
    written = {x.path for x in ended.operations if x.what == "write"}
    assert any(path.endswith("ckpt-1.index") for path in written)
    assert any("ckpt-1_temp/part-00000" in path for path in written)


def check_saved(folder, killed):
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
  write_tree(expected, new)
  for path in expected.rglob("*.index"):
    name = path.relative_to(expected / run.name).with_suffix("")
    assert_same_tensors(tensors(run / name), tensors(path.with_suffix("")))


# Five saves, of which the last three prune.
SAVE = Case(
  "save",
  None,
  ("run", 5),
  check_killed=check_saved,
  check_again=check_went_on,
  again=("run", 6),
  is_exact=False,  # state files have the time
)


def exported_number(prefix):
  """Returns the number that all tensors of `scenarios.export` are."""
  found = tensors(prefix)
  found.pop("global_step")
  (number,) = {float(x) for value in found.values() for x in np.unique(value)}
  return number


def check_export(folder, killed):
  """A TF1 checkpoint is read as the old one or the new one."""
  try:
    number = exported_number(folder / "tf1/model.ckpt")
  except (tf.errors.OpError, ValueError) as error:
    pytest.fail(f"neither old nor new: {error}")
  assert number in (1.0, 2.0)


def check_exported(folder, killed, again, new):
  """It is the new one, and there are no files of others."""
  assert exported_number(folder / "tf1/model.ckpt") == 2.0
  names = os.listdir(folder / "tf1")
  found = [re.fullmatch(r".*\.data-\d+-of-(\d+)", name) for name in names]
  numbers = [int(match[1]) for match in found if match]
  assert numbers == [len(numbers)] * len(numbers), names


EXPORT = Case(
  "export",
  ("tf1/model.ckpt", 1.0),
  ("tf1/model.ckpt", 2.0),
  check_killed=check_export,
  check_again=check_exported,
  is_exact=False,
)


class TestShort:
  """Files, folders, saves: a part of what the slow tests kill."""

  def test_a_file_that_is_replaced(self, zygote):
    case = Case("replace_file", ("x", "a"), ("x", "b"), outputs=("x",))
    assert kill_at_every_moment([zygote], case, {}) >= 5

  def test_a_folder_that_is_replaced(self, zygote):
    case = Case("replace_folder", ("d", "a"), ("d", "b"), outputs=("d",))
    assert kill_at_every_moment([zygote], case, {}) >= 12

  def test_a_folder_that_is_new(self, zygote):
    case = Case("new_folder", None, ("d", "b"), outputs=("d",))
    assert kill_at_every_moment([zygote], case, {}) >= 7

  def test_saves_and_prunes(self, zygote):
    assert kill_at_every_moment([zygote], SAVE, {}, most=6) == 6

  def test_an_export_that_is_replaced(self, zygote):
    assert kill_at_every_moment([zygote], EXPORT, {}, most=3) == 3


# -------------------------------------------------------------------- commands


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Tree:
  """Scenes, an image, and a checkpoint with its config."""
  folder = tmp_path_factory.mktemp("start")
  config = main.get_config(("tetrominoes",))
  make_data.make_data(config["data"], str(folder), 12, 0)
  os.rename(folder / "tetrominoes_train.tfrecords", folder / "scenes")
  (folder / "photos").mkdir()
  pixels = np.random.default_rng(0).integers(0, 256, [8, 8, 3])
  image = PIL.Image.fromarray(pixels.astype(np.uint8))
  image.save(folder / "photos/0.png")
  updates = {"data.image_dim": [8, 8], "batch_size": 2, "num_iters": 1}
  updates = {**helpers.TINY, **updates, "data.path": "scenes"}
  config = main.get_config(("tetrominoes",), updates)
  helpers.save_checkpoint(folder / "a", config)
  (folder / "a/config.json").write_text(json.dumps(config))
  return read_tree(folder)


def words(command, *options):
  """Returns the arguments of `scenarios.command`; none is the training."""
  return (*command.split(), "with", *TINY, "data.path=scenes", *options)


def with_seeds(command, *options):
  """Returns a command before and when it is killed, which differ by a seed."""
  return (
    words(command, "seed=1", *options),
    words(command, "seed=2", *options),
  )


RUN = [
  *("save_checkpoint_steps=1", "save_summaries_steps=1"),
  *("save_images_steps=2", "seed=1"),
]
PICTURES = [f"pictures/{x}.png" for x in ("overview", "sequence", "samples")]


def check_continued(folder, killed, again, new):
  """It went on from the newest checkpoint, and all tensors are the same."""
  (start,) = steps_in(r"continuing from run_1/ckpt-(\d+)", again.output) or [0]
  done = steps_in(r"step (\d+)/", killed.output)
  # A step is reported before it is saved.
  assert start >= max(done, default=5) - 1, f"went on from {start} only"
  check_tensors(folder / "run_1", part(new, "run_1"))


CASES = {
  "saves": SAVE,
  "export_tf1": EXPORT,
  "train": Case(
    "command",
    words("", *RUN, "stop_after_steps=5", "checkpoint_dir=run"),
    words(
      *("", *RUN, "stop_after_steps=6", "checkpoint_dir=run_1"),
      "continue_run=True",
    ),
    check_again=check_continued,
    again=words(
      *("", *RUN, "stop_after_steps=7", "checkpoint_dir=run_1"),
      "continue_run=True",
    ),
    is_exact=False,
  ),
  "evaluate": Case(
    "command",
    *with_seeds(
      *("evaluate", "checkpoint_dir=a", "evaluation.num_scenes=2"),
      *("json_path=e.json", "csv_path=e.csv"),
    ),
    outputs=("e.json", "e.csv", *(f"a/{x}" for x in PICTURES)),
  ),
  "report": Case(
    "command",
    *with_seeds(
      *("report", "checkpoint_dir=a", "evaluation.num_scenes=2"),
      *("json_path=r.json", "plot.scenes=[]", "plot.num_scenes_for_map=2"),
      "output=report.html",
    ),
    outputs=("report.html", "r.json"),
  ),
  "segment": Case(
    "command",
    *with_seeds(
      *("segment", "checkpoint_dir=a", "images=photos", "output=segments"),
      "json_path=s.json",
    ),
    outputs=("segments/0", "s.json"),
  ),
  "export_savedmodel": Case(
    "command",
    None,
    words("export_savedmodel", "checkpoint_dir=a", "output=saved"),
    is_exact=False,
  ),
  "cache": Case(
    "cache",
    None,
    ("cache", "scenes"),
    outputs=("cache/test",),
    reads="cache/test",
  ),
  "make_data": Case(
    "command",
    *with_seeds("make_data", "data_dir=made", "num_scenes=3"),
    outputs=("made/tetrominoes_train.tfrecords",),
  ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_moment(zygote, second_zygote, start, name):
  zygotes = [zygote, second_zygote]
  number = kill_at_every_moment(zygotes, CASES[name], start)
  print(f"{name}: {number} kills")


@pytest.mark.slow
def test_a_run_that_is_killed_is_the_run_that_is_not(zygote, start):
  """That of one process, which never restores anything."""
  folder = zygote.folder
  trees = []
  for last_steps in ((5, 6), (6,)):
    write_tree(folder, start)
    name, more = "run", ()
    for last in last_steps:
      options = (f"stop_after_steps={last}", f"checkpoint_dir={name}")
      ended = zygote.run("command", *words("", *RUN, *options, *more))
      assert ended.status == 0, ended.output
      name, more = "run_1", ("continue_run=True",)
    trees.append(part(read_tree(folder), "run_1"))
  check_tensors(folder / "run_1", trees[0])
