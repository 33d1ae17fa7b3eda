"""MSL: a softmax over the legal next tokens instead of the vocabulary (arXiv 2504.04178; docs/methods/msl.md).

For a target token y with logits z and legal alternatives A (y included), which are the children of a node of the trie:

    l = ln(sum over v in A of exp(z_v / tau)) - z_y / tau        L = mean of l

So the loss of a token without alternatives is 0. With an adaptive temperature, the mean is over deciding tokens, which
have alternatives, and L = tau * mean of l. The temperature follows the first tokens: d is the mean of z_y minus the
mean of all z_v, s^2 the variance of the z_v (divided by their number minus one), n the number of legal first tokens,
and C = ln(eta n):

    tau* = (d + sqrt(max(d^2 - 2 C s^2, 0))) / (2 C), clipped to tau_min and tau_max
    tau <- (1 - alpha) tau + alpha tau*

The published code updates tau with a batch before it computes the loss of that batch. Here a step's loss uses the tau
of the steps before it, so that the loss does not depend on how a batch is split into micro-batches.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from igd_jax.core.errors import InputError
from igd_jax.core.types import LossSum, TextBatch
from igd_jax.decoding.device_trie import DeviceTrie, device_trie
from igd_jax.decoding.engine import Engine
from igd_jax.methods.base import (
    BACKBONE,
    LOG_PROBABILITY,
    Context,
    DecodeOptions,
    Method,
    Objective,
    check_argument,
    search_engine,
)
from igd_jax.models.backbone import Backbone
from igd_jax.training.loss import over_targets
from igd_jax.training.step import LossState

DENOMINATORS = ("all", "deciding")


class MSL(Method):
    """Cross-entropy among legal tokens.

    A target that is not a candidate has no legal path: its weight is 0, and the fraction of such rows is reported. The
    authors decode with a length penalty of 1, the default of transformers (docs/methods/msl.md); here it is
    `config.decode.length_penalty`.

    Args:
      tau: temperature, above 0; published: 4.5. With `adaptive`, its initial value; published: 1.5.
      adaptive: whether the temperature follows the logits; requires `denominator` deciding. As losses of different
        steps then have different temperatures and cannot be compared, stop by steps, not by patience.
      denominator: tokens in the mean: ``all`` tokens of the title, or only ``deciding`` ones.
      eta: factor of the number of legal first tokens in C, above 0. This and the following arguments apply to an
        adaptive temperature only; their defaults are the published values.
      alpha: share of tau* in the new temperature, above 0 and at most 1.
      tau_min, tau_max: bounds of tau*.
      warm_up: number of first steps that leave the temperature at its initial value.
    """

    model_kind = BACKBONE
    inputs = "text"
    decoding_args = ()
    beam_search = True
    score = LOG_PROBABILITY
    backbones = ("decoder", "t5")
    needs_collaborative = False

    def __init__(
        self,
        *,
        tau: float = 4.5,
        adaptive: bool = False,
        denominator: str = "all",
        eta: float = 0.25,
        alpha: float = 0.05,
        tau_min: float = 1.5,
        tau_max: float = 5.0,
        warm_up: int = 0,
    ):
        for name, value in (("tau", tau), ("tau_min", tau_min)):
            check_argument(name, value, 0.0 < value < float("inf"), "a temperature above 0")
        check_argument("tau_max", tau_max, tau_min <= tau_max < float("inf"), f"tau_min, {tau_min}, or more")
        check_argument("denominator", denominator, denominator in DENOMINATORS, " or ".join(DENOMINATORS))
        fits = denominator == "deciding" or not adaptive
        check_argument("denominator", denominator, fits, "deciding", but=", but adaptive is True")
        check_argument("eta", eta, 0.0 < eta < float("inf"), "a factor above 0")
        check_argument("alpha", alpha, 0.0 < alpha <= 1.0, "a share above 0 and at most 1")
        check_argument("warm_up", warm_up, 0 <= warm_up < 2**31, "a number of steps, 0 or more")
        self._tau, self._adaptive, self._denominator = tau, adaptive, denominator
        self._eta, self._alpha, self._range, self._warm_up = eta, alpha, (tau_min, tau_max), warm_up

    def make_model(self, context: Context) -> nnx.Module:
        """The backbone."""
        return context.backbone()

    def objective(self, context: Context) -> Objective:
        """The loss over the trie; an adaptive temperature is its state.

        Raises:
          InputError: an adaptive temperature is undefined, as there are so few legal first tokens that C <= 0.
        """
        trie = device_trie(context.index.trie)
        if self._adaptive and self._eta * trie.root_width <= 1.0:
            raise InputError(
                f"config.method.args.adaptive is True, but titles begin with {trie.root_width} different token(s); "
                f"with eta {self._eta:g} it needs more than {1 / self._eta:g}: give a fixed config.method.args.tau"
            )
        parent = context.index.walk().parent
        in_mean = np.isin(parent, context.index.trie.branch) if self._denominator == "deciding" else parent >= 0
        # The loss counts on the device; what a token weighs is shown, and targets without weight are refused.
        annotations = {"parent": parent, "weight": in_mean.astype(np.float32)}
        if self._adaptive:
            return Objective(self._loss, annotations, trie, {"tau": self._tau, "step": 0.0}, self._follow)
        return Objective(self._loss, annotations, trie)

    def engine(self, context: Context, model: Backbone, options: DecodeOptions) -> Engine:
        """Trie-constrained beam search."""
        return search_engine(context, model, options)

    def _loss(self, model: Backbone, batch: TextBatch, tables: DeviceTrie, state: LossState) -> LossSum:
        """Sum of l over target tokens, times tau if it is adaptive."""
        hidden = model.target_hidden(batch)
        parent = jnp.where(batch.target_mask, batch.annotations["parent"], -1)  # padding holds zeros
        # Losses at different temperatures cannot be compared: that of validation, which has no seeds, is the first one.
        tau = state["tau"] if self._adaptive and batch.seed is not None else jnp.float32(self._tau)

        # First tokens have many alternatives, the children of the root; other tokens have few.
        first_hidden, *of_first = first_tokens(batch, hidden, parent)
        of_rest = batch.target, parent, (parent >= 0) & (batch.place > 0)
        first, rest = (
            over_targets(model.logits, [states], arrays, partial(legal_loss, trie=tables, tau=tau, width=width))
            for states, arrays, width in (
                (first_hidden, of_first, tables.root_width),
                (hidden, of_rest, tables.width),
            )
        )
        nll, n_deciding = first.loss + rest.loss, first.weight + rest.weight
        counted = n_deciding if self._denominator == "deciding" else _count(parent >= 0)
        is_target = batch.target_mask & (batch.place == 0)
        metrics = {"off_trie": (_count(is_target & (parent < 0)), _count(is_target))}
        if not self._adaptive:
            return LossSum(nll, counted, metrics)
        n_rows = first.metrics["first_target"][1]
        return LossSum(tau * nll, counted, metrics | first.metrics | {"tau": (tau * n_rows, n_rows)})

    def _follow(self, state: LossState, total: LossSum) -> LossState:
        """Update the temperature with the first tokens of a step, once warmed up; without any, it is unchanged."""
        (_, n_rows), tau = total.metrics["first_target"], state["tau"]
        follows = (n_rows > 0) & (state["step"] >= self._warm_up)
        moved = (1.0 - self._alpha) * tau + self._alpha * self._wanted_tau(total)
        return {"tau": jnp.where(follows, moved, tau), "step": state["step"] + 1.0}

    def _wanted_tau(self, total: LossSum) -> Float[Array, ""]:
        """tau* of a step; arbitrary if no target was on the trie."""
        (target, n_rows), (legal, n_legal), (square, _) = (
            total.metrics[name] for name in ("first_target", "first_legal", "first_legal_square")
        )
        n_rows, n_legal = jnp.maximum(n_rows, 1.0), jnp.maximum(n_legal, 2.0)
        mean = legal / n_legal
        lead, c = target / n_rows - mean, jnp.log(self._eta * n_legal / n_rows)
        variance = (square - n_legal * jnp.square(mean)) / (n_legal - 1.0)
        wanted = (lead + jnp.sqrt(jnp.maximum(jnp.square(lead) - 2.0 * c * variance, 0.0))) / (2.0 * c)
        return jnp.clip(wanted, *self._range)


METHOD = MSL


def first_tokens(
    batch: TextBatch, hidden: Float[Array, "B T D"], parent: Int[Array, "B T"]
) -> tuple[Float[Array, "n 1 D"], Int[Array, "n 1"], Int[Array, "n 1"], Bool[Array, "n 1"]]:
    """State, id, parent, and whether there is one, of the first token of each identifier."""
    at = jnp.minimum(batch.first, parent.size - 1)
    states, target, parent = (x.reshape(-1, *x.shape[2:])[at][:, None] for x in (hidden, batch.target, parent))
    return states, target, parent, (batch.first < batch.target.size)[:, None] & (parent >= 0)


def legal_loss(
    logits: Float[Array, "B T V"], arrays: Any, *, trie: DeviceTrie, tau: Float[Array, ""], width: int
) -> LossSum:
    """Sum of l over tokens on the trie, and the number of those that decide; sums of `first_tokens` as metrics.

    Args:
      logits: logits of the tokens.
      arrays: id and parent of each token, and whether it counts.
      trie: the trie.
      tau: the temperature.
      width: most children of a parent.
    """
    target, parent, counts = arrays
    own = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    found, legal = legal_logits(logits, jnp.where(counts, parent, -1), trie, width=width)
    n_rows, n_legal = _count(counts), _count(legal)
    metrics = {
        "first_target": (jnp.where(counts, own, 0.0).sum(), n_rows),
        "first_legal": (jnp.where(legal, found, 0.0).sum(), n_legal),
        "first_legal_square": (jnp.where(legal, jnp.square(found), 0.0).sum(), n_legal),
    }
    return LossSum(legal_nll(found, legal, own, tau).sum(), _count(has_choice(legal)), metrics)


def legal_logits(
    logits: Float[Array, "B T V"], parent: Int[Array, "B T"], trie: DeviceTrie, *, width: int
) -> tuple[Float[Array, "B T C"], Bool[Array, "B T C"]]:
    """Logits of the first `width` children of each node, and the mask of existing children; node -1 has none."""
    children = trie.children(parent, width)
    return jnp.take_along_axis(logits, children.token, axis=-1), children.legal


def has_choice(legal: Bool[Array, "B T C"]) -> Bool[Array, "B T"]:
    """Mask of the positions at which more than one token is legal."""
    return legal.sum(axis=-1) > 1


def legal_nll(
    logits: Float[Array, "B T C"],
    legal: Bool[Array, "B T C"],
    target: Float[Array, "B T"],
    tau: Float[Array, ""],
) -> Float[Array, "B T"]:
    """``logsumexp(logits / tau) - target / tau`` over legal tokens, in nats; 0 if there is no choice."""
    # The lowest finite number instead of -inf, as the gradient without any legal token would be NaN.
    masked = jnp.where(legal, logits / tau, jnp.finfo(jnp.float32).min)
    return jnp.where(has_choice(legal), jax.nn.logsumexp(masked, axis=-1) - target / tau, 0.0)


def _count(mask: Bool[Array, "..."]) -> Float[Array, ""]:
    return mask.astype(jnp.float32).sum()
