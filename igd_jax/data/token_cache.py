"""Token rows cached on disk, so that texts are tokenised once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from igd_jax.core.io import atomic_file
from igd_jax.core.ragged import Ragged


def cached_rows(cache: Path, name: str, make: Callable[[], Ragged]) -> Ragged:
    """Load token rows from the folder `cache`, or make and store them.

    The cache is written only if its parent exists, so that a run refused for bad input leaves no folder behind.

    Args:
      name: file name without suffix; it contains a fingerprint that changes with any id of the rows.
      make: function that makes the rows.
    """
    path = cache / f"{name}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as saved:
            return Ragged(saved["ids"], saved["start"])
    rows = make()
    if not cache.parent.is_dir():
        return rows
    with atomic_file(path) as partial, partial.open("wb") as file:
        np.savez(file, ids=rows.ids, start=rows.start)
    return rows
