"""One training on several devices and machines, by `tf.distribute`.

A replica is a copy of the model on one device. Each sees an equal part of every
batch, and all of them make the same update. A worker is a process with one or
more replicas; the first of several, the chief, is the one that writes.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import tensorflow as tf

from iodine import errors, kinds
from iodine.modules import types

# So few that a sum over all workers is an int64.
_DIGEST_BYTES = 6

# What operations end in that wait for a worker which does not answer.
_LOST = (
  tf.errors.UnavailableError,
  tf.errors.AbortedError,
  tf.errors.CancelledError,
  tf.errors.DeadlineExceededError,
  tf.errors.InternalError,
)


def make_strategy(config: Mapping[str, Any]) -> tf.distribute.Strategy:
  """Returns where a training runs.

  Several workers have to make theirs before TensorFlow computes anything.

  Args:
    config: with `strategy`: None for one device, "mirrored" for all devices of
      this machine, "multi_worker" for the processes that TF_CONFIG or Slurm
      tells; `virtual_devices`: of how many the CPU consists that "mirrored" is
      to use; and `worker_timeout`: seconds that workers wait for each other;
      the process ends then.
  """
  name, virtual_devices = config["strategy"], config["virtual_devices"]
  if name == "multi_worker":
    cluster = find_cluster()
    with (
      _patience(cluster, config["worker_timeout"]),
      errors.as_user_error(
        (tf.errors.UnknownError,),
        lambda error: (
          f"this worker cannot listen at its address ({errors.reason(error)}): "
          "give one of this machine, with a port that is free"
        ),
      ),
    ):
      return tf.distribute.MultiWorkerMirroredStrategy(cluster)
  if name == "mirrored":
    devices = tf.config.list_logical_devices("GPU")
    if virtual_devices is not None or not devices:
      devices = tf.config.list_logical_devices("CPU")[:virtual_devices]
    if len(devices) > 1:
      return tf.distribute.MirroredStrategy([device.name for device in devices])
  return tf.distribute.get_strategy()


@contextlib.contextmanager
def _patience(
  cluster: tf.distribute.cluster_resolver.ClusterResolver, seconds: float
) -> Iterator[None]:
  """Ends the process where the workers have not met after so long."""
  addresses = cluster.cluster_spec().as_dict()
  # In advance, since nothing can be said from where TensorFlow waits: for an
  # hour, and holding Python's lock, so that no signal nor thread gets a turn.
  print(
    f"waiting for the workers {addresses}: where they do not meet within "
    f"{seconds:g} s this one ends, so start them together or give a longer "
    "`worker_timeout`",
    flush=True,
  )
  with open(os.devnull, "w") as nowhere:
    faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
    try:
      yield
    finally:
      faulthandler.cancel_dump_traceback_later()


def find_cluster() -> tf.distribute.cluster_resolver.ClusterResolver:
  """Finds out which workers there are, and which one this is."""
  resolvers = tf.distribute.cluster_resolver
  if "TF_CONFIG" in os.environ:
    _check_cluster(os.environ["TF_CONFIG"])
    return resolvers.TFConfigClusterResolver()
  if "SLURM_PROCID" not in os.environ:
    raise errors.UserError(
      "`strategy` is 'multi_worker', and neither TF_CONFIG nor Slurm tells of "
      "other workers: start it as docs/scaling.md shows, or use "
      "`strategy=mirrored` for the devices of one machine"
    )
  # Slurm has told each task its GPUs. These numbers only say how many tasks
  # a machine may have, for which nvidia-smi is asked otherwise.
  cluster = resolvers.SlurmClusterResolver(
    gpus_per_node=1024, gpus_per_task=1, auto_set_gpu=False
  )
  cluster.cluster_spec()  # which is when Slurm is asked
  return cluster


def _check_cluster(text: str) -> None:
  """Raises a UserError where TF_CONFIG is not as docs/scaling.md shows it."""
  with errors.as_user_error(
    (ValueError, LookupError, TypeError),
    lambda error: (
      f"TF_CONFIG is {errors.shorten(text)} ({errors.reason(error)}): give JSON"
      ' as {"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type":'
      ' "worker", "index": NUMBER}}, the number being that of this worker'
    ),
  ):
    told = json.loads(text)
    workers, task = told["cluster"]["worker"], told["task"]
    known = kinds.fits(workers, list[str]) and {*told["cluster"]} == {"worker"}
    ports = [int(address.rpartition(":")[2]) for address in workers if known]
    alone = len({*map(str, workers)}) == len(workers)
    if not (known and alone and all(0 < port < 2**16 for port in ports)):
      raise ValueError(f"workers {told['cluster']}")
    index = Annotated[int, kinds.AtLeast(0), kinds.Below(len(workers))]
    if task["type"] != "worker" or not kinds.fits(task["index"], index):
      raise ValueError(f"task {task}")


def is_chief(config: Mapping[str, Any]) -> bool:
  """Returns whether this process writes, without making its strategy."""
  return config["strategy"] != "multi_worker" or not find_cluster().task_id


def check_batch_size(strategy: tf.distribute.Strategy, batch_size: int) -> None:
  """Raises a UserError where replicas cannot have equal parts of a batch."""
  number = strategy.num_replicas_in_sync
  if batch_size % number:
    raise errors.UserError(
      f"`batch_size` is {batch_size}: give a multiple of {number}, the number "
      "of replicas that share a batch"
    )


def check_refinement_batch_size(
  strategy: tf.distribute.Strategy, size: int | None
) -> None:
  """Raises a UserError where replicas see parts of a batch of unknown size."""
  if size is None and strategy.num_replicas_in_sync > 1:
    raise errors.UserError(
      "`model.refinement_batch_size` is None: give a size, since with "
      "`strategy` replicas see a part of the batch"
    )


@contextlib.contextmanager
def scope(strategy: tf.distribute.Strategy) -> Iterator[None]:
  """Has every replica keep a copy of the variables that are made here.

  A replica changes its own copy; they stay equal since all make the same
  update. `snt.distribute.Replicator` does so for the devices of one machine.
  """
  with strategy.scope(), contextlib.ExitStack() as stack:
    if tf.distribute.has_strategy():
      stack.enter_context(tf.variable_creator_scope(_make_local_variable))
    yield


def _make_local_variable(
  next_creator: Callable[..., Any], **options: Any
) -> Any:
  options["synchronization"] = tf.VariableSynchronization.ON_READ
  options["aggregation"] = tf.VariableAggregation.ONLY_FIRST_REPLICA
  # TensorFlow takes such variables for statistics otherwise.
  options["trainable"] = options.get("trainable") in (None, True)
  return next_creator(**options)


# ----------------------------------------------------------- within a replica


def batch_part(data: dict[str, Any]) -> types.BatchPart | None:
  """Returns which part of a batch a replica has, None for all of it.

  Args:
    data: the part, see `IODINE.__call__`.
  """
  context = tf.distribute.get_replica_context()
  if context.num_replicas_in_sync == 1:
    return None
  number = context.replica_id_in_sync_group
  num_parts = context.num_replicas_in_sync
  if "visibility" not in data:
    return types.BatchPart(number, num_parts, tf.zeros([0, 0]), {})
  # As one tensor, since each that is gathered has to wait for all replicas.
  columns = [data["visibility"][..., None], *data["factors"].values()]
  packed = tf.concat([tf.cast(x, tf.float32) for x in columns], axis=-1)
  size = num_parts * packed.shape[0]
  gathered = context.all_gather(packed, axis=0)
  gathered = tf.ensure_shape(gathered, [size, *packed.shape[1:]])
  sizes = [x.shape[-1] for x in columns]
  visibility, *others = tf.split(gathered, sizes, axis=-1)
  factors = dict(zip(data["factors"], others, strict=True))
  return types.BatchPart(number, num_parts, visibility[..., 0], factors)


def mean(structure: Any) -> Any:
  """Returns the means of float32 tensors over all replicas."""
  context = tf.distribute.get_replica_context()
  if context.num_replicas_in_sync == 1:
    return structure
  return context.all_reduce(tf.distribute.ReduceOp.MEAN, structure)


def divided(
  strategy: tf.distribute.Strategy, function: Callable[..., Any]
) -> Callable[..., Any]:
  """Returns a function whose arguments the replicas share among them.

  Args:
    strategy: where it runs.
    function: of nested tensors [B, ...], to a nest of such tensors. Its values
      for an image may not depend on others. What is returned raises a UserError
      where replicas cannot have equal parts of a batch.
  """
  if strategy.num_replicas_in_sync == 1:
    return function

  def part(*whole: Any) -> Any:
    context = tf.distribute.get_replica_context()
    number = context.replica_id_in_sync_group
    parts = [context.num_replicas_in_sync, -1]
    own = tf.nest.map_structure(
      lambda x: tf.reshape(x, [*parts, *x.shape[1:]])[number], whole
    )
    return context.all_gather(function(*own), axis=0)

  def all_parts(*whole: Any) -> Any:
    check_batch_size(strategy, tf.nest.flatten(whole)[0].shape[0])
    gathered = strategy.run(part, args=whole)
    return tf.nest.map_structure(
      lambda x: strategy.experimental_local_results(x)[0], gathered
    )

  return all_parts


# ----------------------------------------------------------- between processes


class Workers:
  """The processes that train together.

  Attributes:
    number: how many.
    is_chief: whether this is the one that writes.
  """

  def __init__(self, strategy: tf.distribute.Strategy):
    """Asks a strategy for them."""
    num_replicas = strategy.num_replicas_in_sync
    self._num_local = num_replicas
    if num_replicas > 1:  # TensorFlow's default strategy has no devices
      self._num_local = len(strategy.extended.worker_devices)
    self.number = num_replicas // self._num_local
    self.is_chief = not getattr(strategy.cluster_resolver, "task_id", 0)

    def add_all(value: tf.Tensor) -> tf.Tensor:
      # The argument itself is on no device.
      values = strategy.run(tf.identity, args=(value,))
      return strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)

    self._sum_of_replicas = tf.function(add_all, autograph=False)

  def total(self, value: int) -> int:
    """Returns the sum of all workers' values; waits for all of them."""
    if self.number == 1:
      return value
    total = self._sum_of_replicas(tf.constant(value, tf.int64))
    return int(total) // self._num_local

  def of_chief(self, value: int) -> int:
    """Returns the chief's value; waits for all workers."""
    return self.total(value if self.is_chief else 0)

  def check_alike(self, text: str) -> None:
    """Raises a UserError at every worker where they do not have one text."""
    digest = hashlib.sha256(text.encode()).digest()[:_DIGEST_BYTES]
    own = int.from_bytes(digest, "big")
    if self.total(int(own != self.of_chief(own))):
      raise errors.UserError(
        "the workers have unlike configs: start all of them with the same "
        "command"
      )

  def chief_first(self, prepare: Callable[[], Any]) -> Any:
    """Returns what a function gives, which the chief calls before the others.

    What it makes and leaves in a file, the others find there.
    """
    if not self.is_chief:
      self.total(0)
    result = prepare()
    if self.is_chief:
      self.total(0)
    return result

  def explained_loss(
    self, remedy: Callable[[], str]
  ) -> contextlib.AbstractContextManager[None]:
    """Turns what TensorFlow says when a worker has gone into a UserError.

    Args:
      remedy: says how to go on.
    """

    def explain(error: Exception) -> str | None:
      # An internal error may be anything, as long as it is not the workers'.
      is_internal = isinstance(error, tf.errors.InternalError)
      if is_internal and "ollective" not in str(error):
        return None
      return (
        f"another of the {self.number} workers has gone or cannot be reached: "
        f"{remedy()}"
      )

    return errors.as_user_error(_LOST if self.number > 1 else (), explain)
