"""What is done while `tests/crash_test.py` ends the process, in its folder."""

import ctypes
import os
import shutil

import helpers
import sonnet as snt
import tensorflow as tf

import main
from iodine import building, checkpoints, files

SIZE = 50_000  # bytes of a file, more than fits into a buffer
TINY = helpers.tiny_config()["model"]  # once for all children


def command(*arguments):
  """Runs `python main.py ARGUMENTS`."""
  helpers.run_main(*arguments)


def all_operations():
  """Does everything once that the shim looks for."""
  with open("a", "wb") as file:
    file.write(b"12345678")
    file.flush()
    os.fsync(file.fileno())
    os.pwrite(file.fileno(), b"9", 8)
    os.writev(file.fileno(), [b"10", b"11"])
    os.ftruncate(file.fileno(), 4)
    os.fchmod(file.fileno(), 0o600)
  os.truncate("a", 2)
  os.chmod("a", 0o644)
  os.link("a", "b")
  os.symlink("a", "c")
  os.rename("b", "d")
  os.replace("d", "e")
  shutil.copyfile("a", "f")
  # As Python has no name for it: atomically, one in the place of the other.
  exchange = ctypes.CDLL(None, use_errno=True).renameat2
  assert exchange(-100, b"e", -100, b"f", 2) == 0
  os.mkdir("g")
  folder = os.open("g", os.O_RDONLY)
  os.close(os.open("h", os.O_WRONLY | os.O_CREAT, dir_fd=folder))
  os.unlink("h", dir_fd=folder)
  os.close(folder)
  os.rmdir("g")
  os.unlink("c")
  # TensorFlow's, by streams of C.
  tf.io.gfile.makedirs("i/j")
  tf.io.write_file("i/j/k", "123")
  tf.io.gfile.rename("i/j/k", "i/l")
  tf.io.gfile.rmtree("i")
  # What changes nothing is none of them.
  with open("a", "rb") as file:
    file.read()
  os.listdir(".")
  with open(os.devnull, "wb") as file:
    file.write(b"1")


def replace_file(path, content):
  """Writes a file over an older one."""
  files.write(path, content * SIZE)


def replace_folder(folder, content):
  """Writes a folder over an older one."""
  with files.replaced_folder(folder) as temporary:
    for name in ("a", content):
      with open(os.path.join(temporary, name), "w") as file:
        file.write(content * SIZE)


def new_folder(folder, content):
  """Writes a folder where there is none."""
  with files.new_folder(folder) as temporary:
    files.write(os.path.join(temporary, "a"), content * SIZE)


class Model(snt.Module):
  """Stands in for a model in a store of checkpoints."""

  def __init__(self):
    super().__init__()
    self.weights = tf.Variable(tf.zeros([1000]))

  def require_variables(self):
    pass


class Optimizer(snt.Module):
  """Stands in for an optimizer."""

  def __init__(self):
    super().__init__()
    self.global_step = tf.Variable(0, dtype=tf.int64)


def save(folder, last_step):
  """Trains to a step, saves at every one, and goes on from what is there.

  Every loss is the lowest so far, so that the best checkpoint moves, too.
  """
  model, optimizer = Model(), Optimizer()
  store = checkpoints.CheckpointStore(folder, model, optimizer, max_to_keep=2)
  if store.latest is not None:
    store.go_on(store.restore())
  files.write_json(os.path.join(folder, "config.json"), {})
  step = optimizer.global_step
  print(f"from {step.numpy()}", flush=True)
  while step < last_step:
    step.assign_add(1)
    noise = tf.random.stateless_normal([1000], [0, step])
    model.weights.assign(tf.sin(model.weights) + noise)
    store.save(mean_loss=-float(step.numpy()))
    print(f"saved {step.numpy()}", flush=True)


def export(prefix, value):
  """Writes a TF1 checkpoint of a model whose variables are one number."""
  model = building.build(TINY)
  model.initialize((8, 8, 3))
  for variable in model.variables:
    variable.assign(tf.fill(variable.shape, value))
  checkpoints.export(prefix, model)


def cache(folder, path):
  """Keeps decoded scenes in a folder, and reads some."""
  updates = {"data.cache": folder, "data.path": path, "batch_size": 2}
  config = main.get_config(("tetrominoes",), updates)
  batch = next(iter(building.build(config["data"]).batches("test")))
  print("sum", tf.reduce_sum(batch["image"]).numpy(), flush=True)
