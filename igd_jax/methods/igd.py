"""IGD: weigh tokens by information gain, and rebalance decoding by it (arXiv 2506.13229; spec/methods.md 1).

Tuning: a token whose gain is 0 decides nothing and weighs `beta`, any other weighs 1. At beta 1 this is plain SFT.
Decoding: the log-probability of a token is scaled by 1 - alpha * factor, see `decoding.beam_search`; alpha is
`config.decode.alpha`.
"""

from typing import Any

import numpy as np

from igd_jax.core.errors import InputError
from igd_jax.core.types import Batch, LossSum, Ranked
from igd_jax.decoding.beam_search import SearchOptions
from igd_jax.items.index import ItemIndex
from igd_jax.methods.base import Method, gain_weights, search_titles, title_loss
from igd_jax.models.decoder import Decoder


class IGD(Method):
    """Information-gain weights.

    Args:
      beta: weight of tokens without gain, 0 to 1; the authors use 0.1 to 0.5. A target off the trie weighs `beta` on
        all its tokens, as in the published code.
    """

    def __init__(self, *, beta: float = 0.1):
        if not 0.0 <= beta <= 1.0:
            raise InputError(f"config.method.args.beta is {beta}; expected a weight from 0 to 1")
        self._beta = beta

    def annotate(self, index: ItemIndex) -> dict[str, np.ndarray]:
        """`weight` float32 and `forced` bool; both 0 after a title's end."""
        return gain_weights(index, beta=self._beta)

    def loss(self, model: Decoder, batch: Batch, constants: Any) -> LossSum:
        """Equation 7 of the paper, summed: weight times cross-entropy over all target tokens."""
        return title_loss(model, batch)

    def recommend(self, model: Decoder, batch: Batch, *, tables: Any, options: SearchOptions) -> Ranked:
        """Trie-constrained beam search with gain-scaled token scores."""
        return search_titles(model, batch, tables=tables, options=options)


METHOD = IGD
