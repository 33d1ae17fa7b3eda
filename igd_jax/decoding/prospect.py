"""What a search will probably read next, so that a call of the model that has room reads it now.

A chain is worth its path's score: the sum of edge scores to its first token where they are known, and below nodes that
have not been read, the score so far plus the logarithm of the share of the mass that goes that way. A guess changes
nothing but the number of calls: the recurrence reads true scores only.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from igd_jax.decoding.chains import Chains
from igd_jax.decoding.device_trie import DeviceTrie

HEAVIEST = 4
"""Children of a node that has not been read that are looked at, the heaviest."""
ROUNDS = 3
"""Nodes on a path whose children are guessed."""


class Wanted(NamedTuple):
    """Chains to read, those before which others must be read after them.

    Attributes:
      start: first node.
      depth: number of tokens up to it.
      length: number of tokens to read; 0 if there is nothing to read.
      worth: score of its path, with guesses for what is not known; -inf if there is nothing to read.
      above: last node of the chain before it, if that is read in the same call; else -1.
    """

    start: Int[Array, "B G"]
    depth: Int[Array, "B G"]
    length: Int[Array, "B G"]
    worth: Float[Array, "B G"]
    above: Int[Array, "B G"]

    @property
    def last(self) -> Int[Array, "B G"]:
        """Last node of each chain."""
        return self.start + self.length - 1


def chains_from(
    chains: Chains,
    start: Int[Array, "B G"],
    depth: Int[Array, "B G"],
    worth: Float[Array, "B G"],
    *,
    above: Int[Array, "B G"] | None = None,
    max_length: int,
) -> Wanted:
    """The chains of nodes; nothing of one that is worth -inf, that ends an identifier, or that is at the limit."""
    length = chains.length[jnp.maximum(start, 0)].astype(jnp.int32)
    # The node at the length limit is never read.
    length = jnp.where(worth > -jnp.inf, jnp.clip(length, 0, jnp.maximum(max_length - depth, 0)), 0)
    worth = jnp.where(length > 0, worth, -jnp.inf)
    return Wanted(start, depth, length, worth, jnp.full_like(start, -1) if above is None else above)


def most_wanted(
    trie: DeviceTrie, chains: Chains, needed: Wanted, known: Wanted, *, budget: int, max_length: int
) -> Wanted:
    """The needed chains, and then, up to a number of tokens in all, the best of the known and of what may follow."""
    n_known = known.start.shape[1]
    found, from_here = known, joined(needed, known)
    for _ in range(ROUNDS):
        following = _following(trie, chains, from_here, max_length=max_length)
        n_before = found.start.shape[1]
        both = joined(found, following)
        # Nothing is worth more than the chain before it, and of equals the earlier comes first.
        _, order = jax.lax.top_k(both.worth, n_known)
        found = taken(both, order)
        from_here = found._replace(worth=jnp.where(order >= n_before, found.worth, -jnp.inf))
    wanted = joined(needed, found)
    is_needed = jnp.arange(wanted.start.shape[1])[None] < needed.start.shape[1]
    room = budget - (jnp.cumsum(wanted.length, axis=1) - wanted.length)
    return wanted._replace(length=jnp.where(is_needed, wanted.length, jnp.clip(room, 0, wanted.length)))


def joined(first: Wanted, then: Wanted) -> Wanted:
    """All chains of both."""
    return Wanted(*(jnp.concatenate(pair, axis=1) for pair in zip(first, then, strict=True)))


def taken(wanted: Wanted, order: Int[Array, "B g"]) -> Wanted:
    """Some of the chains, in the given order."""
    return Wanted(*(jnp.take_along_axis(x, order, axis=1) for x in wanted))


def _following(trie: DeviceTrie, chains: Chains, wanted: Wanted, *, max_length: int) -> Wanted:
    """The heaviest children of the last node of each chain."""
    first, count = trie.edges_of(jnp.where(wanted.worth > -jnp.inf, wanted.last, -1))
    column = jnp.arange(HEAVIEST)[None, None]
    exists = (column < count[..., None]) & (count > 1)[..., None]
    entry = jnp.where(exists, first[..., None] + column, trie.n_edges)
    worth = wanted.worth[..., None] + chains.log_share[entry]

    def flat(x: Array) -> Array:
        return jnp.broadcast_to(x, entry.shape).reshape(len(entry), -1)

    return chains_from(
        chains,
        flat(trie.child[chains.heavy[entry]]),
        flat((wanted.depth + wanted.length)[..., None]),
        flat(jnp.where(exists, worth, -jnp.inf)),
        above=flat(wanted.last[..., None]),
        max_length=max_length,
    )
