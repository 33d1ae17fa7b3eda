"""CFT and Pos: learn the effect of the history, with weights that fall along the title (docs/methods/cft.md).

For a title of n tokens, k = 1..n, with logits z of its tokens, and logits z0 of them after a prompt without history:

    omega_k = 1 - (k - 1)(1 - beta) / max(n - 1, 1)
    L = (sum omega CE(z) + alpha sum omega CE(z - z0)) / sum omega

Pos has alpha 0; with beta 1 as well, it is plain fine-tuning. Decoding is constrained search with `config.decode` as in
IGD.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct
from jaxtyping import Array, Float, Int

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import places_in_rows
from igd_jax.core.types import LossSum, TextBatch
from igd_jax.decoding.engine import Engine
from igd_jax.methods.base import (
    BACKBONE,
    LOG_PROBABILITY,
    Context,
    DecodeOptions,
    Method,
    Objective,
    check_argument,
    gain_weights,
    parts_by_gain,
    search_engine,
    token_loss,
)
from igd_jax.models.backbone import Backbone
from igd_jax.models.without_history import hidden_without_history
from igd_jax.training.loss import over_targets, weighted_cross_entropy
from igd_jax.training.step import LossState


@struct.dataclass
class Counterfactual:
    """The prompt without a history, common to all users.

    Attributes:
      prompt: ids of the prompt.
      longest: number of tokens of the longest identifier, EOS included.
    """

    prompt: Int[Array, " P"]
    longest: int = struct.field(pytree_node=False)


class CFT(Method):
    """Position weights, and a second cross-entropy on the change that the history makes to the logits.

    The validation loss is the same sum, whereas the published code monitors its first half or the unweighted mean; both
    halves are reported separately. Published lists come from texts that are written without constraints and grounded
    (docs/methods/cft.md); the method `bigrec` decodes a run in this way.

    Args:
      alpha: weight of the second loss, at least 0; published: 0.1. With 0 there is no second forward pass (Pos).
      beta: weight of a title's last token, 0 to 1; published: 0.25. Weights decrease linearly from 1 to it.
      stop_gradient: whether z0 is a constant. In the published code, gradients flow through both passes.
      gain_beta: additional factor of tokens without information gain, 0 to 1, as in IGD. It applies to all tokens of a
        target off the trie.
    """

    model_kind = BACKBONE
    inputs = "text"
    decoding_args = ()
    beam_search = True
    score = LOG_PROBABILITY
    backbones = ("decoder", "t5")
    needs_collaborative = False

    def __init__(self, *, alpha: float = 0.1, beta: float = 0.25, stop_gradient: bool = False, gain_beta: float = 1.0):
        check_argument("alpha", alpha, 0.0 <= alpha < float("inf"), "a weight of at least 0")
        for name, value in (("beta", beta), ("gain_beta", gain_beta)):
            check_argument(name, value, 0.0 <= value <= 1.0, "a weight from 0 to 1")
        self._alpha, self._beta, self._gain_beta = alpha, beta, gain_beta
        self._stop_gradient = stop_gradient

    def make_model(self, context: Context) -> nnx.Module:
        """The backbone."""
        return context.backbone()

    def objective(self, context: Context) -> Objective:
        """Both losses, weighted by position and gain."""
        rows = context.index.item_tokens
        found = gain_weights(context.index, beta=self._gain_beta)
        found["weight"] *= position_weights(rows.lengths, beta=self._beta)
        if self._alpha == 0.0:
            return Objective(token_loss, found)
        prompt = jnp.asarray(context.prompts.without_history(), jnp.int32)
        return Objective(self._loss, found, Counterfactual(prompt, int(rows.lengths.max())))

    def engine(self, context: Context, model: Backbone, options: DecodeOptions) -> Engine:
        """Trie-constrained beam search."""
        return search_engine(context, model, options)

    def _loss(self, model: Backbone, batch: TextBatch, tables: Counterfactual, state: LossState) -> LossSum:
        """Sum of both losses, with a common sum of weights.

        Raises:
          InputError: the prompt without history and the longest identifier exceed the model's positions.
        """
        check_room(model, tables)
        hidden = model.target_hidden(batch), hidden_without_history(model, batch, tables.prompt)
        arrays = batch.target, batch.annotations["weight"], parts_by_gain(batch)
        return over_targets(model.logits, hidden, arrays, self._loss_of_logits)

    def _loss_of_logits(self, logits: Float[Array, "B T V"], without: Float[Array, "B T V"], arrays: Any) -> LossSum:
        target, weight, parts = arrays
        if self._stop_gradient:
            without = jax.lax.stop_gradient(without)
        normal = weighted_cross_entropy(logits, target, weight, parts=parts)
        causal = weighted_cross_entropy(logits - without, target, weight, parts={})
        halves = {"loss_normal": (normal.loss, normal.weight), "loss_causal": (causal.loss, causal.weight)}
        return LossSum(normal.loss + self._alpha * causal.loss, normal.weight, normal.metrics | halves)


METHOD = CFT


def position_weights(lengths: Int[np.ndarray, " items"], *, beta: float) -> Float[np.ndarray, " total"]:
    """Weight ``omega`` of each token of rows with these lengths, one row after another, float32."""
    last = np.repeat(np.maximum(lengths - 1, 1), lengths)
    return (1.0 - places_in_rows(lengths) / last * (1.0 - beta)).astype(np.float32)


def check_room(model: Any, counterfactual: Counterfactual) -> None:
    """Raise `InputError` unless the prompt and the longest identifier fit into the model's positions."""
    n_prompt, limit = len(counterfactual.prompt), model.config.max_positions
    if n_prompt + counterfactual.longest > limit:
        raise InputError(
            f"the prompt without history has {n_prompt} tokens and the longest title {counterfactual.longest}, but the "
            f"model has {limit} positions; choose a shorter config.data.prompt or a model with more"
        )
