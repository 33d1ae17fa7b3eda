"""Trie-constrained beam search that reads whole chains per call of the model (docs/decoding.md, Jumping).

The recurrence reads nothing but edge scores. So it advances without the model while the scores below all of its beams
are known; the next call reads, for each row, the nodes that it stopped at, each with its chain.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from igd_jax.core.sharding import row_shards
from igd_jax.decoding.call_plan import (
    CallPlan,
    known_chains,
    laid_out,
    needed_chains,
    on_paths,
    shared_out,
    with_worth,
    without_read,
)
from igd_jax.decoding.chains import Chains
from igd_jax.decoding.prospect import most_wanted
from igd_jax.decoding.recurrence import Hypotheses
from igd_jax.decoding.search import Prefilled, TrieSearch, with_rows
from igd_jax.decoding.table import ScoredChildren, Table, best, empty_table
from igd_jax.models.backbone import Prefix

MOST_CHAINS = 32
"""Chains that a call may read beyond those that are needed."""
FEWEST, MOST, RIDGE = 32, 128, 256
"""On accelerators, tokens of each row in a call, at least and at most, and those of all rows that a device computes in
about the time of reading its weights, which are 180 to 560: docs/decoding.md."""
ON_CPU = 16
"""Tokens of each row in a call on a CPU, which computes no token for free, but has to plan every call."""
WIDTH = 64
"""Tokens of each row in a call of a given budget, at least; few rows need more, and all are padded to it."""
ROOM = 16
"""Slots per beam of the first tables, enough for titles of some 15 tokens; they do not affect results."""


def budget_of(budget: int, *, n_rows: int, platform: str) -> dict[str, Any]:
    """Sizes of a call, as arguments of `Jump`.

    Args:
      budget: tokens per row and call, up to which calls are filled by prospect; 0 = no more than needed; -1 = as many
        as an accelerator computes in the time of reading its weights, so that calls of few rows are filled, and of many
        rows, chains are read in pieces; on a CPU, `ON_CPU`.
      n_rows: number of rows that a device has.
      platform: of the devices that run it, which need not be those of this process: "cpu", "gpu" or "tpu".
    """
    if budget < 0:
        n_tokens = ON_CPU if platform == "cpu" else max(FEWEST, min(MOST, RIDGE // n_rows))
        return {"n_tokens": n_tokens, "fill": n_tokens}
    return {"n_tokens": max(budget, WIDTH), "fill": budget}


def call_sizes(budget: int, *, batch_size: int, mesh: Mesh) -> dict[str, Any]:
    """`budget_of` for the rows that each device of a mesh has of a batch."""
    n_rows = max(1, batch_size // row_shards(mesh))
    return budget_of(budget, n_rows=n_rows, platform=mesh.devices.flat[0].platform)


class Replayed(NamedTuple):
    """Rows that advance over the table.

    Attributes:
      hypotheses: beams and results.
      slot: slot of each beam; 0 where it has none.
      goes_on: mask of the rows whose beams all have one.
    """

    hypotheses: Hypotheses
    slot: Int[Array, "B K"]
    goes_on: Bool[Array, " B"]


@struct.dataclass
class State:
    """The state between two calls.

    Attributes:
      prefix: keys and values of the prompts.
      table: what the model has said so far.
      hypotheses: beams and results.
      of_rows: data of each row for the edge score.
    """

    prefix: Prefix
    table: Table
    hypotheses: Hypotheses
    of_rows: Any


@struct.dataclass(kw_only=True)
class Jump(TrieSearch):
    """The search as an engine; see `decoding.engine.Engine`.

    Attributes:
      chains: chains of the trie.
      n_tokens: T, tokens of each row in a call.
      fill: tokens up to which a call also reads what will probably be needed.
    """

    chains: Chains
    n_tokens: int = struct.field(pytree_node=False)
    fill: int = struct.field(pytree_node=False)

    def begin(self, prefilled: Prefilled, *, width: int) -> State:
        """A state with room for titles of common length."""
        prefix = prefilled.prefix.pad_to(max(width, prefilled.prefix.width))
        n_slots = max(ROOM * self.options.num_beams, 2 * self.n_tokens)
        n_rows, n_children = len(prefix.length), self.n_children
        table = empty_table(prefix.kv, n_rows, n_slots, n_children=n_children, with_worth=self.fill > 0)
        return State(prefix, table, prefilled.hypotheses, prefilled.of_rows)

    def insert(self, state: State, prefilled: Prefilled, rows: Int[Array, " n"]) -> State:
        """Replace rows."""
        return State(
            state.prefix.put(prefilled.prefix, rows),
            state.table.clear(rows),
            with_rows(state.hypotheses, prefilled.hypotheses, rows),
            with_rows(state.of_rows, prefilled.of_rows, rows),
        )

    def generate(self, state: State) -> State:
        """Read what the open rows wait for, and advance them as far as that goes."""
        model, table = self.model, state.table
        plan = self._plan(table, state.hypotheses)
        reading = plan.reading
        hidden, kv = model.extend(
            state.prefix,
            jnp.where(reading.node >= 0, self.trie.token[jnp.maximum(reading.node, 0)], 0),
            positions=state.prefix.length[:, None] + jnp.maximum(reading.depth - 1, 0),
            visible=reading.visible,
            past=[(table.kv, table.ancestors(reading.node))],
        )
        logits, total = self.normalized(model, hidden)
        children = self._children(plan, logits, total, state.of_rows)
        if self.fill:
            children = with_worth(plan, children, self.chains, max_length=self.options.max_length)
        table = without_read(table, plan, num_beams=self.options.num_beams).append(reading, children, kv)
        hypotheses = self._replay(table, state.hypotheses)
        return replace(state, table=table.keep(on_paths(table, hypotheses, self.chains)), hypotheses=hypotheses)

    def has_room(self, state: State) -> Bool[Array, ""]:
        """Whether every open row has slots for another call."""
        return jnp.where(state.hypotheses.is_open, state.table.n_free, self.n_tokens).min() >= self.n_tokens

    def grow(self, state: State) -> State:
        """Three times the slots: one more program for most titles that are longer."""
        return replace(state, table=state.table.grow(3 * state.table.n_slots))

    def _plan(self, table: Table, hypotheses: Hypotheses) -> CallPlan:
        """What the beams wait for, and what they will probably wait for if there is room."""
        limit = self.options.max_length
        wanted = shared_out(needed_chains(table, hypotheses, self.chains, max_length=limit), self.n_tokens)
        if self.fill:
            n_chains = min(self.fill, MOST_CHAINS)
            known = known_chains(table, hypotheses, self.chains, n_chains=n_chains, max_length=limit)
            wanted = most_wanted(self.trie, self.chains, wanted, known, budget=self.fill, max_length=limit)
        return laid_out(wanted, self.chains, self.n_tokens)

    def _children(
        self, plan: CallPlan, logits: Float[Array, "B T V"], total: Float[Array, "B T"], of_rows: Any
    ) -> ScoredChildren:
        """The best children of every node that has been read."""
        node, width = plan.reading.node, self.n_children
        every = jnp.broadcast_to(jnp.arange(node.shape[1])[None], node.shape)
        forced = self.trie.children(node, 1)
        score = self.edge_scores(logits, total, every, forced, of_rows)
        only = best(ScoredChildren(forced.node, score), width)
        if self.trie.width == 1:
            return only
        last = jnp.take_along_axis(node, plan.last, axis=1)
        branching = self.best_children(logits, total, last, plan.last, of_rows)
        branches = (self.trie.edges_of(node)[1] > 1)[..., None]
        return ScoredChildren(
            *(
                jnp.where(branches, jnp.take_along_axis(many, plan.chain[..., None], axis=1), one)
                for many, one in zip(branching[:2], only[:2], strict=True)
            )
        )

    def _replay(self, table: Table, hypotheses: Hypotheses) -> Hypotheses:
        """Advance every row while the children of all of its beams are known."""

        def located(hypotheses: Hypotheses) -> Replayed:
            slot = table.slot_of(hypotheses.node)
            knows = ((slot >= 0) | (hypotheses.node < 0)).all(axis=1)
            return Replayed(hypotheses, jnp.maximum(slot, 0), knows & hypotheses.is_open)

        def step(state: Replayed) -> Replayed:
            child, score = (jnp.take_along_axis(x, state.slot[..., None], axis=1) for x in table.children[:2])

            def kept(new: Array, old: Array) -> Array:
                return jnp.where(state.goes_on[(..., *(None,) * (old.ndim - 1))], new, old)

            return located(jax.tree.map(kept, self.advanced(state.hypotheses, child, score), state.hypotheses))

        return jax.lax.while_loop(lambda state: state.goes_on.any(), step, located(hypotheses)).hypotheses
