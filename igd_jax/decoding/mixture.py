"""D3's edge score: a mixture of the language model and a collaborative source (arXiv 2406.14900; docs/methods/d3.md).

Let g be a prefix, v a legal next token, I(g, v) the items below it, and p_CF a user's distribution over items:

    q_v  = (sum of p_CF over I(g, v) + 1e-20) / (the same, summed over all legal tokens)
    w(v) = lam * logp(v) + (1 - lam) * ln q_v

A forced token has q = 1. The mass below an edge is a difference of two prefix sums over the sorted rows. Where a user's
candidates are restricted, I(g, v) holds the allowed items only, and a token without any is not legal.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from igd_jax.core.types import TextBatch
from igd_jax.decoding.edge_score import EdgeScore, at_edges
from igd_jax.decoding.siblings import Siblings, siblings
from igd_jax.items.index import ItemIndex

SMALLEST_MASS = 1e-20
"""Constant added to the mass below each legal token, as published."""


@struct.dataclass
class Mixture:
    """Log-probabilities mixed with the log-shares of a collaborative source.

    Attributes:
      row_of_item: catalogue row of each item; N, one beyond the last, for items that are not candidates.
      siblings: edges out of branching nodes.
      lam: weight of the language model, 0 to 1.
      then: edge score applied to the mixture.
      n_rows: N.
    """

    row_of_item: Int[Array, " items"]
    siblings: Siblings
    lam: Float[Array, ""]
    then: EdgeScore
    n_rows: int = struct.field(pytree_node=False)

    def of_rows(self, batch: TextBatch) -> tuple[Float[Array, "B E_plus_1"], Any]:
        """``ln q`` of each edge out of a branching node, with a last entry of 0; and what the other score needs."""
        assert batch.collaborative is not None
        share = jax.nn.softmax(batch.collaborative.astype(jnp.float32), axis=1)
        by_row = jax.vmap(lambda p: jax.ops.segment_sum(p, self.row_of_item, self.n_rows + 1))(share)[:, :-1]
        if batch.allowed is not None:
            by_row = jnp.where(batch.allowed, by_row, 0.0)
        mass = self.siblings.below(by_row) + SMALLEST_MASS
        legal = mass
        if batch.allowed is not None:
            legal = jnp.where(self.siblings.count(batch.allowed) > 0, mass, 0.0)
        share = jnp.log(mass) - jnp.log(self.siblings.total(legal))
        return jnp.pad(share, ((0, 0), (0, 1))), self.then.of_rows(batch)

    def __call__(
        self, logp: Float[Array, "B K C"], edge: Int[Array, "B K C"], rows: tuple[Float[Array, "B E_plus_1"], Any]
    ) -> Float[Array, "B K C"]:
        """The mixture as defined at the top of this module."""
        of_edge, others = rows
        return self.then(self.lam * logp + (1.0 - self.lam) * at_edges(of_edge, edge), edge, others)


def mixture(index: ItemIndex, *, lam: float, then: EdgeScore) -> Mixture:
    """Make the score; its batches must have collaborative scores."""
    n_rows = len(index.catalog)
    return Mixture(
        row_of_item=jnp.asarray(np.where(index.candidates, index.catalog.row_of_item, n_rows), jnp.int32),
        siblings=siblings(index.trie),
        lam=jnp.float32(lam),
        then=then,
        n_rows=n_rows,
    )
