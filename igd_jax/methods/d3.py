"""D3: decode with a mixture of the language model and a collaborative source (arXiv 2406.14900; docs/methods/d3.md).

Unlike in IGD, logits are divided by the temperature before they are normalised, and then mixed with the source's
log-shares (see `decoding.mixture`). D3 sums scores (length penalty 0). Training is plain fine-tuning, so any run that
tuned a backbone can be decoded this way. With alpha above 0, the mixture is scaled by IGD's factor. The published
script leaves lam at 1, which ignores the source.
"""

from flax import nnx

from igd_jax.decoding.edge_score import EdgeScore
from igd_jax.decoding.engine import Engine
from igd_jax.decoding.mixture import mixture
from igd_jax.decoding.rebalancing import rebalanced
from igd_jax.methods.base import (
    BACKBONE,
    LOG_PROBABILITY,
    Context,
    DecodeOptions,
    Method,
    Objective,
    check_argument,
    plain_objective,
    search_engine,
)
from igd_jax.models.backbone import Backbone


class D3(Method):
    """The mixture.

    The authors put titles in double quotes, in prompts and targets: `config.data.prompt` d3.

    Args:
      lam: share of the language model, 0 to 1. Below 1, `config.decode.collaborative` must name a source.
    """

    model_kind = BACKBONE
    inputs = "text"
    decoding_args = ("lam",)
    beam_search = True
    score = LOG_PROBABILITY
    backbones = ("decoder", "t5")

    def __init__(self, *, lam: float = 0.5):
        check_argument("lam", lam, 0.0 <= lam <= 1.0, "a share of the language model from 0 to 1")
        self._lam = lam
        self.needs_collaborative = lam < 1.0

    def make_model(self, context: Context) -> nnx.Module:
        """The backbone."""
        return context.backbone()

    def objective(self, context: Context) -> Objective:
        """Plain fine-tuning."""
        return plain_objective(context.index)

    def engine(self, context: Context, model: Backbone, options: DecodeOptions) -> Engine:
        """Trie-constrained beam search over mixed scores."""
        # The temperature is applied in the softmax.
        score: EdgeScore = rebalanced(context.index.gain, alpha=options.alpha, temperature=1.0)
        if self.needs_collaborative:
            score = mixture(context.index, lam=self._lam, then=score)
        return search_engine(context, model, options, edge_score=score, softmax_temperature=options.temperature)


METHOD = D3
