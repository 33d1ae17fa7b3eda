"""Trie-constrained beam search, one token per call of the model: the plain reference of the project."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jaxtyping import Array, Bool, Float, Int

from igd_jax.core.types import Recommendations, TextBatch
from igd_jax.decoding.device_trie import Children, DeviceTrie
from igd_jax.decoding.edge_score import EdgeScore
from igd_jax.decoding.recurrence import Edges, Hypotheses, SearchOptions, advance, root
from igd_jax.decoding.slots import SlotStore, empty_store, grow, put_rows, read_beams
from igd_jax.models.backbone import Backbone, Prefix

ROOMS = (16, 32)
"""Tokens per title that many, and then few, exceed; they size the first stores and change no result."""


class Begun(NamedTuple):
    """Rows with their first token chosen.

    Attributes:
      prefix: prompts, as read.
      hypotheses: best children of the root.
      of_rows: what the edge score knows of each row.
    """

    prefix: Prefix
    hypotheses: Hypotheses
    of_rows: Any


@struct.dataclass
class State:
    """All that one step hands to the next.

    Attributes:
      store: keys and values of prompts and beams.
      hypotheses: beams and results.
      of_rows: what the edge score knows of each row.
    """

    store: SlotStore
    hypotheses: Hypotheses
    of_rows: Any


@struct.dataclass
class Stepwise:
    """The search as an engine; see `decoding.engine.Engine`.

    Attributes:
      graph, weights: of the model; see `nnx.split`.
      trie: what may be written.
      edge_score: score of each edge.
      options: beams, lengths.
      top_k: length of the lists, at most the number of beams.
      softmax_temperature: divisor of the logits before they are normalised.
    """

    graph: Any = struct.field(pytree_node=False)
    weights: Any
    trie: DeviceTrie
    edge_score: EdgeScore
    options: SearchOptions
    top_k: int = struct.field(pytree_node=False)
    softmax_temperature: float = struct.field(pytree_node=False, default=1.0)

    @property
    def model(self) -> Backbone:
        """The model with its weights."""
        return nnx.merge(self.graph, self.weights)

    def prefill(self, batch: TextBatch) -> Begun:
        """Read the prompts and choose the first tokens."""
        model = self.model
        prefix, of_rows = model.prefill(batch), self.edge_score.of_rows(batch)
        hypotheses = root(batch.is_real, num_beams=self.options.num_beams)
        children = self.trie.children(hypotheses.node, self.trie.root_width)
        hypotheses = self._choose(model, hypotheses, prefix.hidden[:, None], children, of_rows)
        return Begun(prefix, hypotheses, of_rows)

    def begin(self, prefilled: Begun, *, width: int) -> State:
        """A state with room for usual titles."""
        room, prefix = min(ROOMS[0], self._longest_room), prefilled.prefix
        store = empty_store(prefix.pad_to(max(width, prefix.width)), num_beams=self.options.num_beams, room=room)
        return State(store, prefilled.hypotheses, prefilled.of_rows)

    def insert(self, state: State, prefilled: Begun, rows: Int[Array, " n"]) -> State:
        """Put new rows in the place of others. The state has its full room, so that slots can be taken in a circle."""

        def put(old: Array, new: Array) -> Array:
            return old.at[rows].set(new, mode="drop")

        return State(
            put_rows(state.store, prefilled.prefix, rows),
            jax.tree.map(put, state.hypotheses, prefilled.hypotheses),
            jax.tree.map(put, state.of_rows, prefilled.of_rows),
        )

    def generate(self, state: State) -> State:
        """Lengthen every running beam by one token. Pure: a Python loop over it equals the compiled search."""
        model = self.model
        children = self.trie.children(state.hypotheses.node, self.trie.width)
        store, hidden = read_beams(model, state.store, state.hypotheses)
        hypotheses = self._choose(model, state.hypotheses, hidden, children, state.of_rows)
        return State(store, hypotheses, state.of_rows)

    def is_open(self, state: State) -> Bool[Array, " B"]:
        """Rows whose search goes on."""
        return state.hypotheses.is_open

    def has_room(self, state: State) -> Bool[Array, ""]:
        """Whether there are places for another turn; always, once the room is full and places are taken in a circle."""
        return (state.store.turn < state.store.room) | (state.store.room >= self._longest_room)

    def grow(self, state: State) -> State:
        """Room for titles of the next usual length."""
        room = next((room for room in ROOMS if room > state.store.room), self._longest_room)
        return replace(state, store=grow(state.store, min(room, self._longest_room)))

    def finished(self, state: State) -> Recommendations:
        """The finished set, best first."""
        scores, nodes = (x[:, : self.top_k] for x in (state.hypotheses.done_score, state.hypotheses.done_node))
        return Recommendations(rows=self.trie.row_of(nodes), scores=scores)

    @property
    def _longest_room(self) -> int:
        """Turns of the longest title, whose last token is never fed back; one at least, which is always compiled."""
        return max(self.options.max_length - 1, 1)

    def _choose(
        self, model: Backbone, hypotheses: Hypotheses, hidden: Float[Array, "B beams D"], children: Children, rows: Any
    ) -> Hypotheses:
        logits = model.logits(hidden)
        if self.softmax_temperature != 1.0:
            logits = logits / self.softmax_temperature
        total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        logp = jnp.take_along_axis(logits, children.token, axis=-1) - total
        score = jnp.where(children.legal, self.edge_score(logp, children.edge, rows), -jnp.inf)
        edges = Edges(children.node, children.token, score)
        return advance(hypotheses, edges, eos=self.trie.eos, options=self.options)
