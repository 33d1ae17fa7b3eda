"""Rows of a split as token ids: the prompt that a history makes, and the item to be named."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.items.index import ItemIndex


@dataclass(frozen=True)
class Examples:
    """Rows as a method reads them, in the split's order.

    Attributes:
      prompt: ids of each prompt, cut from the left to the room that it has.
      target: item to be named; its tokens are those of its identifier. None where targets are not known.
      n_cut: prompts that were cut.
      shared_prefix: ids that prompts begin with whatever their history; empty where there are none, or only one prompt.
      has_prefix: prompts that do begin with it: all but those that were cut.
      history: items behind each prompt, oldest first; None where only text is known.
    """

    prompt: Ragged
    target: Int[np.ndarray, " R"] | None
    n_cut: int
    shared_prefix: Int[np.ndarray, " P"]
    has_prefix: Bool[np.ndarray, " R"]
    history: Ragged | None = None

    def __len__(self) -> int:
        return len(self.prompt)


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


def make_examples(
    prompt: Ragged, *, room: Int[np.ndarray, " R"] | int, target: Int[np.ndarray, " R"] | None = None
) -> Examples:
    """Fit prompts into their room: what is too long loses its oldest tokens, as in the published code.

    Args:
      room: most tokens of each prompt; in training what its target leaves (`room_beside`), since a target is never cut.
      target: item to be named, where it is known.
    """
    is_cut = prompt.lengths > room
    prompt = prompt.keep_last(np.broadcast_to(np.asarray(room), is_cut.shape))
    return Examples(prompt, target, int(is_cut.sum()), shared_prefix(prompt, ~is_cut), ~is_cut)


def item_examples(history: Ragged, target: Int[np.ndarray, " R"] | None = None) -> Examples:
    """Rows for a method that reads items: no text at all."""
    n_rows = len(history)
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
