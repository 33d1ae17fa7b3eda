"""Processes that run one command together, usually one per host: how they meet, agree, stop and part.

All of them run the same program with the same arguments, and call the functions below at the same points of it.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from igd_jax.core import errors
from igd_jax.core.errors import InputError, Unreachable
from igd_jax.core.process import is_first
from igd_jax.core.shown import shown

T = TypeVar("T")

HEARTBEAT_SECONDS = 30
"""A process that says nothing for so long is lost, and all others end."""
MEETING_SECONDS = 300
"""How long processes wait for one another at the start."""
PARTING_SECONDS = 3600
"""How long they wait for one another at the end, where the first writes what all have computed."""
GRACE_SECONDS = 5.0
"""How much longer the first lives after an error that all may have, since the others end when they lose it."""
VOTES_UNDERWAY = 2

_SIZES = {"ompi": "OMPI_COMM_WORLD_SIZE", "slurm": "SLURM_STEP_NUM_TASKS"}
"""Variable with the number of processes of a step, by JAX's name of the cluster."""
_LOST = re.compile("Gloo|NCCL|UNAVAILABLE|DEADLINE_EXCEEDED|[Cc]onnection (closed|reset)")
"""What libraries say of a process that they cannot reach."""
_LAST_WORDS = 'trap "" INT TERM; read -r ended || echo "$0" >&2'


def define_flags() -> None:
    """Flags that tell processes about one another where no cluster does."""
    command = sys.argv[0]  # so that its --help shows them
    address, alone = "HOST:PORT of process 0; default what the cluster says.", "1 = alone. Default as the cluster says."
    number = "Number of this process, from 0; default what the cluster says."
    flags.DEFINE_string("coordinator_address", None, address, module_name=command)
    flags.DEFINE_integer("num_processes", None, f"Processes that run together; {alone}", module_name=command)
    flags.DEFINE_integer("process_id", None, number, module_name=command)


@contextmanager
def together() -> Iterator[None]:
    """Run the block as one of the processes of a cluster, or of the flags; alone if there are neither.

    To be entered before any device is used. An error ends the process at once, as the others may wait for it in vain.

    Raises:
      InputError: some of the flags are given, but not all.
    """
    options = _options()
    if options is None:
        yield
        return
    # Its handler would replace those of `core.signals`; see `Vote`.
    jax.config.update("jax_enable_preemption_service", False)
    with _last_words() as last_words:
        jax.distributed.initialize(
            **options,
            initialization_timeout=MEETING_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=PARTING_SECONDS,
        )
        try:
            yield
        except BaseException as error:
            _leave(error, last_words)
        jax.distributed.shutdown()


def _options() -> dict[str, Any] | None:
    """Arguments of `jax.distributed.initialize`; None for a process alone."""
    names = ("coordinator_address", "num_processes", "process_id")
    given: dict[str, Any] = {name: flags.FLAGS[name].value for name in names}
    if given["num_processes"] == 1:
        return None
    if lacking := [name for name, value in given.items() if value is None]:
        if len(lacking) < len(given):
            raise InputError(f"--{lacking[0]} is not set; give --{', --'.join(given)}, or none of them")
        method = _cluster()
        if method == "slurm":
            _check_gpus()
        return None if method is None else {"cluster_detection_method": method}
    address, n, number = given.values()
    if not address.rpartition(":")[0] or not address.rpartition(":")[2].isdecimal():
        raise InputError(f"--coordinator_address is {shown(address)}; expected HOST:PORT, a free port of process 0")
    if not 0 <= number < n:
        raise InputError(f"--process_id is {number}, but --num_processes {n}; expected 0 to {n - 1}")
    return given


def _cluster() -> str | None:
    """JAX's name of the cluster that runs several processes of this command; None if there is none.

    JAX's own detection would also take a Slurm job with one task, or any container of Kubernetes, for a cluster.
    """
    for method, size in _SIZES.items():
        if int(os.environ.get(size, "1")) > 1:
            return method
    if os.environ.get("TPU_ML_PLATFORM") != "JAX" or "TPU_SKIP_MDS_QUERY" in os.environ:
        return None  # JAX sets both when it is imported, on machines with TPUs and without
    workers = os.environ.get("TPU_PROCESS_ADDRESSES", os.environ.get("TPU_WORKER_HOSTNAMES"))
    if workers is None:
        return "gcetpu"
    return "gketpu" if "," in workers else None


def _check_gpus() -> None:
    """Refuse a Slurm step with fewer tasks than GPUs per host: JAX gives each only the GPU of its number there."""
    gpus, tasks = int(os.environ.get("SLURM_GPUS_ON_NODE", "0")), os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    if (first := re.match(r"\d+", tasks)) and int(first[0]) < gpus:
        raise InputError(
            f"Slurm starts {first[0]} task(s) and gives {gpus} GPUs per host, but each takes one GPU; start one task "
            f"per GPU: srun --ntasks-per-node={gpus}"
        )


@contextmanager
def _last_words() -> Iterator[IO[bytes]]:
    """Have a line printed if this process is killed inside the block.

    JAX kills it if another one is lost, after a stack trace and without a chance to say anything.
    """
    message = (
        f"error: the process on {socket.gethostname()} was killed, or lost another one of its run; start the same "
        "command in all of them again, which goes on from the last checkpoint"
    )
    with subprocess.Popen(["/bin/sh", "-c", _LAST_WORDS, message], stdin=subprocess.PIPE) as mourner:
        assert mourner.stdin is not None
        try:
            yield mourner.stdin
        finally:
            mourner.stdin.write(b"ended\n")


def _leave(error: BaseException, last_words: IO[bytes]) -> None:
    """Report an error and exit, without waiting for the other processes."""
    told = isinstance(error, InputError | Unreachable)  # which may quote, or follow, what a store says
    if not told and any(_LOST.search(str(each)) for each in errors.behind(error)):
        os._exit(errors.SYSTEM)  # the last words say why
    code: Any = error.code if isinstance(error, SystemExit) else errors.report(error)
    if is_first():
        time.sleep(GRACE_SECONDS)
    last_words.write(b"ended\n")
    last_words.flush()
    sys.stdout.flush()
    os._exit(code or 0)


# ----------------------------------------------------------------------------------------------------------- agreeing
def texts_of_all(text: str) -> list[str]:
    """A text of each process, by its number."""
    data = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(data))).reshape(-1)
    found = multihost_utils.process_allgather(np.pad(data, (0, int(sizes.max()) - len(data))))
    rows = found.reshape(len(sizes), -1)
    return [row[:size].tobytes().decode() for row, size in zip(rows, sizes.tolist(), strict=True)]


def from_first(make: Callable[[], T]) -> T:
    """What a function, called in the first process alone, returns or says of bad input, in all of them.

    Args:
      make: function whose value JSON can hold.

    Raises:
      InputError: the function raises it.
    """
    if jax.process_count() == 1:
        return make()
    told: dict[str, Any] = {}
    if is_first():
        try:
            told = {"value": make()}
        except InputError as error:
            told = {"error": str(error)}
    told = json.loads(texts_of_all(json.dumps(told))[0])
    if "error" in told:
        raise InputError(told["error"])
    return told["value"]


def check_alike(**parts: Mapping[str, Any]) -> None:
    """Check that all processes have the same values.

    Args:
      parts: JSON values by name, by kind, such as those of the config.

    Raises:
      InputError: in all processes: one has another value than most of them, or than the first.
    """
    told = [json.loads(text) for text in texts_of_all(json.dumps([socket.gethostname(), _flat(parts)]))]
    usual = json.loads(Counter(json.dumps(values) for _, values in told).most_common(1)[0][0])
    for number, (host, values) in enumerate(told):
        for name in sorted(set(usual) | set(values)):
            if values.get(name) != usual.get(name):
                raise InputError(
                    f"process {number} on {host} has {shown(values.get(name))} as {name}, but others have "
                    f"{shown(usual.get(name))}; start the same command, with the same code and data, in all processes"
                )


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Values of nested mappings by their full names."""
    if not isinstance(value, Mapping):
        return {path: value}
    return {k: v for name, part in value.items() for k, v in _flat(part, f"{path}.{name}" if path else name).items()}


def wait_for_all() -> None:
    """Wait until all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("wait_for_all")


class Vote:
    """The largest of the numbers that processes give in the same round, known to all of them two rounds later.

    A round is one all-reduce of four bytes, put into the queue of the devices behind the step that runs. Its result is
    read two rounds later, when the devices have it: so no process waits, as it would for an answer at once.
    """

    def __init__(self, mesh: Mesh):
        self._numbers = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._largest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._underway = deque[jax.Array]()

    def __call__(self, number: int) -> int:
        """The largest number of two rounds ago; 0 in the first two."""
        own = np.full(jax.local_device_count(), number, np.int32)
        array = jax.make_array_from_process_local_data(self._numbers, own, (jax.device_count(),))
        self._underway.append(self._largest(array))
        return int(self._underway.popleft()) if len(self._underway) > VOTES_UNDERWAY else 0


def make_vote(mesh: Mesh) -> Callable[[int], int]:
    """A `Vote` on the devices of all processes; of a process alone, the number itself, at once."""
    return Vote(mesh) if jax.process_count() > 1 else int
