"""D3: decode by a mixture of the language model and a collaborative source (spec/methods.md 3.4).

With g a prefix, v a legal next token, I(g, v) the items below it, and p_CF a user's distribution over items:

    a_v = log softmax(logits / T)_v                over the whole vocabulary; T renormalises, unlike in IGD
    q_v = (sum of p_CF over I(g, v) + 1e-20) / (the same, summed over all legal tokens)
    s_v = lam * a_v + (1 - lam) * ln q_v

A forced token has q = 1. The source's mass below an edge is the difference of two prefix sums over the sorted rows.
D3 sums scores (length penalty 0); training is plain fine-tuning, so any title-writing run can be decoded this way. With
alpha above 0, IGD's factor scales the mixture. The published script leaves lam at 1, which ignores the source.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from igd_jax.core.errors import InputError
from igd_jax.core.types import Batch, LossSum, Ranked
from igd_jax.decoding.beam_search import Beams, Carry, Scorer, SearchOptions, beam_search
from igd_jax.decoding.device_trie import Children, DeviceTrie
from igd_jax.decoding.lm_scorer import lm_scorer
from igd_jax.items.index import ItemIndex
from igd_jax.methods.base import Context, Method, gain_weights, title_loss
from igd_jax.models.decoder import Decoder

SMALLEST_MASS = 1e-20


class Tables(NamedTuple):
    """What decoding looks up.

    Attributes:
      row_of_item: catalogue row of each item; the number of rows for items that are no candidates.
      low, high: the range of catalogue rows below each edge out of a branching node.
      parent: number of the branching node that each of those edges leaves.
    """

    trie: DeviceTrie
    row_of_item: Int[Array, " items"]
    low: Int[Array, " E"]
    high: Int[Array, " E"]
    parent: Int[Array, " E"]


class D3(Method):
    """The mixture.

    The authors put titles in double quotes, in prompts and as targets (spec/methods.md 3.1); ours have none, as in IGD.

    Args:
      lam: share of the language model, 0 to 1. Below 1 a source must be named by `config.decode.collaborative`.
    """

    decoding_args = ("lam",)

    def __init__(self, *, lam: float = 0.5):
        if not 0.0 <= lam <= 1.0:
            raise InputError(f"config.method.args.lam is {lam}; expected a share of the language model from 0 to 1")
        self._lam = lam

    def annotate(self, index: ItemIndex) -> dict[str, np.ndarray]:
        """Plain fine-tuning: `weight` 1 on each token, and `forced`."""
        return gain_weights(index, beta=1.0)

    def loss(self, model: Decoder, batch: Batch, constants: Any) -> LossSum:
        """Plain fine-tuning."""
        return title_loss(model, batch)

    def tables(self, context: Context, model: Any) -> Tables:
        """The trie, and where its edges lie in the order of the rows."""
        index = context.index
        row = index.catalog.row_of_item
        return Tables(
            trie=super().tables(context, model),
            row_of_item=jnp.asarray(np.where(row < 0, len(index.catalog), row)),
            low=jnp.asarray(index.trie.child_lo),
            high=jnp.asarray(index.trie.child_hi),
            parent=jnp.asarray(np.repeat(np.arange(len(index.trie.branch), dtype=np.int32), index.trie.n_children)),
        )

    def recommend(self, model: Decoder, batch: Batch, *, tables: Tables, options: SearchOptions) -> Ranked:
        """Trie-constrained beam search over mixed scores.

        Raises:
          InputError: lam is below 1 and the batch has no collaborative scores.
        """
        scorer = lm_scorer(model, batch, num_beams=options.num_beams, temperature=options.temperature)
        if self._lam < 1.0:
            if "collaborative" not in batch:
                raise InputError(
                    f"config.method.args.lam is {self._lam}, but there is no collaborative source; name one by "
                    "config.decode.collaborative, or set lam to 1"
                )
            scorer = mixed(scorer, edge_log_share(batch["collaborative"], tables), self._lam)
        options = dataclasses.replace(options, temperature=jnp.float32(1))  # it was applied before normalising
        return beam_search(scorer, tables.trie, options, is_real=batch["prompt_mask"].any(axis=1))


METHOD = D3


def mixed(scorer: Scorer, log_share: Float[Array, "B E_plus_1"], lam: float) -> Scorer:
    """A scorer of ``lam * logp + (1 - lam) * log_share``; `log_share` is 0 at its last place, for forced edges."""

    def mix(logp: Float[Array, "B K C"], edge: Int[Array, "B K C"]) -> Float[Array, "B K C"]:
        share = jnp.take_along_axis(log_share, edge.reshape(len(edge), -1), axis=1).reshape(edge.shape)
        return lam * logp + (1.0 - lam) * share

    def start(children: Children) -> tuple[Carry, Float[Array, "B 1 C"]]:
        carry, logp = scorer.start(children)
        return carry, mix(logp, children.edge)

    def step(carry: Carry, beams: Beams, children: Children) -> tuple[Carry, Float[Array, "B K C"]]:
        carry, logp = scorer.step(carry, beams, children)
        return carry, mix(logp, children.edge)

    return Scorer(start, step, scorer.reserve)


def edge_log_share(scores: Float[Array, "B items"], tables: Tables) -> Float[Array, "B E_plus_1"]:
    """``ln q`` of each edge out of a branching node, and 0 for all others in one last place.

    Args:
      scores: unnormalised log-probabilities of all items.
    """
    share = jax.nn.softmax(scores.astype(jnp.float32), axis=1)
    n_rows, n_branches = len(tables.trie.leaf), len(tables.trie.child_start) - 2
    by_row = jax.vmap(lambda p: jax.ops.segment_sum(p, tables.row_of_item, n_rows + 1))(share)[:, :-1]
    whole, rest = jax.vmap(prefix_sums)(by_row)
    mass = (whole[:, tables.high] - whole[:, tables.low]) + (rest[:, tables.high] - rest[:, tables.low])
    mass = jnp.maximum(mass, 0.0) + SMALLEST_MASS
    among = jax.vmap(lambda m: jax.ops.segment_sum(m, tables.parent, n_branches))(mass)
    return jnp.pad(jnp.log(mass) - jnp.log(among[:, tables.parent]), ((0, 0), (0, 1)))


def prefix_sums(x: Float[Array, " N"]) -> tuple[Float[Array, " N_plus_1"], Float[Array, " N_plus_1"]]:
    """Sums of the first 0, 1, ..., N values in two float32 numbers each, so that differences of near sums are exact.

    The second holds what rounding took from the first (Knuth's two-sum), summed along.
    """

    def add(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
        total = a[0] + b[0]
        virtual = total - a[0]
        error = (a[0] - (total - virtual)) + (b[0] - virtual)
        return total, a[1] + b[1] + error

    whole, rest = jax.lax.associative_scan(add, (x, jnp.zeros_like(x)))
    return jnp.pad(whole, (1, 0)), jnp.pad(rest, (1, 0))
