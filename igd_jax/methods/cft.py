"""CFT and Pos: learn what the history changes, and let weights fall along the title (spec/methods.md 4).

With n the tokens of a title, k = 1..n, z the logits of its tokens and z0 those after a prompt without the history:

    omega_k = 1 - (k - 1)(1 - beta) / max(n - 1, 1)
    L = (sum omega CE(z) + alpha sum omega CE(z - z0)) / sum omega

Pos is alpha 0, and with beta 1 as well plain fine-tuning. Decoding is constrained search, by `config.decode` as in IGD.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from igd_jax.core.errors import InputError
from igd_jax.core.types import Batch, LossSum, Ranked
from igd_jax.decoding.beam_search import SearchOptions
from igd_jax.items.index import ItemIndex
from igd_jax.methods.base import Context, Method, gain_weights, search_titles, target_logits
from igd_jax.models.decoder import Decoder
from igd_jax.training.loss import weighted_cross_entropy


@struct.dataclass
class Counterfactual:
    """The prompt that says nothing of the user, the same for all.

    Attributes:
      prompt: its ids.
      longest: tokens of the longest title that may follow it, EOS included.
    """

    prompt: Int[Array, " P"]
    longest: int = struct.field(pytree_node=False)


class CFT(Method):
    """Position weights, and a second cross-entropy on what the history adds to the logits.

    The validation loss is the same sum, where the published code watches its first half or the unweighted mean; the two
    halves are reported apart. Published lists are of texts of at least 4 tokens that are written freely and grounded
    (spec/methods.md 4.4): the method `bigrec` decodes a run so, but for that least length.

    Args:
      alpha: weight of the second loss, at least 0; published: 0.1. At 0 there is no second forward pass (Pos).
      beta: weight of a title's last token, 0 to 1; published: 0.25. Weights fall to it from 1 in equal steps.
      stop_gradient: take z0 as a constant. The published code lets gradients flow through both passes.
      gain_beta: factor on tokens without information gain, 0 to 1: IGD's weights on top. A target off the trie has it
        on all its tokens.
    """

    def __init__(self, *, alpha: float = 0.1, beta: float = 0.25, stop_gradient: bool = False, gain_beta: float = 1.0):
        if not 0.0 <= alpha < float("inf"):
            raise InputError(f"config.method.args.alpha is {alpha}; expected a weight of at least 0")
        for name, value in (("beta", beta), ("gain_beta", gain_beta)):
            if not 0.0 <= value <= 1.0:
                raise InputError(f"config.method.args.{name} is {value}; expected a weight from 0 to 1")
        self._alpha, self._beta, self._gain_beta = alpha, beta, gain_beta
        self._stop_gradient = stop_gradient

    def annotate(self, index: ItemIndex) -> dict[str, np.ndarray]:
        """`weight` float32, by place and by gain, and `forced` bool; both 0 after a title's end."""
        found = gain_weights(index, beta=self._gain_beta)
        last = np.maximum(index.item_tokens.lengths - 1, 1)[:, None]
        place = np.minimum(np.arange(found["weight"].shape[1]), last) / last
        omega = (1.0 - place * (1.0 - self._beta)).astype(np.float32)
        return found | {"weight": found["weight"] * omega}

    def constants(self, context: Context) -> Counterfactual | None:
        """The prompt without history, where it is used at all."""
        if self._alpha == 0.0:
            return None
        prompt = context.prompts([None])[0].astype(np.int32)
        return Counterfactual(jnp.asarray(prompt), int(context.index.item_tokens.lengths.max()))

    def loss(self, model: Decoder, batch: Batch, constants: Counterfactual | None) -> LossSum:
        """Both losses, summed, over one sum of weights.

        Raises:
          InputError: the prompt without history and the longest title exceed the model's positions.
        """
        logits = target_logits(model, batch)
        parts = {"loss_forced": batch["forced"], "loss_deciding": batch["target_mask"] & ~batch["forced"]}
        normal = weighted_cross_entropy(logits, batch["target"], batch["weight"], parts=parts)
        if constants is None:
            return normal
        check_room(model, constants)
        without = logits_without_history(model, batch, constants.prompt)
        if self._stop_gradient:
            without = jax.lax.stop_gradient(without)
        causal = weighted_cross_entropy(logits - without, batch["target"], batch["weight"], parts={})
        halves = {"loss_normal": (normal.loss, normal.weight), "loss_causal": (causal.loss, causal.weight)}
        return LossSum(normal.loss + self._alpha * causal.loss, normal.weight, normal.metrics | halves)

    def recommend(self, model: Decoder, batch: Batch, *, tables: Any, options: SearchOptions) -> Ranked:
        """Trie-constrained beam search."""
        return search_titles(model, batch, tables=tables, options=options)


METHOD = CFT


def logits_without_history(model: Decoder, batch: Batch, prompt: Int[Array, " P"]) -> Float[Array, "B T V"]:
    """Logits z0 that predict each target token after `prompt`, in float32, aligned with `target_logits`.

    The prompt is run once for the whole batch; each row runs its last token and the target without the last:

    prompt  p1 p2 p3      run    p3 t1 t2 .
    target  t1 t2 t3 .    gives  t1 t2 t3 .

    The published code shifts the shorter of the two prompts, so that targets stand at equal positions; rotary positions
    are relative, so the logits are the same.
    """
    n_rows = len(batch["target"])
    prefix = jnp.broadcast_to(prompt[None, :-1], (n_rows, len(prompt) - 1))
    last = jnp.broadcast_to(prompt[None, -1:], (n_rows, 1))
    tokens = jnp.concatenate([last, batch["target"][:, :-1]], axis=1)
    valid = jnp.pad(batch["target_mask"][:, :-1], ((0, 0), (1, 0)), constant_values=True)
    hidden, _ = model.after_prefix(prefix, tokens, valid)
    return model.logits(hidden)


def check_room(model: Decoder, counterfactual: Counterfactual) -> None:
    """Raise `InputError` unless the prompt and the longest title fit into the model's positions."""
    n_prompt, limit = len(counterfactual.prompt), model.config.max_positions
    if n_prompt + counterfactual.longest > limit:
        raise InputError(
            f"the prompt without history has {n_prompt} tokens and the longest title {counterfactual.longest}, but the "
            f"model has {limit} positions; choose a shorter config.data.prompt or a model with more"
        )
