"""Sums over the rows below each edge out of a branching node, and over edges with the same parent, for many users."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from igd_jax.items.trie import Trie


@struct.dataclass
class Siblings:
    """Edges out of branching nodes.

    Attributes:
      low, high: range of catalogue rows below each edge.
      parent: index among the branching nodes of the start of each edge.
      n_branches: number of branching nodes.
    """

    low: Int[Array, " E"]
    high: Int[Array, " E"]
    parent: Int[Array, " E"]
    n_branches: int = struct.field(pytree_node=False)

    def below(self, of_row: Float[Array, "B N"]) -> Float[Array, "B E"]:
        """Sum of non-negative values of the catalogue rows below each edge, to 2e-15 of the sum of all rows."""
        whole, rest = jax.vmap(prefix_sums)(of_row)
        total = (whole[:, self.high] - whole[:, self.low]) + (rest[:, self.high] - rest[:, self.low])
        return jnp.maximum(total, 0.0)

    def count(self, mask: Bool[Array, "B N"]) -> Int[Array, "B E"]:
        """Number of catalogue rows of a mask below each edge."""
        before = jnp.pad(jnp.cumsum(mask, axis=1, dtype=jnp.int32), ((0, 0), (1, 0)))
        return before[:, self.high] - before[:, self.low]

    def total(self, of_edge: Float[Array, "B E"]) -> Float[Array, "B E"]:
        """Sum over each edge and its siblings."""
        return self._among(jax.ops.segment_sum, of_edge)

    def largest(self, of_edge: Float[Array, "B E"]) -> Float[Array, "B E"]:
        """Largest value of each edge and its siblings."""
        return self._among(jax.ops.segment_max, of_edge)

    def _among(self, reduce: Callable[..., Array], of_edge: Float[Array, "B E"]) -> Float[Array, "B E"]:
        by_parent = jax.vmap(lambda x: reduce(x, self.parent, num_segments=self.n_branches, indices_are_sorted=True))
        return by_parent(of_edge)[:, self.parent]


def siblings(trie: Trie) -> Siblings:
    """The edges of a trie."""
    return Siblings(
        low=jnp.asarray(trie.child_lo),
        high=jnp.asarray(trie.child_hi),
        parent=jnp.asarray(np.repeat(np.arange(len(trie.branch), dtype=np.int32), trie.n_children)),
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
