"""Restriction of lists to some candidates: an edge is legal if there is an allowed row below it.

Lists and scores are those of a trie of the allowed rows alone: the other scores get the mask, and compute gains and
shares over these rows only.
"""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from igd_jax.core.types import TextBatch
from igd_jax.decoding.edge_score import EdgeScore, at_edges
from igd_jax.decoding.siblings import Siblings, siblings
from igd_jax.items.trie import Trie


@struct.dataclass
class Restricted:
    """Another edge score, with -inf on edges that lead to no allowed row.

    Attributes:
      row: catalogue row of each leaf.
      siblings: edges out of branching nodes.
      then: score of legal edges.
    """

    row: Int[Array, " leaves"]
    siblings: Siblings
    then: EdgeScore

    def of_rows(self, batch: TextBatch) -> tuple[Bool[Array, "B E_plus_1"] | None, Any]:
        """Legal edges of each row, or None if the batch allows everything; and the data of the other score.

        The last entry represents forced edges, which are legal whenever the edge before them is. Forced edges at the
        root have no edge before them, and are legal if any row is allowed.
        """
        if batch.allowed is None:
            return None, self.then.of_rows(batch)
        allowed = jnp.zeros_like(batch.allowed).at[:, self.row].set(batch.allowed[:, self.row])
        legal = self.siblings.count(allowed) > 0
        rows = self.then.of_rows(replace(batch, allowed=allowed))
        return jnp.concatenate([legal, allowed.any(axis=1, keepdims=True)], axis=1), rows

    def __call__(self, logp: Float[Array, "B K C"], edge: Int[Array, "B K C"], rows: Any) -> Float[Array, "B K C"]:
        """The other score on legal edges, -inf elsewhere."""
        legal, others = rows
        if legal is None:
            return self.then(logp, edge, others)
        is_legal = at_edges(legal, edge)
        return jnp.where(is_legal, self.then(jnp.where(is_legal, logp, -jnp.inf), edge, others), -jnp.inf)


def restricted(trie: Trie, then: EdgeScore) -> Restricted:
    """Make the score."""
    return Restricted(jnp.asarray(trie.row), siblings(trie), then)
