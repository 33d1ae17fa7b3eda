"""A model over many rows: group by group, filled up, dealt out over the devices, put back in the order of the rows."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from igd_jax.core.log import Progress
from igd_jax.core.sharding import by_row, divisible


def in_groups(rows: Int[np.ndarray, " b"], size: int) -> Iterator[Int[np.ndarray, " s"]]:
    """Cut rows into groups of `size`; the last may be short."""
    for begin in range(0, len(rows), size):
        yield rows[begin : begin + size]


def pad_rows(array: np.ndarray, size: int) -> np.ndarray:
    """Fill an array up to `size` rows of zeros."""
    return np.pad(array, ((0, size - len(array)), *((0, 0) for _ in array.shape[1:])))


def deal_rows(*arrays: np.ndarray, size: int, mesh: Mesh) -> list[jax.Array]:
    """Arrays filled up to `size` rows, or to the next number that the devices divide, and dealt out over them."""
    return jax.device_put([pad_rows(array, divisible(size, mesh)) for array in arrays], by_row(mesh))


def map_rows(
    answer: Callable[[Int[np.ndarray, " rows"]], Any],
    groups: Iterable[Int[np.ndarray, " rows"]],
    *,
    n_rows: int,
    progress: Progress | None = None,
) -> Any:
    """Answer all rows.

    Args:
      answer: function of the numbers of some rows to a pytree of arrays, whose first axis holds those rows, in their
        order, and then any number of others that only fill it up.
      groups: numbers of rows; together each of `n_rows` once, and at least one group.
      progress: what is told after each group; None = nothing.

    Returns:
      The pytree as NumPy arrays [n_rows, ...].
    """
    out, done = None, 0
    for group in groups:
        found = jax.device_get(answer(group))
        if out is None:
            out = jax.tree.map(lambda x: np.empty((n_rows, *x.shape[1:]), x.dtype), found)
        for whole, part in zip(jax.tree.leaves(out), jax.tree.leaves(found), strict=True):
            whole[group] = part[: len(group)]
        done += len(group)
        if progress is not None:
            progress.update(done)
    return out
