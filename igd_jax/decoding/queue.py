"""Many batches answered by one running search: a row that has finished makes room for the next one of the queue."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Int

from igd_jax.core.sharding import fetch
from igd_jax.core.types import Recommendations
from igd_jax.decoding.engine import Batch, Prefilled, State, finish, grow, recommend, start
from igd_jax.decoding.jump import Jump

FREE = 4
"""Rows wait for one another until one in so many has finished: an insertion costs as much for one row as for many."""


def recommend_all(
    engine: Any, batches: Iterable[tuple[int, Batch]], *, width: int
) -> Iterator[tuple[Int[np.ndarray, " n"], Recommendations]]:
    """Recommend for all rows of many batches.

    Args:
      engine: the engine. Only the search that jumps takes rows in at any time; others answer batch by batch.
      batches: number of rows that count, the first ones, and the batch; all of one size B.
      width: as in `engine.recommend`.

    Yields:
      Positions among all rows, batch number * B + row, and their lists as NumPy arrays, as they finish.
    """
    if isinstance(engine, Jump):
        yield from _in_turns(engine, iter(batches), width)
        return
    for number, (n_real, batch) in enumerate(batches):
        found = fetch(recommend(engine, batch, width=width))
        yield np.arange(n_real) + number * len(found.rows), jax.tree.map(lambda x, n=n_real: x[:n], found)


def _in_turns(
    engine: Jump, batches: Iterator[tuple[int, Batch]], width: int
) -> Iterator[tuple[Int[np.ndarray, " n"], Recommendations]]:
    n_real, batch = next(batches)
    state = start(engine, batch, width)
    size = len(state.hypotheses.is_open)
    owner = np.where(np.arange(size) < n_real, np.arange(size), -1)
    number, waiting, prefilled, is_last = 0, np.zeros(0, int), None, False
    while True:
        is_open = fetch(state.hypotheses.is_open)
        done = np.flatnonzero(~is_open & (owner >= 0))
        if len(done):
            found = fetch(finish(engine, state))
            yield owner[done], jax.tree.map(lambda x, done=done: x[done], found)
            owner[done] = -1
        free = np.flatnonzero(owner < 0)
        while len(free) and not is_last:
            if not len(waiting):
                if (following := next(batches, None)) is None:
                    is_last = True
                    break
                n_real, batch = following
                number, waiting, prefilled = number + 1, np.arange(n_real), _prefill(engine, batch)
            here, free = free[: len(waiting)], free[len(waiting) :]
            rows = np.full(size, size, np.int32)
            rows[waiting[: len(here)]] = here
            owner[here] = waiting[: len(here)] + number * size
            state, waiting = _insert(engine, state, prefilled, rows), waiting[len(here) :]
        if not (owner >= 0).any():
            return
        enough = size if is_last else min(size, len(free) + max(size // FREE, 1))
        state, has_room = _run(engine, state, enough)
        if not has_room:
            state = grow(engine, state)


@jax.jit
def _prefill(engine: Jump, batch: Batch) -> Prefilled:
    return engine.prefill(batch)


@partial(jax.jit, donate_argnums=1)
def _insert(engine: Jump, state: State, prefilled: Prefilled, rows: Int[Array, " B"]) -> State:
    return engine.insert(state, prefilled, rows)


@partial(jax.jit, donate_argnums=1)
def _run(engine: Jump, state: State, enough: Int[Array, ""] | int) -> tuple[State, Bool[Array, ""]]:
    """Run until so many rows are closed, all are, or one has no room."""

    def goes_on(state: State) -> Bool[Array, ""]:
        is_open = engine.is_open(state)
        return is_open.any() & ((~is_open).sum() < enough) & engine.has_room(state)

    state = jax.lax.while_loop(goes_on, engine.generate, state)
    return state, engine.has_room(state)
