"""The trie on the device: legal next tokens by look-up (docs/design.md, The idea in arrays).

A node that has one child needs no entry: the child is the next node. Which nodes branch is one bit a node, and the
running count of those bits finds a node's list of children, so 100,000 titles take about 8 MB.
"""

from typing import NamedTuple, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Int, UInt32

from igd_jax.items.trie import Trie


class Children(NamedTuple):
    """Candidates for the next token. Places that are not legal hold any valid index.

    Attributes:
      node: trie nodes, and `token` the tokens into them.
      edge: index among the edges out of branching nodes; `DeviceTrie.n_edges` for the only child of its parent.
      legal: whether there is such a child.
    """

    node: Int[Array, "B K C"]
    token: Int[Array, "B K C"]
    edge: Int[Array, "B K C"]
    legal: Bool[Array, "B K C"]


@no_type_check  # as a pytree it also holds shardings or axes
@struct.dataclass
class DeviceTrie:
    """Arrays of `Trie` that a search looks up.

    Attributes:
      token: token into each node.
      branch_bits: bit ``n % 32`` of word ``n // 32`` says that node n branches.
      branch_rank: branching nodes before each word.
      child_start: first edge of each branching node.
      child: node below each edge; 0 in a last place for all others.
      leaf, row: node that ends each candidate's row, ascending, and that catalogue row.
      eos: token that ends every row.
      n_edges: edges out of branching nodes; also the place that stands for every other edge.
      root_width, width: most children of the root, and of any other node.
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

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self))

    def children(self, node: Int[Array, "B K"], width: int) -> Children:
        """The first `width` children of each node, by token.

        Node -1 (no beam) has no children. Nodes that end a title must not be asked for.
        """
        at = jnp.maximum(node, 0)
        bits, below = self.branch_bits[at >> 5], (at & 31).astype(jnp.uint32)
        is_branch = (bits >> below) & jnp.uint32(1) == 1
        before = jax.lax.population_count(bits & ((jnp.uint32(1) << below) - jnp.uint32(1)))
        branch = self.branch_rank[at >> 5] + before.astype(jnp.int32)
        start = jnp.where(is_branch, self.child_start[branch], 0)
        count = jnp.where(is_branch, self.child_start[branch + 1] - start, 1)
        column = jnp.arange(width)[None, None]
        start, count, is_branch, at = (x[:, :, None] for x in (start, count, is_branch, at))
        exists = column < count
        edge = jnp.where(is_branch & exists, start + column, self.n_edges)
        child = jnp.where(is_branch, self.child[edge], at + 1)
        return Children(child, self.token[child], edge, exists & (node >= 0)[:, :, None])

    def row_of(self, node: Int[Array, "B K"]) -> Int[Array, "B K"]:
        """The catalogue row that ends at each node, -1 where none does."""
        at = jnp.minimum(jnp.searchsorted(self.leaf, node), len(self.leaf) - 1)
        return jnp.where(self.leaf[at] == node, self.row[at], -1)


def device_trie(trie: Trie) -> DeviceTrie:
    """The trie's look-up tables, on the device."""
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
