"""Many batches answered by running searches: a row that has finished makes room for the next one of the queue."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice, tee
from threading import Lock
from typing import Any, TypeAlias, TypeVar

import jax
import numpy as np
from jaxtyping import Array, Bool, Int

from igd_jax.core.map_rows import pad_rows
from igd_jax.core.sharding import fetch, n_devices_here, platform_here
from igd_jax.core.types import Recommendations, TextBatch
from igd_jax.decoding.engine import Batch, State, finish, generate, grow, start
from igd_jax.decoding.jump import Jump
from igd_jax.decoding.search import Prefilled, TrieSearch
from igd_jax.models.backbone import KVCache

T = TypeVar("T")
Found: TypeAlias = tuple[Int[np.ndarray, " n"], Recommendations]
"""Positions among all rows, and their lists."""
Numbered: TypeAlias = tuple[int, tuple[int, Batch]]
"""Number of a batch, number of its rows that count, and the batch."""
Call: TypeAlias = Callable[[], Any]
"""A call of a compiled program that takes long."""
Search: TypeAlias = Generator[tuple[Found | None, Call | None], Any, None]
"""Yields what it has found since its last call, and its next call, whose result it is sent; either may be None."""

SEARCHES_ON_CPU = 2
"""Searches beside one another on a CPU, as small operations of one leave cores idle; elsewhere there is one."""


class Reader:
    """Reads prompts for an engine whose weights stay as they are, and what they begin with only once."""

    def __init__(self) -> None:
        self._ids, self._shared = b"", None

    def __call__(self, engine: Jump, batch: TextBatch) -> Prefilled:
        """The rows of a batch, ready to start their search."""
        if not len(batch.shared_prefix):
            return _prefill(engine, batch, None)
        if (ids := np.asarray(batch.shared_prefix).tobytes()) != self._ids:
            self._ids, self._shared = ids, _read_shared(engine, batch.shared_prefix)
        return _prefill(engine, batch, self._shared)


def recommend_all(
    engine: Any, batches: Iterable[tuple[int, Batch]], *, width: int, read: Reader | None = None
) -> Iterator[Found]:
    """Recommend for all rows of many batches.

    Args:
      engine: the engine. Only the search that jumps takes rows in at any time; others answer batch by batch.
      batches: number of rows that count, the first ones, and the batch; all of one size B.
      width: as in `engine.recommend`.
      read: reads the prompts of the search that jumps; None = one that has read nothing yet.

    Yields:
      Positions among all rows, batch number * B + row, and their lists as NumPy arrays, as they finish.
    """
    is_search = isinstance(engine, TrieSearch)  # and not a single call, which a CPU's cores share as it is
    n_searches = SEARCHES_ON_CPU if is_search and platform_here() == "cpu" and n_devices_here() == 1 else 1
    # In a fixed order, not as they come, so that numbers do not depend on time.
    queues = [islice(each, n, None, n_searches) for n, each in enumerate(tee(enumerate(batches), n_searches))]
    if isinstance(engine, Jump):
        read = read or Reader()
        yield from _beside([_in_turns(engine, each, width, read) for each in queues])
    else:
        yield from _beside([_one_by_one(engine, each, width) for each in queues])


def _beside(searches: Sequence[Search]) -> Iterator[Found]:
    """What searches find while their calls run beside one another, in threads, as a device queues those of a thread."""
    mesh, tracing = jax.sharding.get_mesh(), Lock()

    def made(call: Call) -> Any:
        with jax.set_mesh(mesh):
            with tracing:  # or two searches would compile the same program
                result = call()
            return jax.block_until_ready(result)

    running: dict[Future[Any], Search] = {}
    ready: list[tuple[Search, Any]] = [(search, None) for search in searches]
    with ThreadPoolExecutor(len(searches)) as pool:
        while ready:
            for search, result in ready:
                found, call = search.send(result)
                if call is not None:
                    running[pool.submit(made, call)] = search
                if found is not None:
                    yield found
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            ready = [(running.pop(future), future.result()) for future in finished]


def _one_by_one(engine: Any, batches: Iterable[Numbered], width: int) -> Search:
    """The whole search, one batch after another."""
    found = None
    for number, (n_real, batch) in batches:
        state, is_open = start(engine, batch, width), True
        while is_open:
            state, is_open = yield found, partial(generate, engine, state)
            found = None
            if is_open:
                state = grow(engine, state)
        lists = fetch(finish(engine, state))
        found = np.arange(n_real) + number * len(lists.rows), jax.tree.map(lambda x, n=n_real: x[:n], lists)
    yield found, None


def _in_turns(engine: Jump, batches: Iterable[Numbered], width: int, read: Reader) -> Search:
    """The whole search, in which a row takes the place of another as soon as that is answered."""
    ahead = _one_ahead((number, n_real, read(engine, batch)) for number, (n_real, batch) in batches)
    if (first := next(ahead, None)) is None:
        yield None, None
        return
    number, n_real, prefilled = first
    state = _begin(engine, prefilled, width)
    size = len(state.hypotheses.is_open)
    owner = np.where(np.arange(size) < n_real, np.arange(size) + number * size, -1)
    waiting, is_last = np.zeros(0, int), False
    while True:
        is_open = fetch(state.hypotheses.is_open)
        done, found = np.flatnonzero(~is_open & (owner >= 0)), None
        if len(done):
            lists = fetch(finish(engine, state))
            found = owner[done], jax.tree.map(lambda x, done=done: x[done], lists)
            owner[done] = -1
        free = np.flatnonzero(owner < 0)
        while len(free) and not is_last:
            if not len(waiting):
                if (following := next(ahead, None)) is None:
                    is_last = True
                    break
                number, n_real, prefilled = following
                waiting = np.arange(n_real)
            here, free = free[: len(waiting)], free[len(waiting) :]
            taken, waiting = waiting[: len(here)], waiting[len(here) :]
            owner[here] = taken + number * size
            state = _insert(engine, state, prefilled, pad_rows(np.stack([taken, here], axis=1), size), len(here))
        if not (owner >= 0).any():
            yield found, None
            return
        enough = size if is_last else min(size, len(free) + 1)
        state, has_room = yield found, partial(_run, engine, state, enough)
        if not has_room:
            state = grow(engine, state)


def _one_ahead(values: Iterator[T]) -> Iterator[T]:
    """The values, each when the next one has been made: a device reads its prompts beside the search of this one."""
    if (value := next(values, None)) is None:
        return
    for following in values:
        yield value
        value = following
    yield value


@jax.jit
def _read_shared(engine: Jump, ids: Int[Array, " P"]) -> KVCache | None:
    return engine.model.read_shared(ids)


@jax.jit
def _prefill(engine: Jump, batch: TextBatch, shared: KVCache | None) -> Prefilled:
    return engine.prefill(batch, shared)


@partial(jax.jit, static_argnums=2)
def _begin(engine: Jump, prefilled: Prefilled, width: int) -> State:
    return engine.begin(prefilled, width=width)


@partial(jax.jit, donate_argnums=1)
def _insert(
    engine: Jump, state: State, prefilled: Prefilled, pairs: Int[Array, "B 2"], n: Int[Array, ""] | int
) -> State:
    """Put rows of a batch into the places of others, one after another, so that the cost is that of n rows."""

    def put(number: Int[Array, ""], state: State) -> State:
        taken, here = pairs[number, :1], pairs[number, 1:]
        return engine.insert(state, prefilled.take(taken), here)

    return jax.lax.fori_loop(0, n, put, state)


@partial(jax.jit, donate_argnums=1)
def _run(engine: Jump, state: State, enough: Int[Array, ""] | int) -> tuple[State, Bool[Array, ""]]:
    """Run until so many rows are closed, all are, or one has no room."""

    def goes_on(state: State) -> Bool[Array, ""]:
        is_open = engine.is_open(state)
        return is_open.any() & ((~is_open).sum() < enough) & engine.has_room(state)

    state = jax.lax.while_loop(goes_on, engine.generate, state)
    return state, engine.has_room(state)
