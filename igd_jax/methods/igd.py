"""IGD: token weights and rebalanced decoding by information gain (arXiv 2506.13229; docs/methods/igd.md).

Tuning: a token with gain 0 decides nothing and has weight `beta`, any other has weight 1 (equation 7). With beta 1 this
is plain fine-tuning. For ablations, weights may grow with the gain instead (`items.gain_weights`). Decoding: see
`decoding.rebalancing`; alpha is `config.decode.alpha`.
"""

import numpy as np
from flax import nnx

from igd_jax.decoding.engine import Engine
from igd_jax.items.gain_weights import ENTROPIES, WEIGHTS, gain_share
from igd_jax.methods.base import (
    BACKBONE,
    LOG_PROBABILITY,
    Context,
    DecodeOptions,
    Method,
    Objective,
    check_argument,
    gain_weights,
    search_engine,
    token_loss,
)
from igd_jax.models.backbone import Backbone


class IGD(Method):
    """Information-gain weights.

    Args:
      beta: weight of tokens without gain, 0 to 1; the authors use 0.1 to 0.5. All tokens of a target off the trie have
        this weight, as in the published code.
      weights: ``zero``, as published: 1 for any gain; ``gain`` and ``relative``: from `beta` to 1, in proportion to the
        gain, or to the share of the remaining entropy that it is.
      entropy: entropy of those two rules: ``mass``, as in the published code, or ``prefix``, of the items given the
        prefix. Decoding always has the published gain.
    """

    model_kind = BACKBONE
    inputs = "text"
    decoding_args = ()
    beam_search = True
    score = LOG_PROBABILITY
    backbones = ("decoder", "t5")
    needs_collaborative = False

    def __init__(self, *, beta: float = 0.1, weights: str = "zero", entropy: str = "mass"):
        check_argument("beta", beta, 0.0 <= beta <= 1.0, "a weight from 0 to 1")
        check_argument("weights", weights, weights in WEIGHTS, f"one of {', '.join(WEIGHTS)}")
        check_argument("entropy", entropy, entropy in ENTROPIES, " or ".join(ENTROPIES))
        self._beta, self._weights, self._entropy = beta, weights, entropy

    def make_model(self, context: Context) -> nnx.Module:
        """The backbone."""
        return context.backbone()

    def objective(self, context: Context) -> Objective:
        """Weighted cross-entropy of all target tokens."""
        annotations = gain_weights(context.index, beta=self._beta)
        if self._weights != "zero":
            share = gain_share(context.index, weights=self._weights, entropy=self._entropy)
            annotations["weight"] = (self._beta + (1.0 - self._beta) * share).astype(np.float32)
        return Objective(token_loss, annotations)

    def engine(self, context: Context, model: Backbone, options: DecodeOptions) -> Engine:
        """Trie-constrained beam search with rebalanced siblings."""
        return search_engine(context, model, options)


METHOD = IGD
