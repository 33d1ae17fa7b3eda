"""Rows of a split as token ids: the prompt that a history makes, and the item to be named."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from igd_jax.core.errors import InputError
from igd_jax.core.fingerprint import fingerprint
from igd_jax.core.io import atomic_file
from igd_jax.core.ragged import Ragged
from igd_jax.data.tokenizer import Tokenizer
from igd_jax.items.index import ItemIndex


@dataclass(frozen=True)
class Examples:
    """Tokenised rows, in the split's order.

    Attributes:
      prompt: ids of each prompt, cut from the left where prompt and target exceed the limit.
      target: item to be named; its tokens are those of the title.
      n_cut: prompts that were cut.
      header: ids that prompts begin with whatever their history; empty where there are none, or only one prompt.
      has_header: prompts that do begin with it: all but those that were cut.
      history: items behind each prompt, oldest first; None where only text is known.
    """

    prompt: Ragged
    target: Int[np.ndarray, " R"]
    n_cut: int
    header: Int[np.ndarray, " P"]
    has_header: Bool[np.ndarray, " R"]
    history: Ragged | None = None

    def __len__(self) -> int:
        return len(self.target)


def title_tokens(titles: Sequence[str], tokenizer: Tokenizer, *, cache: Path) -> Ragged:
    """Token rows of all titles, from the folder `cache` when these titles were tokenised there before.

    The cache is written only beside something: a first start that ends in bad input leaves no folder behind.
    """
    path = cache / f"titles-{fingerprint(tokenizer.fingerprint, *titles)}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as saved:
            return Ragged(saved["ids"], saved["start"])
    rows = tokenizer.encode_titles(titles)
    if not cache.parent.is_dir():
        return rows
    with atomic_file(path) as partial, partial.open("wb") as file:
        np.savez(file, ids=rows.ids, start=rows.start)
    return rows


def make_examples(prompt: Ragged, target: Int[np.ndarray, " R"], index: ItemIndex, *, max_length: int) -> Examples:
    """Fit prompts and targets into a limit.

    Args:
      max_length: most tokens of prompt and target together; the prompt loses its oldest tokens beyond that, as in the
        published code, but the target is never cut.

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
    is_cut = prompt.lengths > room
    prompt = prompt.keep_last(room)
    return Examples(prompt, target, int(is_cut.sum()), shared_prefix(prompt, ~is_cut), ~is_cut)


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
