"""How processes that run one command together, usually one per host, meet and part; see `core.hosts`."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import jax
from absl import flags

from igd_jax.core import errors
from igd_jax.core.errors import InputError, Unreachable
from igd_jax.core.process import is_first
from igd_jax.core.shown import shown

HEARTBEAT_SECONDS = 30
"""A process that says nothing for so long is lost, and all others end."""
MEETING_SECONDS = 300
"""How long processes wait for one another at the start."""
PARTING_SECONDS = 3600
"""How long they wait for one another at the end, where the first writes what all have computed."""
LATE_SECONDS = 10
"""Time after which a process that still waits for others says so."""
GRACE_SECONDS = 5.0
"""How much longer the first lives after an error that all may have, since the others end when they lose it."""

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
    with _last_words(_not_met(options)), _told_if_late(options):
        jax.distributed.initialize(
            **options,
            initialization_timeout=MEETING_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=PARTING_SECONDS,
        )
    with _last_words(_lost()) as last_words:
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
    if number == 0:
        _check_free(address)
    return given


def _check_free(address: str) -> None:
    """Refuse a port of this host that something listens to: JAX would crash."""
    try:
        socket.create_server(("", int(address.rpartition(":")[2]))).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--coordinator_address is {address}, whose port cannot be opened on {socket.gethostname()} ({error}); end "
            "what holds it, or give all processes another one"
        ) from None


def _cluster() -> str | None:
    """JAX's name of the cluster that runs several processes of this command; None if there is none.

    JAX's own detection would also take a Slurm job with one task, or any container of Kubernetes, for a cluster.
    """
    for method, size in _SIZES.items():
        if int(os.environ.get(size, "1")) > 1:
            return method
    if os.environ.get("TPU_ML_PLATFORM") != "JAX":
        return None
    workers = os.environ.get("TPU_PROCESS_ADDRESSES", os.environ.get("TPU_WORKER_HOSTNAMES"))
    if workers is not None:
        return "gketpu" if "," in workers else None
    # There are no metadata to ask: JAX sets this where there is no TPU, and Kubernetes where there is.
    return None if "TPU_SKIP_MDS_QUERY" in os.environ else "gcetpu"


def _check_gpus() -> None:
    """Refuse a Slurm step with fewer tasks than GPUs per host: JAX gives each only the GPU of its number there."""
    gpus, tasks = int(os.environ.get("SLURM_GPUS_ON_NODE", "0")), os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    if (first := re.match(r"\d+", tasks)) and int(first[0]) < gpus:
        raise InputError(
            f"Slurm starts {first[0]} task(s) and gives {gpus} GPUs per host, but each takes one GPU; start one task "
            f"per GPU: srun --ntasks-per-node={gpus}"
        )


def _lost() -> str:
    return (
        f"the process on {socket.gethostname()} was killed, or lost another one of its run; start the same command in "
        "all of them again, which goes on from the last checkpoint"
    )


def _not_met(options: Mapping[str, Any]) -> str:
    return (
        f"the process on {socket.gethostname()} was killed, or did not meet {_others(options)}; start all within "
        f"{MEETING_SECONDS // 60} minutes, each with the address of process 0, which the others have to reach"
    )


def _others(options: Mapping[str, Any]) -> str:
    if "num_processes" not in options:
        return f"the others of the cluster ({options['cluster_detection_method']})"
    return f"all {options['num_processes']} processes at {options['coordinator_address']}"


@contextmanager
def _told_if_late(options: Mapping[str, Any]) -> Iterator[None]:
    """Have a line printed if the block takes long, in which this process waits for the others."""
    line = (
        f"the process on {socket.gethostname()} waits for {_others(options)}, {MEETING_SECONDS // 60} minutes at most"
    )
    late = threading.Timer(LATE_SECONDS, print, [line], {"file": sys.stderr, "flush": True})
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()


@contextmanager
def _last_words(message: str) -> Iterator[IO[bytes]]:
    """Have an error printed if this process is killed inside the block.

    JAX kills it if another one is lost, after a stack trace and without a chance to say anything.
    """
    words = ["/bin/sh", "-c", _LAST_WORDS, f"error: {message}"]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as mourner:
        assert mourner.stdin is not None
        try:
            yield mourner.stdin
        finally:
            mourner.stdin.write(b"ended\n")


def _leave(error: BaseException, last_words: IO[bytes]) -> None:
    """Report an error and exit, without waiting for the other processes."""
    told = isinstance(error, InputError | Unreachable)  # which may quote, or follow, what a store says
    is_lost = not told and any(_LOST.search(str(each)) for each in errors.behind(error))
    if is_lost:  # or cannot be reached: what the library says may be a fault of this host
        code: Any = errors.report(error, f"{_lost()} ({errors.first_line(error)})", code=errors.SYSTEM)
    else:
        code = error.code if isinstance(error, SystemExit) else errors.report(error)
    if is_first() and not is_lost:
        time.sleep(GRACE_SECONDS)
    last_words.write(b"ended\n")
    last_words.flush()
    sys.stdout.flush()
    os._exit(code or 0)
