"""What a run prints of its data before it trains: targets off the trie, and an example."""

from collections.abc import Mapping

import numpy as np

from igd_jax.core.log import say
from igd_jax.data.examples import Examples
from igd_jax.session.session import Session


def report_targets(session: Session, examples: Mapping[str, Examples]) -> None:
    """Print how many targets of each split are not candidates, and so off the trie."""
    catalog, is_candidate = session.index.catalog, session.index.is_candidate
    for split, rows in examples.items():
        if off := int((~is_candidate[catalog.row_of_item[rows.target]]).sum()):
            say(f"{off:,} of {len(rows):,} {split} targets are off the trie (no candidate)")


def print_example(session: Session, examples: Examples, weight: np.ndarray) -> None:
    """Print the first training example: the prompt, and each target token with its weight."""
    assert examples.target is not None
    rows, item = session.index.item_tokens, int(examples.target[0])
    say(f"example prompt: {session.tokenizer.decode(examples.prompt[0].tolist())!r}")
    weights = weight[rows.start[item] : rows.start[item + 1]]
    texts = [session.tokenizer.decode([token]) or f"<{token}>" for token in rows[item].tolist()]
    pieces = [f"{text!r}:{value:g}" for text, value in zip(texts, weights, strict=True)]
    say(f"example target (token:weight): {' '.join(pieces)}")
