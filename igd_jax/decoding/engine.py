"""What answers batches of rows: prefill, insert, generate, finished (docs/decoding.md, Engines).

An engine is a pytree that holds weights and look-up tables; its methods are pure, and compiled once per shape here.
"""

import abc
from functools import partial
from typing import Any, Protocol, TypeAlias, final, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from igd_jax.core.types import ItemBatch, Recommendations, TextBatch

Batch: TypeAlias = Any
"""`TextBatch` or `ItemBatch`, whichever the engine reads."""
Prefilled: TypeAlias = Any
"""Rows that have been read, and whose search is about to begin; any pytree with a first axis of rows."""
State: TypeAlias = Any
"""Rows whose search goes on; any pytree."""


@runtime_checkable
class Engine(Protocol):
    """Recommends for the rows of a state, each of which may enter and leave at any time."""

    def prefill(self, batch: Batch) -> Prefilled:
        """Read the rows of a batch."""

    def begin(self, prefilled: Prefilled, *, width: int) -> State:
        """A state of just these rows, with room for prompts of `width` tokens: one program goes on with all of them."""

    def insert(self, state: State, prefilled: Prefilled, rows: Int[Array, " n"]) -> State:
        """Put rows that have been read in the place of others; a row beyond the last is left out."""

    def generate(self, state: State) -> State:
        """Go on with all open rows by one call of the model."""

    def is_open(self, state: State) -> Bool[Array, " B"]:
        """Rows whose search goes on."""

    def has_room(self, state: State) -> Bool[Array, ""]:
        """Whether the state can take another call."""

    def grow(self, state: State) -> State:
        """A state with room for more calls."""

    def finished(self, state: State) -> Recommendations:
        """The results so far, best first; those of rows that are not open are final."""


def recommend(engine: Engine, batch: TextBatch | ItemBatch, *, width: int = 0) -> Recommendations:
    """Recommend for the rows of a batch together.

    Room grows outside the compiled programs: most batches never need that of the longest title.

    Args:
      width: tokens of the longest prompt, shared prefix included, of all batches that the engine is to answer; 0 = of
        this batch. Prompts are read at their own width, but the search is compiled once for all.
    """
    state = _start(engine, batch, width)
    while True:
        state, is_open = _generate(engine, state)
        if not is_open:
            return _finish(engine, state)
        state = _grow(engine, state)


@partial(jax.jit, static_argnums=2)
def _start(engine: Engine, batch: Batch, width: int) -> State:
    return engine.begin(engine.prefill(batch), width=width)


@jax.jit
def _generate(engine: Engine, state: State) -> tuple[State, Bool[Array, ""]]:
    def goes_on(state: State) -> Bool[Array, ""]:
        return engine.is_open(state).any() & engine.has_room(state)

    state = jax.lax.while_loop(goes_on, engine.generate, state)
    return state, engine.is_open(state).any()


@jax.jit
def _grow(engine: Engine, state: State) -> State:
    return engine.grow(state)


@jax.jit
def _finish(engine: Engine, state: State) -> Recommendations:
    return engine.finished(state)


class OneCall(abc.ABC):
    """An engine that answers in one call: its prefill finishes every row."""

    @abc.abstractmethod
    def prefill(self, batch: Batch) -> Recommendations:
        """The lists of all rows."""

    @final
    def begin(self, prefilled: Recommendations, *, width: int) -> Recommendations:
        """The lists."""
        return prefilled

    @final
    def insert(self, state: Recommendations, prefilled: Recommendations, rows: Int[Array, " n"]) -> Recommendations:
        """Lists in the place of others."""
        return jax.tree.map(lambda old, new: old.at[rows].set(new, mode="drop"), state, prefilled)

    @final
    def generate(self, state: Recommendations) -> Recommendations:
        """Nothing is left to do."""
        return state

    @final
    def is_open(self, state: Recommendations) -> Bool[Array, " B"]:
        """No row is."""
        return jnp.zeros(len(state.rows), bool)

    @final
    def has_room(self, state: Recommendations) -> Bool[Array, ""]:
        """Always: there is no call to make."""
        return jnp.array(True)

    @final
    def grow(self, state: Recommendations) -> Recommendations:
        """The lists."""
        return state

    @final
    def finished(self, state: Recommendations) -> Recommendations:
        """The lists."""
        return state
