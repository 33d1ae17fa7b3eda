"""Many batches answered by one running search: a row that has finished makes room for the next one of the queue."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Array, Bool, Int

from igd_jax.core.map_rows import pad_rows
from igd_jax.core.sharding import fetch
from igd_jax.core.types import Recommendations, TextBatch
from igd_jax.decoding.engine import Batch, State, finish, grow, recommend
from igd_jax.decoding.jump import Jump
from igd_jax.decoding.search import Begun
from igd_jax.models.backbone import KVCache

T = TypeVar("T")


class Reader:
    """Reads prompts for an engine whose weights stay as they are, and what they begin with only once."""

    def __init__(self) -> None:
        self._ids, self._shared = b"", None

    def __call__(self, engine: Jump, batch: TextBatch) -> Begun:
        """The rows of a batch, ready to start their search."""
        if not len(batch.shared_prefix):
            return _prefill(engine, batch, None)
        if (ids := np.asarray(batch.shared_prefix).tobytes()) != self._ids:
            self._ids, self._shared = ids, _read_shared(engine, batch.shared_prefix)
        return _prefill(engine, batch, self._shared)


def recommend_all(
    engine: Any, batches: Iterable[tuple[int, Batch]], *, width: int, read: Reader | None = None
) -> Iterator[tuple[Int[np.ndarray, " n"], Recommendations]]:
    """Recommend for all rows of many batches.

    Args:
      engine: the engine. Only the search that jumps takes rows in at any time; others answer batch by batch.
      batches: number of rows that count, the first ones, and the batch; all of one size B.
      width: as in `engine.recommend`.
      read: reads the prompts of the search that jumps; None = one that has read nothing yet.

    Yields:
      Positions among all rows, batch number * B + row, and their lists as NumPy arrays, as they finish.
    """
    if isinstance(engine, Jump):
        yield from _in_turns(engine, iter(batches), width, read or Reader())
        return
    for number, (n_real, batch) in enumerate(batches):
        found = fetch(recommend(engine, batch, width=width))
        yield np.arange(n_real) + number * len(found.rows), jax.tree.map(lambda x, n=n_real: x[:n], found)


def _in_turns(
    engine: Jump, batches: Iterator[tuple[int, Batch]], width: int, read: Reader
) -> Iterator[tuple[Int[np.ndarray, " n"], Recommendations]]:
    begun = _one_ahead((n_real, read(engine, batch)) for n_real, batch in batches)
    n_real, prefilled = next(begun)
    state = _begin(engine, prefilled, width)
    size = len(state.hypotheses.is_open)
    owner = np.where(np.arange(size) < n_real, np.arange(size), -1)
    number, waiting, is_last = 0, np.zeros(0, int), False
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
                if (following := next(begun, None)) is None:
                    is_last = True
                    break
                n_real, prefilled = following
                number, waiting = number + 1, np.arange(n_real)
            here, free = free[: len(waiting)], free[len(waiting) :]
            taken, waiting = waiting[: len(here)], waiting[len(here) :]
            owner[here] = taken + number * size
            state = _insert(engine, state, prefilled, pad_rows(np.stack([taken, here], axis=1), size), len(here))
        if not (owner >= 0).any():
            return
        enough = size if is_last else min(size, len(free) + 1)
        state, has_room = _run(engine, state, enough)
        if not has_room:
            state = grow(engine, state)


def _one_ahead(values: Iterator[T]) -> Iterator[T]:
    """The values, each when the next one has been made: a device reads its prompts beside the search of this one."""
    value = next(values)
    for following in values:
        yield value
        value = following
    yield value


@jax.jit
def _read_shared(engine: Jump, ids: Int[Array, " P"]) -> KVCache | None:
    return engine.model.read_shared(ids)


@jax.jit
def _prefill(engine: Jump, batch: TextBatch, shared: KVCache | None) -> Begun:
    return engine.prefill(batch, shared)


@partial(jax.jit, static_argnums=2)
def _begin(engine: Jump, begun: Begun, width: int) -> State:
    return engine.begin(begun, width=width)


@partial(jax.jit, donate_argnums=1)
def _insert(engine: Jump, state: State, begun: Begun, pairs: Int[Array, "B 2"], n: Int[Array, ""] | int) -> State:
    """Put rows of a batch into the places of others, one after another, so that the cost is that of n rows."""

    def put(number: Int[Array, ""], state: State) -> State:
        taken, here = pairs[number, :1], pairs[number, 1:]
        return engine.insert(state, begun.take(taken), here)

    return jax.lax.fori_loop(0, n, put, state)


@partial(jax.jit, donate_argnums=1)
def _run(engine: Jump, state: State, enough: Int[Array, ""] | int) -> tuple[State, Bool[Array, ""]]:
    """Run until so many rows are closed, all are, or one has no room."""

    def goes_on(state: State) -> Bool[Array, ""]:
        is_open = engine.is_open(state)
        return is_open.any() & ((~is_open).sum() < enough) & engine.has_room(state)

    state = jax.lax.while_loop(goes_on, engine.generate, state)
    return state, engine.has_room(state)
