"""Token rows kept on disk: what takes long to tokenise is tokenised once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from igd_jax.core.io import atomic_file
from igd_jax.core.ragged import Ragged


def cached_rows(cache: Path, name: str, make: Callable[[], Ragged]) -> Ragged:
    """Token rows from the folder `cache` where they were made before, else made now and kept there.

    The cache is written only beside something: a first start that ends in bad input leaves no folder behind.

    Args:
      name: file name without its ending; a fingerprint in it must change with any id of the rows.
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
