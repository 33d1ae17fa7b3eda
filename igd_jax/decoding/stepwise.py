"""Trie-constrained beam search with one token per call of the model: the reference implementation."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from igd_jax.core.types import Recommendations, TextBatch
from igd_jax.decoding.device_trie import Children
from igd_jax.decoding.recurrence import Edges, Hypotheses, advance, root
from igd_jax.decoding.search import TrieSearch
from igd_jax.decoding.slots import SlotStore, empty_store, grow, put_rows, read_beams
from igd_jax.models.backbone import Backbone, Prefix

ROOMS = (16, 32)
"""Numbers of steps for which the first stores have room; they do not affect results."""


class Begun(NamedTuple):
    """Rows whose first tokens have been selected.

    Attributes:
      prefix: keys and values of the prompts.
      hypotheses: best children of the root.
      of_rows: data of each row for the edge score.
    """

    prefix: Prefix
    hypotheses: Hypotheses
    of_rows: Any


@struct.dataclass
class State:
    """The state between two steps.

    Attributes:
      store: keys and values of prompts and beams.
      hypotheses: beams and results.
      of_rows: data of each row for the edge score.
    """

    store: SlotStore
    hypotheses: Hypotheses
    of_rows: Any


@struct.dataclass
class Stepwise(TrieSearch):
    """The search as an engine; see `decoding.engine.Engine`."""

    def prefill(self, batch: TextBatch) -> Begun:
        """Read the prompts and select the first tokens."""
        model = self.model
        prefix, of_rows = model.prefill(batch), self.edge_score.of_rows(batch)
        hypotheses = root(batch.is_real, num_beams=self.options.num_beams)
        children = self.trie.children(hypotheses.node, self.trie.root_width)
        hypotheses = self._choose(model, hypotheses, prefix.hidden[:, None], children, of_rows)
        return Begun(prefix, hypotheses, of_rows)

    def begin(self, prefilled: Begun, *, width: int) -> State:
        """A state with room for titles of common length."""
        room, prefix = min(ROOMS[0], self._longest_room), prefilled.prefix
        store = empty_store(prefix.pad_to(max(width, prefix.width)), num_beams=self.options.num_beams, room=room)
        return State(store, prefilled.hypotheses, prefilled.of_rows)

    def insert(self, state: State, prefilled: Begun, rows: Int[Array, " n"]) -> State:
        """Replace rows. The state must have its full room, so that slots can be reused as a ring buffer."""

        def put(old: Array, new: Array) -> Array:
            return old.at[rows].set(new, mode="drop")

        return State(
            put_rows(state.store, prefilled.prefix, rows),
            jax.tree.map(put, state.hypotheses, prefilled.hypotheses),
            jax.tree.map(put, state.of_rows, prefilled.of_rows),
        )

    def generate(self, state: State) -> State:
        """Extend every running beam by one token. Pure: a Python loop over it equals the compiled search."""
        model = self.model
        children = self.trie.children(state.hypotheses.node, self.trie.width)
        store, hidden = read_beams(model, state.store, state.hypotheses)
        hypotheses = self._choose(model, state.hypotheses, hidden, children, state.of_rows)
        return State(store, hypotheses, state.of_rows)

    def is_open(self, state: State) -> Bool[Array, " B"]:
        """Mask of the rows whose search continues."""
        return state.hypotheses.is_open

    def has_room(self, state: State) -> Bool[Array, ""]:
        """Whether there are slots for another step; always true at full room, where slots are reused."""
        return (state.store.turn < state.store.room) | (state.store.room >= self._longest_room)

    def grow(self, state: State) -> State:
        """Grow to the next larger room."""
        room = next((room for room in ROOMS if room > state.store.room), self._longest_room)
        return replace(state, store=grow(state.store, min(room, self._longest_room)))

    def finished(self, state: State) -> Recommendations:
        """Finished results, best first."""
        return self.lists(state.hypotheses)

    @property
    def _longest_room(self) -> int:
        """Steps of the longest title, whose last token is never fed back; at least one, which is always compiled."""
        return max(self.options.max_length - 1, 1)

    def _choose(
        self, model: Backbone, hypotheses: Hypotheses, hidden: Float[Array, "B beams D"], children: Children, rows: Any
    ) -> Hypotheses:
        logits, total = self.normalized(model, hidden)
        beam = jnp.broadcast_to(jnp.arange(hidden.shape[1])[None], hidden.shape[:2])
        score = self.edge_scores(logits, total, beam, children, rows)
        edges = Edges(children.node, children.token, score)
        return advance(hypotheses, edges, eos=self.trie.eos, options=self.options)
