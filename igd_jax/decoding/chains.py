"""Chains of the trie: what follows a token without a choice, so that a model can read it in the same call.

The chain of a node is the node and its only descendants, up to the first that branches, or to the last before the end
of an identifier, as the end is never read.

    node      5 - 6 - 7 - { 8, 11 }      chain of 5: 5 6 7        chain of 8: 8 9, if 10 is an end
    depth first, so the nodes of a chain are consecutive, and the descendants of a node are a range
"""

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, UInt8

from igd_jax.items.trie import Trie

LONGEST = 255
"""Longest chain that is read at once; a longer one is cut, and goes on as another."""


@struct.dataclass
class Chains:
    """Look-up tables of chains.

    Attributes:
      length: number of nodes of the chain of each node, at most `LONGEST`; 0 at the end of an identifier.
      stop: last node of each chain, ascending: nodes that branch, and nodes before an end; a last entry, M.
      end: first node after the descendants of each stop.
      heavy: edges out of branching nodes, those of each node by falling mass; a last entry, E.
      log_share: logarithm of the share of its parent's mass below each edge, in the order of `heavy`; a last entry,
        -inf.
    """

    length: UInt8[Array, " M"]
    stop: Int[Array, " stops"]
    end: Int[Array, " stops"]
    heavy: Int[Array, " E_plus_1"]
    log_share: Float[Array, " E_plus_1"]

    def end_of(self, node: Int[Array, "B n"]) -> Int[Array, "B n"]:
        """First node that is not a descendant of each node, which is none of `Trie.leaf`."""
        return self.end[jnp.searchsorted(self.stop, node, method="scan_unrolled")]


def chains_of(trie: Trie, counts: Int[np.ndarray, " N"]) -> Chains:
    """Make the tables.

    Args:
      trie: the candidates.
      counts: how often each catalogue row was chosen; the mass of a node is the sum over its candidates, plus one each.
    """
    n_nodes = len(trie.token)
    # A node ends with the last candidate below its last child; the node before an end that is an only child, with it.
    low, high = (np.searchsorted(trie.row, bound) for bound in (trie.child_lo, trie.child_hi))
    of_branch = trie.leaf[high[trie.child_start[1:] - 1] - 1] + 1
    before = trie.leaf[~np.isin(trie.leaf, trie.child)] - 1
    stop, end = np.concatenate([trie.branch, before, [n_nodes]]), np.concatenate([of_branch, before + 2, [n_nodes]])
    order = np.argsort(stop)
    stop, end = stop[order], end[order]
    node = np.arange(n_nodes)
    length = np.minimum(stop[np.searchsorted(stop, node)] - node + 1, LONGEST)
    length[trie.leaf] = 0
    before_row = np.append(0, np.cumsum(counts[trie.row] + 1))
    mass = before_row[high] - before_row[low]
    parent = np.repeat(np.arange(len(trie.branch)), trie.n_children)
    heavy = np.lexsort((-mass, parent))
    share = np.log(mass / np.bincount(parent, mass, len(trie.branch))[parent])[heavy]
    return Chains(
        length=jnp.asarray(length, jnp.uint8),
        stop=jnp.asarray(stop, jnp.int32),
        end=jnp.asarray(end, jnp.int32),
        heavy=jnp.asarray(np.append(heavy, len(heavy)), jnp.int32),
        log_share=jnp.asarray(np.append(share, -np.inf), jnp.float32),
    )
