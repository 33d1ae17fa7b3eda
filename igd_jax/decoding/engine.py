"""Engines, which answer batches of rows: prefill, insert, generate, finished (docs/decoding.md, Engines).

An engine is a pytree of weights and look-up tables. Its methods are pure, and are compiled here, once per shape.
"""

import abc
from functools import partial
from typing import Any, Protocol, TypeAlias, final, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from igd_jax.core.types import ItemBatch, Recommendations, TextBatch

Batch: TypeAlias = Any
"""`TextBatch` or `ItemBatch`, depending on the engine."""
Prefilled: TypeAlias = Any
"""Rows whose prompts have been read; any pytree with a first axis of rows."""
State: TypeAlias = Any
"""Rows during their search; any pytree."""


@runtime_checkable
class Engine(Protocol):
    """Recommends for the rows of a state, each of which may enter and leave at any time."""

    def prefill(self, batch: Batch) -> Prefilled:
        """Read the prompts of a batch."""

    def begin(self, prefilled: Prefilled, *, width: int) -> State:
        """A state of exactly these rows, with prompts padded to `width` tokens, so that one program continues all."""

    def insert(self, state: State, prefilled: Prefilled, rows: Int[Array, " n"]) -> State:
        """Replace rows of the state by prefilled ones; indices beyond the last row are ignored."""

    def generate(self, state: State) -> State:
        """Advance all open rows by one call of the model."""

    def is_open(self, state: State) -> Bool[Array, " B"]:
        """Mask of the rows whose search continues."""

    def has_room(self, state: State) -> Bool[Array, ""]:
        """Whether the state has room for another call."""

    def grow(self, state: State) -> State:
        """A state with room for more calls."""

    def finished(self, state: State) -> Recommendations:
        """Results so far, best first; final for rows that are not open."""


def recommend(engine: Engine, batch: TextBatch | ItemBatch, *, width: int = 0) -> Recommendations:
    """Recommend for all rows of a batch.

    Room grows outside the compiled programs, as most batches do not need the room of the longest title.

    Args:
      engine: the engine.
      batch: its rows.
      width: length in tokens of the longest prompt, shared prefix included, among all batches to be answered; 0 = of
        this batch. Prompts are read at their own width, but the search is compiled once for all widths.
    """
    state = start(engine, batch, width)
    while True:
        state, is_open = generate(engine, state)
        if not is_open:
            return finish(engine, state)
        state = grow(engine, state)


@partial(jax.jit, static_argnums=2)
def start(engine: Engine, batch: Batch, width: int) -> State:
    """The state of a batch before its first call of `generate`; `width` as in `recommend`."""
    return engine.begin(engine.prefill(batch), width=width)


@jax.jit
def generate(engine: Engine, state: State) -> tuple[State, Bool[Array, ""]]:
    """Call the model until all rows are closed or there is no room; returns whether any row is open."""

    def goes_on(state: State) -> Bool[Array, ""]:
        return engine.is_open(state).any() & engine.has_room(state)

    state = jax.lax.while_loop(goes_on, engine.generate, state)
    return state, engine.is_open(state).any()


@jax.jit
def grow(engine: Engine, state: State) -> State:
    """A state with room for more calls."""
    return engine.grow(state)


@jax.jit
def finish(engine: Engine, state: State) -> Recommendations:
    """Lists of all rows of a state."""
    return engine.finished(state)


class OneCall(abc.ABC):
    """An engine that answers in one call: `prefill` finishes every row."""

    @abc.abstractmethod
    def prefill(self, batch: Batch) -> Recommendations:
        """Lists of all rows."""

    @final
    def begin(self, prefilled: Recommendations, *, width: int) -> Recommendations:
        """The lists, unchanged."""
        return prefilled

    @final
    def insert(self, state: Recommendations, prefilled: Recommendations, rows: Int[Array, " n"]) -> Recommendations:
        """Replace lists."""
        return jax.tree.map(lambda old, new: old.at[rows].set(new, mode="drop"), state, prefilled)

    @final
    def generate(self, state: Recommendations) -> Recommendations:
        """Nothing to do."""
        return state

    @final
    def is_open(self, state: Recommendations) -> Bool[Array, " B"]:
        """False for every row."""
        return jnp.zeros(len(state.rows), bool)

    @final
    def has_room(self, state: Recommendations) -> Bool[Array, ""]:
        """Always true, as there are no further calls."""
        return jnp.array(True)

    @final
    def grow(self, state: Recommendations) -> Recommendations:
        """The lists, unchanged."""
        return state

    @final
    def finished(self, state: Recommendations) -> Recommendations:
        """The lists, unchanged."""
        return state
