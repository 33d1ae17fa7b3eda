"""Edge scores: the terms of a search's sums, computed from the log-probabilities of children."""

from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from igd_jax.core.types import TextBatch


@runtime_checkable
class EdgeScore(Protocol):
    """Scores edges; a pytree, so that its numbers are not constants of a compiled program."""

    def of_rows(self, batch: TextBatch) -> Any:
        """Data of each row that the score needs: a pytree of arrays with first axis B, possibly empty."""

    def __call__(self, logp: Float[Array, "B K C"], edge: Int[Array, "B K C"], rows: Any) -> Float[Array, "B K C"]:
        """Scores of edges.

        Args:
          logp: natural log-probabilities of all children of each node over the whole vocabulary, float32; -inf where
            there is no such child. The scores of those are arbitrary.
          edge: index of each edge among those out of branching nodes; E for the only child of its parent.
          rows: the result of `of_rows`.
        """


def at_edges(of_edge: Float[Array, "B E_plus_1"] | Bool[Array, "B E_plus_1"], edge: Int[Array, "B K C"]) -> Array:
    """Values [B K C] of edges, from those of all edges of each row."""
    return jnp.take_along_axis(of_edge, edge.reshape(len(edge), -1), axis=1).reshape(edge.shape)
