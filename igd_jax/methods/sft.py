"""Plain fine-tuning: every target token has weight 1. D3 and IGD call it BIGRec (docs/methods.md, SFT).

L = sum over rows and target tokens of ce  /  number of target tokens

With length penalty 1 it is their "BIGRec", with 0 their "D3" without a collaborative source; with alpha above 0 it is
IGD's decoding of a plain model. `bigrec` is the original method with two steps of grounding.
"""

from flax import nnx

from igd_jax.decoding.engine import Engine
from igd_jax.methods.base import (
    BACKBONE,
    LOG_PROBABILITY,
    Context,
    DecodeOptions,
    Method,
    Objective,
    plain_objective,
    search_engine,
)
from igd_jax.models.backbone import Backbone


class SFT(Method):
    """Cross-entropy with equal weights.

    Args:
      prompt_loss: whether the loss also covers the tokens of the prompt, as in BIGRec; needs a decoder.
    """

    model_kind = BACKBONE
    inputs = "text"
    decoding_args = ()
    beam_search = True
    score = LOG_PROBABILITY
    needs_collaborative = False

    def __init__(self, *, prompt_loss: bool = False):
        self._prompt_loss = prompt_loss
        self.backbones = ("decoder",) if prompt_loss else ("decoder", "t5")

    def make_model(self, context: Context) -> nnx.Module:
        """The backbone."""
        return context.backbone()

    def objective(self, context: Context) -> Objective:
        """Cross-entropy of all target tokens, and of the prompts' if wanted."""
        return plain_objective(context.index, prompt_loss=self._prompt_loss)

    def engine(self, context: Context, model: Backbone, options: DecodeOptions) -> Engine:
        """Trie-constrained beam search."""
        return search_engine(context, model, options)


METHOD = SFT
