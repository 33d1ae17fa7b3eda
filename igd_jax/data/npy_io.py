"""Reads arrays of numbers in NumPy files, as others publish vectors and features. What is pickled is never read."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from igd_jax.core.errors import InputError
from igd_jax.core.shown import shortened


def read_npy(path: Path, *, remedy: str) -> Float[np.ndarray, "rows width"]:
    """Read a matrix of floats, as float32; numbers may be nan or infinite.

    Raises:
      InputError: no such file, a pickle or another array; the message ends in `remedy`.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise InputError(f"{path} cannot be read as an array of numbers ({shortened(str(error))}); {remedy}") from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or not np.issubdtype(array.dtype, np.floating):
        found = f"shape {array.shape} of {array.dtype}" if isinstance(array, np.ndarray) else "several arrays"
        raise InputError(f"{path} holds {found}; expected a matrix of floats; {remedy}")
    return array.astype(np.float32)
