"""Prompts as the pieces that they are joined from: a start, and the items of a history."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, UInt8

from igd_jax.core.ragged import Ragged


@dataclass(frozen=True)
class Pieces:
    """Of n items: row i is item i inside a history, row n + i at its end; then the start, and a prompt without items.

    Attributes:
      rows: ids of each.
      left, right: kinds of borders that may follow and precede each; see `data.borders`.
    """

    rows: Ragged
    left: UInt8[np.ndarray, " pieces"]
    right: UInt8[np.ndarray, " pieces"]

    def numbers(self, history: Ragged) -> Ragged:
        """The numbers of the pieces that the prompt of each history consists of."""
        n_items = (len(self.rows) - 2) // 2
        start = history.start + np.arange(len(history) + 1)
        first, has_items = start[:-1], history.lengths > 0
        number = np.full(start[-1], 2 * n_items, np.int32)
        number[first[~has_items]] = 2 * n_items + 1
        is_item = np.ones(len(number), bool)
        is_item[first] = False
        number[is_item] = history.ids
        number[start[1:][has_items] - 1] += n_items
        return Ragged(number, start)

    def may_merge(self, numbers: Ragged) -> Bool[np.ndarray, " R"]:
        """Prompts with a border that a token might cross."""
        here, after = numbers.ids[:-1], numbers.ids[1:]
        may_cross = self.left[here] & self.right[after] == 0
        may_cross[numbers.start[1:-1] - 1] = False  # between two prompts
        found = np.zeros(len(numbers), bool)
        found[np.searchsorted(numbers.start, np.flatnonzero(may_cross), side="right") - 1] = True
        return found


@dataclass(frozen=True)
class JoinedRows:
    """Prompts that are joined from pieces when they are asked for; `TokenRows`.

    Attributes:
      pieces: of all items.
      history: items of each prompt.
      lengths: tokens of each prompt.
      which_whole: prompts that were tokenised whole, ascending.
      whole: those.
    """

    pieces: Pieces
    history: Ragged
    lengths: Int[np.ndarray, " R"]
    which_whole: Int[np.ndarray, " W"]
    whole: Ragged

    def __len__(self) -> int:
        return len(self.history)

    def __getitem__(self, row: int) -> Int[np.ndarray, " length"]:
        return self.take(np.array([row])).ids

    @property
    def alike(self) -> tuple[int, Bool[np.ndarray, " R"]]:
        """Prompts with items begin with the same piece, unless they were tokenised whole."""
        has_start = self.history.lengths > 0
        has_start[self.which_whole] = False
        return int(self.pieces.rows.lengths[-2]), has_start

    def take(self, rows: Int[np.ndarray, " r"]) -> Ragged:
        """The given prompts, in the given order."""
        if not len(self.which_whole):
            return self.pieces.rows.join(self.pieces.numbers(self.history.take(rows)))
        place = np.minimum(np.searchsorted(self.which_whole, rows), len(self.which_whole) - 1)
        is_whole = self.which_whole[place] == rows
        joined = self.pieces.rows.join(self.pieces.numbers(self.history.take(rows[~is_whole])))
        both = Ragged.concatenate([joined, self.whole.take(place[is_whole])])
        return both.take(np.argsort(np.argsort(is_whole, kind="stable")))
