"""Rows of unequal length in one flat array: token rows, histories."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int, Int64


@runtime_checkable
class TokenRows(Protocol):
    """Rows of unequal length that may be computed on demand; `Ragged` stores all of them."""

    @property
    def lengths(self) -> Int[np.ndarray, " R"]:
        """Tokens of each row, int32."""

    @property
    def alike(self) -> tuple[int, Bool[np.ndarray, " R"]]:
        """Length of a known common beginning of some rows, and the mask of those rows."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> Int[np.ndarray, " length"]: ...

    def take(self, rows: Int[np.ndarray, " r"]) -> "Ragged":
        """The given rows, in the given order."""


@dataclass(frozen=True)
class Ragged:
    """Rows of unequal length in one flat array.

    Attributes:
      ids: all ids, of tokens or of items, row after row, int32.
      start: offset of each row in `ids`, and the end of the last, int64.
    """

    ids: Int[np.ndarray, " total"]
    start: Int[np.ndarray, " R_plus_1"]

    @classmethod
    def from_lists(cls, rows: list[list[int]]) -> "Ragged":
        """Pack a list of rows."""
        start = starts_of(np.array([len(row) for row in rows], np.int64))
        return cls(np.fromiter(chain.from_iterable(rows), np.int32, count=start[-1]), start)

    @classmethod
    def concatenate(cls, parts: "Sequence[Ragged]") -> "Ragged":
        """The rows of all parts, one part after another."""
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(np.concatenate([part.ids for part in parts]), starts_of(lengths))

    def __len__(self) -> int:
        return len(self.start) - 1

    def __getitem__(self, row: int) -> Int[np.ndarray, " length"]:
        return self.ids[self.start[row] : self.start[row + 1]]

    @cached_property
    def lengths(self) -> Int[np.ndarray, " R"]:
        """Tokens of each row, int32."""
        return np.diff(self.start).astype(np.int32)

    @property
    def alike(self) -> tuple[int, Bool[np.ndarray, " R"]]:
        """No common beginning is known."""
        return 0, np.zeros(len(self), bool)

    def part(self, begin: int, end: int) -> "Ragged":
        """The rows from `begin` up to, but excluding, `end`; a view."""
        start = self.start[begin : end + 1]
        return Ragged(self.ids[start[0] : start[-1]], start - start[0])

    def take(self, rows: Int[np.ndarray, " r"]) -> "Ragged":
        """The given rows, in the given order."""
        lengths = self.lengths[rows]
        return Ragged(self.ids[ragged_index(self.start[rows], lengths)], starts_of(lengths))

    def keep_last(self, limit: Int[np.ndarray, " R"]) -> "Ragged":
        """The last `limit` ids of each row, or the whole row if it is shorter."""
        lengths = np.minimum(self.lengths, limit)
        return Ragged(self.ids[ragged_index(self.start[1:] - lengths, lengths)], starts_of(lengths))

    def join(self, groups: "Ragged") -> "Ragged":
        """One row per group: the concatenation of the rows whose numbers it holds."""
        rows = self.take(groups.ids)
        return Ragged(rows.ids, rows.start[groups.start])

    def followed_by(self, other: "Ragged") -> "Ragged":
        """Each row, followed by the row of the same number of another, which has as many."""
        n_rows = len(self)
        assert len(other) == n_rows
        pairs = np.arange(2 * n_rows, dtype=np.int32).reshape(2, n_rows).T
        return Ragged.concatenate([self, other]).join(Ragged(pairs.ravel(), 2 * np.arange(n_rows + 1)))

    def pad(self, width: int, fill: int = 0) -> Int[np.ndarray, "R {width}"]:
        """A right-padded matrix, int32; longer rows are cut at `width`."""
        out = np.full((len(self), width), fill, np.int32)
        keep = np.arange(width) < np.minimum(self.lengths, width)[:, None]
        column = np.broadcast_to(np.arange(width), keep.shape)[keep]
        out[keep] = self.ids[np.repeat(self.start[:-1], keep.sum(1)) + column]
        return out


NO_ROWS = Ragged(np.zeros(0, np.int32), np.zeros(1, np.int64))


def starts_of(lengths: Int[np.ndarray, " R"]) -> Int64[np.ndarray, " R+1"]:
    """Offset of each of several rows that lie end to end, and the end of the last."""
    start = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=start[1:])
    return start


def ragged_index(first: Int[np.ndarray, " R"], lengths: Int[np.ndarray, " R"]) -> Int[np.ndarray, " total"]:
    """``first[0], first[0] + 1, ...`` (lengths[0] of them), then ``first[1], ...``, and so on; int64."""
    index = np.repeat(first - np.cumsum(lengths) + lengths, lengths)
    index += np.arange(len(index))
    return index


def places_in_rows(lengths: Int[np.ndarray, " R"]) -> Int64[np.ndarray, " total"]:
    """Place of each id within its row, from 0, for rows that lie end to end."""
    return ragged_index(np.zeros_like(lengths), lengths)
