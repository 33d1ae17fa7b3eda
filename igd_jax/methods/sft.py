"""Plain fine-tuning on titles: every target token weighs 1. What D3 and IGD call BIGRec (spec/methods.md 0.1).

L = sum over rows and target tokens of ce  /  number of target tokens

Decoded with length penalty 1 it is their "BIGRec", with 0 their "D3" without a collaborative source; with alpha above 0
it is IGD's decoding on a plain model. `bigrec` is the original two-step method.
"""

from typing import Any

import numpy as np

from igd_jax.core.types import Batch, LossSum, Ranked
from igd_jax.decoding.beam_search import SearchOptions
from igd_jax.items.index import ItemIndex
from igd_jax.methods.base import Method, gain_weights, search_titles, title_loss
from igd_jax.models.decoder import Decoder


class SFT(Method):
    """Weights of one, and no argument."""

    def annotate(self, index: ItemIndex) -> dict[str, np.ndarray]:
        """`weight` float32 and `forced` bool; both 0 after a title's end."""
        return gain_weights(index, beta=1.0)

    def loss(self, model: Decoder, batch: Batch, constants: Any) -> LossSum:
        """Cross-entropy of all target tokens, summed."""
        return title_loss(model, batch)

    def recommend(self, model: Decoder, batch: Batch, *, tables: Any, options: SearchOptions) -> Ranked:
        """Trie-constrained beam search."""
        return search_titles(model, batch, tables=tables, options=options)


METHOD = SFT
