"""Lists of an evaluation that is not finished, from which the same command goes on.

Users are ranked in parts, whose lists are appended to a file as each part ends. Every part is a search of its own, over
the same users in every start, so what it finds does not depend on where an earlier start was stopped, to the bit. The
file is named by a fingerprint of all that the lists depend on: another config, other weights or another machine begin
anew. Of several processes the first keeps the file, and tells the others what is in it.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Int

from igd_jax.core import hosts
from igd_jax.core.fingerprint import fingerprint
from igd_jax.core.io import append_lines
from igd_jax.core.log import say
from igd_jax.core.process import is_first
from igd_jax.core.types import Recommendations

BATCHES_PER_PART = 32
"""A search ends with a few rows that still run, and parts that are lost are made again: neither should be much."""

Lists: TypeAlias = tuple[Int[np.ndarray, " _"], Recommendations]
"""Numbers of users, and their lists as NumPy arrays."""


class Unfinished:
    """The lists that were found so far.

    Attributes:
      n_read: number of users whose lists an earlier start has found.

    Args:
      folder: folder of the file, and of those of other fingerprints.
      parts: all that the lists depend on.
    """

    def __init__(self, folder: Path, parts: Iterable[bytes | str | np.ndarray]):
        self._path = folder / f"{fingerprint(*parts)}.jsonl"
        self.n_read, self._parts = 0, list[Int[np.ndarray, " _"]]()

    def ranked(self, parts: Sequence[Int[np.ndarray, " _"]], rank: Callable[[Any], Iterator[Lists]]) -> Iterator[Lists]:
        """Lists of all users: those of the file, and then new ones, which are kept as each part ends.

        Args:
          parts: numbers of the users of each part, the same in every start.
          rank: function that ranks those of a part.
        """
        self._parts = list(parts)
        lines, n_bytes = hosts.from_first(self._read)
        if lines:
            kept = _joined([_parsed(line) for line in lines])  # at once, as the first is what progress counts from
            self.n_read = len(kept[0])
            yield kept
            say(f"going on after {self.n_read:,} of {self._n_all:,} users")
        keep: int | None = n_bytes  # what is incomplete or damaged is replaced
        for part in parts[len(lines) :]:
            found = []
            for of_some in rank(part):
                found.append(of_some)
                yield of_some
            append_lines(self._path, [_line(found)], keep=keep)
            keep = None

    @property
    def _n_all(self) -> int:
        return sum(map(len, self._parts))

    def _read(self) -> tuple[list[str], int]:
        """The lines of the file before the first that is incomplete, damaged or not of its part, and their bytes."""
        lines, kept = list[str](), self._path.read_bytes().splitlines(keepends=True) if self._path.is_file() else []
        for line, part in zip(kept, self._parts, strict=False):
            try:
                users, _ = _parsed(text := line.decode())
            except (KeyError, TypeError, ValueError):
                break
            if not text.endswith("\n") or not np.array_equal(np.sort(users), np.sort(part)):
                break
            lines.append(text)
        return lines, sum(len(line.encode()) for line in lines)

    @contextmanager
    def told(self) -> Iterator[None]:
        """If the block is left by a signal, print what is kept."""
        try:
            yield
        except SystemExit:
            n_kept = sum(len(_parsed(line)[0]) for line in self._read()[0])
            say(f"terminated: {n_kept:,} of {self._n_all:,} users are kept; the same command goes on from there")
            raise


def remove(folder: Path) -> None:
    """Remove the files of an evaluation that is finished."""
    if is_first():
        shutil.rmtree(folder, ignore_errors=True)


def _joined(found: Sequence[Lists]) -> Lists:
    users = np.concatenate([numbers for numbers, _ in found])
    return users, jax.tree.map(lambda *arrays: np.concatenate(arrays), *(lists for _, lists in found))


def _line(found: Sequence[Lists]) -> str:
    users, lists = _joined(found)
    kept: dict[str, Any] = {"users": users, "rows": lists.rows, "scores": lists.scores}
    return json.dumps({name: array.tolist() for name, array in kept.items()})


def _parsed(line: str) -> Lists:
    """Lists of a line, with the types of `Recommendations`; float32 is exact in JSON."""
    kept = json.loads(line)
    rows: Any = np.asarray(kept["rows"], np.int32)
    scores: Any = np.asarray(kept["scores"], np.float32)
    return np.asarray(kept["users"]), Recommendations(rows, scores)
