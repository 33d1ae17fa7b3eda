"""Answers for many rows, group by group, put back in the order of the rows."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from igd_jax.core.log import Progress


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
