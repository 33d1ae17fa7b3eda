"""What remains of a token where a text is trimmed: of a newline, of the end, or of quotes around the text."""

import numpy as np

from igd_jax.core.types import Remainders
from igd_jax.data.tokenizer import Tokenizer


def remainders(tokenizer: Tokenizer, *, vocab_size: int, quote: str) -> Remainders:
    """The remainders of all tokens, NumPy arrays; a token whose letters beside a quote are not one token stays whole.

    Args:
      vocab_size: number of ids that the model embeds.
      quote: mark around each text; empty if there is none.
    """
    end, opening, closing = (np.arange(max(vocab_size, tokenizer.vocab_size), dtype=np.int32) for _ in range(3))
    for token in range(tokenizer.vocab_size):
        text = tokenizer.decode([token])
        before, newline, _ = text.partition("\n")
        if newline:
            end[token] = _as_token(tokenizer, before.rstrip(quote), otherwise=-1)
        if quote and text.startswith(quote):
            opening[token] = _as_token(tokenizer, text.lstrip(quote), otherwise=token)
        if quote and text.endswith(quote):
            closing[token] = _as_token(tokenizer, text.rstrip(quote), otherwise=token)
    end[tokenizer.eos] = -1
    return Remainders(end, opening, closing)


def _as_token(tokenizer: Tokenizer, text: str, *, otherwise: int) -> int:
    """The one token of a text; -1 if the text is empty."""
    [ids] = tokenizer.encode([text])
    return ids[0] if len(ids) == 1 else otherwise if ids else -1
