"""A model applied to many rows: in groups, padded, sharded over the devices, and put back in row order."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from igd_jax.core.log import Progress
from igd_jax.core.sharding import by_row, divisible, fetch, put


def in_groups(rows: Int[np.ndarray, " b"], size: int) -> Iterator[Int[np.ndarray, " s"]]:
    """Cut rows into groups of `size`; the last may be smaller."""
    for begin in range(0, len(rows), size):
        yield rows[begin : begin + size]


def pad_rows(array: np.ndarray, size: int) -> np.ndarray:
    """Pad an array with zeros to `size` rows."""
    return np.pad(array, ((0, size - len(array)), *((0, 0) for _ in array.shape[1:])))


def deal_rows(*arrays: np.ndarray, size: int, mesh: Mesh) -> list[jax.Array]:
    """Pad arrays to `size` rows, rounded up to a multiple of the number of devices, and shard them by row."""
    return put([pad_rows(array, divisible(size, mesh)) for array in arrays], by_row(mesh))


def map_rows(
    answer: Callable[[Int[np.ndarray, " rows"]], Any],
    groups: Iterable[Int[np.ndarray, " rows"]],
    *,
    n_rows: int,
    progress: Progress | None = None,
) -> Any:
    """Apply a function to all rows, group by group.

    Args:
      answer: function from row numbers to a pytree of arrays, whose first axis has those rows, in that order, and then
        any number of padding rows.
      groups: row numbers; at least one group, and each row exactly once in all.
      n_rows: number of rows.
      progress: progress to update after each group; None = no report.

    Returns:
      The pytree as NumPy arrays [n_rows, ...].
    """
    return in_order(((group, fetch(answer(group))) for group in groups), n_rows=n_rows, progress=progress)


def in_order(
    answers: Iterable[tuple[Int[np.ndarray, " rows"], Any]], *, n_rows: int, progress: Progress | None = None
) -> Any:
    """Put answers in row order.

    Args:
      answers: row numbers, and what `answer` of `map_rows` gives for them, as NumPy arrays.
      n_rows, progress: as in `map_rows`.
    """
    out, done = None, 0
    for rows, found in answers:
        if out is None:
            out = jax.tree.map(lambda x: np.empty((n_rows, *x.shape[1:]), x.dtype), found)
        for whole, part in zip(jax.tree.leaves(out), jax.tree.leaves(found), strict=True):
            whole[rows] = part[: len(rows)]
        done += len(rows)
        if progress is not None:
            progress.update(done)
    assert done == n_rows, f"{done} answers to {n_rows} rows"
    return out
