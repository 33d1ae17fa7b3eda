"""Trie-constrained beam search with one token per call of the model: the reference implementation."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int

from igd_jax.decoding.recurrence import Hypotheses
from igd_jax.decoding.search import Prefilled, TrieSearch, with_rows
from igd_jax.decoding.slots import SlotStore, empty_store, grow, put_rows, read_beams

ROOMS = (16, 32)
"""Numbers of steps for which the first stores have room; they do not affect results."""


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

    def begin(self, prefilled: Prefilled, *, width: int) -> State:
        """A state with room for titles of common length."""
        room, prefix = min(ROOMS[0], self._longest_room), prefilled.prefix
        store = empty_store(prefix.pad_to(max(width, prefix.width)), num_beams=self.options.num_beams, room=room)
        return State(store, prefilled.hypotheses, prefilled.of_rows)

    def insert(self, state: State, prefilled: Prefilled, rows: Int[Array, " n"]) -> State:
        """Replace rows. The state must have its full room, so that slots can be reused as a ring buffer."""
        return State(
            put_rows(state.store, prefilled.prefix, rows),
            with_rows(state.hypotheses, prefilled.hypotheses, rows),
            with_rows(state.of_rows, prefilled.of_rows, rows),
        )

    def generate(self, state: State) -> State:
        """Extend every running beam by one token. Pure: a Python loop over it equals the compiled search."""
        model = self.model
        children = self.trie.children(state.hypotheses.node, self.trie.width)
        store, hidden = read_beams(model, state.store, state.hypotheses)
        logits, total = self.normalized(model, hidden)
        beam = jnp.broadcast_to(jnp.arange(hidden.shape[1])[None], hidden.shape[:2])
        score = self.edge_scores(logits, total, beam, children, state.of_rows)
        return State(store, self.advanced(state.hypotheses, children.node, score), state.of_rows)

    def has_room(self, state: State) -> Bool[Array, ""]:
        """Whether there are slots for another step; always true at full room, where slots are reused."""
        return (state.store.turn < state.store.room) | (state.store.room >= self._longest_room)

    def grow(self, state: State) -> State:
        """Grow to the next larger room."""
        room = next((room for room in ROOMS if room > state.store.room), self._longest_room)
        return replace(state, store=grow(state.store, min(room, self._longest_room)))

    @property
    def _longest_room(self) -> int:
        """Steps of the longest title, whose last token is never fed back; at least one, which is always compiled."""
        return max(self.options.max_length - 1, 1)
