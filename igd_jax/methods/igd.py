"""IGD: token weights and rebalanced decoding by information gain (arXiv 2506.13229; docs/methods.md, IGD).

Tuning: a token with gain 0 decides nothing and has weight `beta`, any other has weight 1 (equation 7). With beta 1 this
is plain fine-tuning. Decoding: see `decoding.rebalancing`; alpha is `config.decode.alpha`.
"""

from flax import nnx

from igd_jax.core.errors import InputError
from igd_jax.decoding.engine import Engine
from igd_jax.methods.base import (
    BACKBONE,
    Context,
    DecodeOptions,
    Method,
    Objective,
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
    """

    model_kind, inputs, decoding_args, beam_search = BACKBONE, "text", (), True
    backbones = ("decoder", "t5")
    needs_collaborative = False

    def __init__(self, *, beta: float = 0.1):
        if not 0.0 <= beta <= 1.0:
            raise InputError(f"config.method.args.beta is {beta}; expected a weight from 0 to 1")
        self._beta = beta

    def make_model(self, context: Context) -> nnx.Module:
        """The backbone."""
        return context.backbone()

    def objective(self, context: Context) -> Objective:
        """Weighted cross-entropy of all target tokens."""
        return Objective(token_loss, gain_weights(context.index, beta=self._beta))

    def engine(self, context: Context, model: Backbone, options: DecodeOptions) -> Engine:
        """Trie-constrained beam search with rebalanced siblings."""
        return search_engine(context, model, options)


METHOD = IGD
