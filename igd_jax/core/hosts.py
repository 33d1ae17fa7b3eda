"""Processes that run one command together, usually one per host: how they agree and stop; see also `core.meeting`.

All of them run the same program with the same arguments, and call the functions below at the same points of it.
"""

import json
import secrets
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from igd_jax.core.errors import InputError
from igd_jax.core.process import is_first
from igd_jax.core.shown import shown

T = TypeVar("T")

SEEN_SECONDS = 30
"""How long a file that one process wrote may take to be seen by the others."""
VOTES_UNDERWAY = 2


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


def check_shared(folder: Path) -> None:
    """Check that all processes see the same folder, by a file that the first leaves there for a moment.

    Where there is no folder yet, it is left in the one that it will be made in.

    Raises:
      InputError: in all processes: one of them does not see it.
    """
    if jax.process_count() == 1:
        return
    places = [folder, *folder.parents]
    # The first chooses, as some of them may be made meanwhile.
    depth, token = from_first(lambda: (next(n for n, each in enumerate(places) if each.is_dir()), secrets.token_hex(8)))
    mark = places[depth] / f".seen-by-all-{token}"
    if is_first():
        mark.touch()
    wait_for_all()
    until = time.monotonic() + SEEN_SECONDS  # a network may show a file late
    while not (there := mark.exists()) and time.monotonic() < until:
        time.sleep(0.1)
    told = [json.loads(text) for text in texts_of_all(json.dumps([socket.gethostname(), there]))]
    if is_first():
        mark.unlink(missing_ok=True)
    for number, (host, sees) in enumerate(told):
        if not sees:
            raise InputError(
                f"process {number} on {host} does not see what process 0 on {told[0][0]} writes to {folder}; name a "
                "folder that all hosts share, such as a network disk or a mounted bucket"
            )


def wait_for_all() -> None:
    """Wait until all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("wait_for_all")


def largest(number: int) -> int:
    """The largest of the numbers that all processes give, which wait for each other."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).max())


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
