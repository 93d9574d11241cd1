"""A process that has imported TensorFlow and forks others, which begin there.

Each line of its input is a request, JSON as `harness.Zygote` writes it; each
line of its output the status of the child that took it. No operation of
TensorFlow is computed before a fork, since its threads would not be in the
child.
"""

import ctypes
import importlib
import json
import os
import pathlib
import signal
import sys
import traceback

_TESTS = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(_TESTS.parent), str(_TESTS), str(_TESTS / "crash")]

# As main.py asks for it.
os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


def _import_all():
  for path in sorted((_TESTS.parent / "iodine/commands").glob("[a-z]*.py")):
    importlib.import_module(f"iodine.commands.{path.stem}")
  importlib.import_module("scenarios")


def _child(request):
  """Does what was asked; never returns."""
  status = 1
  try:
    signal.alarm(request["seconds"])  # whose default is the end
    os.chdir(request["folder"])
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
      os.dup2(output, number)
    function = getattr(sys.modules["scenarios"], request["function"])
    ctypes.CDLL(None).crash_arm(
      request["folder"].encode(),
      ctypes.c_long(request["at"]),
      ctypes.c_int(request["half"]),
      request["log"].encode(),
    )
    function(*request["arguments"])
    status = 0
  except SystemExit as end:
    status = end.code if isinstance(end.code, int) else 1
  except BaseException:
    traceback.print_exc()
  finally:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main():
  replies = os.fdopen(os.dup(1), "w")
  _import_all()
  print("ready", file=replies, flush=True)
  for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if not child:
      _child(request)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), file=replies, flush=True)


main()
