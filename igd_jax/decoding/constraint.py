"""The trie on the device: legal next tokens and their gain factors by look-up (DESIGN section 2).

A node that has one child needs no entry: the child is the next node. Which nodes branch is one bit a node, and the
running count of those bits finds a node's list of children, so 100,000 titles take about 8 MB.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, UInt32

from igd_jax.items.info_gain import EdgeGain
from igd_jax.items.trie import Trie


@struct.dataclass
class DeviceTrie:
    """Arrays of `Trie` and `EdgeGain` that the search looks up; every gather of `width` children is in bounds.

    Attributes:
      token: token into each node.
      branch_bits: bit ``n % 32`` of word ``n // 32`` says that node n branches.
      branch_rank: branching nodes before each word.
      child_start: first edge of each branching node.
      child, factor: node below each edge, and its gain factor.
      leaf: node that ends each catalogue row.
      eos: the token that ends every title.
      root_width, width: most children of the root, and of any other node.
      max_length: tokens of the longest title, EOS included.
    """

    token: Int[Array, " M"]
    branch_bits: UInt32[Array, " words"]
    branch_rank: Int[Array, " words"]
    child_start: Int[Array, " branches_plus_2"]
    child: Int[Array, " E_plus_width"]
    factor: Float[Array, " E_plus_width"]
    leaf: Int[Array, " N"]
    eos: int = struct.field(pytree_node=False)
    root_width: int = struct.field(pytree_node=False)
    width: int = struct.field(pytree_node=False)
    max_length: int = struct.field(pytree_node=False)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self))

    def children(
        self, node: Int[Array, "B K"], width: int
    ) -> tuple[Int[Array, "B K {width}"], Float[Array, "B K {width}"], Bool[Array, "B K {width}"]]:
        """The first `width` children of each node, by token: node, gain factor, and whether there is one.

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
        child = jnp.where(is_branch, self.child[start + column], at + 1)
        factor = jnp.where(is_branch, self.factor[start + column], 0.0)
        legal = (column < count) & (node >= 0)[:, :, None]
        return child, factor, legal

    def row_of(self, node: Int[Array, "B K"]) -> Int[Array, "B K"]:
        """The catalogue row that ends at each node, -1 where none does."""
        row = jnp.minimum(jnp.searchsorted(self.leaf, node), len(self.leaf) - 1)
        return jnp.where(self.leaf[row] == node, row, -1)


def device_trie(trie: Trie, gain: EdgeGain, *, max_length: int) -> DeviceTrie:
    """Put the trie's look-up tables on the device; `max_length` is the longest row of its catalogue."""
    n_nodes, n_children = len(trie.token), trie.n_children
    at_root = trie.branch == 0
    root_width = int(n_children[at_root].max(initial=1))
    width = int(n_children[~at_root].max(initial=1))
    words = np.zeros((n_nodes + 31) // 32, np.uint32)
    np.bitwise_or.at(words, trie.branch >> 5, np.uint32(1) << (trie.branch & 31).astype(np.uint32))
    in_word = np.bincount(trie.branch >> 5, minlength=len(words))
    rank = np.concatenate([[0], np.cumsum(in_word)[:-1]])
    pad = max(width, root_width)
    return DeviceTrie(
        token=jnp.asarray(trie.token),
        branch_bits=jnp.asarray(words),
        branch_rank=jnp.asarray(rank, jnp.int32),
        child_start=jnp.asarray(np.append(trie.child_start, trie.child_start[-1:])),
        child=jnp.asarray(np.append(trie.child, np.zeros(pad, np.int32))),
        factor=jnp.asarray(np.append(gain.factor, np.zeros(pad, np.float32))),
        leaf=jnp.asarray(trie.leaf),
        eos=int(trie.token[trie.leaf[0]]),
        root_width=root_width,
        width=width,
        max_length=max_length,
    )
