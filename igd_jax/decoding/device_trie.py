"""The trie on the device, which looks up legal next tokens (docs/design.md, The idea in arrays).

A node with one child needs no entry, since the child is the next node. One bit per node says whether it branches, and a
running count of those bits locates the list of children, so 100,000 titles take about 7 MB.
"""

from typing import NamedTuple, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Int, UInt32

from igd_jax.items.trie import Trie


class Children(NamedTuple):
    """Candidates for the next token. Illegal entries hold arbitrary valid indices.

    Attributes:
      node: trie node of each child.
      token: token into that node.
      edge: index among the edges out of branching nodes; `DeviceTrie.n_edges` for an only child.
      legal: whether the child exists.
    """

    node: Int[Array, "B K C"]
    token: Int[Array, "B K C"]
    edge: Int[Array, "B K C"]
    legal: Bool[Array, "B K C"]


@no_type_check  # as a pytree it also holds shardings or axes
@struct.dataclass
class DeviceTrie:
    """Look-up tables for a search.

    Attributes:
      token: token into each node.
      branch_bits: bit ``n % 32`` of word ``n // 32`` is set if node n branches.
      branch_rank: number of branching nodes before each word.
      child_start: first edge of each branching node.
      child: node below each edge; a last entry, 0, represents all other edges.
      leaf, row: last node of each candidate row, ascending, and its catalogue row.
      eos: token at the end of every row.
      n_edges: number of edges out of branching nodes; also the index that represents all other edges.
      root_width, width: largest number of children, at the root and at any other node.
    """

    token: Int[Array, " M"]
    branch_bits: UInt32[Array, " words"]
    branch_rank: Int[Array, " words"]
    child_start: Int[Array, " branches_plus_2"]
    child: Int[Array, " E_plus_1"]
    leaf: Int[Array, " leaves"]
    row: Int[Array, " leaves"]
    eos: int = struct.field(pytree_node=False)
    n_edges: int = struct.field(pytree_node=False)
    root_width: int = struct.field(pytree_node=False)
    width: int = struct.field(pytree_node=False)

    def children(self, node: Int[Array, "B K"], width: int) -> Children:
        """The first `width` children of each node, in token order.

        Node -1 (no beam) has no children. Leaves are not valid arguments.
        """
        start, count = self.edges_of(node)
        at, start, count = (x[:, :, None] for x in (jnp.maximum(node, 0), start, count))
        is_branch = count > 1
        column = jnp.arange(width)[None, None]
        exists = column < count
        edge = jnp.where(is_branch & exists, start + column, self.n_edges)
        child = jnp.where(is_branch, self.child[edge], at + 1)
        return Children(child, self.token[child], edge, exists & (node >= 0)[:, :, None])

    def edges_of(self, node: Int[Array, "B K"]) -> tuple[Int[Array, "B K"], Int[Array, "B K"]]:
        """First edge out of each node, and their number; 0 and 1 for a node that does not branch, and for node -1."""
        at = jnp.maximum(node, 0)
        bits, below = self.branch_bits[at >> 5], (at & 31).astype(jnp.uint32)
        is_branch = ((bits >> below) & jnp.uint32(1) == 1) & (node >= 0)
        before = jax.lax.population_count(bits & ((jnp.uint32(1) << below) - jnp.uint32(1)))
        branch = self.branch_rank[at >> 5] + before.astype(jnp.int32)
        start = jnp.where(is_branch, self.child_start[branch], 0)
        return start, jnp.where(is_branch, self.child_start[branch + 1] - start, 1)

    def row_of(self, node: Int[Array, "B K"]) -> Int[Array, "B K"]:
        """Catalogue row that ends at each node, -1 if none does."""
        at = jnp.minimum(jnp.searchsorted(self.leaf, node), len(self.leaf) - 1)
        return jnp.where(self.leaf[at] == node, self.row[at], -1)


def device_trie(trie: Trie) -> DeviceTrie:
    """Put the look-up tables of a trie on the device."""
    n_nodes, n_children = len(trie.token), trie.n_children
    at_root = trie.branch == 0
    root_width = int(n_children[at_root].max(initial=1))
    width = int(n_children[~at_root].max(initial=1))
    words = np.zeros((n_nodes + 31) // 32, np.uint32)
    np.bitwise_or.at(words, trie.branch >> 5, np.uint32(1) << (trie.branch & 31).astype(np.uint32))
    in_word = np.bincount(trie.branch >> 5, minlength=len(words))
    rank = np.concatenate([[0], np.cumsum(in_word)[:-1]])
    return DeviceTrie(
        token=jnp.asarray(trie.token),
        branch_bits=jnp.asarray(words),
        branch_rank=jnp.asarray(rank, jnp.int32),
        child_start=jnp.asarray(np.append(trie.child_start, trie.child_start[-1:])),
        child=jnp.asarray(np.append(trie.child, np.int32(0))),
        leaf=jnp.asarray(trie.leaf),
        row=jnp.asarray(trie.row),
        eos=int(trie.token[trie.leaf[0]]),
        n_edges=len(trie.child),
        root_width=root_width,
        width=width,
    )
