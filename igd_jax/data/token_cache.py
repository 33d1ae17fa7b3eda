"""Token rows cached on disk, so that texts are tokenised once; rows are read from the file when they are asked for.

A file holds a checksum (int64) of all that follows: where each row begins and the end of the last (int64), then all
ids (int32). Rows are written as they are made, and mapped into memory, so neither takes memory of its own.
"""

import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from igd_jax.core.io import atomic_file
from igd_jax.core.log import say
from igd_jax.core.ragged import Ragged

_BLOCK = 1 << 20


def cached_rows(cache: Path, name: str, n_rows: int, make: Callable[[], Iterable[Ragged]]) -> Ragged:
    """Load token rows from the folder `cache`, or make and store them; a damaged file is made again.

    The cache is written only if its parent exists, so that a run refused for bad input leaves no folder behind.

    Args:
      name: file name without suffix; it contains a fingerprint that changes with any id of the rows.
      n_rows: number of rows.
      make: function that makes the rows, in parts.
    """
    path = cache / f"{name}.rows"
    if path.is_file():
        if (found := _mapped(path, n_rows)) is not None:
            return found
        say(f"{path} is damaged; made again")
    if not cache.parent.is_dir():
        return Ragged.concatenate([*make()])
    with atomic_file(path) as partial:
        _write(partial, n_rows, make())
        rows = _mapped(partial, n_rows)
    assert rows is not None
    return rows


def _write(path: Path, n_rows: int, parts: Iterable[Ragged]) -> None:
    start, done = np.zeros(n_rows + 1, np.int64), 0
    with path.open("wb+") as file:
        file.seek(8 * (n_rows + 2))
        for part in parts:
            start[done : done + len(part) + 1] = start[done] + part.start
            done += len(part)
            file.write(part.ids.data)
        file.seek(8)
        file.write(start.data)
        file.flush()
        file.seek(0)
        file.write(_checksum(path))


def _mapped(path: Path, n_rows: int) -> Ragged | None:
    """The rows of a file; None where it does not hold that many rows as they were written."""
    if path.stat().st_size < 8 * (n_rows + 2):
        return None
    content: np.ndarray = np.asarray(np.memmap(path, np.uint8, "r"))
    if content[:8].tobytes() != _checksum(path):
        return None
    ids = content[8 * (n_rows + 2) :]
    return Ragged(ids.view(np.int32), content[8 : 8 * (n_rows + 2)].view(np.int64))


def _checksum(path: Path) -> bytes:
    """Of all but the first 8 bytes; read in blocks, which leaves no trace in memory as mapped pages would."""
    checksum = 0
    with path.open("rb") as file:
        file.seek(8)
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum.to_bytes(8, "little")
