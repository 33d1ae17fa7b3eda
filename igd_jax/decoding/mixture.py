"""D3's edge score: a mixture of the language model and a collaborative source (arXiv 2406.14900; docs/methods.md, D3).

Let g be a prefix, v a legal next token, I(g, v) the items below it, and p_CF a user's distribution over items:

    q_v  = (sum of p_CF over I(g, v) + 1e-20) / (the same, summed over all legal tokens)
    w(v) = lam * logp(v) + (1 - lam) * ln q_v

A forced token has q = 1. The mass below an edge is a difference of two prefix sums over the sorted rows.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from igd_jax.core.types import TextBatch
from igd_jax.decoding.edge_score import EdgeScore
from igd_jax.items.index import ItemIndex

SMALLEST_MASS = 1e-20
"""Constant added to the mass below each legal token, as published."""


@struct.dataclass
class Mixture:
    """Log-probabilities mixed with the log-shares of a collaborative source.

    Attributes:
      row_of_item: catalogue row of each item; N, one beyond the last, for items that are not candidates.
      low, high: range of catalogue rows below each edge out of a branching node.
      parent: index among the branching nodes of the start of each edge.
      lam: weight of the language model, 0 to 1.
      then: edge score applied to the mixture.
      n_rows, n_branches: N, and the number of branching nodes.
    """

    row_of_item: Int[Array, " items"]
    low: Int[Array, " E"]
    high: Int[Array, " E"]
    parent: Int[Array, " E"]
    lam: Float[Array, ""]
    then: EdgeScore
    n_rows: int = struct.field(pytree_node=False)
    n_branches: int = struct.field(pytree_node=False)

    def of_rows(self, batch: TextBatch) -> Float[Array, "B E_plus_1"]:
        """``ln q`` of each edge out of a branching node; a last entry, 0, represents all other edges."""
        assert batch.collaborative is not None
        share = jax.nn.softmax(batch.collaborative.astype(jnp.float32), axis=1)
        by_row = jax.vmap(lambda p: jax.ops.segment_sum(p, self.row_of_item, self.n_rows + 1))(share)[:, :-1]
        whole, rest = jax.vmap(prefix_sums)(by_row)
        mass = (whole[:, self.high] - whole[:, self.low]) + (rest[:, self.high] - rest[:, self.low])
        mass = jnp.maximum(mass, 0.0) + SMALLEST_MASS
        among = jax.vmap(lambda m: jax.ops.segment_sum(m, self.parent, self.n_branches))(mass)
        return jnp.pad(jnp.log(mass) - jnp.log(among[:, self.parent]), ((0, 0), (0, 1)))

    def __call__(
        self, logp: Float[Array, "B K C"], edge: Int[Array, "B K C"], rows: Float[Array, "B E_plus_1"]
    ) -> Float[Array, "B K C"]:
        """The mixture as defined at the top of this module; `rows` are values of ``ln q``."""
        share = jnp.take_along_axis(rows, edge.reshape(len(edge), -1), axis=1).reshape(edge.shape)
        return self.then(self.lam * logp + (1.0 - self.lam) * share, edge, ())


def mixture(index: ItemIndex, *, lam: float, then: EdgeScore) -> Mixture:
    """Make the score; its batches must have collaborative scores."""
    trie, n_rows = index.trie, len(index.catalog)
    return Mixture(
        row_of_item=jnp.asarray(np.where(index.candidates, index.catalog.row_of_item, n_rows), jnp.int32),
        low=jnp.asarray(trie.child_lo),
        high=jnp.asarray(trie.child_hi),
        parent=jnp.asarray(np.repeat(np.arange(len(trie.branch), dtype=np.int32), trie.n_children)),
        lam=jnp.float32(lam),
        then=then,
        n_rows=n_rows,
        n_branches=len(trie.branch),
    )


def prefix_sums(x: Float[Array, " N"]) -> tuple[Float[Array, " N_plus_1"], Float[Array, " N_plus_1"]]:
    """Sums of the first 0, 1, ..., N values as two float32 numbers each, so that differences of close sums are exact.

    The second number accumulates the rounding errors of the first (Knuth's two-sum).
    """

    def add(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
        total = a[0] + b[0]
        virtual = total - a[0]
        error = (a[0] - (total - virtual)) + (b[0] - virtual)
        return total, a[1] + b[1] + error

    whole, rest = jax.lax.associative_scan(add, (x, jnp.zeros_like(x)))
    return jnp.pad(whole, (1, 0)), jnp.pad(rest, (1, 0))
