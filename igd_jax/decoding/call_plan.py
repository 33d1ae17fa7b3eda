"""What a call of the model reads for each row: the chains that its beams wait for, and others while there is room."""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from igd_jax.decoding.chains import Chains
from igd_jax.decoding.prospect import ROUNDS, Wanted, chains_from
from igd_jax.decoding.recurrence import Hypotheses
from igd_jax.decoding.table import Reading, ScoredChildren, Table

LOWEST = -1e30
"""In the place of -inf in sums that may not become NaN."""


class CallPlan(NamedTuple):
    """What a call reads.

    Attributes:
      wanted: the chains; those that found no room are not read.
      reading: the tokens.
      chain: number of the chain of each token, among G.
      last: column of the last token of each chain.
      is_read: mask of the chains whose first token is read.
    """

    wanted: Wanted
    reading: Reading
    chain: Int[Array, "B T"]
    last: Int[Array, "B G"]
    is_read: Bool[Array, "B G"]


def laid_out(wanted: Wanted, chains: Chains, n_tokens: int) -> CallPlan:
    """Chains one after another, cut at the end of the call."""
    column = jnp.arange(n_tokens)[None]
    after = jnp.cumsum(wanted.length, axis=1)
    before = after - wanted.length
    chain = (after[:, None] <= column[:, :, None]).sum(axis=2, dtype=jnp.int32)
    is_token = chain < after.shape[1]
    chain = jnp.minimum(chain, after.shape[1] - 1)
    of_chain = (wanted.start - before, chains.end_of(wanted.start), wanted.depth - before)
    node, end, depth = (jnp.where(is_token, jnp.take_along_axis(x, chain, axis=1), -1) for x in of_chain)
    shift = jnp.where(is_token, column, 0)
    reading = Reading(node + shift, end, depth + shift)
    is_read = (wanted.length > 0) & (before < n_tokens)
    return CallPlan(wanted, reading, chain, jnp.clip(after - 1, 0, n_tokens - 1), is_read)


def needed_chains(table: Table, hypotheses: Hypotheses, chains: Chains, *, max_length: int) -> Wanted:
    """The chains of the beams that wait, the best first."""
    node = hypotheses.node
    waits = (node >= 0) & (table.slot_of(node) < 0) & hypotheses.is_open[:, None]
    depth = jnp.broadcast_to(hypotheses.clock[:, None], node.shape)
    worth = jnp.where(waits, hypotheses.score, -jnp.inf)
    return chains_from(chains, node, depth, worth, max_length=max_length)


def shared_out(wanted: Wanted, n_tokens: int) -> Wanted:
    """The chains, cut to one length, and the first of them to one more, so that all together have at most `n_tokens`.

    A row advances as far as all of its beams have been read, and drops most of them on the way.
    """
    caps = jnp.arange(1, n_tokens + 1)[None, None]
    fits = jnp.minimum(wanted.length[:, :, None], caps).sum(axis=1) <= n_tokens
    cap = fits.sum(axis=1, keepdims=True, dtype=jnp.int32)
    is_cut, length = wanted.length > cap, jnp.minimum(wanted.length, cap)
    gets_more = is_cut & (jnp.cumsum(is_cut, axis=1) <= n_tokens - length.sum(axis=1, keepdims=True))
    return wanted._replace(length=length + gets_more.astype(jnp.int32))


def on_paths(table: Table, hypotheses: Hypotheses, chains: Chains) -> Bool[Array, "B S"]:
    """Mask of the slots that open rows can use again: of nodes on the way to a beam, or below it."""
    is_above = table.ancestors(hypotheses.node).any(axis=1)
    return (is_above | _is_below(table, hypotheses, chains)) & hypotheses.is_open[:, None]


def known_chains(table: Table, hypotheses: Hypotheses, chains: Chains, *, n_chains: int, max_length: int) -> Wanted:
    """The best chains whose scores are known, below a beam.

    None of them is needed yet: the beams of a row have one depth, so what one waits for is below no other.
    """
    assert table.children.worth is not None
    is_below = _is_below(table, hypotheses, chains) & hypotheses.is_open[:, None]
    worth = jnp.where(is_below[..., None], table.children.worth, -jnp.inf)
    n_children = worth.shape[2]
    worth, place = jax.lax.top_k(worth.reshape(len(worth), -1), n_chains)
    start = jnp.take_along_axis(table.children.child.reshape(len(worth), -1), place, axis=1)
    depth = jnp.take_along_axis(table.reading.depth, place // n_children, axis=1) + 1
    return chains_from(chains, start, depth, worth, max_length=max_length)


def without_read(table: Table, plan: CallPlan, *, num_beams: int) -> Table:
    """The table whose rows no longer offer the chains of a plan; never those of beams, which come first."""
    children = table.children
    if children.worth is None:
        return table
    start = jnp.where(plan.is_read, plan.wanted.start, -1)[:, num_beams:]
    is_read = _is_among(children.child, start)
    return replace(table, children=children._replace(worth=jnp.where(is_read, -jnp.inf, children.worth)))


def with_worth(plan: CallPlan, children: ScoredChildren, chains: Chains, *, max_length: int) -> ScoredChildren:
    """What has been read, with the scores of the paths to the children that may be read next."""
    reading, wanted = plan.reading, plan.wanted
    column = jnp.arange(reading.node.shape[1])[None, :, None]
    is_earlier = (plan.chain[:, :, None] == plan.chain[:, None]) & (column > column.transpose(0, 2, 1))
    forced = jnp.maximum(children.score[..., 0], LOWEST)
    within = jnp.where(is_earlier, forced[:, None], 0.0).sum(axis=2)

    def of_last(x: Array) -> Array:
        return jnp.take_along_axis(x, plan.last[(..., *(None,) * (x.ndim - 2))], axis=1)

    # A chain that follows another one of the call had a guess; now the scores between them are known.
    follows = (wanted.above >= 0)[:, :, None] & (wanted.above[:, :, None] == of_last(reading.node)[:, None])
    before = jnp.argmax(follows, axis=2)
    child, score = (jnp.take_along_axis(of_last(x), before[..., None], axis=1) for x in children[:2])
    into = jnp.where(child == wanted.start[..., None], score, -jnp.inf).max(axis=2)
    path = wanted.worth
    for _ in range(ROUNDS):
        through = jnp.take_along_axis(path + of_last(within), before, axis=1) + into
        path = jnp.where(wanted.above >= 0, through, path)

    worth = (jnp.take_along_axis(path, plan.chain, axis=1) + within)[..., None] + children.score
    may_be_read = chains.length[children.child] > 0
    may_be_read &= (reading.depth + 1 < max_length)[..., None] & ~_is_among(children.child, reading.node)
    return children._replace(worth=jnp.where(may_be_read, worth, -jnp.inf))


def _is_below(table: Table, hypotheses: Hypotheses, chains: Chains) -> Bool[Array, "B S"]:
    """Mask of the slots that hold a beam's node or a descendant."""
    beam, node = hypotheses.node[:, None], table.reading.node[:, :, None]
    return ((beam <= node) & (node < chains.end_of(hypotheses.node)[:, None]) & (beam >= 0)).any(axis=2)


def _is_among(child: Int[Array, "B n W"], node: Int[Array, "B m"]) -> Bool[Array, "B n W"]:
    return (child[..., None] == node[:, None, None]).any(axis=3)
