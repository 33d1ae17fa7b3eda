"""What the model has said so far of each row: the edge scores below every node that it has read, and their keys.

A node is read at most once per row, into a slot of its own, and nothing in the table is ever moved: a slot that no beam
can use any more takes another node. The trie is numbered depth first, so a slot holds an ancestor of a node, or the
node itself, if its range of descendants contains the node: no paths are kept.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from igd_jax.models.backbone import KVCache
from igd_jax.models.visibility import Tree


class Reading(NamedTuple):
    """Tokens that are read in one call of the model; those of a chain are consecutive.

    Attributes:
      node: trie node of each token; -1 on padding, which comes last.
      end: first node after its descendants; -1 on padding.
      depth: number of tokens up to it.
    """

    node: Int[Array, "B T"]
    end: Int[Array, "B T"]
    depth: Int[Array, "B T"]

    @property
    def visible(self) -> Tree:
        """A token sees its ancestors among the tokens."""
        return Tree(self.node, self.end)


class ScoredChildren(NamedTuple):
    """The children of nodes that have been read, at most W of each, the best ones, by token.

    Attributes:
      child: node of each child; arbitrary where the score is -inf.
      score: edge score; -inf if there is no child.
      worth: score of the path to a child that may be read next; -inf for all others. None if nobody asks.
    """

    child: Int[Array, "B T W"]
    score: Float[Array, "B T W"]
    worth: Float[Array, "B T W"] | None = None


@struct.dataclass
class Table:
    """Slots of each row.

    Attributes:
      kv: keys and values of the tokens.
      reading: the tokens; node -1 in free slots.
      children: those of each node.
    """

    kv: KVCache
    reading: Reading
    children: ScoredChildren

    @property
    def n_slots(self) -> int:
        """Number of slots per row."""
        return self.reading.node.shape[1]

    def slot_of(self, node: Int[Array, "B K"]) -> Int[Array, "B K"]:
        """Slot of each node; -1 for a node that has not been read, and for node -1."""
        held = (self.reading.node[:, None] == node[:, :, None]) & (node >= 0)[:, :, None]
        return jnp.where(held, jnp.arange(self.n_slots)[None, None], -1).max(axis=2)

    def ancestors(self, node: Int[Array, "B T"]) -> Bool[Array, "B T S"]:
        """Mask of the slots that hold each node or an ancestor, which its token sees; nothing for node -1."""
        return (self.reading.node[:, None] <= node[:, :, None]) & (node[:, :, None] < self.reading.end[:, None])

    @property
    def n_free(self) -> Int[Array, " B"]:
        """Number of free slots of each row."""
        return (self.reading.node < 0).sum(axis=1, dtype=jnp.int32)

    def append(self, reading: Reading, children: ScoredChildren, kv: KVCache) -> "Table":
        """The table with what has been read in the first free slots of each row, where there must be enough of them."""
        is_free, n_tokens = self.reading.node < 0, reading.node.shape[1]
        n_up_to = jnp.cumsum(is_free, axis=1, dtype=jnp.int32)
        is_new = is_free & (n_up_to <= n_tokens)
        place = jnp.clip(n_up_to - 1, 0, n_tokens - 1)

        def put(old: Array, new: Array) -> Array:
            spread = (..., *(None,) * (old.ndim - 2))
            return jnp.where(is_new[spread], jnp.take_along_axis(new, place[spread], axis=1), old)

        reading, children = jax.tree.map(put, (self.reading, self.children), (reading, children))
        slot = (n_up_to[:, None] <= jnp.arange(n_tokens)[None, :, None]).sum(axis=2, dtype=jnp.int32)
        return Table(self.kv.write_slots(kv, slot), reading, children)

    def keep(self, is_kept: Bool[Array, "B S"]) -> "Table":
        """The table with all other slots free."""
        return replace(self, reading=Reading(*(jnp.where(is_kept, x, -1) for x in self.reading)))

    def clear(self, rows: Int[Array, " n"]) -> "Table":
        """The table with all slots of some rows free; indices beyond the last row are ignored."""
        return replace(self, reading=Reading(*(x.at[rows].set(-1, mode="drop") for x in self.reading)))

    def grow(self, n_slots: int) -> "Table":
        """The table with more slots."""
        more = n_slots - self.n_slots
        reading = Reading(*(jnp.pad(x, ((0, 0), (0, more)), constant_values=-1) for x in self.reading))
        children = jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, more), (0, 0))), self.children)
        return Table(self.kv.pad_to(n_slots), reading, children)


def empty_table(kv: KVCache, n_rows: int, n_slots: int, *, n_children: int, with_worth: bool) -> Table:
    """A table of free slots.

    Args:
      kv: a cache of the model, of any number of slots.
      n_rows, n_slots: its size.
      n_children: W, the most children that are kept of a node.
      with_worth: whether `ScoredChildren.worth` is kept.
    """
    reading = Reading(*(jnp.full((n_rows, n_slots), -1, jnp.int32) for _ in range(3)))
    numbers = jnp.zeros((n_rows, n_slots, n_children), jnp.float32)
    children = ScoredChildren(numbers.astype(jnp.int32), numbers, numbers if with_worth else None)
    return Table(kv.empty(n_slots), reading, children)


def best(children: ScoredChildren, n_children: int) -> ScoredChildren:
    """The best children of each node, in the order given, which breaks ties; padded if there are fewer columns."""
    width = children.score.shape[2]
    if width <= n_children:
        pad = ((0, 0), (0, 0), (0, n_children - width))
        return ScoredChildren(jnp.pad(children.child, pad), jnp.pad(children.score, pad, constant_values=-jnp.inf))
    column = jnp.sort(jax.lax.top_k(children.score, n_children)[1], axis=2)
    return ScoredChildren(*(jnp.take_along_axis(x, column, axis=2) for x in (children.child, children.score)))
