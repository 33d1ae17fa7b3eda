"""Rows of a split as token ids: the prompt that a history makes, and the item to be named."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.items.index import ItemIndex


@dataclass(frozen=True)
class Examples:
    """Tokenised rows, in the split's order.

    Attributes:
      prompt: ids of each prompt, cut from the left where prompt and target exceed the limit.
      target: item to be named; its tokens are those of the title.
      n_cut: prompts that were cut.
      shared_prefix: ids that prompts begin with whatever their history; empty where there are none, or only one prompt.
      has_prefix: prompts that do begin with it: all but those that were cut.
      history: items behind each prompt, oldest first; None where only text is known.
    """

    prompt: Ragged
    target: Int[np.ndarray, " R"]
    n_cut: int
    shared_prefix: Int[np.ndarray, " P"]
    has_prefix: Bool[np.ndarray, " R"]
    history: Ragged | None = None

    def __len__(self) -> int:
        return len(self.target)


def make_examples(prompt: Ragged, target: Int[np.ndarray, " R"], *, room: Int[np.ndarray, " R"]) -> Examples:
    """Fit prompts into the room that is left for each; they lose their oldest tokens, as in the published code."""
    is_cut = prompt.lengths > room
    prompt = prompt.keep_last(room)
    return Examples(prompt, target, int(is_cut.sum()), shared_prefix(prompt, ~is_cut), ~is_cut)


def room_beside(target: Int[np.ndarray, " R"], index: ItemIndex, *, max_length: int) -> Int[np.ndarray, " R"]:
    """Tokens of the limit that are left beside the identifiers of these items.

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


def item_examples(history: Ragged, target: Int[np.ndarray, " R"]) -> Examples:
    """Rows for a method that reads items: no text at all."""
    n_rows = len(target)
    no_text = Ragged(np.zeros(0, np.int32), np.zeros(n_rows + 1, np.int64))
    return Examples(no_text, target, 0, np.zeros(0, np.int32), np.zeros(n_rows, bool), history)


def shared_prefix(rows: Ragged, which: Bool[np.ndarray, " R"]) -> Int[np.ndarray, " P"]:
    """The ids that all of the given rows begin with; at least one id is left to each, and one row shares nothing."""
    if which.sum() < 2:
        return np.zeros(0, np.int32)
    chosen = rows.take(np.flatnonzero(which))
    starts = chosen.pad(int(chosen.lengths.min()) - 1)
    same = (starts == starts[:1]).all(axis=0)
    return starts[0, : len(same) if same.all() else int(same.argmin())]
