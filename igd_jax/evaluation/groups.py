"""Means over groups of queries or tokens, as columns of equal length, ready for a table or a picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

Columns = dict[str, list[Any]]
"""Columns of a table by name, all of one length."""

BOUNDS = 10.0 ** (np.arange(-12, 5) / 2)
"""Bounds of the groups of gain, in nats: two per decade from 1e-6 to 100."""


def powers_of_two(values: Int[np.ndarray, " n"]) -> tuple[list[str], Int[np.ndarray, " n"]]:
    """Groups 0, 1, 2-3, 4-7, ... of counts: the name of each group up to the largest, and the group of each value."""
    group = np.ceil(np.log2(values + 1.0)).astype(np.int64)
    low = [0, *(2**i for i in range(int(group.max(initial=0))))]
    return [str(each) if each < 2 else f"{each}-{2 * each - 1}" for each in low], group


def gain_groups(
    gain: Float[np.ndarray, " n"], forced: Bool[np.ndarray, " n"]
) -> tuple[list[str], Int[np.ndarray, " n"]]:
    """Groups of gain: ``0`` for forced tokens, then half decades, named by their lower bound in nats.

    Returns:
      The name of each group that occurs, and the group of each token.
    """
    names = np.array(["0", f"<{BOUNDS[0]:.2g}", *(f"{bound:.2g}" for bound in BOUNDS)])
    occurring, group = np.unique(
        np.where(forced, 0, np.searchsorted(BOUNDS, gain, side="right") + 1), return_inverse=True
    )
    return names[occurring].tolist(), group


def group_means(
    names: Sequence[str], group: Int[np.ndarray, " n"], values: Mapping[str, Shaped[np.ndarray, " n"]]
) -> Columns:
    """Mean of each array over each group; None for a group without entries.

    Args:
      names: name of each group.
      group: group of each entry.
      values: arrays of numbers or marks, by name.

    Returns:
      ``group``, ``n`` and a column for each array.
    """
    n = np.bincount(group, minlength=len(names))
    columns: Columns = {"group": list(names), "n": n.tolist()}
    for name, each in values.items():
        total = np.bincount(group, weights=each.astype(np.float64), minlength=len(names))
        columns[name] = [float(t / m) if m else None for t, m in zip(total, n, strict=True)]
    return columns
