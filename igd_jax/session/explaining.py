"""Titles token by token: what each token decides, and what it weighs in training."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from igd_jax.core.ragged import Ragged
from igd_jax.data.tokenizer import Tokenizer
from igd_jax.items.index import ItemIndex, walk_rows
from igd_jax.session.results import Explanation, Token


def explanation(
    index: ItemIndex, tokenizer: Tokenizer, item: int, *, weight: Sequence[float] | Float[np.ndarray, " total"]
) -> Explanation:
    """Explain the title of an item.

    Args:
      index: items, with the candidates over which gain is computed.
      tokenizer: tokenizer of the titles.
      item: number of the item.
      weight: weight of each token of all items in training, aligned with the ids of `ItemIndex.item_tokens`; nan
        where the objective has none.
    """
    tokens = index.item_tokens
    ids, begin = tokens[item], int(tokens.start[item])
    walk = walk_rows(index.trie, index.gain, Ragged.from_lists([ids.tolist()]))
    return Explanation(
        index.titles[item],
        bool(walk.on_trie[0]),
        tuple(
            Token(
                id=token,
                text=tokenizer.shown([token]),
                gain=float(walk.gain[place]),
                forced=bool(walk.forced[place]),
                weight=round(float(weight[begin + place]), 6),  # of float32
            )
            for place, token in enumerate(ids.tolist())
        ),
    )
