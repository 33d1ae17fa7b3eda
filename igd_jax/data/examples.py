"""Rows of a split as token ids: the prompt that a history makes, and the item to be named.

Prompts that are too long are cut in two ways. In training what a target leaves is its prompt's, and prompts lose their
first tokens, as in the published code (`make_examples`). In ranking all prompts have the same room, whatever the target
is, and lose the oldest items of their history; the words around these stay (`ranked_examples`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged, TokenRows
from igd_jax.items.index import ItemIndex

_AT_ONCE = 1 << 12


@dataclass(frozen=True)
class Examples:
    """Rows as a method reads them, in the split's order.

    Attributes:
      prompt: ids of each prompt, cut to the room that it has; made when they are asked for.
      target: item to be named; its tokens are those of its identifier. None where targets are not known.
      is_cut: prompts that were cut.
      shared_prefix: ids that prompts begin with whatever their history; empty where there are none, or only one prompt.
      has_prefix: prompts that do begin with it: all but those that lost their first tokens.
      history: items behind each prompt, oldest first; None where only text is known.
    """

    prompt: TokenRows
    target: Int[np.ndarray, " R"] | None
    is_cut: Bool[np.ndarray, " R"]
    shared_prefix: Int[np.ndarray, " P"]
    has_prefix: Bool[np.ndarray, " R"]
    history: Ragged | None = None

    def __len__(self) -> int:
        return len(self.prompt)


@dataclass(frozen=True)
class _CutRows:
    """Rows that lose their first ids when they are asked for; `TokenRows`.

    Attributes:
      rows: whole rows.
      lengths: tokens that are left of each.
    """

    rows: TokenRows
    lengths: Int[np.ndarray, " R"]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Int[np.ndarray, " length"]:
        return self.rows[row][-self.lengths[row] :]

    @property
    def alike(self) -> tuple[int, Bool[np.ndarray, " R"]]:
        """What is known of the whole rows, of those that are whole."""
        n_ids, rows = self.rows.alike
        return n_ids, rows & (self.lengths == self.rows.lengths)

    def take(self, rows: Int[np.ndarray, " r"]) -> Ragged:
        """The given rows, in the given order."""
        return self.rows.take(rows).keep_last(self.lengths[rows])


def room_beside(target: Int[np.ndarray, " R"], index: ItemIndex, *, max_length: int) -> Int[np.ndarray, " R"]:
    """Tokens that each target leaves to its prompt.

    Args:
      max_length: most tokens of prompt and target together, `config.data.max_length`.

    Raises:
      InputError: a target leaves no room for a prompt.
    """
    room = max_length - index.item_tokens.lengths[target]
    if len(room) and room.min() < 1:
        title = index.titles[target[room.argmin()]]
        raise InputError(
            f"config.data.max_length is {max_length}, but the title {title!r} alone has "
            f"{max_length - room.min()} tokens; raise it"
        )
    return room


def make_examples(prompt: TokenRows, *, room: Int[np.ndarray, " R"], target: Int[np.ndarray, " R"]) -> Examples:
    """Rows to train on: prompts that are too long lose their first tokens, as in the published code.

    Args:
      room: most tokens of each prompt, what its target leaves (`room_beside`), since a target is never cut.
      target: item to be named.
    """
    is_cut = prompt.lengths > room
    if is_cut.any():
        prompt = _CutRows(prompt, np.minimum(prompt.lengths, room).astype(np.int32))
    return Examples(prompt, target, is_cut, shared_prefix(prompt, ~is_cut), ~is_cut)


def ranked_examples(
    history: Ragged,
    prompts_of: Callable[[Ragged], TokenRows],
    *,
    room: int,
    head: Int[np.ndarray, " P"] | None = None,
) -> Examples:
    """Rows to rank for: a history whose prompt is too long loses its oldest items, and no more than needed.

    Args:
      history: items of each row, oldest first.
      prompts_of: makes the prompts of histories; a longer history has a longer prompt.
      room: most tokens of a prompt; a prompt without items has no more.
      head: ids that prompts are expected to begin with, which some may not; None = what these prompts share.
    """
    prompt = prompts_of(history)
    is_cut = prompt.lengths > room
    if is_cut.any():
        kept = history.lengths.copy()
        kept[is_cut] = _fitting(history.take(np.flatnonzero(is_cut)), prompts_of, room=room)
        prompt = prompts_of(history.keep_last(kept))
    if head is None:
        every = np.ones(len(prompt), bool)
        return Examples(prompt, None, is_cut, shared_prefix(prompt, every), every)
    begins = prompt.take(np.arange(len(prompt))).pad(len(head))
    return Examples(prompt, None, is_cut, head, (begins == head).all(axis=1) & (prompt.lengths > len(head)))


def _fitting(history: Ragged, prompts_of: Callable[[Ragged], TokenRows], *, room: int) -> Int[np.ndarray, " R"]:
    """The number of newest items of each history whose prompt fits, by bisection; the whole histories do not."""
    fits, too_many = np.zeros(len(history), np.int32), history.lengths.copy()
    while (fits + 1 < too_many).any():
        middle = (fits + too_many) // 2
        does_fit = prompts_of(history.keep_last(middle)).lengths <= room
        fits, too_many = np.where(does_fit, middle, fits), np.where(does_fit, too_many, middle)
    return fits


def item_examples(
    history: Ragged, target: Int[np.ndarray, " R"] | None = None, *, room: int | float = math.inf
) -> Examples:
    """Rows for a method that reads items: no text at all. Of longer histories, the newest `room` items are left."""
    n_rows, is_cut = len(history), history.lengths > room
    if is_cut.any():
        history = history.keep_last(np.minimum(history.lengths, room).astype(np.int32))
    no_text = Ragged(np.zeros(0, np.int32), np.zeros(n_rows + 1, np.int64))
    return Examples(no_text, target, is_cut, np.zeros(0, np.int32), np.zeros(n_rows, bool), history)


def shared_prefix(rows: TokenRows, which: Bool[np.ndarray, " R"]) -> Int[np.ndarray, " P"]:
    """The ids that all of the given rows begin with; at least one id is left to each, and one row shares nothing."""
    chosen = np.flatnonzero(which)
    if len(chosen) < 2:
        return np.zeros(0, np.int32)
    n_alike, alike = rows.alike
    alike = alike[chosen]
    some = ~alike | (np.cumsum(alike) <= _AT_ONCE)  # the others begin alike, unless what is shared is longer than that
    prefix = _shared(rows, chosen[some], rows[int(chosen[0])][: int(rows.lengths[chosen].min()) - 1])
    return _shared(rows, chosen[~some], prefix) if len(prefix) > n_alike else prefix


def _shared(rows: TokenRows, chosen: Int[np.ndarray, " r"], prefix: Int[np.ndarray, " p"]) -> Int[np.ndarray, " q"]:
    """The part of `prefix` that all chosen rows begin with; none of them is shorter."""
    for begin in range(0, len(chosen), _AT_ONCE):
        same = (rows.take(chosen[begin : begin + _AT_ONCE]).pad(len(prefix)) == prefix).all(axis=0)
        prefix = prefix[: len(same) if same.all() else int(same.argmin())]
    return prefix
